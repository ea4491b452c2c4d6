"""BAM: its formula, and the inputs that could break it."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from normattn.attention import BAM
from normattn.errors import ConfigError, InputError


def normalise_by_hand(norm, z, training):
    """Normalise channel by channel, whatever comes after the channel dimension."""
    y = torch.empty_like(z)
    for c in range(z.shape[1]):
        mean, var = norm.running_mean[c], norm.running_var[c]
        if training:
            mean, var = z[:, c].mean(), z[:, c].var(unbiased=False)
        y[:, c] = norm.weight[c] * (z[:, c] - mean) / (var + 1e-5).sqrt() + norm.bias[c]
    return y.clamp(min=0)


def convolve_by_hand(conv, z, dilation):
    """Sum shifted maps, a dilated tap at a time."""
    reach = dilation * (conv.weight.shape[-1] // 2)
    height, width = z.shape[2:]
    padded = nn.functional.pad(z, [reach] * 4)
    y = conv.bias.reshape(1, -1, 1, 1)
    for i in range(conv.weight.shape[2]):
        for j in range(conv.weight.shape[3]):
            top, left = i * dilation, j * dilation
            window = padded[:, :, top : top + height, left : left + width]
            y = y + torch.einsum("bchw,oc->bohw", window, conv.weight[:, :, i, j])
    return y


def gate_by_hand(module, x, dilation, combine):
    first, norm, _, last = module.channel
    hidden = torch.stack([image.mean(dim=(1, 2)) for image in x]) @ first.weight.T + first.bias
    hidden = normalise_by_hand(norm, hidden, module.training)
    channel = (hidden @ last.weight.T + last.bias).reshape(*x.shape[:2], 1, 1)
    spatial = x
    for index, spacing in ((0, 1), (3, dilation), (6, dilation)):
        spatial = convolve_by_hand(module.spatial[index], spatial, spacing)
        spatial = normalise_by_hand(module.spatial[index + 1], spatial, module.training)
    spatial = convolve_by_hand(module.spatial[9], spatial, 1)
    logits = channel * spatial if combine == "product" else channel + spatial
    return 1 + 1 / (1 + torch.exp(-logits))


@pytest.mark.parametrize("combine", ["product", "sum"])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(
    ("shape", "dilation"), [((3, 4, 5, 3), 1), ((2, 4, 9, 6), 4), ((2, 2, 1, 1), 4)], ids=str
)
def test_output_follows_the_papers_formula(fill, shape, dilation, training, combine):
    torch.manual_seed(0)
    options = {"reduction": 2, "dilation": dilation, "combine": combine}
    module = fill(BAM(shape[1], dtype=torch.float64, **options)).train(training)
    x = torch.randn(shape, dtype=torch.float64)
    expected = x * gate_by_hand(module, x, dilation, combine)
    assert_close(module(x), expected)


FROZEN = {
    "product": ([1.8637014405, 2.7783860712, -2.8633137034, -1.6085543], 125.527069042),
    "sum": ([2.1668035583, 3.5666507703, -3.2938919242, -1.8377371153], 151.507374403),
}


@pytest.mark.parametrize("combine", FROZEN)
def test_values_are_those_of_a_separate_program(wave, fill, check_frozen, combine):
    module = fill(BAM(4, reduction=2, dilation=2, combine=combine, dtype=torch.float64))
    check_frozen(module(wave(3, 4, 2, 3)), *FROZEN[combine])


def test_defaults_are_those_of_the_released_code():
    module = BAM(64)
    assert module.combine == "product"
    assert [module.spatial[i].dilation for i in (0, 3, 6, 9)] == [(1, 1), (4, 4), (4, 4), (1, 1)]


@pytest.mark.parametrize("size", [(8, 8), (5, 9)])
def test_square_and_other_maps_keep_their_size(size):
    assert BAM(32)(torch.randn(2, 32, *size)).shape == (2, 32, *size)


def test_a_training_batch_of_one_image_is_refused_with_what_to_do():
    module, x = BAM(32), torch.randn(1, 32, 8, 8)
    message = r"^BAM: expected at least 2 images in a training batch.* got 1\. Drop the last"
    with pytest.raises(InputError, match=message):
        module(x)
    assert module.eval()(x).isfinite().all()


def test_a_converted_norm_may_see_one_image_on_each_process():
    """SyncBatchNorm counts the other processes' images, so the batch is not ours to judge."""
    module = nn.SyncBatchNorm.convert_sync_batchnorm(BAM(32))
    with pytest.raises(ValueError, match=r"^Expected more than 1 value"):  # torch's: no group here
        module(torch.randn(1, 32, 8, 8))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"combine": "add"}, r"^BAM: expected a known combine, got 'add'.*product, sum"),
        ({"reduction": 64}, r"^BAM: expected a reduction of at most channels \(32\), got 64"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        BAM(32, **options)
