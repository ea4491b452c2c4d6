"""What `normattn salience` has measured: one JSON file, and a file a criterion for its scores.

::

    FOLDER/salience.json           the run's identity, its groups, and a point an evaluation
    FOLDER/scores/<criterion>.json what the criterion said of each channel
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import _files
from ..errors import RunError
from ..model.salience import Salience
from ..training.identity import differences

FORMAT = 1
RECORD = "salience.json"
LEAST, MOST, RANDOM = "least-first", "most-first", "random"


@dataclass(frozen=True)
class Point:
    """One evaluation: how well the model does with these channels removed.

    Args:
        order: `LEAST`, `MOST` or `RANDOM`; "" for the whole model.
        criterion: whose order it is; None for random orders and the whole model.
        scope: the place in `RemovalRecords.scopes` of the groups that channels are removed from.
        draw: which random order.
        fraction: of each group's channels, as asked for.
        removed: of all channels of the scope, as it came out in whole channels.
        accuracy: top-1, in percent.
        loss: mean cross-entropy; None where it is no finite number.
    """

    order: str
    criterion: str | None
    scope: int | None
    draw: int | None
    fraction: float
    removed: float
    accuracy: float
    loss: float | None

    @property
    def key(self) -> tuple[object, ...]:
        """What is computed once."""
        return (self.order, self.criterion, self.scope, self.draw, self.fraction)


@dataclass
class RemovalRecords:
    """A run's measurements, all there is to its table and its picture.

    Args:
        run: what makes it this run: weights, data, settings.
        about: facts on model, data and software, to be shown.
        groups: width by name.
        refused: layers whose channels cannot be removed, with the reason.
        inexact: where zeros are not removal (see `inexact`).
        scopes: names of groups; points say from which of these sets channels were removed.
        criteria: by name: the place of its scope, the groups it is silent about.
        left_out: criteria that have nothing to rank here, with the reason.
        points: in the order in which they were measured.
    """

    run: dict[str, Any]
    about: dict[str, Any]
    groups: dict[str, int] = field(default_factory=dict)
    refused: list[list[str]] = field(default_factory=list)
    inexact: list[str] = field(default_factory=list)
    scopes: list[list[str]] = field(default_factory=list)
    criteria: dict[str, dict[str, Any]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)

    @property
    def whole(self) -> float:
        """The whole model's accuracy."""
        return next(point.accuracy for point in self.points if not point.order)

    def scope(self, names: list[str]) -> int:
        """Return the place of a set of groups, which is added if it is new."""
        if names not in self.scopes:
            self.scopes.append(names)
        return self.scopes.index(names)

    def curve(
        self, order: str, criterion: str | None, scope: int | None, draw: int | None
    ) -> list[Point]:
        """Return the points of one order by fraction, without that of the whole model."""
        wanted = (order, criterion, scope, draw)
        return sorted((p for p in self.points if p.key[:4] == wanted), key=lambda p: p.fraction)

    def write(self, folder: Path) -> None:
        """Write the record, atomically."""
        _files.write_json(folder / RECORD, {"format": FORMAT, **asdict(self)})


def read_removal(folder: Path | str) -> RemovalRecords:
    """Read what a folder of `normattn salience` holds, finished or not.

    Raises:
        RunError: there is no such record, or it is damaged or of a later version.
    """
    path = Path(folder) / RECORD
    if not path.exists():
        raise RunError(
            f"{folder}: expected a folder with {RECORD}, got none in it. "
            "Give a folder that `normattn salience` made."
        )
    content = _files.read_json(path)
    version = content.pop("format", None) if isinstance(content, dict) else None
    try:
        if version != FORMAT:
            raise TypeError(f"format {version!r}")
        points = [Point(**point) for point in content.pop("points")]
        return RemovalRecords(points=points, **content)
    except (KeyError, TypeError, AttributeError) as error:
        raise RunError(
            f"{path}: expected a record of format {FORMAT}, got something else ({error}). Restore "
            "the file, or choose another folder."
        ) from error


def open_removal(folder: Path, run: Mapping[str, Any], about: Mapping[str, Any]) -> RemovalRecords:
    """Return the folder's record to go on with, or a new one.

    Raises:
        RunError: the folder holds another run, or something else altogether.
    """
    if not (folder / RECORD).exists():
        strangers = sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))
        if strangers:
            raise RunError(
                f"{folder}: expected an empty folder, or one that `normattn salience` made, got "
                f"one with {', '.join(strangers[:3])}. Choose another folder."
            )
        return RemovalRecords(dict(run), dict(about))
    records = read_removal(folder)
    lines = list(differences(records.run, run))
    if lines:
        raise RunError(
            f"{folder}: expected the run that the folder was made for, got another one "
            f"({'; '.join(lines)}). Choose another folder, or repeat the first settings."
        )
    return records


def saved_salience(folder: Path, criterion: str) -> Salience | None:
    """Return what a criterion said when the run began, which may depend on the machine's rounding.

    Raises:
        RunError: the file is damaged.
    """
    path = _scores(folder, criterion)
    if not path.exists():
        return None
    try:
        return Salience.from_json(_files.read_json(path))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(
            f"{path}: expected the scores of {criterion}, got something else ({error}). Remove the "
            "whole folder, or choose another."
        ) from error


def save_salience(folder: Path, salience: Salience) -> None:
    """Keep what a criterion said."""
    path = _scores(folder, salience.criterion)
    _files.make_folder(path.parent)
    _files.write_json(path, salience.to_json())


def digest(model: nn.Module) -> str:
    """Return the SHA-256 of a model's weights and their names."""
    found = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def _scores(folder: Path, criterion: str) -> Path:
    return folder / "scores" / f"{criterion}.json"
