import pytest

from normattn.kernels._layout import Layout
from normattn.kernels.gpu._tiles import PROGRAMS, tiles

#: (groups, outer, channels, inner): NCHW planes, large, odd and small; columns; one statistic.
LAYOUTS = [
    Layout(1, 32, 256, 3136),
    Layout(1, 8, 2048, 49),
    Layout(1, 3, 5, 63),
    Layout(32, 1, 64, 784),
    Layout(1, 4, 3, 1),
    Layout(1, 128 * 3136, 64, 1),
    Layout(4, 3136, 70, 1),
    Layout(1, 1000, 1, 1),
    Layout(1, 2, 1, 4096),
]
layouts = pytest.mark.parametrize("layout", LAYOUTS, ids=str)


def powers_of_two(*numbers):
    return all(n > 0 and n & (n - 1) == 0 for n in numbers)


@layouts
@pytest.mark.parametrize("values", [1024, 4096])
@pytest.mark.parametrize("steps", [1, 8])
def test_programs_cover_the_map(layout, values, steps):
    shape = tiles(layout, widest_columns=256)
    block_k, block_r = shape.block(values)
    assert powers_of_two(block_k, block_r)
    assert block_k * block_r <= values
    covered = shape.grid(values, steps) * block_k * block_r * steps
    assert covered >= layout.groups * layout.outer * layout.channels * layout.inner


@layouts
def test_splits_cover_every_tile_once_and_none_is_empty(layout):
    shape = tiles(layout, widest_columns=64)
    block_k, block_r = shape.reduction()
    blocks, splits, per_split = shape.splits()
    across = -(-layout.channels // block_k)
    rows = -(-shape.outer // block_r) if shape.columns else shape.outer * -(-shape.inner // block_r)
    assert blocks == layout.groups * across
    assert (splits - 1) * per_split < rows <= splits * per_split
    assert splits == 1 or blocks * (splits - 1) < PROGRAMS


@layouts
def test_the_unit_divides_what_lies_side_by_side(layout):
    shape = tiles(layout, widest_columns=64)
    along = shape.channels if shape.columns else shape.inner
    assert along % shape.unit == 0
    assert powers_of_two(shape.unit, shape.width)
    assert shape.width >= shape.unit


def test_columns_are_for_statistics_side_by_side():
    assert not tiles(Layout(1, 32, 256, 3136), widest_columns=64).columns
    assert tiles(Layout(1, 3136, 256, 1), widest_columns=64).columns
    assert not tiles(Layout(1, 3136, 1, 1), widest_columns=64).columns  # its values are


@pytest.mark.parametrize(
    ("size", "width"), [(3136, 512), (784, 128), (196, 256), (49, 64), (4, 4), (4096, 1024), (3, 4)]
)
def test_tiles_are_as_wide_as_they_can_be_filled(size, width):
    assert (
        tiles(Layout(1, 8, 64, size) if size > 1 else Layout(1, 1, 1, 1), widest_columns=64).width
        == width
    )
