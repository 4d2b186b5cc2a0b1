"""Readers that look on through everything: none of them may ever meet a mixture, a gap, or be refused."""

import hashlib
import http.client
import json
import ssl
import threading
from collections import Counter
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from examining import unlike
from secrets_watch import CANARY

from ucl_helpers.operations import CONFIGURATION

PAUSE, PAUSE_BETWEEN_CALLS = 0.004, 0.05  # seconds: they are to look on, not to take the machine
DEAD = 120.0  # seconds


def is_being_encrypted(folder: Path) -> bool:
    """Keys in plain go at once there; who resolved the link a moment before has to do so again."""
    settings = folder / "settings.toml"
    return settings.exists() and "key_passphrase" in settings.read_text() and (folder / "current").exists()


class Onlookers:
    """``with Onlookers(url, ca) as readers: readers.follow(folder)`` — three loops, each in a thread of its own."""

    def __init__(self, url: str, ca: Path) -> None:
        self._url, self._ca = urlsplit(url), ca
        self.reads, self.failures, self._known = Counter(), [], set()
        self._folder, self._calls, self._turn, self._ending = None, True, 0, False
        self._following, self._looks, self._changed = {}, Counter(), threading.Condition()
        self._loops = {self.identity: PAUSE, self.split: PAUSE, self.call: PAUSE_BETWEEN_CALLS}
        self._threads = [threading.Thread(target=self._loop, args=one) for one in self._loops.items()]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def follow(self, folder: Path | None, *, calls: bool = True) -> None:
        """Look at another connection's folder from now on; returns when nobody looks at the one before any more."""
        with self._changed:
            self._folder, self._calls, self._turn = folder, calls, self._turn + 1
            self._until(lambda: all(self._following.get(look) == self._turn for look in self._loops))

    def look(self, times: int = 2) -> None:
        """Return when each has looked so many times more, whatever it saw."""
        with self._changed:
            wanted = {look: self._looks[look] + times for look in self._loops}
            self._until(lambda: all(self._looks[look] >= number for look, number in wanted.items()))

    def told(self, proof, meanwhile: str) -> list[str]:
        """Rest; count the reads made since the last time, and tell which of them met something wrong."""
        self.follow(None)
        reads, failures = self.reads, self.failures
        self.reads, self.failures = Counter(), []
        for reader, number in reads.items():
            proof("readers", f"reads while {meanwhile} ({reader})", number)
        proof("readers", "mismatched or failed reads", len(failures))
        return failures

    def _until(self, true):
        self._changed.notify_all()
        assert self._changed.wait_for(true, DEAD), "a reader has died"

    def _is_over(self, turn):
        return self._ending or turn != self._turn

    def _loop(self, look, pause):
        there = turn = None
        while not self._ending:
            with self._changed:
                if turn != self._turn:
                    there, turn = False, self._turn
                self._following[look] = turn
                self._looks[look] += 1
                self._changed.notify_all()
                if self._changed.wait_for(partial(self._is_over, turn), pause):
                    continue
                folder = self._folder if self._calls or look != self.call else None
            if folder and (there or (folder / "current").exists()):  # once established, always there
                there = True
                try:
                    look(folder / "current")
                    self.reads[look.__name__] += 1
                except (OSError, ValueError, AssertionError, http.client.HTTPException) as error:
                    if not (isinstance(error, FileNotFoundError) and is_being_encrypted(folder)):
                        self.failures.append(f"{look.__name__}: {error!r}")

    def identity(self, current: Path) -> None:
        """One file of one piece, straight through the link."""
        pem = (current / "identity.pem").read_bytes()
        end = pem.index(b"-----BEGIN CERTIFICATE")
        self._judge(pem[:end], pem[end:])

    def split(self, current: Path) -> None:
        """The link resolved once, key and chain read there."""
        there = current.resolve()
        self._judge((there / "key.pem").read_bytes(), (there / "chain.pem").read_bytes())

    def call(self, current: Path) -> None:
        """The link resolved once, and what lies there shown to the server."""
        there = current.resolve()
        context = ssl.create_default_context(cafile=self._ca)
        context.load_cert_chain(there / "chain.pem", there / "key.pem", password=CANARY)  # if it is encrypted
        with closing(http.client.HTTPSConnection(self._url.netloc, context=context, timeout=DEAD)) as connection:
            body = json.dumps({"query": CONFIGURATION})
            connection.request("POST", self._url.path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            assert answer.status == http.client.OK, f"answered {answer.status}"
            answer.read()

    def _judge(self, key: bytes, chain: bytes) -> None:
        mark = hashlib.sha256(key + chain).digest()
        if mark not in self._known:
            wrong = list(unlike(key, chain))
            assert not wrong, wrong
            self._known.add(mark)
