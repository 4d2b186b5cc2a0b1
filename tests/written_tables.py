"""Tables of the docs that are computed: a test compares each with its page, or writes it with ``UCL_WRITE_TABLE=1``."""

import os
import re


def table_in(text, head):
    """Return the match of the rows below a table's head; ``head`` is how the head begins."""
    return re.search(rf"^{re.escape(head)}[^\n]*\n\|[-|]+\n((?:\|[^\n]*\n)*)", text, re.MULTILINE)


def keep(page, head, rows):
    """Compare a table with its rows, which are sequences of cells.

    With ``UCL_WRITE_TABLE`` in the environment, the table is written instead.

    Args:
        page: the path of the page.
        head: how the line of the table's head begins.
        rows: what the table must hold.
    """
    wanted = "".join(f"| {' | '.join(cells)} |\n" for cells in rows)
    text = page.read_text("utf-8")
    table = table_in(text, head)
    if os.environ.get("UCL_WRITE_TABLE"):
        page.write_text(text[: table.start(1)] + wanted + text[table.end(1) :], "utf-8")
    else:
        assert table[1] == wanted, f"{page} says otherwise. Run this test again with UCL_WRITE_TABLE=1 to write it."
