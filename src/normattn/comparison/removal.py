"""Does a criterion know which channels matter? Remove them in its order, and see what is left.

Channels are removed without fine-tuning: the least salient first, the most salient first, and in
random order. If the scores mean something, the first curve lies above the third, and that above
the second. Removal is by zeros (`_removal_mask.py`), the same fraction in every group.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from .. import _files
from ..data import ImageData
from ..errors import ConfigError, DataError, unknown
from ..model.fuse import plain
from ..model.salience import CRITERIA
from ._removal_records import RemovalRecords as RemovalRecords
from ._removal_records import read_removal as read_removal
from ._removal_run import Run, balanced
from ._removal_summary import Row as Row
from ._removal_summary import summarise_removal as summarise_removal

if TYPE_CHECKING:
    from ..model._groups import Groups
    from ._removal_report import missing as missing
    from ._removal_report import removal_table as removal_table
    from ._removal_report import write_removal as write_removal

SCOPES = ("own", "common")
#: Without fine-tuning a trained network is soon at chance: most of them lie where it is not yet.
FRACTIONS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9)


@dataclass(frozen=True)
class Removal:
    """What is asked: which criteria, on how many images, against how many random orders.

    Args:
        criteria: names of `CRITERIA`; () for all that have something to rank in the model.
        images: validation images to evaluate on, a class-balanced part; None for all.
        calibration: training images that "taylor" and "gate" look at.
        draws: random orders, whose spread tells what is chance.
        scope: "own" removes channels from the groups that a criterion itself ranks; "common" from
            those alone that every chosen criterion ranks, so that the criteria can be compared.
        fractions: of each group's channels, ascending, between 0 and 1.
        seed: of the random orders, of the criterion "random", and of the parts of the data.

    Raises:
        ConfigError: a value is none of these.
    """

    criteria: tuple[str, ...] = ()
    images: int | None = None
    calibration: int = 512
    draws: int = 5
    scope: str = "own"
    fractions: tuple[float, ...] = FRACTIONS
    seed: int = 0

    def __post_init__(self) -> None:
        for name in self.criteria:
            if name not in CRITERIA:
                raise ConfigError(unknown("salience", "criterion", name, CRITERIA))
        if self.scope not in SCOPES:
            raise ConfigError(unknown("salience", "scope", self.scope, SCOPES))
        for what, number in (
            ("limit", self.images), ("calibration", self.calibration), ("draws", self.draws)
        ):  # fmt: skip
            if number is not None and (type(number) is not int or number < 1):
                raise ConfigError(f"salience: expected {what} of 1 or more, got {number!r}.")
        ascending = list(self.fractions) == sorted(set(self.fractions))
        if not self.fractions or not ascending or not all(0 < f < 1 for f in self.fractions):
            raise ConfigError(
                "salience: expected fractions between 0 and 1 in ascending order, got "
                f"{', '.join(map(str, self.fractions)) or 'none'}."
            )


def removal_curves(
    model: nn.Module,
    data: ImageData,
    folder: Path | str,
    removal: Removal | None = None,
    *,
    groups: "Groups | None" = None,
    device: str = "auto",
    progress: Callable[[Mapping[str, Any]], None] | None = None,
) -> RemovalRecords:
    """Measure accuracy against the fraction of channels removed; each point is measured once.

    A run that was cut short goes on where it stopped; criteria can be added to a finished one.

    Args:
        model: a trained classifier, which is left as it was, on ``device``.
        data: the images that it was trained on, with its own mean and deviation.
        folder: where the record is kept: empty, or of the same run.
        removal: what is asked.
        groups: the model's groups, if they are already found.
        device: ``auto``, ``cpu``, ``cuda``.
        progress: called with a plain dict an event.

    Raises:
        ConfigError: other classes than the model's outputs, or nothing to rank.
        DataError: fewer validation images than asked for.
        RunError: the folder is another run's, in use, or cannot be written.
        UnsupportedModel: the model's groups cannot be found.
    """
    removal = removal or Removal()
    data = _limited(data, removal.images)
    folder = Path(folder)
    with _files.folder_lock(folder), plain(model):
        return Run(model, data, folder, removal, groups, device, progress).run()


def _limited(data: ImageData, images: int | None) -> ImageData:
    if images is None:
        return data
    if images > len(data.val):
        raise DataError(
            f"salience: expected a limit of at most the {len(data.val)} validation images of "
            f"{data.spec}, got {images}. Lower it, or leave it out."
        )
    return replace(data, val=balanced(data.val, images))


def __getattr__(name: str) -> Any:
    # Measuring needs no matplotlib; only what shows the result does.
    if name in ("missing", "removal_table", "write_removal"):
        from . import _removal_report

        return getattr(_removal_report, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
