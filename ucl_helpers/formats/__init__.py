"""Keys, certificates and texts in the forms that other programs give them. Pure."""
