"""The two ways a split is kept: small images decoded once, large ones read by worker processes."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from ..errors import ConfigError, DataError, Fault
from . import keyed
from .augment import DRAWS, Augment
from .source import Rows, to_tensor

EVAL_MARGIN = 0.0625  # of each side: the centre 87.5 %, as ImageNet models are evaluated


class Batch(NamedTuple):
    """Images uint8 (B, C, H, W), labels int64 (B,), and the samples' places in the split (B,)."""

    images: Tensor
    labels: Tensor
    indices: Tensor


class Split(Protocol):
    """Samples that can be read in any order."""

    @property
    def labels(self) -> Tensor:
        """The class of each sample, int64 (N,)."""
        ...

    def __len__(self) -> int: ...

    def read(
        self, places: Iterable[Tensor], augment: Augment, seed: int, epoch: int, workers: int | None
    ) -> Iterator[Batch]:
        """Yield one batch for each tensor of places, in that order."""
        ...


@dataclass(frozen=True, eq=False)
class MemorySplit:
    """Small images: one uint8 tensor (N, C, H, W), augmented a batch at a time."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def read(
        self, places: Iterable[Tensor], augment: Augment, seed: int, epoch: int, workers: int | None
    ) -> Iterator[Batch]:
        """Yield batches; ``workers`` is not needed, a batch takes about a millisecond."""
        if augment.resized_crop:
            raise ConfigError(
                "MemorySplit: expected an augmentation for images decoded once (none, pad-crop, "
                "pad-crop-flip), got resized-crop-flip. Choose one, or a larger image_size."
            )
        return (self._batch(indices, augment, seed, epoch) for indices in places)

    def _batch(self, indices: Tensor, augment: Augment, seed: int, epoch: int) -> Batch:
        draws = keyed.uniforms(indices, DRAWS, seed, "augment", epoch)
        images = augment.apply(self.images[indices], draws)
        return Batch(images, self.labels[indices], indices)


@dataclass(frozen=True, eq=False)
class LazySplit:
    """Large images: decoded, cropped and resized by worker processes when a batch needs them."""

    rows: Rows
    size: int
    mode: str = "RGB"
    margin: float = EVAL_MARGIN  # as `fit` takes it, of images that are not augmented
    method: Image.Resampling = Image.Resampling.BILINEAR

    @property
    def labels(self) -> Tensor:
        """The class of each sample, int64 (N,)."""
        return to_tensor(self.rows.labels)

    def __len__(self) -> int:
        return len(self.rows)

    def read(
        self, places: Iterable[Tensor], augment: Augment, seed: int, epoch: int, workers: int | None
    ) -> Iterator[Batch]:
        """Yield batches made by ``workers`` processes; None is one a core, 0 is this process."""
        if augment.pad_crop:
            raise ConfigError(
                "LazySplit: expected an augmentation for images decoded when needed (none, "
                "resized-crop-flip), got one that pads and crops. Choose one, or image_size ≤ 64."
            )
        return self._load(list(places), augment, seed, epoch, workers)

    def _load(
        self, places: list[Tensor], augment: Augment, seed: int, epoch: int, workers: int | None
    ) -> Iterator[Batch]:
        workers = min(default_workers() if workers is None else workers, len(places))
        # the row that each worker is decoding, so that a crash of the decoder names the file
        slots = torch.full((max(workers, 1),), -1)
        slots.share_memory_()  # type: ignore[no-untyped-call]
        decoded = _Decoded(self, augment, seed, epoch, slots)
        loader = DataLoader(decoded, batch_size=None, sampler=places, num_workers=workers)
        try:
            for batch in loader:
                if isinstance(batch, DataError):
                    raise batch
                yield batch
        except RuntimeError as error:
            if "exited unexpectedly" not in str(error):
                raise
            names = ", ".join(self.rows.name(row) for row in slots.tolist() if row >= 0)
            raise Fault(
                f"LazySplit: expected worker processes to survive, got {error} while reading "
                f"{names or 'no image'}. Check these files, or the machine's memory (/dev/shm too)."
            ) from error


class _Decoded(Dataset[Batch | DataError]):
    """Batches by their places. Errors are returned: a DataLoader would wrap them in a traceback."""

    def __init__(
        self, split: LazySplit, augment: Augment, seed: int, epoch: int, slots: Tensor
    ) -> None:
        self.split, self.augment, self.slots = split, augment, slots
        self.seed, self.epoch = seed, epoch

    def __getitem__(self, indices: Tensor) -> Batch | DataError:
        try:
            images = torch.stack([self._image(row) for row in indices.tolist()])
        except DataError as error:
            return error
        return Batch(images, self.split.labels[indices], indices)

    def _image(self, row: int) -> Tensor:
        worker = get_worker_info()
        slot = worker.id if worker else 0
        self.slots[slot] = row
        image = self.split.rows.decode(row, self.split.mode)
        if self.augment.resized_crop:
            with keyed.seeded(self.seed, "augment", self.epoch, row):
                image = self.augment.apply_original(image, self.split.size)
        else:
            image = fit(image, self.split.size, self.split.margin, self.split.method)
        self.slots[slot] = -1
        return pixels(image)


def fit(
    image: Image.Image,
    size: int | tuple[int, int],
    margin: float = 0.0,
    method: Image.Resampling = Image.Resampling.BILINEAR,
) -> Image.Image:
    """Return the centre of ``image``, less ``margin`` of each side, resized.

    Args:
        image: Any image.
        size: The side of a square, or (width, height), in pixels.
        margin: The share of the height and of the width that is cut off on each side.
        method: How it is resized.
    """
    wanted = (size, size) if isinstance(size, int) else size
    if image.size == wanted and not margin:
        return image
    return ImageOps.fit(image, wanted, method, bleed=margin)


def pixels(image: Image.Image) -> Tensor:
    """Return an 8-bit image as uint8 (C, H, W)."""
    values = np.asarray(image)
    channels_first = values[None] if values.ndim == 2 else values.transpose(2, 0, 1)
    return torch.from_numpy(np.array(channels_first, order="C"))


def default_workers() -> int:
    """Return how many worker processes this process may start: its cores, at most 16."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(cores or 1, 16)
