"""What goes wrong on a page while it is open."""

from dataclasses import dataclass, field

from playwright.sync_api import ConsoleMessage, Error, Page, Route


@dataclass
class Watched:
    """Errors of a page's scripts and of its console, and requests to other hosts."""

    errors: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)

    def watch(self, page: Page) -> None:
        page.on("pageerror", self._thrown)
        page.on("console", self._said)

    def refuse(self, route: Route) -> None:
        """Answer a request to another host by nothing."""
        self.elsewhere.append(route.request.url)
        route.fulfill(body="")

    def _thrown(self, error: Error) -> None:
        self.errors.append(f"{error.message}\n{error.stack}")

    def _said(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(f"{message.text} ({message.location.get('url')})")
