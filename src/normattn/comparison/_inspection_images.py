"""The images that a model is looked at with: which, how they come, what it makes of them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..data import Batch, ImageData, to_float
from ..data.augment import AUGMENTS
from ..data.source import class_rounds
from ..model._fold_images import like
from ._inspection_records import Guess

BATCH = 64
Progress = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, eq=False)
class Look:
    """How a model is looked at.

    Args:
        data: images as the model takes them.
        device: ``auto``, ``cpu``, ``cuda``.
        limit: validation images, a class-balanced part; None for all.
        images: with maps, and mistakes to show.
        progress: called with a plain dict an event.
    """

    data: ImageData
    device: str
    limit: int | None
    images: int
    progress: Progress

    def chosen(self) -> Tensor:
        """Return the places of the validation images that are looked at."""
        order = class_rounds(self.data.val.labels.numpy(), "inspect")
        return torch.from_numpy(np.sort(order[: self.limit]))

    def shown(self, count: int) -> Tensor:
        """Return the places of images to show, of as many classes as there are."""
        order = class_rounds(self.data.val.labels.numpy(), "inspect")
        return torch.from_numpy(order[:count].copy())

    def batches(self, which: Tensor) -> Iterator[Batch]:
        """Yield the images at these places, unaugmented."""
        return self.data.val.read(torch.split(which, BATCH), AUGMENTS["none"], 0, 0, None)

    def inputs(self, images: Tensor, model: nn.Module) -> Tensor:
        """Return images as the model takes them."""
        near = like(model)
        data = self.data
        return to_float(images, data.mean, data.std, dtype=near.dtype, device=near.device)


def guesses(
    batch: Batch, probabilities: Tensor, classes: tuple[str, ...], which: Tensor
) -> Iterator[Guess]:
    """Yield what a model makes of some images of a batch."""
    best = probabilities.max(1)
    for row in which.tolist():
        yield Guess(
            place=int(batch.indices[row]),
            pixels=batch.images[row],
            truth=classes[int(batch.labels[row])],
            predicted=classes[int(best.indices[row])],
            probability=float(best.values[row]),
        )
