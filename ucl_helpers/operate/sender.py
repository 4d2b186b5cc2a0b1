"""Send one notice through apprise in a process that can be given up: ``python -m ucl_helpers.operate.sender``.

Standard input: ``{"urls": […], "type": "failure", "title": …, "body": …}``. Standard output: a list of true or false,
one for each URL. URLs hold passwords, and apprise logs URLs: nothing that it says goes anywhere.
"""

import json
import logging
import os
import sys
from concurrent.futures import ThreadPoolExecutor

import apprise

from ucl_helpers.core_dumps import no_dumps_at_all


def main() -> None:
    """Send, and tell what was taken."""
    no_dumps_at_all()
    logging.disable()
    given = json.load(sys.stdin)
    answer = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

    def send(url: str) -> bool:
        one = apprise.Apprise(asset=apprise.AppriseAsset(storage_mode="memory"))
        text = {"title": given["title"], "body": given["body"], "body_format": apprise.NotifyFormat.TEXT}
        return bool(one.add(url) and one.notify(notify_type=given["type"], **text))

    with ThreadPoolExecutor() as pool:
        told = list(pool.map(send, given["urls"]))
    os.write(answer, json.dumps(told).encode())


if __name__ == "__main__":
    main()
