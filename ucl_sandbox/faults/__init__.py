"""Faults: what the sandbox can do wrong on purpose, which of it is planned, and how it is done."""
