"""What every source hands over: the images of two splits, not yet decoded, and their labels."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ..errors import DataError
from . import keyed
from .decode import decode


class Pictures(Protocol):
    """Encoded images by position; must pickle, because worker processes read from it."""

    def name(self, position: int) -> str:
        """Return what an error message calls this image: a path, or a shard and a row."""
        ...

    def open(self, position: int) -> Image.Image:
        """Read the header; decode nothing."""
        ...

    def stamp(self, position: int) -> str:
        """Return what tells this image from a later version, wherever the folder is moved."""
        ...


@dataclass(frozen=True, eq=False)
class Rows:
    """Some of ``pictures``, each with its label.

    Args:
        pictures: the encoded images.
        positions: which of them, int64 (N,).
        labels: the class of each, int64 (N,).
    """

    pictures: Pictures
    positions: NDArray[np.int64]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.positions)

    def select(self, chosen: NDArray[np.int64]) -> "Rows":
        """Return the rows at ``chosen``, in that order."""
        return Rows(self.pictures, self.positions[chosen], self.labels[chosen])

    def name(self, row: int) -> str:
        """Return what an error message calls the image in ``row``."""
        return self.pictures.name(int(self.positions[row]))

    def open(self, row: int) -> Image.Image:
        """Read the header of the image in ``row``."""
        return self.pictures.open(int(self.positions[row]))

    def stamp(self, row: int) -> str:
        """Return what tells the image in ``row`` from a later version of it."""
        return self.pictures.stamp(int(self.positions[row]))

    def decode(self, row: int, mode: str) -> Image.Image:
        """Return the image in ``row``, upright, 8 bits a channel; raise DataError with its name."""
        return decode(lambda: self.open(row), self.name(row), mode)


@dataclass(frozen=True, eq=False)
class Source:
    """A data set as found: two splits, the class names, and what a reader of the record must know.

    Args:
        train: the training split.
        val: the split that is only evaluated.
        classes: the name of each label.
        channels: 3 (RGB), or 1 where the source is gray by nature.
        natural: whether a mirrored image is as good as the original (not so for digits).
        notes: sentences for the record, such as "train: 1 of 5 shards".
    """

    train: Rows
    val: Rows
    classes: tuple[str, ...]
    channels: int = 3
    natural: bool = True
    notes: tuple[str, ...] = ()


def class_rounds(labels: NDArray[np.int64], *parts: int | str) -> NDArray[np.int64]:
    """Return an order of the samples whose every prefix is as class-balanced as the data allow.

    The samples of each class are shuffled by the key ``parts``; the order takes one of each class
    (classes shuffled too), then a second of each, and so on. A class that runs out is passed over.
    """
    shuffled = keyed.permutation(len(labels), *parts).numpy()
    classes, compact = np.unique(labels[shuffled], return_inverse=True)
    by_class = np.argsort(compact, kind="stable")
    sizes = np.bincount(compact, minlength=len(classes))
    rounds = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    turn = keyed.permutation(len(classes), *parts, "classes").numpy()
    order = np.lexsort((turn[compact[by_class]], rounds))
    chosen: NDArray[np.int64] = shuffled[by_class[order]]
    return chosen


def check_same_classes(who: str, train: tuple[str, ...], val: tuple[str, ...]) -> None:
    """Raise DataError, naming the classes, unless both splits have the same ones in one order."""
    if train == val:
        return
    only_train, only_val = sorted(set(train) - set(val)), sorted(set(val) - set(train))
    parts = [
        f"{', '.join(map(repr, names[:10]))}{', ...' if len(names) > 10 else ''} only in {split}"
        for split, names in (("train", only_train), ("val", only_val))
        if names
    ]
    raise DataError(
        f"{who}: expected the same classes in both splits, got "
        f"{' and '.join(parts) or 'another order'}. Rename or complete them."
    )


def check_labels(who: str, rows: Rows, count: int) -> None:
    """Raise DataError, naming the first wrong row, unless all labels are below ``count``."""
    wrong = np.flatnonzero((rows.labels < 0) | (rows.labels >= count))
    if len(wrong):
        row = int(wrong[0])
        raise DataError(
            f"{who}: expected labels from 0 to {count - 1}, got {rows.labels[row]} at "
            f"{rows.name(row)}. Correct the label."
        )


def to_tensor(labels: NDArray[np.int64]) -> torch.Tensor:
    """Return labels as an int64 tensor."""
    return torch.from_numpy(np.ascontiguousarray(labels, dtype=np.int64))
