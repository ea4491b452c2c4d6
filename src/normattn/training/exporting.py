"""A saved model and a data set on their way to `normattn.export`."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from ..data import ImageData, keyed, to_float
from ..data.augment import AUGMENTS
from ..model._predict import attached
from ..model.export import CALIBRATION_IMAGES, ExportReport, export

_AT_ONCE = 128


class Normalised:
    """A split's images as a model takes them, unaugmented, as often as they are read.

    Args:
        data: the open data set, with the mean and the deviation that the model was trained with.
        split: "val" or "train".
        images: how many, drawn by a key of their own (a split may be sorted by class); all by
            default.
    """

    def __init__(self, data: ImageData, split: str, images: int | None = None) -> None:
        self._data, self._split = data, data.train if split == "train" else data.val
        count = len(self._split)
        self._places = torch.arange(count)
        if images is not None and images < count:
            self._places = keyed.permutation(count, "calibration")[:images].sort().values

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        batches = torch.split(self._places, _AT_ONCE)
        for batch in self._split.read(batches, AUGMENTS["none"], 0, 0, None):
            yield to_float(batch.images, self._data.mean, self._data.std), batch.labels


def export_with(
    model: nn.Module,
    path: Path | str,
    data: ImageData,
    to: str = "onnx",
    *,
    int8: bool = False,
    tolerance: float | None = None,
) -> ExportReport:
    """Export a model, checked on the validation split; ranges are those of the training split.

    Args:
        model: a classifier of the classes of ``data``, as `normattn.load` gives it.
        path: as for `normattn.export`.
        data: the open data set, normalised as for the model's training.
        to: as for `normattn.export`.
        int8: likewise.
        tolerance: likewise.

    Raises:
        InputError: as `normattn.export` does.
        Fault: the file's outputs are not the model's.
    """
    loaded = attached(model)
    ranges = int8 or tolerance is not None
    known = loaded is not None and loaded.given is not None  # to `export`, with crop and all
    return export(
        model,
        path,
        to,
        int8=int8,
        data=Normalised(data, "val"),
        calibration=Normalised(data, "train", CALIBRATION_IMAGES) if ranges else None,
        tolerance=tolerance,
        classes=data.classes,
        preprocessing=None
        if known
        else {
            "input_size": [data.channels, *data.size],
            "mean": list(data.mean),
            "std": list(data.std),
        },
    )
