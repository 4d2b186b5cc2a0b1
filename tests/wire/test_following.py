"""``connection.ssl_context()`` in other libraries: each new TLS connection shows the identity in use."""

import asyncio
import logging
import re
import ssl
import subprocess
import sys
import threading
from itertools import count
from pathlib import Path

import aiohttp
import httpx
import pytest
import urllib3
from steps import install

from ucl_helpers.errors import StorageFailed, UnknownConnection

pytest_plugins = ["procedure_fixtures", "client_fixtures"]
HOW_TO = Path(__file__).parents[2] / "docs/how-to/use-from-python.md"


def by_urllib3(url, context):
    with urllib3.PoolManager(ssl_context=context) as pool:
        return pool.request("GET", f"{url}/").data.decode()


def by_httpx(url, context):
    return httpx.get(f"{url}/", verify=context, trust_env=False).text


def by_aiohttp(url, context):
    async def get():
        async with aiohttp.ClientSession() as session, session.get(f"{url}/", ssl=context) as answer:
            return await answer.text()

    return asyncio.run(get())


LIBRARIES = [by_urllib3, by_httpx, by_aiohttp]


@pytest.fixture
def renewed(connection, ucl, tmp_path):
    """Give the connection another generation, without the procedures."""
    numbers = count()

    def renew():
        folder = tmp_path / f"renewed-{next(numbers)}"
        folder.mkdir()
        install(connection.home, ucl, folder, name=connection.name)
        return connection.require_current()

    return renew


@pytest.fixture
def context(connection, authority):
    return connection.ssl_context(ca_file=authority.ca_file)


@pytest.mark.parametrize("library", LIBRARIES)
def test_each_new_connection_shows_the_identity_in_use(mine, connection, context, renewed, library):
    assert library(mine.url, context) == connection.current.fingerprint
    before = connection.current
    after = renewed()
    assert library(mine.url, context) == after.fingerprint != before.fingerprint


def test_a_context_that_does_not_follow_shows_the_previous_one(mine, connection, authority, renewed):
    """The twin."""
    plain, before = ssl.create_default_context(cafile=authority.ca_file), connection.current
    plain.load_cert_chain(before.path / "chain.pem", before.path / "key.pem")
    renewed()
    assert by_urllib3(mine.url, plain) == before.fingerprint


def test_a_connection_that_is_kept_open_keeps_its_identity(mine, connection, context, renewed):
    with httpx.Client(verify=context, trust_env=False) as client:
        before = connection.current.fingerprint
        assert client.get(f"{mine.url}/").text == before
        after = renewed().fingerprint
        assert client.get(f"{mine.url}/").text == before
    assert by_httpx(mine.url, context) == after


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_server_that_is_not_trusted_is_refused(mine, connection, library):
    untrusting = connection.ssl_context()
    with pytest.raises(
        (urllib3.exceptions.MaxRetryError, httpx.ConnectError, aiohttp.ClientError), match=r"(?i)certificate"
    ):
        library(mine.url, untrusting)
    assert mine.shown() == []


def test_a_generation_that_cannot_be_read_stops_nothing_while_the_previous_is_valid(
    mine, connection, context, renewed, caplog
):
    before = connection.current
    after = renewed()
    (after.path / "key.pem").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        assert by_urllib3(mine.url, context) == before.fingerprint
    assert f"goes on with generation {before.name}" in caplog.text
    with pytest.raises(StorageFailed):
        connection.ssl_context()


def test_a_connection_that_is_not_established_has_no_context(home):
    with pytest.raises(UnknownConnection):
        home.new("new").ssl_context()


def test_threads_that_connect_while_identities_change_are_never_refused(mine, connection, context, renewed):
    failures, ended = [], threading.Event()

    def ask():
        while not ended.is_set():
            try:
                by_urllib3(mine.url, context)
            except urllib3.exceptions.HTTPError as error:
                failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        renewed()
    ended.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(set(mine.shown())) > 1


def blocks():
    return re.findall(r"^```python\n(.*?)^```$", HOW_TO.read_text("utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("library", ["httpx", "aiohttp", "urllib3"])
def test_the_how_to_shows_what_runs(mine, connection, authority, monkeypatch, library):
    [block] = [text for text in blocks() if f"import {library}" in text]
    monkeypatch.setenv("UCL_HOME", str(connection.home.path))
    monkeypatch.setenv("NO_PROXY", "localhost")
    code = block.replace("https://orders.example/api/v1/orders", f"{mine.url}/").replace(
        "ssl_context()", f"ssl_context(ca_file={str(authority.ca_file)!r})"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert mine.shown() == [connection.current.fingerprint]
