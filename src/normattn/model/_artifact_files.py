"""The files of an artifact: where its page and its weights are, their checksum, what else they are.

Three forms hold the same two things, a page of JSON and weights::

    FOLDER/model.safetensors + model.json      ours: the page can be read, and corrected, by hand
    FOLDER/model.safetensors + config.json     for the Hugging Face Hub: the page is a part of it
    FILE.safetensors                           one file: the page is in the weights' header
"""

import hashlib
import json
import mmap
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from .. import _files
from ..errors import ArtifactError, RunError

WEIGHTS = "model.safetensors"
INFO = "model.json"
CONFIG = "config.json"
SUFFIX = ".safetensors"
#: The entry of a safetensors header that tells our weights from others, and in config.json the page
KEY = "normattn"
#: What KEY says in weights whose page lies beside them. It is the header's only entry: the library
#: writes entries in any order, and equal weights are to be equal files.
_BESIDE = "described by the JSON beside this file"
_CHECKSUM = "sha256"
_DIGITS = 64
_BLANK = b"0" * _DIGITS


@dataclass(frozen=True)
class Found:
    """An artifact on the disk: the content of its page, and the file with its weights.

    Args:
        path: What the user gave.
        page: The description, ``sha256`` included.
        weights: The file of weights.
        alone: Whether the page stands in the header of the weights.
    """

    path: Path
    page: dict[str, Any]
    weights: Path
    alone: bool

    def checksum(self) -> str:
        """Return the SHA-256 that the artifact should have in its page.

        That of the weights' file, as ``sha256sum`` gives it; of a file that holds its own checksum,
        with these 64 digits set to 0: so every bit of either is covered.
        """
        with self.weights.open("rb") as file:
            if not os.fstat(file.fileno()).st_size:
                return hashlib.sha256().hexdigest()
            # Mapped and hashed by one call, which lets other threads run all the while.
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return self._digest(content)

    def _digest(self, content: mmap.mmap) -> str:
        digest, start = hashlib.sha256(), 0
        if self.alone:
            start = 8 + int.from_bytes(content[:8], "little")
            claimed = str(self.page[_CHECKSUM]).encode()
            digest.update(content[:start].replace(claimed, _BLANK, 1))
        with memoryview(content) as view, view[start:] as rest:
            digest.update(rest)
        return digest.hexdigest()


def find(path: Path) -> Found:
    """Find the artifact at ``path`` and read its page; its weights are not read.

    Raises:
        ArtifactError: there is none, or it cannot be read.
    """
    try:
        if path.is_dir():
            return _find_in_folder(path)
        if not path.exists():
            raise ArtifactError(not_ours(path, "nothing there"))
        return _find_in_file(path)
    except OSError as error:
        raise ArtifactError(not_ours(path, f"one that cannot be read ({error})")) from error


def _find_in_folder(folder: Path) -> Found:
    page = next((p for p in (folder / INFO, folder / CONFIG) if p.is_file()), None)
    if page is None:
        raise ArtifactError(not_ours(folder, f"a folder without {INFO}"))
    try:
        content = _files.read_json(page)
    except (RunError, RecursionError) as error:
        what = kind(page)
        got = f"{page.name} that is {what}{', not whole' if what == 'JSON' else ''}"
        raise ArtifactError(not_ours(folder, got)) from error
    if page.name == CONFIG:
        content = content.get(KEY) if isinstance(content, dict) else None
        if content is None:
            raise ArtifactError(not_ours(folder, f"a {CONFIG} of another library"))
    if not isinstance(content, dict):
        raise ArtifactError(not_ours(folder, f"{page.name} that does not describe a model"))
    return Found(folder, content, folder / WEIGHTS, alone=False)


def _find_in_file(path: Path) -> Found:
    entries = _entries(path)
    if entries is None:
        more = " without its weights" if path.name in (INFO, CONFIG) else ""
        raise ArtifactError(not_ours(path, kind(path) + more))
    text, digits = entries.get(KEY), entries.get(_CHECKSUM, "")
    if text is None or text == _BESIDE:
        raise ArtifactError(not_ours(path, "weights without their description"))
    try:
        page = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(not_ours(path, f"a description that is no JSON ({error})")) from error
    if not isinstance(page, dict) or len(digits) != _DIGITS:
        raise ArtifactError(not_ours(path, "a header that does not describe a model"))
    return Found(path, {**page, _CHECKSUM: digits}, path, alone=True)


