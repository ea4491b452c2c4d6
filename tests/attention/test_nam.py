"""NAM: its formulas, its gradients, and the inputs that could break it."""

import math

import pytest
import torch
from torch.testing import assert_close

from normattn.attention import NAM, NAMChannel, NAMSpatial
from normattn.errors import ConfigError, InputError

# ordinary · one channel in one row · more channels than pixels
SHAPES = [(2, 3, 4, 5), (2, 1, 1, 7), (3, 8, 1, 2)]
WEIGHTINGS = ["sum", "mean", "rms"]


@pytest.fixture(params=SHAPES, ids=str)
def x(request):
    torch.manual_seed(0)
    return torch.randn(request.param, dtype=torch.float64)


def make(cls, x, **options):
    """Build a module for ``x`` whose scales, shifts and statistics are all drawn at random."""
    if cls is not NAMChannel:
        options["size"] = tuple(x.shape[2:])
    module = cls(x.shape[1], dtype=torch.float64, **options)
    for key, tensor in module.state_dict().items():
        if key.endswith("running_var"):
            torch.nn.init.uniform_(tensor, 0.5, 2.0)
        elif tensor.is_floating_point():
            torch.nn.init.normal_(tensor)
    return module


def denominator(scales, weighting):
    if weighting == "sum":
        return sum(abs(scale) for scale in scales)
    if weighting == "mean":
        return sum(abs(scale) for scale in scales) / len(scales)
    return math.sqrt(sum(scale**2 for scale in scales) / len(scales))


def gate_by_hand(norm, training, slices, weighting):
    """Return each slice's gate: slice k is normalised by itself and weighted by its scale."""
    scales, gates = norm.weight.tolist(), []
    for k, values in enumerate(slices):
        mean, var = norm.running_mean[k], norm.running_var[k]
        if training:
            mean, var = values.mean(), ((values - values.mean()) ** 2).mean()
        normalized = scales[k] * (values - mean) / (var + norm.eps).sqrt() + norm.bias[k]
        weight = abs(scales[k]) / denominator(scales, weighting)
        gates.append(1 / (1 + torch.exp(-weight * normalized)))
    return gates


def channel_gate_by_hand(module, x, weighting="sum"):
    slices = [x[:, c] for c in range(x.shape[1])]
    return torch.stack(gate_by_hand(module.norm, module.training, slices, weighting), dim=1)


def spatial_gate_by_hand(module, x, weighting="sum"):
    height, width = x.shape[2:]
    slices = [x[:, :, i, j] for i in range(height) for j in range(width)]
    gates = gate_by_hand(module.norm, module.training, slices, weighting)
    return torch.stack(gates, dim=2).reshape(x.shape)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_channel_output_is_input_times_the_papers_gate(x, training, weighting):
    module = make(NAMChannel, x, weighting=weighting).train(training)
    expected = channel_gate_by_hand(module, x, weighting)  # before the call moves the statistics
    assert_close(module(x), x * expected)


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_spatial_output_is_input_times_the_papers_gate(x, training, weighting, order):
    module = make(NAMSpatial, x, weighting=weighting).train(training)
    expected = spatial_gate_by_hand(module, x, weighting)
    assert_close(module(x.to(memory_format=order)), x * expected)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_both_attend_to_channels_first_and_to_pixels_of_the_result(x, training):
    module = make(NAM, x).train(training)
    refined = x * channel_gate_by_hand(module.channel, x)
    expected = refined * spatial_gate_by_hand(module.spatial, refined)
    assert_close(module(x), expected)


def test_spatial_gate_has_the_memory_order_of_its_input():
    x = torch.randn(2, 3, 4, 5)
    module = NAMSpatial(3, size=(4, 5))
    assert module.gate(x).is_contiguous()
    gate = module.gate(x.to(memory_format=torch.channels_last))
    assert gate.is_contiguous(memory_format=torch.channels_last)


def test_both_memory_orders_move_the_running_statistics_alike(x):
    module, other = make(NAMSpatial, x), make(NAMSpatial, x)
    other.load_state_dict(module.state_dict())
    module(x)
    other(x.to(memory_format=torch.channels_last))
    assert_close(other.state_dict(), module.state_dict())


