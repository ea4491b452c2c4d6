"""Files that survive: written beside their target, synced, renamed; folders with one owner."""

import contextlib
import fcntl
import hashlib
import json
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import RunError


def write_bytes(path: Path, content: bytes) -> None:
    """Replace ``path`` by ``content``; a kill at any moment leaves the old file or the new one.

    The temporary file stands in the same folder because a rename is atomic only within one file
    system. Raises RunError when the folder cannot be written.
    """
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise RunError(_unwritable(path, error)) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        raise RunError(_unwritable(path, error)) from error
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_text(path: Path, content: str) -> None:
    """Replace ``path`` by ``content`` in UTF-8, atomically."""
    write_bytes(path, content.encode())


def write_json(path: Path, content: object) -> None:
    """Replace ``path`` by ``content`` as JSON, atomically; NaN and infinity are refused."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def read_json(path: Path) -> Any:
    """Read JSON; a file that is no JSON is a RunError that names it."""
    try:
        return json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RunError(
            f"{path}: expected JSON, got something else ({error}). Restore the file, or remove it."
        ) from error


def sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_folder(path: Path) -> Path:
    """Create ``path`` and probe that files can be written in it; raise RunError otherwise."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(prefix=".probe.", dir=path):
            pass
    except OSError as error:
        raise RunError(_unwritable(path, error)) from error
    return path


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Own ``folder`` while inside; a second process is refused with the first one's pid and host.

    The kernel drops the lock with its process, so a killed run never blocks the next one.
    """
    path = make_folder(folder) / ".lock"
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            owner = file.read().strip() or "another process"
            raise RunError(
                f"{folder}: expected a run folder that no process is using, got one in use by "
                f"{owner}. Wait for it, or choose another folder."
            ) from error
        file.truncate(0)
        file.write(f"pid {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unwritable(path: Path, error: OSError) -> str:
    return (
        f"{path}: expected a place that can be written, got {error.strerror or error}. "
        "Nothing written before is lost; free space or choose another folder."
    )
