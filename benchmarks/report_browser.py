"""How quick a report is to look at, in headless Chromium, opened from disk.

In: the folder of a report. Out: lines of text. A step is timed inside the page, from the event that
starts it to the second frame after the page has changed, when the first is on the screen. A step
after which nothing has changed for ten seconds is not a number. Half a second lies between steps.
"""

import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

REPEATS = 10
PAUSE = 0.5
"""Seconds in which a reader looks; then what is out of sight is made ready."""
LAUNCH = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
FIRST_PAINT = """() => new Promise((done) => {
  const found = () => performance.getEntriesByName("first-contentful-paint")[0];
  if (found()) done(found().startTime);
  else new PerformanceObserver((list, observer) => {
    if (found()) { observer.disconnect(); done(found().startTime); }
  }).observe({ type: "paint", buffered: true });
})"""
STEP = """([act, argument]) => new Promise((done) => {
  const gallery = document.getElementById("gallery");
  const begin = performance.now();
  setTimeout(() => done(NaN), 10000);
  const observer = new MutationObserver(() => {
    observer.disconnect();
    requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - begin)));
  });
  observer.observe(gallery, { childList: true, subtree: true, attributes: true });
  if (act === "scroll") window.scrollBy({ top: 3 * innerHeight, behavior: "instant" });
  else {
    const select = document.getElementById(act);
    select.selectedIndex = argument;
    select.dispatchEvent(new Event("input", { bubbles: true }));
    select.dispatchEvent(new Event("change", { bubbles: true }));
  }
})"""


def look(report: Path) -> list[str]:
    """Open the overview and the gallery of a report and return what was measured."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return ["  in a browser: not measured, Playwright is not installed"]
    if chromium is None:
        return ["  in a browser: not measured, there is no Chromium"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(LAUNCH))
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.set_default_timeout(120_000)
        lines = [
            _line("overview, first paint", _repeat(lambda n: _first_paint(page, report, "index"))),
            _line("gallery, first paint", _repeat(lambda n: _first_paint(page, report, "errors"))),
        ]
        page.wait_for_selector("html[data-ready]", state="attached")
        for words, control in (
            ("a filter by true class", "filter-true"),
            ("a filter by pattern", "filter-pattern"),
            ("another order", "sort"),
        ):
            found = _repeat(lambda n, control=control: _pick(page, control, n))
            lines.append(_line(f"gallery, {words}", found))
            page.evaluate(STEP, [control, 0])
        lines.append(_line("gallery, three screens down", _repeat(lambda n: _scroll(page))))
        browser.close()
    return lines


def _first_paint(page: Any, report: Path, name: str) -> float:
    page.goto("about:blank")
    page.goto(f"file://{report.resolve()}/{name}.html")
    return float(page.evaluate(FIRST_PAINT))


def _pick(page: Any, control: str, n: int) -> float:
    """Choose the next entry of a control; after the last comes the first."""
    count = page.locator(f"#{control} option").count()
    return float(page.evaluate(STEP, [control, 1 + n % (count - 1)]))


def _scroll(page: Any) -> float:
    return float(page.evaluate(STEP, ["scroll", 0]))


def _repeat(measure: Callable[[int], float]) -> list[float]:
    found = []
    for n in range(REPEATS):
        found.append(measure(n))
        time.sleep(PAUSE)
    return found


def _line(words: str, milliseconds: Sequence[float]) -> str:
    middle, worst = statistics.median(milliseconds), max(milliseconds)
    return f"  {words}: {middle:.0f} ms, {worst:.0f} at worst of {len(milliseconds)}"
