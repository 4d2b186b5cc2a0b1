"""What axe finds on a page that keeps somebody from using it: findings of impact *serious* or *critical*."""

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

GRAVE = {"serious", "critical"}


def barriers(page: Page, within: str | None = None, without: tuple[str, ...] = ()) -> list[str]:
    """Each grave finding in a line: the rule, where it was found, and why.

    Args:
        page: as it stands there, in the theme that it has.
        within: looks at this part only (a CSS selector).
        without: leaves these parts out (CSS selectors).
    """
    context = {"include": [within] if within else ["html"], "exclude": [[one] for one in without]}
    found = Axe().run(page, context=context, options={"resultTypes": ["violations"]}).response["violations"]
    return [
        f"{rule['id']} at {' '.join(map(str, node['target']))}: {' '.join(node['failureSummary'].split())}"
        for rule in found
        if rule["impact"] in GRAVE
        for node in rule["nodes"]
    ]
