"""The size of keys in tests that need a key and do not test its size."""

QUICK_BITS = 2048
"""The smallest RSA key that the toolkit accepts, so the fastest to make."""
