"""The state of a training on disk: two generations, each with its checksum, no pickled objects."""

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from .. import _files
from ..errors import RunError

STATE = "state.pt"
PREVIOUS = "state.previous.pt"
_DIGEST_LENGTH = hashlib.sha256().digest_size * 2


def write_state(folder: Path, state: dict[str, Any]) -> None:
    """Replace ``state.pt``; what stood there becomes ``state.previous.pt``.

    ``state`` holds tensors and plain containers only. The checksum stands behind the archive, where
    ``torch.load`` does not look, so that one rename replaces both: no kill can part them.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    current = folder / STATE
    if current.exists():
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
        content = path.read_bytes()
        archive, digest = content[:-_DIGEST_LENGTH], content[-_DIGEST_LENGTH:]
        if hashlib.sha256(archive).hexdigest().encode() == digest:
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
