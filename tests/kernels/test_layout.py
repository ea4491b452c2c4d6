"""Sizes that say where the values of a statistic lie."""

import pytest
import torch

from normattn.kernels._layout import dense, is_dense, layout, like, memory_order, statistics

LAST = torch.channels_last
OVERS = ["channel", "pixel", "instance"]
orders = pytest.mark.parametrize("order", [torch.contiguous_format, LAST], ids=str)
shapes = pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3, 1, 1), (2, 1, 4, 5)], ids=str)


@pytest.mark.parametrize("over", OVERS)
@orders
@shapes
def test_an_element_belongs_to_the_statistic_that_its_place_says(shape, order, over):
    """Number the statistics, write the numbers into the map, read them in the memory's order."""
    batch, channels, height, width = shape
    numbers = {
        "channel": torch.arange(channels).view(1, -1, 1, 1),
        "pixel": torch.arange(height * width).view(1, 1, height, width),
        "instance": torch.arange(batch * channels).view(batch, channels, 1, 1),
    }[over]
    x = numbers.expand(shape).contiguous(memory_format=order)
    stored = x.as_strided((x.numel(),), (1,)).tolist()
    sizes = layout(x, over)
    _, outer, length, inner = sizes
    for at, number in enumerate(stored):
        group, rest = divmod(at, outer * length * inner)
        assert number == group * length + rest // inner % length
    assert sizes.statistics == numbers.numel() == statistics(x.float(), over).numel()
    assert sizes.count * sizes.statistics == x.numel()


@orders
@shapes
def test_dense_maps_are_left_where_they_are(shape, order):
    x = torch.randn(shape).contiguous(memory_format=order)
    assert is_dense(x)
    assert dense(x) is x
    assert like(x, x) is x


def test_gaps_are_closed_in_the_order_that_the_map_has():
    x = torch.randn(2, 6, 4, 5)
    last = x.contiguous(memory_format=LAST)
    strange = x.transpose(2, 3)
    for gaps in (x[:, ::2], x[..., ::2], x[:1].expand(2, -1, -1, -1), strange):
        assert not is_dense(gaps)
        assert dense(gaps).is_contiguous()
        assert torch.equal(dense(gaps), gaps)
    for gaps in (last[:, :3], last[..., ::2], last[:, :, 1:]):
        assert not is_dense(gaps)
        assert dense(gaps).is_contiguous(memory_format=LAST)
        assert torch.equal(dense(gaps), gaps)


def test_a_map_that_is_dense_in_both_orders_counts_as_the_first():
    x = torch.randn(2, 3, 1, 1).contiguous(memory_format=LAST)
    assert memory_order(x) == torch.contiguous_format


def test_other_ranks_are_not_dense_maps():
    assert not is_dense(torch.zeros(2, 3))
    assert not is_dense(torch.zeros(2, 3, 4, 5, 6))


def test_like_copies_values_into_the_other_order():
    x = torch.randn(2, 3, 4, 5)
    last = x.contiguous(memory_format=LAST)
    assert like(x, last).stride() == last.stride()
    assert torch.equal(like(x, last), x)
