"""Everything that a comparison holds equal, frozen on disk before the first trial.

Only mechanism and seed vary between trials. Trials with one seed share the host's initial weights,
the order of the batches and every crop (``data/keyed.py``), so they are compared in pairs.
"""

import dataclasses
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from .. import _files
from ..attention import Mechanism
from ..errors import ConfigError, RunError, unknown
from ..training import Job, Recipe
from ..training.identity import differences

FORMAT = 1
_FILE = "protocol.json"
_REQUIRED = ("data", "host", "mechanisms", "seeds", "recipe")


@dataclass(frozen=True)
class Protocol:
    """What a comparison holds equal, and the mechanisms and seeds that it varies.

    Args:
        data: What to train on: ``digits``, ``parquet:DIR``, ``folder:DIR`` or ``timm:NAME``.
        host: The model that every mechanism is grafted into.
        mechanisms: Labels such as ``"ean(groups=8)"``; kept in canonical form.
        seeds: One trial per mechanism and seed.
        recipe: How every trial is trained, precision and epochs included.
        stem: The host's first layers, ``imagenet`` or ``cifar``.
        host_options: Further options of the host.
        pretrained: Start from the host's pretrained weights.
        sites: Where the mechanisms go; None takes each mechanism's own places.
        start: ``paper`` or ``preserve``, as in ``graft``.
        train_limit: Train on this many images only, balanced over the classes.
        on_bad_image: ``stop`` or ``skip``.
        image_size: Resize images to this size; None keeps theirs.
        fuse: Whether kernels compute what they can in every trial, as in `normattn.fuse`.

    Raises:
        ConfigError: no mechanism or seed, one of them twice, or an unknown mechanism.
    """

    data: str
    host: str
    mechanisms: tuple[str, ...]
    seeds: tuple[int, ...]
    recipe: Recipe
    stem: str = "imagenet"
    host_options: Mapping[str, Any] = field(default_factory=dict)
    pretrained: bool = False
    sites: str | tuple[str, ...] | None = None
    start: str = "paper"
    train_limit: int | None = None
    on_bad_image: str = "stop"
    image_size: int | None = None
    fuse: bool = True

    def __post_init__(self) -> None:
        labels = tuple(Mechanism.parse(text).label for text in self.mechanisms)
        _require_distinct("mechanisms", labels)
        _require_distinct("seeds", self.seeds)
        for seed in self.seeds:
            if type(seed) is not int or seed < 0:
                raise ConfigError(
                    f"Protocol: expected seeds that are integers from 0, got {seed!r}."
                    " Give for example 0, 1, 2."
                )
        object.__setattr__(self, "mechanisms", labels)
        object.__setattr__(self, "seeds", tuple(self.seeds))
        if isinstance(self.sites, list):
            object.__setattr__(self, "sites", tuple(self.sites))

    def job(self, mechanism: str, seed: int) -> Job:
        """Return what one trial trains."""
        if mechanism not in self.mechanisms:
            raise RunError(unknown("Protocol", "mechanism", mechanism, self.mechanisms))
        equal: dict[str, Any] = {f.name: getattr(self, f.name) for f in _held_equal()}
        return Job(mechanism=mechanism, seed=seed, **equal)

    def jobs(self) -> Iterator[Job]:
        """Yield the trials seed by seed, so that a run cut short is balanced over mechanisms."""
        for seed in self.seeds:
            for mechanism in self.mechanisms:
                yield self.job(mechanism, seed)

    def to_json(self) -> dict[str, Any]:
        """Return plain containers, with the format's version and every value of the recipe."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values["recipe"] = self.recipe.to_json()
        return {"format": FORMAT, **_plain(values)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read what ``to_json`` wrote; raise RunError for a later format or an unknown key.

        A protocol that does not say whether trials are fused is from before there were kernels.
        """
        values = {"fuse": False, **content}
        written = values.pop("format", None)
        if written != FORMAT:
            raise RunError(
                f"Protocol: expected format {FORMAT}, got {written!r}. "
                "It was written by another version of normattn; use that version."
            )
        known = [f.name for f in dataclasses.fields(cls)]
        for key in values:
            if key not in known:
                raise RunError(unknown("Protocol", "key", key, known))
        missing = [key for key in _REQUIRED if key not in values]
        if missing:
            raise RunError(
                f"Protocol: expected the keys {', '.join(_REQUIRED)}, got no {', '.join(missing)}. "
                "Restore the file, or choose another folder."
            )
        try:
            values["recipe"] = Recipe.from_json(values["recipe"])
            return cls(**values)
        except (TypeError, AttributeError) as error:  # a value of another kind altogether
            raise RunError(
                f"Protocol: expected values as compare writes them, got others ({error}). "
                "Restore the file, or choose another folder."
            ) from error

    def difference(self, other: Self) -> list[str]:
        """Return a line for each value that ``other`` has otherwise: ``recipe.epochs: 10 → 12``."""
        return list(differences(self.to_json(), other.to_json()))


def read_protocol(folder: Path) -> Protocol:
    """Read a run's protocol; raise RunError when ``folder`` holds none, or a damaged one."""
    path = folder / _FILE
    if not path.is_file():
        raise RunError(
            f"{folder}: expected a run folder with {_FILE}, got none. "
            "Give the folder that `normattn compare --out` made."
        )
    content = _files.read_json(path)
    if not isinstance(content, dict):
        raise RunError(f"{path}: expected a JSON object, got {type(content).__name__}.")
    return Protocol.from_json(content)


def write_protocol(protocol: Protocol, folder: Path) -> None:
    """Freeze the protocol in ``folder``; a folder frozen with another one is refused.

    Raises:
        RunError: the folder belongs to another protocol; the difference is shown.
    """
    if not (folder / _FILE).exists():
        _files.write_json(folder / _FILE, protocol.to_json())
        return
    difference = read_protocol(folder).difference(protocol)
    if difference:
        raise RunError(
            f"{folder}: expected the protocol that the folder was made with, got another one "
            f"({'; '.join(difference)}). Choose another folder, or repeat the first settings."
        )


def trial_folder(folder: Path, mechanism: str, seed: int) -> Path:
    """Return a trial's place in the run.

    A label that is no plain file name is cleaned and marked with its checksum, so that no label
    leaves the folder and no two share one.
    """
    clean = re.sub(r"[^a-z0-9]+", "-", mechanism.lower()).strip("-")[:60]
    if clean != mechanism:
        clean = f"{clean}-{hashlib.sha256(mechanism.encode()).hexdigest()[:8]}".lstrip("-")
    return folder / "trials" / clean / f"seed-{seed}"


def _held_equal() -> Iterator[dataclasses.Field[Any]]:
    return (f for f in dataclasses.fields(Protocol) if f.name not in ("mechanisms", "seeds"))


def _require_distinct(what: str, values: tuple[Any, ...]) -> None:
    twice = sorted({str(value) for value in values if values.count(value) > 1})
    if twice or not values:
        raise ConfigError(
            f"Protocol: expected at least one of {what}, each once, "
            f"got {', '.join(twice) + ' twice' if twice else 'none'}. Correct the list."
        )


def _plain(value: Any) -> Any:
    """Return tuples as lists and mappings as dicts, as JSON would give them back."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value
