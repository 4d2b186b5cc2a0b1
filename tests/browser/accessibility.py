"""What axe finds on a page that keeps somebody from using it: findings of impact *serious* or *critical*."""

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

GRAVE = {"serious", "critical"}


def barriers(page: Page, within: str = "html", without: tuple[str, ...] = (), rules: tuple[str, ...] = ()) -> list[str]:
    """Each grave finding in a line: the rule, where it was found, and why.

    Args:
        page: as it stands there, in the theme and the size that it has.
        within: looks at this part only (a CSS selector).
        without: leaves these parts out (CSS selectors).
        rules: asks these of axe only.
    """
    context = {"include": [[within]], "exclude": [[one] for one in without]}
    options = {"resultTypes": ["violations"], "preload": False}  # else axe asks for style sheets that are not there
    if rules:
        options["runOnly"] = list(rules)
    found = Axe().run(page, context=context, options=options).response["violations"]
    return [
        f"{rule['id']} at {' '.join(map(str, node['target']))}: {' '.join(node['failureSummary'].split())}"
        for rule in found
        for node in rule["nodes"]
        if node["impact"] in GRAVE
    ]
