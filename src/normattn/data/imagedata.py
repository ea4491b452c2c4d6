"""An open data set and the facts about it that a record must hold."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from . import keyed
from .augment import AUGMENTS
from .splits import LazySplit, MemorySplit, Split

_SAMPLE = 1024  # training images that mean and std of a lazy split are estimated from
_CHUNK = 128


@dataclass(frozen=True, eq=False)
class ImageData:
    """A data set that is open: two splits, and what they are.

    Args:
        spec: what ``open_data`` was given.
        train: the training split.
        val: the evaluation split.
        classes: the name of each label.
        channels: 1 or 3.
        size: height and width in pixels.
        mean: per channel, of training pixels in [0, 1].
        std: likewise; at least 1/255, so that a constant channel stays finite.
        skipped: the bad images left out, by name.
        train_limit: the size that the training split was cut to, or None.
        natural: whether mirrored images are as good as the originals.
        notes: sentences that belong into every record.
        fingerprint: SHA-256 over labels and pixels (over names and lengths if decoded lazily).
    """

    spec: str
    train: Split
    val: Split
    classes: tuple[str, ...]
    channels: int
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    skipped: tuple[str, ...]
    train_limit: int | None
    natural: bool
    notes: tuple[str, ...]
    fingerprint: str

    @property
    def default_augment(self) -> str:
        """The augmentation that suits these images, a name in ``AUGMENTS``."""
        if not self.natural:
            return "pad-crop"
        return "resized-crop-flip" if isinstance(self.train, LazySplit) else "pad-crop-flip"

    def describe(self) -> dict[str, Any]:
        """Return everything about the data that a record must hold, JSON-able."""
        per_class = torch.bincount(self.train.labels, minlength=len(self.classes))
        return {
            "spec": self.spec,
            "train": len(self.train),
            "val": len(self.val),
            "train_limit": self.train_limit,
            "train_per_class": [int(per_class.min()), int(per_class.max())],
            "classes": list(self.classes),
            "channels": self.channels,
            "size": list(self.size),
            "mean": list(self.mean),
            "std": list(self.std),
            "skipped": list(self.skipped),
            "notes": list(self.notes),
            "fingerprint": self.fingerprint,
        }


def statistics(train: Split) -> tuple[tuple[float, ...], tuple[float, ...], tuple[str, ...]]:
    """Return mean and std per channel of pixels in [0, 1], and a note where they are estimates.

    Exact, by sums of integers, for images in memory; from a fixed sample for lazy ones.
    """
    notes: tuple[str, ...] = ()
    places = torch.arange(len(train))
    if isinstance(train, LazySplit) and len(train) > _SAMPLE:
        places = keyed.permutation(len(train), "statistics")[:_SAMPLE].sort().values
        notes = (f"mean and std: estimated from {_SAMPLE} of {len(train)} training images",)
    batches = train.read(torch.split(places, _CHUNK), AUGMENTS["none"], 0, 0, None)
    return *_moments(batch.images for batch in batches), notes


def _moments(chunks: Iterable[Tensor]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    count = 0
    total: Tensor | int = 0
    squares: Tensor | int = 0
    for chunk in chunks:
        values = chunk.to(torch.int32)
        count += values[:, 0].numel()
        total = total + values.sum((0, 2, 3), dtype=torch.int64)
        squares = squares + (values * values).sum((0, 2, 3), dtype=torch.int64)
    mean = torch.as_tensor(total).double() / count
    variance = torch.as_tensor(squares).double() / count - mean**2
    std = variance.clamp(min=1).sqrt()  # at least one grey level
    return tuple((mean / 255).tolist()), tuple((std / 255).tolist())


def fingerprint(*splits: Split) -> str:
    """Return the SHA-256 of labels and pixels, or of labels, names and lengths of lazy splits."""
    digest = hashlib.sha256()
    for split in splits:
        digest.update(split.labels.numpy().astype("<i8").tobytes())
        if isinstance(split, MemorySplit):
            digest.update(split.images.contiguous().numpy().data)
        elif isinstance(split, LazySplit):
            for row in range(len(split)):
                digest.update(f"{split.rows.stamp(row)}\n".encode())
    return digest.hexdigest()
