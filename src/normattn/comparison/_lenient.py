"""Records read where nothing is sure: torn, half done, or written by another version.

A page is made of whatever a record holds. These functions give a value of the kind that was asked
for, or say that there is none; what a page cannot show is a line on it, never a traceback.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import _files
from ..errors import RunError
from ._page_charts import printable


def find(content: object, *keys: str) -> Any:
    """Return what stands under these keys, one inside the other; None where there is no such."""
    for key in keys:
        content = content.get(key) if isinstance(content, Mapping) else None
    return content


def number(content: object, *keys: str) -> float | None:
    """Return a finite number, None in place of everything else (NaN, text, nothing)."""
    value = find(content, *keys)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def mapping(content: object, *keys: str) -> Mapping[str, Any]:
    """Return a mapping, an empty one in place of everything else."""
    value = find(content, *keys)
    return value if isinstance(value, Mapping) else {}


def entries(content: object, *keys: str) -> Sequence[Any]:
    """Return a list, an empty one in place of everything else."""
    value = find(content, *keys)
    return value if isinstance(value, list | tuple) else ()


def text(content: object, *keys: str) -> str:
    """Return text that every format can hold; "" where there is none."""
    value = find(content, *keys)
    return "" if value is None else printable(str(value))


def distinct(names: Sequence[str]) -> list[str]:
    """Return the names as they can be shown; two that then look alike are numbered."""
    seen: dict[str, int] = {}
    found = []
    for name in map(printable, names):
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return found


def read_mapping(path: Path, notes: list[str], missing: str = "") -> dict[str, Any] | None:
    """Read a JSON object; None where there is none.

    Args:
        path: the file.
        notes: takes a line where it is damaged, or where it is not there and should be.
        missing: that line; "" where nobody misses it.
    """
    if not path.is_file():
        notes += [missing] if missing else []
        return None
    try:
        content = _files.read_json(path)
    except (RunError, OSError, RecursionError) as error:
        notes.append(f"{path.name} cannot be read and is left out ({error}).")
        return None
    if not isinstance(content, dict):
        notes.append(f"{path.name} holds no JSON object and is left out.")
        return None
    return content


def read_lines(path: Path, what: str, notes: list[str]) -> tuple[dict[str, Any], ...]:
    """Read JSON lines; those that a kill has torn are dropped, with a note."""
    if not path.is_file():
        return ()
    kept, torn = [], []
    for place, line in enumerate(path.read_text(errors="replace").splitlines(), start=1):
        try:
            entry = json.loads(line)
        except (json.JSONDecodeError, RecursionError):
            entry = None
        if isinstance(entry, dict):
            kept.append(entry)
        else:
            torn.append(str(place))
    if torn:
        lines = f"line{'s' if len(torn) > 1 else ''} {', '.join(torn[:5])}"
        more = f" and {len(torn) - 5} more" if len(torn) > 5 else ""
        notes.append(f"{what}: {lines}{more} of {path.name} cannot be read.")
    return tuple(kept)
