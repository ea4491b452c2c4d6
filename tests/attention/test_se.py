"""SE: its formula, and the inputs that could break it."""

import math

import pytest
import torch
from torch.testing import assert_close

from normattn.attention import SE
from normattn.errors import ConfigError


@pytest.mark.parametrize("shape", [(2, 6, 3, 5), (1, 4, 1, 1), (3, 5, 1, 2)], ids=str)
def test_output_follows_the_papers_formula(shape):
    torch.manual_seed(0)
    module = SE(shape[1], reduction=2, dtype=torch.float64)
    x = torch.randn(shape, dtype=torch.float64)
    reduce, expand = module.reduce.weight.tolist(), module.expand.weight.tolist()
    y = module(x)
    for b in range(shape[0]):
        pooled = [plane.mean().item() for plane in x[b]]
        hidden = [
            max(0.0, math.fsum(w * p for w, p in zip(row, pooled, strict=True))) for row in reduce
        ]
        for c, row in enumerate(expand):
            logit = math.fsum(w * h for w, h in zip(row, hidden, strict=True))
            assert_close(y[b, c], x[b, c] / (1 + math.exp(-logit)))


def test_values_are_those_of_a_separate_program(wave, fill, check_frozen):
    module = fill(SE(4, reduction=2, dtype=torch.float64))
    picked = [0.6611037907, 1.0112801386, 0.6746889742, 0.9518302416]
    check_frozen(module(wave(2, 4, 2, 3)), picked, 29.726656851)


@pytest.mark.parametrize(("channels", "hidden"), [(256, 16), (24, 1), (100, 6)])
def test_bottleneck_is_not_rounded_and_has_no_biases(channels, hidden):
    count = sum(parameter.numel() for parameter in SE(channels).parameters())
    assert count == 2 * channels * hidden


def test_reduction_beyond_the_channels_is_refused():
    message = r"^SE: expected a reduction of at most channels \(8\), got 16\. Choose .*<= 8"
    with pytest.raises(ConfigError, match=message):
        SE(8)