FROZEN = {
    "sum": ([0.818520055, 1.3738492258, 0.2723449406, -0.3628562061], 14.463803489),
    "mean": ([1.0834274412, 1.8214060101, 0.2132594246, -0.324811665], 13.741756969),
    "rms": ([1.0635210828, 1.796635186, 0.218937682, -0.3285847982], 13.843359282),
}
FROZEN_SPATIAL = {
    "sum": ([0.6504776528, 0.8766677273, 0.2793904295, -0.3732674702], 14.098833362),
    "mean": ([0.6692457344, 0.5750836022, 0.2110147981, -0.3469488339], 12.916263317),
    "rms": ([0.667798734, 0.596203466, 0.216037474, -0.3489708258], 12.990971371),
}


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_values_are_those_of_a_separate_program(wave, fill, check_frozen, weighting):
    channel = fill(NAMChannel(3, weighting=weighting, dtype=torch.float64))
    check_frozen(channel(wave(2, 3, 2, 2)), *FROZEN[weighting])
    spatial = fill(NAMSpatial(3, size=(2, 2), weighting=weighting, dtype=torch.float64))
    check_frozen(spatial(wave(2, 3, 2, 2)), *FROZEN_SPATIAL[weighting])


def test_values_with_running_statistics_and_of_both_parts_are_frozen_too(wave, fill, check_frozen):
    module = fill(NAMChannel(3, dtype=torch.float64)).eval()
    picked = [0.9393650631, 1.5406859987, 0.2525868486, -0.3440804612]
    check_frozen(module(wave(2, 3, 2, 2)), picked, 15.10899505)
    both = fill(NAM(3, size=(2, 2), dtype=torch.float64))
    picked = [0.5785604841, 0.8260521386, 0.1347471887, -0.1764132032]
    check_frozen(both(wave(2, 3, 2, 2)), picked, 7.644397911)


@pytest.mark.parametrize("cls", [NAMChannel, NAMSpatial])
def test_importance_has_the_sum_mean_or_mean_square_one(x, cls):
    if x.shape[1] > 1:
        assert_close(make(cls, x, weighting="sum").importance().sum().item(), 1.0)
        assert_close(make(cls, x, weighting="mean").importance().mean().item(), 1.0)
        assert_close(make(cls, x, weighting="rms").importance().square().mean().item(), 1.0)


@pytest.mark.parametrize("cls", [NAMChannel, NAMSpatial])
@pytest.mark.parametrize("detach", [True, False])
def test_scale_factors_feel_the_importance_only_when_asked(x, cls, detach):
    module = make(cls, x, detach_importance=detach)
    assert module.importance().requires_grad is not detach


def test_detached_gradient_is_that_of_a_constant_weight(x):
    """The authors' code reads γ through .data: γ learns through the batch norm alone."""
    module = make(NAMChannel, x)
    weight = module.importance().view(1, -1, 1, 1)
    (x * torch.sigmoid(weight * module.norm(x))).sum().backward()
    expected = module.norm.weight.grad.clone()
    module.zero_grad()
    module(x).sum().backward()
    assert_close(module.norm.weight.grad, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("cls", [NAMChannel, NAMSpatial, NAM])
def test_gate_is_one_half_when_every_scale_factor_is_zero(cls, weighting, dtype):
    options = {} if cls is NAMChannel else {"size": (3, 3)}
    module = cls(4, weighting=weighting, detach_importance=False, dtype=dtype, **options)
    for scale in module.scales():
        torch.nn.init.zeros_(scale)
    for norm in (part.norm for part in module.modules() if hasattr(part, "norm")):
        torch.nn.init.ones_(norm.bias)  # else the logits are zero whatever the weights are
    x = torch.randn(2, 4, 3, 3).to(dtype)
    half = 0.25 if cls is NAM else 0.5
    assert torch.equal(module.gate(x), torch.full_like(module.gate(x), half))
    # A large upstream gradient, since zero times an overflowed one would be NaN.
    (module(x).float() * 1e4).sum().backward()
    assert all(scale.grad.isfinite().all() for scale in module.scales())


def test_scale_factors_too_small_for_their_type_give_finite_weights():
    module = NAMChannel(2048, dtype=torch.float16)
    torch.nn.init.constant_(module.norm.weight, 6e-8)  # float16's smallest number
    assert_close(module.importance(), torch.full((2048,), 1 / 2048))


@pytest.mark.parametrize("converted", ["module", "autocast"])
def test_gate_of_2048_channels_is_no_constant_in_bfloat16(converted):
    """Near ½ bfloat16's steps exceed the whole range of the gate: computed there, it is constant.

    So the gate must be float32, and the output must be x · gate rounded once.
    """
    torch.manual_seed(0)
    x = torch.randn(4, 2048, 4, 4).bfloat16()
    module = NAMChannel(2048)
    exact = NAMChannel(2048, dtype=torch.float64).gate(x.double())
    assert exact.bfloat16().unique().tolist() == [0.5]
    if converted == "module":
        module.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=converted == "autocast"):
        gate, y = module.gate(x if converted == "module" else x.float()), module(x)
    assert gate.dtype == torch.float32
    assert gate.unique().numel() > 1000
    # The batch norm's output is bfloat16 in a bfloat16 module: 8 bits of the gate's own range.
    assert (gate - exact).abs().max() < 2**-7 * (exact - 0.5).abs().max()
    assert y.dtype == torch.bfloat16
    assert_close(y.double(), x.double() * exact, rtol=2**-8, atol=0)


