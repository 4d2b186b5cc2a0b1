"""A key that is generated in a thread while UCL is asked for a configuration."""

from concurrent.futures import Future, ThreadPoolExecutor

from cryptography.hazmat.primitives.asymmetric import rsa

from ucl_helpers.crypto import make_key
from ucl_helpers.progress import waiting


class KeyMaker:
    """Generates one RSA key of ``bits`` bits."""

    def __init__(self, bits: int) -> None:
        self._bits = bits
        self._key: Future[rsa.RSAPrivateKey] | None = None

    def start(self) -> Future[rsa.RSAPrivateKey]:
        """Begin, unless it has begun."""
        if self._key is None:
            self._key = ThreadPoolExecutor(1, thread_name_prefix="key").submit(make_key, self._bits)
        return self._key

    def key(self) -> rsa.RSAPrivateKey:
        """Return the key; wait for it if it is not ready."""
        made = self.start()
        if made.done():
            return made.result()
        with waiting(f"Making an RSA key of {self._bits} bits; this takes some seconds."):
            return made.result()
