"""Print how long the page of a comparison takes to open, for 3 trials and for 300.

    python tests/browser/load_time.py [TIMES]

Counted is from the browser's first look at the file to the last chart drawn, in milliseconds: the
median of TIMES (5) openings, each in a fresh context. No test depends on it.
"""

import statistics
import sys
import tempfile
from pathlib import Path

from browsing import launch, opened
from playwright.sync_api import Browser, sync_playwright
from written_runs import ALL, write_run

from normattn.comparison.report import write_report

_NOW = "performance.now()"  # since the page began to open
_LOADED = "performance.getEntriesByType('navigation')[0].loadEventEnd"


def main() -> None:
    """Write the two runs, and open the page of each."""
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = launch(playwright)
        _say(f"Chromium {browser.version}, median of {times}: load event; all charts drawn")
        for mechanisms, seeds, epochs in ((ALL[:3], 1, 30), (ALL, 30, 30), (ALL, 30, 160)):
            run = Path(folder, f"{seeds}-{epochs}")
            page = write_report(write_run(run, mechanisms=mechanisms, seeds=seeds, epochs=epochs))
            _measure(browser, page, f"{len(mechanisms) * seeds} trials, {epochs} epochs", times)
        browser.close()


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _measure(browser: Browser, page: Path, what: str, times: int) -> None:
    loaded, drawn = [], []
    for _ in range(times):
        with opened(browser, page) as found:
            drawn.append(found.page.evaluate(_NOW))
            loaded.append(found.page.evaluate(_LOADED))
    ms = [f"{statistics.median(values):.0f} ms" for values in (loaded, drawn)]
    _say(f"{what}, {page.stat().st_size / 1e6:.2f} MB: {ms[0]}; {ms[1]}")


if __name__ == "__main__":
    main()
