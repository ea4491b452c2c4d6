"""A headless Chromium, and what a page does in it: its errors, its requests, what ran."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Error, Page, Playwright

INSTALL = "playwright install chromium"
_ON_PATH = ("chromium", "chromium-browser", "google-chrome")
_LOCAL = ("file:", "data:", "blob:", "about:")
DRAWN = "html[data-charts=drawn]"  # what a page says of itself when its charts are there
_WAIT = 120_000  # ms for a page to load, on a machine that is busy: only one that never does waits


class NoBrowser(Exception):
    """No Chromium starts here; the message says which were tried, and how to install one."""


def launch(playwright: Playwright) -> Browser:
    """Start playwright's own Chromium where it is installed, else the first one on PATH.

    Raises:
        NoBrowser: none of them starts.
    """
    tried = []
    for path in (None, *filter(None, map(shutil.which, _ON_PATH))):
        try:
            return playwright.chromium.launch(executable_path=path)
        except Error as error:  # not installed, or a library that it needs is not
            tried.append(f"{path or 'its own'}: {error.message.splitlines()[0]}")
    raise NoBrowser(f"No Chromium starts here ({'; '.join(tried)}). Install one: {INSTALL}")


@dataclass
class Opened:
    """A page in the browser, and what it has done since it was opened."""

    page: Page
    errors: list[str] = field(default_factory=list)  # of the console, uncaught, or blocked
    requests: list[str] = field(default_factory=list)  # that would leave this machine
    dialogs: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """What a reader sees, with every run of blanks as one."""
        return " ".join(self.page.inner_text("body").split())

    def marks(self, chart: str, *kinds: str) -> list[dict[str, Any]]:
        """The values behind every mark that Vega has drawn in a chart, of these kinds or of all."""
        found = self.page.locator(f"#chart-{chart}").evaluate(_MARKS)
        return [mark["values"] for mark in found if not kinds or mark["kind"] in kinds]

    def ran(self) -> bool:
        """Whether something of a name ran: in these tests each would set ``window.ran``."""
        return bool(self.dialogs) or self.page.evaluate("'ran' in window")

    def sideways(self) -> int:
        """How many CSS pixels the page is wider than its window."""
        root = "document.scrollingElement"
        return int(self.page.evaluate(f"{root}.scrollWidth - {root}.clientWidth"))

    def findings(self, *rules: str) -> list[str]:
        """What axe holds to be serious or critical, a line a place; of all rules unless given."""
        from axe_playwright_python.sync_playwright import Axe

        options: dict[str, Any] = {"resultTypes": ["violations"]}
        if rules:
            options["runOnly"] = {"type": "rule", "values": list(rules)}
        found = Axe().run(self.page, options=options).response["violations"]
        return [
            f"{each['id']} ({each['impact']}): {node['html'][:200]}: {node['failureSummary']}"
            for each in found
            if each["impact"] in ("serious", "critical")
            for node in each["nodes"]
        ]


@contextmanager
def opened(
    browser: Browser,
    path: Path,
    *,
    width: int = 1280,
    scheme: str = "light",
    policy: bool = True,
    scripts: bool = True,
) -> Iterator[Opened]:
    """Open a file of this disk, and wait for its charts.

    ``policy=False`` takes the page's content-security policy away.
    """
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme=scheme,
        bypass_csp=not policy,
        offline=True,  # what a page asks for is noted, and goes nowhere
        java_script_enabled=scripts,
    )
    try:
        found = _open(context, path)
        if scripts and found.page.locator("figure[data-name]").count():
            found.page.wait_for_selector(DRAWN, state="attached")
        yield found
    finally:
        context.close()


def _open(context: BrowserContext, path: Path) -> Opened:
    page = context.new_page()
    page.set_default_timeout(_WAIT)
    found = Opened(page)

    def dismiss(dialog: Any) -> None:
        found.dialogs.append(dialog.message)
        dialog.dismiss()

    # Chromium says "error" where a policy blocks something, too.
    page.on("console", lambda m: found.errors.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: found.errors.append(str(error)))
    page.on("dialog", dismiss)
    page.on("websocket", lambda socket: found.requests.append(socket.url))
    context.on(
        "request",
        lambda asked: None if asked.url.startswith(_LOCAL) else found.requests.append(asked.url),
    )
    page.goto(path.as_uri(), wait_until="load")
    return found


# What is drawn, as Vega holds it: marks of the data, without those of axes and legends.
_MARKS = """figure => {
  const found = [];
  const plain = datum => Object.fromEntries(Object.entries(datum ?? {}).filter(
    ([, value]) => value === null || ["number", "string", "boolean"].includes(typeof value)));
  const walk = mark => {
    for (const item of mark.items) {
      if (mark.marktype === "group") item.items.forEach(walk);
      else if (mark.role === "mark") found.push({ kind: mark.marktype, values: plain(item.datum) });
    }
  };
  walk(figure.drawn.view.scenegraph().root);
  return found;
}"""
