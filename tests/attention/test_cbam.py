"""CBAM: its formula, and the inputs that could break it."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from normattn.attention import CBAM
from normattn.errors import ConfigError, InputError


def output_by_hand(module, x):
    """Write the MLP as matrix products, and the convolution as a sum over shifted maps."""

    def mlp(pooled):
        hidden = pooled @ module.reduce.weight.T + module.reduce.bias
        return hidden.clamp(min=0) @ module.expand.weight.T + module.expand.bias

    means = torch.stack([torch.stack([plane.mean() for plane in image]) for image in x])
    peaks = torch.stack([torch.stack([plane.max() for plane in image]) for image in x])
    channel = 1 / (1 + torch.exp(-mlp(means) - mlp(peaks)))
    refined = x * channel.reshape(*channel.shape, 1, 1)
    views = [refined.max(dim=1).values, refined.sum(dim=1) / x.shape[1]]
    response = torch.zeros_like(views[0])
    kernel = module.spatial.conv.weight
    height, width, reach = *x.shape[2:], kernel.shape[-1] // 2
    for view, weights in zip(views, kernel[0], strict=True):
        padded = nn.functional.pad(view, [reach] * 4)
        for i, row in enumerate(weights):
            for j, weight in enumerate(row):
                response = response + weight * padded[:, i : i + height, j : j + width]
    norm = module.spatial.norm
    mean, var = norm.running_mean, norm.running_var
    if module.training:
        mean, var = response.mean(), response.var(unbiased=False)
    logits = norm.weight * (response - mean) / (var + 1e-5).sqrt() + norm.bias
    return refined / (1 + torch.exp(-logits)).unsqueeze(1)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("kernel_size", [7, 3, 1])
@pytest.mark.parametrize("shape", [(2, 4, 5, 3), (1, 2, 1, 2), (3, 3, 1, 1)], ids=str)
def test_output_follows_the_papers_formula(fill, shape, kernel_size, training):
    torch.manual_seed(0)
    module = CBAM(shape[1], reduction=2, kernel_size=kernel_size, dtype=torch.float64)
    fill(module).train(training)
    x = torch.randn(shape, dtype=torch.float64)
    expected = output_by_hand(module, x)
    assert_close(module(x), expected)


def test_values_are_those_of_a_separate_program(wave, fill, check_frozen):
    module = fill(CBAM(4, reduction=2, kernel_size=3, dtype=torch.float64))
    picked = [0.0086605321, 0.0133748762, 0.4844420329, 0.6046410124]
    check_frozen(module(wave(2, 4, 2, 3)), picked, 17.321698537)


def test_spatial_norm_has_the_long_memory_of_the_published_code():
    assert CBAM(16).spatial.norm.momentum == 0.01


def test_a_kernel_without_a_centre_is_refused():
    with pytest.raises(ConfigError, match=r"^CBAM: expected kernel_size to be odd, got 6"):
        CBAM(16, kernel_size=6)


def test_reduction_beyond_the_channels_is_refused():
    with pytest.raises(ConfigError, match=r"^CBAM: expected a reduction of at most channels \(8\)"):
        CBAM(8)


def test_one_pixel_of_one_image_is_refused_in_training():
    with pytest.raises(InputError, match=r"^CBAM: expected more than one value"):
        CBAM(16)(torch.zeros(1, 16, 1, 1))
