"""Keys for tests that need one and do not test its size."""

from collections import deque
from time import monotonic

from ucl_helpers.keys import make_key

QUICK_BITS = 2048
"""The smallest RSA key that the toolkit accepts, so the fastest to make."""
_REST_SECONDS = 2


class RestingKeys:
    """An endless iterator of keys that are used again after a rest.

    Every certificate of the sandbox has serial number 2, as at the real UCL. So two certificates for the same key and
    subject are equal if they are signed in the same second, and a test that counts certificates misses the second one.
    A key is handed out again two seconds after the next key was handed out. Tests use one key after another, so its
    last certificate is then older than a second.
    """

    def __init__(self, clock=monotonic):
        self._clock, self._handed_out = clock, deque()

    def __iter__(self):
        return self

    def __next__(self):
        now = self._clock()
        rested = len(self._handed_out) > 1 and now - self._handed_out[1][1] >= _REST_SECONDS
        key = self._handed_out.popleft()[0] if rested else make_key(QUICK_BITS)
        self._handed_out.append((key, now))
        return key
