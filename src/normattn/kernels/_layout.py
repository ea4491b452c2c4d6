"""Where in memory the values of one statistic lie: four sizes describe every case."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ._precision import wide_type

#: What shares one mean, one slope and one offset: all pixels of a channel in all images, all
#: channels of a pixel in all images, or the pixels of one channel of one image.
Over = Literal["channel", "pixel", "instance"]


class Layout(NamedTuple):
    """The sizes of a dense map, from the slowest to the fastest in memory.

    Element ``((g · outer + o) · channels + k) · inner + i`` takes the k-th slope and offset and
    belongs to statistic ``g · channels + k``.
    """

    groups: int
    outer: int
    channels: int
    inner: int

    @property
    def statistics(self) -> int:
        """How many means there are."""
        return self.groups * self.channels

    @property
    def count(self) -> int:  # type: ignore[override]  # tuple's own is of no use here
        """How many values one mean is of."""
        return self.outer * self.inner


def is_dense(x: Tensor) -> bool:
    """Return whether ``x`` is (B, C, H, W) without gaps, in one of the two usual orders."""
    return x.ndim == 4 and (x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last))


def memory_order(x: Tensor) -> torch.memory_format:
    """Return the one of the two usual orders that ``x``, of shape (B, C, H, W), has or is near."""
    if x.is_contiguous():  # also what is dense in both orders, as 1×1 maps are
        return torch.contiguous_format
    last = x.is_contiguous(memory_format=torch.channels_last)
    # A slice of a channels_last map is dense in no order, but its channels still lie side by side.
    if last or (x.stride(1) == 1 and x.shape[1] > 1):
        return torch.channels_last
    return torch.contiguous_format


def dense(x: Tensor) -> Tensor:
    """Return ``x`` itself where it has no gaps, else a copy without them in its own order."""
    return x if is_dense(x) else x.contiguous(memory_format=memory_order(x))


def like(y: Tensor, x: Tensor) -> Tensor:
    """Return ``y`` with its values in the order of ``x``, which is dense."""
    return y.contiguous(memory_format=memory_order(x))


def layout(x: Tensor, over: Over) -> Layout:
    """Return the sizes of a dense ``x``, of shape (B, C, H, W)."""
    batch, channels, height, width = x.shape
    pixels = height * width
    if x.is_contiguous():  # also what is dense in both orders, as 1×1 maps are
        if over == "channel":
            return Layout(1, batch, channels, pixels)
        if over == "pixel":
            return Layout(1, batch * channels, pixels, 1)
        return Layout(batch, 1, channels, pixels)
    if over == "channel":
        return Layout(1, batch * pixels, channels, 1)
    if over == "pixel":
        return Layout(1, batch, pixels, channels)
    return Layout(batch, pixels, channels, 1)


def statistics(x: Tensor, over: Over) -> Tensor:
    """Return an empty vector for one value a statistic of ``x``."""
    length = x.shape[2] * x.shape[3] if over == "pixel" else x.shape[1]
    return x.new_empty(length * x.shape[0] if over == "instance" else length, dtype=wide_type(x))
