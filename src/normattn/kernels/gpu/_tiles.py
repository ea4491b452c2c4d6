"""How a map is cut into tiles: sizes alone decide, never a clock or a device.

A tile is a block of statistics times a block of the values of each. The direction of memory is one
of the two: along the values of a statistic (`rows`: NCHW planes) or across statistics (`columns`:
channels_last). Reductions must add in the same order in every process, or a resumed training
would leave the bits of the first; so what a tile of theirs looks like is computed here and never
tuned.
"""

import math
from typing import NamedTuple

from .._layout import Layout

#: Values in a tile of a reduction.
REDUCE_TILE = 2048
#: Programs that fill a large device several times over; a reduction is split up to this.
PROGRAMS = 1024
#: Tiles for which a split's partial result, which is written and read again, is worth it.
TILES_PER_SPLIT = 4


class Tiles(NamedTuple):
    """The sizes that every kernel takes, and the direction of memory.

    `width` is the tile's size in the direction of memory, `height` the most that is of use in the
    other one, both powers of two; `unit` (a power of two up to 16) divides the size of the map in
    the direction of memory: what tells the compiler how wide it may load.
    """

    groups: int
    outer: int
    channels: int
    inner: int
    columns: bool
    unit: int
    width: int
    height: int

    @property
    def sizes(self) -> tuple[int, int, int]:
        """What follows the map's pointers in every kernel's arguments."""
        return self.outer, self.channels, self.inner

    @property
    def statistics(self) -> int:
        """How many means there are."""
        return self.groups * self.channels

    def block(self, values: int) -> tuple[int, int]:
        """Return how many statistics and how many values of each are in a tile of `values`."""
        other = max(1, min(values // self.width, self.height))
        return (self.width, other) if self.columns else (other, self.width)

    def grid(self, values: int, steps: int) -> int:
        """Return how many programs cover the map, each with `steps` tiles of `values`."""
        block_k, block_r = self.block(values)
        if self.columns:
            chunks = _blocks(self.outer, block_r * steps)
        else:
            chunks = _blocks(self.outer, steps) * _blocks(self.inner, block_r)
        return self.groups * _blocks(self.channels, block_k) * chunks

    def reduction(self) -> tuple[int, int]:
        """Return a tile of the reductions, as `block` does.

        A smaller one where a thread loads single values, for then each of them is of another
        statistic, whose coefficients and sums fill the registers.
        """
        return self.block(REDUCE_TILE if self.unit >= 4 else REDUCE_TILE // 2)

    def splits(self) -> tuple[int, int, int]:
        """Return a reduction's blocks of statistics, its splits, and the tiles in a split."""
        block_k, block_r = self.reduction()
        blocks = self.groups * _blocks(self.channels, block_k)
        tiles = self._tiles_of_a_block(block_r)
        wanted = min(_blocks(PROGRAMS, blocks), max(1, tiles // TILES_PER_SPLIT))
        per_split = _blocks(tiles, wanted)
        return blocks, _blocks(tiles, per_split), per_split

    def _tiles_of_a_block(self, block_r: int) -> int:
        if self.columns:
            return _blocks(self.outer, block_r)
        return self.outer * _blocks(self.inner, block_r)


def tiles(sizes: Layout, *, widest_columns: int) -> Tiles:
    """Return the tiles for a map of these sizes.

    Args:
        sizes: Where the map's values lie.
        widest_columns: The widest tile across statistics. A reduction writes a partial result for
            each column, so it wants few; an elementwise kernel wants long stretches of memory.
    """
    groups, outer, channels, inner = sizes
    if channels == inner == 1:  # one statistic a group: its values are what lies side by side
        outer, inner = 1, outer
    columns = inner == 1
    along, across = (channels, outer) if columns else (inner, channels)
    return Tiles(
        groups,
        outer,
        channels,
        inner,
        columns,
        math.gcd(along, 16),
        _width(along, widest_columns if columns else 1024),
        _power(across),
    )


def _width(size: int, widest: int) -> int:
    """Return the widest power of two that wastes little of its last tile."""
    if size <= 64:
        return _power(size)
    widths = [w for w in (1024, 512, 256, 128, 64) if w <= widest]
    padded = [_blocks(size, width) * width for width in widths]
    for width, total in zip(widths, padded, strict=True):
        if total * 7 <= size * 8:  # an eighth of the lanes idle at most
            return width
    return widths[padded.index(min(padded))]


def _power(size: int) -> int:
    return 1 << (size - 1).bit_length()


def _blocks(size: int, block: int) -> int:
    return -(-size // block)
