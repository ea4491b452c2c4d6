"""One headless Chromium for the tests of this folder, and the pages that they open in it.

The browser is closed when a process of pytest leaves this folder, not at its end: as long as
playwright runs, its event loop counts as the running one for every other test of the process.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # what tests and scripts of this folder share


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    """A headless Chromium; the test is skipped where there is none."""
    why = "the pages' tests need playwright: pip install 'normattn[dev]'"
    pytest.importorskip("playwright", reason=why)
    from browsing import NoBrowser, launch
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        try:
            browser = launch(playwright)
        except NoBrowser as missing:
            pytest.skip(str(missing))
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Any) -> Callable[..., AbstractContextManager[Any]]:
    """`browsing.opened` in the browser of these tests."""
    from browsing import opened

    return partial(opened, browser)
