"""Look inside trained attention: a page of gates, maps, channels and mistakes over real images."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .. import _files
from ..data import ImageData
from ..errors import ConfigError, DataError, InputError, RunError
from ..model.artifact import load, read_info
from ..training.saved import open_for
from ._inspection_images import BATCH, Look, Progress
from ._inspection_look import look_at
from ._inspection_page import IMAGES, Asked, inspection_page
from ._inspection_records import Inspected as Inspected
from .page import render_page
from .protocol import trial_folder
from .records import read_run

if TYPE_CHECKING:
    from ..data.opening import OnBadImage

NUMBERS = "gates.json"


@dataclass(frozen=True)
class Inspection:
    """What is asked.

    Args:
        data: the images, as for `open_data`; their validation split is looked at.
        images: how many are shown with maps, and how many mistakes, from 1 to 64.
        limit: look at this many validation images, a class-balanced part; None for all.
        on_bad_image: "stop" or "skip".

    Raises:
        ConfigError: a value is none of these.
    """

    data: str
    images: int = IMAGES
    limit: int | None = None
    on_bad_image: "OnBadImage" = "stop"

    def __post_init__(self) -> None:
        for what, value, most in (("images", self.images, BATCH), ("limit", self.limit, None)):
            if value is None:
                continue
            if type(value) is not int or value < 1 or (most is not None and value > most):
                rule = f"from 1 to {most}" if most else "of 1 or more"
                raise ConfigError(f"inspect: expected {what} {rule}, got {value!r}.")


@dataclass(frozen=True, eq=False)
class Inspections:
    """What came of it.

    Args:
        page: the file.
        models: what was inspected.
        missing: what is not on the page, in sentences.
    """

    page: Path
    models: tuple[Inspected, ...]
    missing: tuple[str, ...]


def inspections(
    target: Path | str,
    out: Path | str,
    inspection: Inspection,
    *,
    device: str = "auto",
    progress: Progress | None = None,
) -> Inspections:
    """Write a page on what a saved model's attention does over real images, or a run's models'.

    The numbers go to ``gates.json`` beside the page; those of a run to each trial's folder, where
    the run's report finds them. Of a run, every finished trial is measured; maps, channels and
    images are of the first seed of each mechanism.

    Args:
        target: a saved model, a training's folder, or a comparison's run folder.
        out: the page, a file whose name ends in .html.
        inspection: what is asked.
        device: ``auto``, ``cpu``, ``cuda``.
        progress: called with a plain dict an event.

    Raises:
        ArtifactError: there is no model, or it cannot be read.
        ConfigError: the data are not the model's, or ``out`` is no such name.
        DataError: the data cannot be read, or are fewer than the limit.
        InputError: a gate is NaN or infinite.
        RunError: the run has no finished trial, or a file cannot be written.
        UnsupportedModel: the model has no attention that can be looked at.
    """
    target, out = Path(target), _checked(Path(out))
    asked = Asked(
        target, inspection.data, out, inspection.images, inspection.limit,
        inspection.on_bad_image, device,
    )  # fmt: skip
    _files.make_folder(out.parent)
    tell: Progress = progress or (lambda event: None)
    work = _Work(target, inspection, device, tell)
    is_run = (target / "protocol.json").exists()
    if is_run:
        work.run()
    else:
        work.add(target.name or str(target), target, pictures=True)
    for model, folder in zip(work.models, work.folders, strict=True):
        place = (folder if is_run else out.parent) / NUMBERS
        _files.write_json(place, {"model": model.name, **model.gates.to_json()})
    document = inspection_page(work.models, work.missing, asked)
    _files.write_bytes(out, render_page(document).encode(errors="replace"))
    return Inspections(out, tuple(work.models), document.missing)


class _Work:
    """One call of `inspections`: models one after the other, the data opened once."""

    def __init__(self, target: Path, asked: Inspection, device: str, progress: Progress) -> None:
        self.target, self.asked, self.device, self.progress = target, asked, device, progress
        self.models: list[Inspected] = []
        self.folders: list[Path] = []
        self.missing: list[str] = []
        self._opened: dict[str, ImageData] = {}

    def run(self) -> None:
        """Look at every finished trial; what cannot be looked at is said."""
        seen: set[str] = set()
        for trial in read_run(self.target).trials:
            if trial.status != "done":
                self.missing.append(f"{trial.name}: not inspected, its training is {trial.status}.")
                continue
            folder = trial_folder(self.target, trial.mechanism, trial.seed)
            try:
                if not read_info(folder).grafts:
                    self.missing.append(f"{trial.name}: no attention, so nothing to inspect.")
                    continue
                self.add(trial.name, folder, pictures=trial.mechanism not in seen)
                seen.add(trial.mechanism)
            except (DataError, ConfigError):  # the same for all models, and the user's to mend
                raise
            except InputError as error:
                self.missing.append(f"{trial.name}: not inspected. {error}")
        if not self.models:
            reasons = " ".join(self.missing[:2]) or "It has no trials."
            raise RunError(
                f"{self.target}: expected a run with a finished trial that has attention, got "
                f"none. {reasons}"
            )

    def add(self, name: str, path: Path, *, pictures: bool) -> None:
        """Look at one model."""
        data = self._data(path)
        look = Look(data, self.device, self.asked.limit, self.asked.images, self.progress)
        found = look_at(load(path), name, look, pictures=pictures)
        self.models.append(found)
        self.folders.append(path if path.is_dir() else path.parent)
        self.missing += [f"{name}: {note}" for note in found.notes]

    def _data(self, path: Path) -> ImageData:
        """Open the images as this model takes them; models that take them alike share them."""
        info = read_info(path)
        key = json.dumps([info.preprocessing, info.classes], sort_keys=True)
        if key not in self._opened:
            bad = self.asked.on_bad_image
            self._opened[key] = open_for("inspect", path, self.asked.data, on_bad_image=bad)
        data, limit = self._opened[key], self.asked.limit
        if limit is not None and limit > len(data.val):
            raise DataError(
                f"inspect: expected a limit of at most the {len(data.val)} validation images of "
                f"{data.spec}, got {limit}. Lower it, or leave it out."
            )
        return data


def _checked(out: Path) -> Path:
    if out.suffix.lower() not in (".html", ".htm") or out.is_dir():
        raise ConfigError(
            f"inspect: expected out to be a page, a name that ends in .html, got {str(out)!r}. "
            "Name the file."
        )
    return out