def test_importance_is_summed_in_single_precision():
    module = NAMChannel(2048).half()
    torch.nn.init.uniform_(module.norm.weight, 50, 60)  # the sum exceeds float16's largest number
    assert module.importance().dtype == torch.float32
    assert_close(module.importance().sum().item(), 1.0, rtol=1e-5, atol=0)


@pytest.mark.parametrize("cls", [NAMSpatial, NAM])
def test_maps_of_another_size_are_refused(cls):
    module = cls(8, size=(4, 6))
    with pytest.raises(InputError, match=r"NAMSpatial: expected maps of 4×6, .* got 6×4\. Build"):
        module(torch.zeros(2, 8, 6, 4))


@pytest.mark.parametrize("size", [None, 4, (4,), (4, 4, 4), (4, 0), (4, 2.0), "44", (True, 1)])
@pytest.mark.parametrize("cls", [NAMSpatial, NAM])
def test_wrong_sizes_are_refused_with_what_to_do(cls, size):
    match = rf"^{cls.__name__}: expected size to be \(H, W\).*normattn\.graft finds"
    with pytest.raises(ConfigError, match=match):
        cls(8, size=size)


def test_size_may_be_a_list_as_json_has_it():
    assert NAMSpatial(8, size=[4, 6]).size == (4, 6)


@pytest.mark.parametrize("cls", [NAMChannel, NAMSpatial, NAM])
def test_wrong_options_are_refused_by_name(cls):
    size = {} if cls is NAMChannel else {"size": (2, 2)}
    with pytest.raises(ConfigError, match=rf"^{cls.__name__}: .*'men'.*Did you mean 'mean'"):
        cls(4, weighting="men", **size)
    with pytest.raises(ConfigError, match=rf"^{cls.__name__}: expected detach_importance to be"):
        cls(4, detach_importance=0, **size)
    for eps in (0, -1e-5, math.nan, math.inf, "1e-5", True):
        with pytest.raises(ConfigError, match=rf"^{cls.__name__}: expected eps to be a finite"):
            cls(4, eps=eps, **size)


def test_eps_reaches_the_norms():
    module = NAM(4, size=(2, 2), eps=0.5)
    assert (module.channel.norm.eps, module.spatial.norm.eps) == (0.5, 0.5)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_a_single_value_per_channel_is_refused_in_training_only(training):
    module, x = NAMChannel(4).train(training), torch.zeros(1, 4, 1, 1)
    if training:
        with pytest.raises(InputError, match=r"NAMChannel: expected more than one value .* drop"):
            module(x)
    else:
        assert module(x).shape == x.shape


def test_a_single_channel_of_a_single_image_is_refused_for_pixels():
    x = torch.zeros(1, 1, 3, 3)
    with pytest.raises(InputError, match="NAMSpatial: expected more than one value"):
        NAMSpatial(1, size=(3, 3))(x)


def test_a_frozen_norm_may_see_a_single_value_in_training():
    module = NAMChannel(4).train()
    module.norm.eval()
    assert module(torch.zeros(1, 4, 1, 1)).shape == (1, 4, 1, 1)


def test_input_is_not_changed_in_place(x):
    """The sigmoid works in place, and so must never reach x, even through a norm replaced."""
    for cls in (NAMChannel, NAMSpatial, NAM):
        before, module = x.clone(), make(cls, x)
        module(x)
        for name, part in list(module.named_modules()):
            if name.endswith("norm"):
                identity = torch.nn.Identity()
                identity.weight = part.weight
                module.set_submodule(name, identity)
        module(x)
        assert torch.equal(x, before)
