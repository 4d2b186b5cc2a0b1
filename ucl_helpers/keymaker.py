"""A key that is made in a thread, while UCL is asked for a configuration."""

from concurrent.futures import Future, ThreadPoolExecutor

from cryptography.hazmat.primitives.asymmetric import rsa

from ucl_helpers.crypto import make_key
from ucl_helpers.progress import waiting

AHEAD: dict[int, Future[rsa.RSAPrivateKey]] = {}
"""Keys that were begun before anybody has asked for one, by their bits; whoever asks first takes it."""


def begin(bits: int) -> Future[rsa.RSAPrivateKey]:
    """Begin to make a key in a thread."""
    return ThreadPoolExecutor(1, thread_name_prefix="key").submit(make_key, bits)


class KeyMaker:
    """Makes one RSA key of ``bits`` bits, or takes one that was begun ahead."""

    def __init__(self, bits: int) -> None:
        self._bits = bits
        self._key: Future[rsa.RSAPrivateKey] | None = None

    def start(self) -> Future[rsa.RSAPrivateKey]:
        """Begin, unless it has begun."""
        if self._key is None:
            self._key = AHEAD.pop(self._bits, None) or begin(self._bits)
        return self._key

    def key(self) -> rsa.RSAPrivateKey:
        """The key, waited for if need be."""
        made = self.start()
        if made.done():
            return made.result()
        with waiting(f"Making an RSA key of {self._bits} bits; this takes some seconds."):
            return made.result()
