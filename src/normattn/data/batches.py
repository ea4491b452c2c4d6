"""Batches in a keyed order: the same for every mechanism, resumable at any batch."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ..errors import ConfigError, unknown
from . import keyed
from .augment import AUGMENTS
from .splits import Batch, Split


def steps_per_epoch(split: Split, batch_size: int) -> int:
    """Return how many whole global batches ``split`` holds; raise ConfigError if not one."""
    if not 1 <= batch_size <= len(split):
        raise ConfigError(
            f"train_batches: expected a batch size from 1 to the {len(split)} training images, "
            f"got {batch_size}. Choose another."
        )
    return len(split) // batch_size


def train_batches(
    split: Split,
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    augment: str,
    start: int = 0,
    rank: int = 0,
    world: int = 1,
    workers: int | None = None,
) -> Iterator[Batch]:
    """Yield the batches of one epoch, from batch ``start`` on.

    The order is a function of (seed, epoch), the augmentation of (seed, epoch, sample): neither
    depends on batch size, workers, ranks, or on what was read before. The last incomplete batch is
    dropped, so ``len(split) % batch_size`` samples, other ones each epoch, sit an epoch out.

    Args:
        split: the training split.
        batch_size: samples in a global batch, over all ranks.
        seed: the key of order and augmentation.
        epoch: the other key.
        augment: a name in ``AUGMENTS``.
        start: how many batches of the epoch are already done.
        rank: this process; it gets samples rank, rank + world, ... of each global batch.
        world: the number of processes; must divide ``batch_size``.
        workers: processes for images that are decoded when needed; None is one a core.

    Raises:
        ConfigError: an argument is out of range or ``augment`` unknown.
        DataError: an image cannot be decoded; names the file.
    """
    if augment not in AUGMENTS:
        raise ConfigError(unknown("train_batches", "augmentation", augment, AUGMENTS))
    steps = steps_per_epoch(split, batch_size)
    _check_ranks(rank, world)
    if batch_size % world:
        raise ConfigError(
            f"train_batches: expected a batch size that {world} processes share equally, got "
            f"{batch_size}. Choose a multiple of {world}."
        )
    if not 0 <= start <= steps:
        raise ConfigError(
            f"train_batches: expected a start from 0 to the epoch's {steps} batches, got {start}."
        )
    order = keyed.permutation(len(split), seed, "order", epoch)
    places = torch.split(order[start * batch_size : steps * batch_size], batch_size)
    mine = [batch[rank::world] for batch in places if len(batch)]
    return split.read(mine, AUGMENTS[augment], seed, epoch, workers)


def eval_batches(
    split: Split, *, batch_size: int, rank: int = 0, world: int = 1, workers: int | None = None
) -> Iterator[Batch]:
    """Yield every sample of ``split`` exactly once over all ranks, in order, unaugmented.

    The last batch may be smaller, and a rank that has no sample of it yields one batch less.
    Raises ConfigError for an argument out of range, DataError for an image that cannot be decoded.
    """
    if batch_size < 1:
        raise ConfigError(f"eval_batches: expected a batch size of 1 or more, got {batch_size}.")
    _check_ranks(rank, world)
    places = (batch[rank::world] for batch in torch.split(torch.arange(len(split)), batch_size))
    mine = [batch for batch in places if len(batch)]
    return split.read(mine, AUGMENTS["none"], 0, 0, workers)


def to_float(
    images: Tensor,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    *,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
    device: torch.device | str | None = None,
) -> Tensor:
    """Return ``(images / 255 - mean) / std`` on ``device``; the bytes travel, not the floats.

    The arithmetic is float32 (float64 if asked for), and only its result is rounded to ``dtype``.
    Shape: uint8 (B, C, H, W) to ``dtype`` (B, C, H, W).
    """
    wide = torch.promote_types(dtype, torch.float32)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    moved = images.to(device, non_blocking=True)
    centre, spread = (
        torch.tensor(values, dtype=torch.float64).mul(255).to(wide)[:, None, None]
        for values in (mean, std)
    )
    values = moved.to(wide, memory_format=layout)
    values.sub_(centre.to(moved.device)).div_(spread.to(moved.device))
    return values.to(dtype)


def _check_ranks(rank: int, world: int) -> None:
    if not 0 <= rank < world:
        raise ConfigError(f"batches: expected a rank from 0 to {world - 1}, got {rank}.")
