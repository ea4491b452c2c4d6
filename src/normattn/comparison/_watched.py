"""A folder's page as its records are now, kept until they change; nothing is written."""

import hashlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from ..errors import RunError

_REST = 10  # a page that took a second to make is not made again for ten: trainings need the cores


def _comparison(folder: Path) -> str:
    from .page import render_page
    from .records import read_run
    from .report import build_document
    from .statistics import summarise

    records = read_run(folder)
    return render_page(build_document(records, summarise(records)))


def _slimming(folder: Path) -> str:
    from ._slimmed_records import read_slimmed
    from .page import render_page
    from .slimmed_page import _others, slimmed_document

    found = read_slimmed(folder)
    return render_page(slimmed_document(found, _others(found)))


def _removal(folder: Path) -> str:
    from ._removal_page import removal_document
    from ._removal_salvage import salvage
    from .page import render_page

    return render_page(removal_document(*salvage(folder)))


# What tells each kind of folder, and its page.
PAGES: Mapping[str, Callable[[Path], str]] = {
    "protocol.json": _comparison,
    "slim.json": _slimming,
    "salience.json": _removal,
}


class Watched:
    """The page of a run, a slimming or a salience run, as its folder is now.

    Args:
        folder: What to show.
        clock: Seconds, from anywhere.

    Raises:
        RunError: ``folder`` holds none of the records that a page is made of.
    """

    def __init__(self, folder: Path | str, clock: Callable[[], float] = time.monotonic) -> None:
        self.folder, self._clock = Path(folder), clock
        self._lock = threading.Lock()
        self._state = self._found = ""
        self._page = ""
        self._due = 0.0
        self._kind()

    @property
    def title(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name or str(self.folder)

    def state(self) -> str:
        """Return a text that changes when there is another page to be had."""
        with self._lock:
            return self._look()

    def page(self) -> str:
        """Return the page, made again if the records have changed.

        Raises:
            InputError: the run is gone, or cannot be read any more.
            OSError: likewise.
        """
        with self._lock:
            state = self._look()
            if state != self._state or not self._page:
                self._page, started = "", self._clock()
                self._page = PAGES[self._kind()](self.folder)
                self._state, now = state, self._clock()
                self._due = now + _REST * (now - started)
            return self._page

    def _look(self) -> str:
        if not self._page or self._clock() >= self._due:
            self._found = fingerprint(self.folder)
        return self._found

    def _kind(self) -> str:
        for name in PAGES:
            if (self.folder / name).is_file():
                return name
        raise RunError(
            f"{self.folder}: expected a folder with {' or '.join(PAGES)}, got none. Give the "
            "folder of a comparison, a slimming or a salience run that has begun."
        )


def fingerprint(folder: Path) -> str:
    """Return a checksum over the names, times and sizes of the records under ``folder``."""
    found = hashlib.sha256()
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            if name.endswith((".json", ".jsonl")) and not name.startswith("."):
                path = os.path.join(place, name)  # noqa: PTH118  # names may be no UTF-8
                try:
                    about = os.stat(path)  # noqa: PTH116
                except OSError:  # replaced or removed since: the next look sees it
                    continue
                found.update(os.fsencode(f"{path}\0{about.st_mtime_ns}\0{about.st_size}\0"))
    return found.hexdigest()