def _entries(path: Path) -> Mapping[str, str] | None:
    """Return what a safetensors header says beside the tensors, None for any other file."""
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except SafetensorError:
        return None


def write_folder(folder: Path, page: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Write the weights, and ``page`` with their checksum, into a folder that is there."""
    content = to_bytes(dict(state), metadata={KEY: _BESIDE})
    page = {**page, _CHECKSUM: hashlib.sha256(content).hexdigest()}
    _files.write_bytes(folder / WEIGHTS, content)
    _files.write_json(folder / INFO, page)


def write_file(path: Path, page: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Write one file with ``page``, its checksum and the weights."""
    text = json.dumps({k: v for k, v in page.items() if k != _CHECKSUM}, ensure_ascii=False)
    # Digits that are nowhere else in the file, to find their place by.
    marker = hashlib.sha256(text.encode()).hexdigest()
    entries = {"format": "pt", KEY: text, _CHECKSUM: marker}
    content = bytearray(to_bytes(dict(state), metadata=entries))
    start = content.index(marker.encode())
    place = slice(start, start + _DIGITS)
    content[place] = _BLANK
    content[place] = hashlib.sha256(content).hexdigest().encode()
    _files.write_bytes(path, bytes(content))


def require_replaceable(path: Path) -> None:
    """Refuse to write over what is not ours: a model is replaced by a model, and nothing else is.

    Raises:
        ArtifactError: ``path``, or in a folder one of our names, is something else.
    """
    if is_file_form(path):
        text = (_entries(path) or {}).get(KEY) if path.is_file() else None
        if path.exists() and (text is None or text == _BESIDE):
            got = kind(path) if text is None else f"a part of the model in {path.parent}"
            raise ArtifactError(_occupied(path, got))
        return
    config, page, weights = (path / name for name in (CONFIG, INFO, WEIGHTS))
    if page.exists():
        if "format" not in _content(page):
            raise ArtifactError(_occupied(page, kind(page)))
    elif config.exists() and weights.exists():
        raise ArtifactError(_occupied(path, f"one with a {CONFIG}, whose weights those are"))
    elif weights.exists() and (_entries(weights) or {}).get(KEY) != _BESIDE:
        raise ArtifactError(_occupied(weights, kind(weights)))


def is_file_form(path: Path) -> bool:
    """Return whether a path means one file and not a folder."""
    return path.suffix == SUFFIX and not path.is_dir()


def holds_hub_page(config: Path) -> bool:
    """Tell whether this is the config.json of an artifact."""
    return isinstance(_content(config).get(KEY), dict)


def _content(page: Path) -> dict[str, Any]:
    """Return what a file of JSON says, nothing if it is none."""
    try:
        content = _files.read_json(page)
    except (RunError, OSError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _occupied(path: Path, got: str) -> str:
    return (
        f"{path}: expected nothing, or a model of normattn to replace, got {got}. "
        "Nothing was written; choose another path, or remove it yourself."
    )


def not_ours(path: Path, got: str) -> str:
    """Return the message for a path without an artifact."""
    return (
        f"{path}: expected a folder with {INFO} and {WEIGHTS}, or one {SUFFIX} file of normattn, "
        f"got {got}. Give what normattn.save or a training made."
    )


def damaged(found: Found) -> str:
    """Return the message for weights of another checksum."""
    return (
        f"{found.weights}: expected the checksum that it was saved with, got another checksum "
        f"({kind(found.weights)}). "
        "The file is damaged or was replaced; copy it again."
    )


def kind(path: Path) -> str:
    """Say from its first bytes what a file is; it is never opened further."""
    if not path.is_file():
        return "no file"
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        return "an empty file"
    if head.startswith(b"PK"):
        return "a zip archive, such as torch.save writes (pickles inside are never opened)"
    if head.startswith(b"\x80"):
        return "a pickle, which is never opened"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "an HTML page, such as a failed download leaves"
    if head.lstrip().startswith((b"{", b"[")):
        return "JSON"
    if head[8:9] == b"{":
        return "safetensors, cut short or not of normattn"
    return "a file"
