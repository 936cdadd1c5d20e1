"""A tab of a real browser that remembers everything that went wrong. Fixtures are in `conftest`."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

WIDTHS = (390, 768, 1440, 2560)
"""The widths in pixels at which a page must not overflow."""
ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
LOCAL = ("file://", "about:", "data:", "blob:")
"""What an address may start with: nothing of it leaves the machine."""


class Tab:
    """A tab over the pages in one folder. It notes what the console says and what is asked for.

    Args:
        browser: a running Playwright browser.
        root: the folder that the names given to `open` are relative to.
        options: of Playwright's `new_context`, such as `color_scheme` or `java_script_enabled`.
    """

    def __init__(self, browser: Any, root: Path, **options: Any) -> None:
        self.root = root
        self.has_scripts = options.get("java_script_enabled", True)
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.problems: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", self._note_message)
        self.page.on("pageerror", lambda error: self.problems.append(f"script: {error}"))
        self.page.on("requestfailed", self._note_failure)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("dialog", self._note_dialog)

    def open(self, name: str) -> None:
        """Open a page, such as `index.html` or `errors.html#true=0`, and wait for its scripts."""
        if "#" in name:  # a fragment alone would not load the page afresh
            self.page.goto("about:blank")
        self.page.goto(f"file://{self.root.resolve()}/{name}")
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Wait until the scripts of the page have started."""
        if self.has_scripts:
            self.page.wait_for_selector("html[data-ready]", state="attached")

    def js(self, code: str, argument: Any = None) -> Any:
        """Return what an expression or a function gives in the page."""
        return self.page.evaluate(code, argument)

    def resize(self, width: int, height: int = 900) -> None:
        """Give the window another size in pixels."""
        self.page.set_viewport_size({"width": width, "height": height})

    def excess(self) -> int:
        """Return by how many pixels the page is wider than the window."""
        return self.js("Math.max(0, document.documentElement.scrollWidth - innerWidth)")

    def close(self) -> None:
        """Close the tab; it is an error if anything went wrong or came from elsewhere."""
        self.context.close()
        assert self.problems == []
        assert [url for url in self.requests if not url.startswith(LOCAL)] == []

    def _note_message(self, message: Any) -> None:
        self.problems.append(f"console: {message.text} ({self.page.url})")

    def _note_failure(self, request: Any) -> None:
        # A picture still on its way when the test leaves the page is no failure.
        if request.failure != "net::ERR_ABORTED":
            self.problems.append(f"failed: {request.url} {request.failure}")

    def _note_dialog(self, dialog: Any) -> None:
        self.problems.append(f"dialog: {dialog.message}")
        dialog.dismiss()


def open_tabs(browser: Any) -> Iterator[Callable[..., Tab]]:
    """Yield a function that opens a tab over a run's report, or over a folder; then close all."""
    opened: list[Tab] = []

    def open_tab(report: Any, **options: Any) -> Tab:
        root = report if isinstance(report, Path) else report.path / "report"
        opened.append(Tab(browser, root, **options))
        return opened[-1]

    yield open_tab
    for item in opened:
        item.close()
