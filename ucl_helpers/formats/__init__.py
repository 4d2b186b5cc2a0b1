"""Read keys, certificates and texts in the forms that other programs write. Pure."""
