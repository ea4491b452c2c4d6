"""The page of an inspection: what is said first, the sections, and with what it was made."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..model._gates_record import NARROW
from ..training.distributed import choose_device
from ..training.provenance import commit, machine, versions
from ._inspection_records import Inspected
from ._inspection_sections import sections
from ._inspection_shown import Room
from .facts import _pairs
from .page import Document, Facts, Lines, Section

IMAGES = 8  # that are shown unless somebody asks for more
_SHOWN = 5  # bad images that are named


@dataclass(frozen=True)
class Asked:
    """What the page is of, for the command that does it again.

    Args:
        target: the model or run.
        data: the images.
        out: the page.
        images: how many are shown.
        limit: how many are looked at; None for all.
        on_bad_image: "stop" or "skip".
        device: as it was given.
    """

    target: Path
    data: str
    out: Path
    images: int
    limit: int | None
    on_bad_image: str
    device: str

    @property
    def command(self) -> str:
        """The command line."""
        words = ["normattn", "inspect", str(self.target), "--data", self.data]
        words += ["--out", str(self.out)]
        words += ["--images", str(self.images)] if self.images != IMAGES else []
        words += ["--limit", str(self.limit)] if self.limit is not None else []
        words += ["--on-bad-image", "skip"] if self.on_bad_image == "skip" else []
        return shlex.join(words)


def inspection_page(models: Sequence[Inspected], missing: Sequence[str], asked: Asked) -> Document:
    """Return the page.

    Args:
        models: one at least.
        missing: what could not be inspected, in sentences.
        asked: what it is of.
    """
    room, first = Room(), models[0]
    found = sections(models, room)
    said = [*missing, *_skipped(first.data)]
    if room.refused:
        said.append(f"{room.refused} pictures have no room on this page: ask for fewer images.")
    mechanisms = ", ".join(dict.fromkeys(model.gates.mechanism for model in models))
    images = f"{first.data['images']:,} validation images of {asked.data}"
    return Document(
        title=f"Inside {asked.target.resolve().name}",
        kind="inspection of attention",
        verdict=first.summary if len(models) == 1 else _verdict(models),
        about=f"{mechanisms} · {images}",
        missing=tuple(dict.fromkeys(said)),
        sections=(*_one_by_one(models), *found, _made_with(first, asked)),
        command=asked.command,
    )


def _verdict(models: Sequence[Inspected]) -> tuple[str, ...]:
    """Return what is true of several models together."""
    flat = sum(all(site.width < NARROW for site in model.gates.sites) for model in models)
    shares = [100 * model.held.changed / model.held.images for model in models]
    return (
        f"In {flat} of {len(models)} models all gates are nearly constant.",
        f"With every gate held at its mean, {min(shares):.1f} to {max(shares):.1f} % of a model's "
        "predictions change.",
    )


def _one_by_one(models: Sequence[Inspected]) -> tuple[Section, ...]:
    """Return, of several models, what the gates of each do."""
    if len(models) == 1:
        return ()
    items = tuple(Lines(model.name, model.summary) for model in models)
    return (Section("models", "Model by model", "", items),)


def _made_with(first: Inspected, asked: Asked) -> Section:
    data = {key: first.data[key] for key in ("spec", "val", "size", "mean", "std")}
    pairs: dict[str, Any] = {"model": str(asked.target), **data}
    pairs["images looked at"] = first.data["images"]
    made: dict[str, Any] = {"versions": versions(), "commit": commit()}
    made["machine"] = machine(choose_device(asked.device))
    items: tuple[Facts | Lines, ...] = (
        Facts("Model and data", tuple(_pairs(pairs))),
        Facts("Software and hardware", tuple(_pairs(made))),
    )
    if first.data["notes"]:
        items = (*items, Lines("Notes on the data", tuple(first.data["notes"])))
    return Section("made-with", "What this was made with", "", items)


def _skipped(data: Mapping[str, Any]) -> list[str]:
    names = data["skipped"]
    if not names:
        return []
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    count = f"{len(names)} bad images were" if len(names) > 1 else "One bad image was"
    return [f"{count} left out: {', '.join(names[:_SHOWN])}{more}."]
