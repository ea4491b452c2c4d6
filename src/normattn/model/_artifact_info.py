"""The page of an artifact: what it says, and reading it without trusting it."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from ..errors import ArtifactError, ConfigError, InputError
from ._artifact_files import Found, not_ours
from .graft import Grafted
from .hosts import HostSpec

#: Format 2 added ``slimming``, ``builder``, and the form of one file.
FORMAT = 2
_SINCE_2 = {"slimming": None, "builder": None}


@dataclass(frozen=True)
class ArtifactInfo:
    """What an artifact says about its model.

    Args:
        host: What `normattn.host` built it from; None for a class of the user's own.
        grafts: The attention in it.
        classes: The name of each output.
        preprocessing: ``input_size`` (C, H, W), and ``mean`` and ``std`` of pixels in [0, 1].
        metrics: What was measured.
        versions: Of normattn, torch and timm when it was saved.
        sha256: The checksum of the weights; in the form of one file, of the whole file.
        slimming: What was removed, and the cost ``before`` and ``after``; None if nothing was.
        builder: The name of a class that `load` must be given a ``builder`` for; None if it needs
            none. For people: no code is found by it.
    """

    host: HostSpec | None
    grafts: tuple[Grafted, ...]
    classes: tuple[str, ...] | None
    preprocessing: Mapping[str, Any] | None
    metrics: Mapping[str, Any] | None
    versions: Mapping[str, str]
    sha256: str
    slimming: Mapping[str, Any] | None = None
    builder: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain containers, with the version of the format."""
        return {"format": FORMAT, **dataclasses.asdict(self)}


def versions() -> dict[str, str]:
    """Return the versions that a new artifact is saved with."""
    return {name: metadata.version(name) for name in ("normattn", "torch", "timm")}


def plain_json(name: str, value: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return ``value`` as it will come back from a file.

    Raises:
        ConfigError: it is no mapping of JSON types.
    """
    if value is None:
        return None
    try:
        if not isinstance(value, Mapping):
            raise TypeError(f"it is a {type(value).__name__}")
        plain: dict[str, Any] = json.loads(json.dumps(dict(value), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"save: expected {name} of JSON types, without NaN, got others ({error}). "
            "Convert arrays to lists, and numbers of numpy to Python's."
        ) from error
    return plain


def class_names(classes: Sequence[str] | None, host: HostSpec | None) -> tuple[str, ...] | None:
    """Return the names of the outputs, checked; raise ConfigError for what are none."""
    if classes is None:
        return None
    names = tuple(classes) if isinstance(classes, Sequence) else (classes,)
    if isinstance(classes, str) or not all(isinstance(name, str) for name in names):
        raise ConfigError(
            f"save: expected the name of each class, as text, got {classes!r:.100}. "
            "Give a list of strings, in the order of the outputs."
        )
    if host is not None and len(names) != host.num_classes:
        raise ConfigError(
            f"save: expected {host.num_classes} class names, one an output, got {len(names)}. "
            "Give as many as the host was built with."
        )
    return names


def parse(found: Found) -> ArtifactInfo:
    """Read the page of an artifact.

    Raises:
        ArtifactError: it describes no model, or a later version wrote it.
    """
    content = dict(found.page)
    version = content.pop("format", None)
    if type(version) is int and version > FORMAT:
        raise ArtifactError(
            f"{found.path}: expected an artifact of format {FORMAT} or before, got {version}. "
            "A later normattn wrote it; update normattn."
        )
    if type(version) is not int or version < 1:
        raise ArtifactError(not_ours(found.path, "a description without a format that we know"))
    try:
        return _parse({**_SINCE_2, **content} if version == 1 else content)
    except (KeyError, TypeError, ValueError, InputError) as error:
        raise ArtifactError(
            not_ours(found.path, f"a description that describes no model ({error})")
        ) from error


def _parse(content: dict[str, Any]) -> ArtifactInfo:
    classes, host = content["classes"], content["host"]
    if classes is not None and not (_is_list_of(str, classes) and classes):
        raise TypeError(f"classes: {classes!r:.100}")
    kinds = {"preprocessing": dict, "metrics": dict, "slimming": dict, "builder": str}
    for name, expected in kinds.items():
        if content[name] is not None and not isinstance(content[name], expected):
            raise TypeError(f"{name}: {content[name]!r:.100}")
    if (host is None) == (content["builder"] is None):
        raise TypeError("expected either a host or a builder")
    return ArtifactInfo(
        **{
            **content,
            "host": HostSpec(**host) if host is not None else None,
            "grafts": tuple(Grafted(**record) for record in content["grafts"]),
            "classes": tuple(classes) if classes is not None else None,
        }
    )


def _is_list_of(kind: type, value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) for item in value)
