"""What must hold on every page of a report, asked of a real browser."""

import json
import re
from pathlib import Path
from typing import Any

from browser_tab import Tab

RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
"""What axe is asked about: WCAG 2.2 up to level AA, and its own good practice."""
A4_WIDTH = 718
"""Width in CSS pixels of an A4 page between margins of 1 cm."""


def kinds_of_pages(root: Path) -> list[str]:
    """Return one page of each kind of a report: names that differ by a number are of one kind.

    Targets are of several kinds, so that the first four are returned.
    """
    names = sorted(
        (path.relative_to(root).as_posix() for path in root.rglob("*.html")),
        key=lambda name: (name.count("/"), len(name), name),
    )
    chosen: dict[str, list[str]] = {}
    for name in names:
        chosen.setdefault(re.sub(r"\d+", "#", name), []).append(name)
    most = {"targets/T#.html": 4}
    return [name for kind, all_of in chosen.items() for name in all_of[: most.get(kind, 1)]]


def violations(opened: Tab) -> list[str]:
    """Return what axe finds wrong on the page, a line for each rule with the first elements."""
    from axe_playwright_python.sync_playwright import Axe

    options = {
        "runOnly": {"type": "tag", "values": list(RULES)},
        "resultTypes": ["violations"],
        "preload": False,  # axe would fetch the style sheets, which the page's policy forbids
    }
    found = Axe().run(opened.page, options=options).response["violations"]
    return [
        f"{rule['id']}: {json.dumps([node['target'] for node in rule['nodes'][:3]])} of"
        f" {len(rule['nodes'])}, {rule['nodes'][0].get('failureSummary', '')}"
        for rule in found
    ]


def missing_pictures(opened: Tab) -> list[str]:
    """Load every picture, seen or not, and return those that have no pixels."""
    opened.js("for (const img of document.images) img.loading = 'eager'")
    opened.page.wait_for_function("() => [...document.images].every((img) => img.complete)")
    return opened.js("[...document.images].filter((i) => !i.naturalWidth).map((i) => i.src)")


# The elements that Tab should stop at, one of each group of radio buttons.
FOCUSABLE = """() => {
  const wanted = "a[href], button, input, select, textarea, summary, [tabindex]";
  const groups = new Set();
  return [...document.querySelectorAll(wanted)].filter((element) => {
    if (element.disabled || element.tabIndex < 0 || element.type === "hidden") return false;
    if (!element.checkVisibility({ visibilityProperty: true })) return false;
    if (element.type !== "radio") return true;
    if (groups.has(element.name)) return false;
    groups.add(element.name);
    return true;
  });
}"""

# Where the focus is: which of the focusable elements, and whether it can be seen to have it.
FOCUSED = """() => {
  const at = document.activeElement;
  if (!at || at === document.body) return null;
  const outlined = [null, "::after"].some((part) => {  // a link may cover its whole card
    const style = getComputedStyle(at, part);
    return style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1;
  });
  const box = at.getBoundingClientRect();
  const inside = box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth;
  const name = at.type === "radio" ? `radio ${at.name}` : at.dataset.walk;
  const text = (at.getAttribute("aria-label") || at.textContent || at.id).trim().slice(0, 40);
  return { walk: name, what: `<${at.tagName.toLowerCase()}> ${text}`, outlined, inside };
}"""


def walk_with_tab(opened: Tab) -> tuple[set[str], list[str]]:
    """Press Tab until the end of the page. Return what was not reached, and what had no outline."""
    number = f"""() => ({FOCUSABLE})().map((element, n) => {{
      element.dataset.walk = n;
      return element.type === "radio" ? `radio ${{element.name}}` : String(n);
    }})"""
    wanted = set(opened.js(number))
    opened.js("() => { document.activeElement.blur(); scrollTo(0, 0); }")
    reached: set[str] = set()
    dull: list[str] = []
    for _ in range(2 * len(wanted) + 20):
        opened.page.keyboard.press("Tab")
        now: dict[str, Any] | None = opened.js(FOCUSED)
        if now is None or now["walk"] in reached:
            if now is None or wanted <= reached:
                break
            continue
        if now["walk"] is not None:
            reached.add(now["walk"])
        if not (now["outlined"] and now["inside"]):
            dull.append(now["what"])
    return wanted - reached, dull
