"""The state of a training on disk: two generations, each with its checksum, no pickled objects."""

import hashlib
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from .. import _files
from ..errors import RunError
from .distributed import Ranks
from .history import History

STATE = "state.pt"
PREVIOUS = "state.previous.pt"
_DIGEST_LENGTH = hashlib.sha256().digest_size * 2


def exists(folder: Path) -> bool:
    """Return whether a state, whole or not, is saved in ``folder``."""
    return any((folder / name).exists() for name in (STATE, PREVIOUS))


def write_state(folder: Path, state: dict[str, Any]) -> None:
    """Replace ``state.pt``; what stood there becomes ``state.previous.pt``.

    ``state`` holds tensors and plain containers only. The checksum stands behind the archive, where
    ``torch.load`` does not look, so that one rename replaces both: no kill can part them.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    current = folder / STATE
    # A damaged generation must not push the whole one out: a kill right here would lose both.
    if current.exists() and _archive(current.read_bytes()) is not None:
        current.replace(folder / PREVIOUS)
    _files.write_bytes(current, content + hashlib.sha256(content).hexdigest().encode())


def read_state(folder: Path, note: Callable[[str], None]) -> dict[str, Any] | None:
    """Return the newest state that is whole, on the CPU, or None when there never was one.

    A damaged newest generation is passed over, which ``note`` is told.

    Raises:
        RunError: there are states, and none of them is whole.
    """
    present = [folder / name for name in (STATE, PREVIOUS) if (folder / name).exists()]
    for path in present:
        archive = _archive(path.read_bytes())
        if archive is not None:
            state: dict[str, Any] = torch.load(
                io.BytesIO(archive), map_location="cpu", weights_only=True
            )
            return state
        if path.name == STATE and len(present) > 1:
            note(f"{path} is damaged (its checksum does not match); going back to {PREVIOUS}.")
    if not present:
        return None
    raise RunError(
        f"{folder}: expected a whole {STATE} or {PREVIOUS}, got damaged ones (their checksums do "
        "not match). Remove both to train anew, or choose another folder."
    )


class Saver:
    """Where and how often the state is saved; the first process alone writes."""

    def __init__(self, folder: Path, every: float, ranks: Ranks) -> None:
        self.folder, self.every, self.ranks = folder, every, ranks
        self._last = time.monotonic()
        if ranks.first:
            _files.make_folder(folder)
            for torn in folder.glob(f".{STATE}.*"):  # what a kill in the middle of a write left
                torn.unlink()
        ranks.wait()

    @property
    def due(self) -> bool:
        """Whether the last save is long enough ago."""
        return time.monotonic() - self._last >= self.every

    def read(self, note: Callable[[str], None]) -> dict[str, Any] | None:
        """Return the newest whole state, once every process has read it."""
        state = read_state(self.folder, note)
        self.ranks.wait()
        return state

    def save(self, state: dict[str, Any], history: History) -> None:
        """Write the state, then the records that follow from it."""
        if self.ranks.first:
            write_state(self.folder, state)
            _files.write_text(self.folder / "history.jsonl", history.to_lines())
        self._last = time.monotonic()


def _archive(content: bytes) -> bytes | None:
    """Return what ``torch.load`` reads of a state, or None if the checksum behind it differs."""
    archive, digest = content[:-_DIGEST_LENGTH], content[-_DIGEST_LENGTH:]
    return archive if hashlib.sha256(archive).hexdigest().encode() == digest else None
