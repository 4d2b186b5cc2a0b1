"""The public names as a typed program uses them; mypy checks this file, nothing runs it."""

from pathlib import Path

import requests

import ucl_helpers as ucl


def keep_alive(name: str, home: Path) -> str:
    connection: ucl.Connection = ucl.Home(home).connection(name)
    try:
        outcome: ucl.Outcome = ucl.renew(connection, only_if_due=True)
    except ucl.UCLError as error:
        return f"{error.exit_code}: {error.message} {error.remedy}"
    return outcome.outcome


def first_certificate(home: Path, token: str) -> ucl.Outcome:
    return ucl.establish(ucl.Home(home).new("prod"), ucl.read_token(ucl.resolve(token, what="token")))


def ask(name: str, url: str) -> int:
    session: requests.Session = ucl.Home().connection(name).session(ca_file="ca.pem")
    with session:
        return session.get(url, timeout=30).status_code
