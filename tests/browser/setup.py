"""Install a Chromium for the tests of the pages, where none starts yet.

Without a network that fails, and the tests of the pages say that they were skipped: one line here,
no error.
"""

import subprocess
import sys

from browsing import INSTALL, NoBrowser, launch
from playwright.sync_api import sync_playwright


def main() -> None:
    """Say nothing where a Chromium starts, or starts after it was installed."""
    if _reason():
        command = [sys.executable, "-m", *INSTALL.split()]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if reason := _reason():
            said = done.stderr.strip().splitlines()
            last = said[-1] if said else ""
            sys.stdout.write(f"The pages' tests will be skipped. {reason} {last}\n")


def _reason() -> str:
    """Why no Chromium starts; nothing where one does."""
    with sync_playwright() as playwright:
        try:
            launch(playwright).close()
        except NoBrowser as missing:
            return str(missing)
    return ""


if __name__ == "__main__":
    main()
