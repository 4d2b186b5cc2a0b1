"""A connection on disk: its generations, pending procedure, settings, state files and status."""
