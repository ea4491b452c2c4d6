"""EAN: its formula, and the inputs that could break it."""

import pytest
import torch
from torch.testing import assert_close

from normattn.attention import EAN
from normattn.errors import ConfigError


def output_by_hand(module, x, scale_norm):
    """Follow the paper's five steps: group, normalise, scale, adapt, ungroup."""
    batch, channels, height, width = x.shape
    per_group = channels // module.groups
    grouped = x.reshape(batch * module.groups, per_group, height, width)
    scales = module.weight.tolist()
    if scale_norm == "l2":
        size = (sum(scale**2 for scale in scales) / len(scales) + 1e-5) ** 0.5
    else:
        size = sum(abs(scale) for scale in scales) / len(scales) + 1e-5
    y = torch.empty_like(grouped)
    for n in range(len(grouped)):
        for c in range(per_group):
            plane = grouped[n, c]
            var = ((plane - plane.mean()) ** 2).mean()
            normalized = scales[c] * (plane - plane.mean()) / (var + module.eps).sqrt()
            logits = module.gain[c] * scales[c] / size * (normalized + module.bias[c])
            y[n, c] = plane / (1 + torch.exp(-logits - module.offset[c]))
    return y.reshape(x.shape)


@pytest.mark.parametrize("scale_norm", ["l2", "l1"])
@pytest.mark.parametrize(
    ("shape", "groups"),
    [((2, 6, 3, 5), 3), ((1, 4, 2, 2), 1), ((2, 4, 1, 3), 4), ((3, 4, 1, 1), 2)],
    ids=str,
)
def test_output_follows_the_papers_steps(shape, groups, scale_norm):
    torch.manual_seed(0)
    module = EAN(shape[1], groups=groups, scale_norm=scale_norm, eps=0.1, dtype=torch.float64)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(shape, dtype=torch.float64)
    assert_close(module(x), output_by_hand(module, x, scale_norm))


FROZEN = {
    "l2": ([0.2306794532, 0.2572799891, 0.4498782433, 0.5772039041], 19.057192489),
    "l1": ([0.2263142467, 0.2485739316, 0.4484515744, 0.5728674761], 19.107632299),
}


@pytest.mark.parametrize("scale_norm", FROZEN)
def test_values_are_those_of_a_separate_program(wave, fill, check_frozen, scale_norm):
    module = fill(EAN(4, groups=2, scale_norm=scale_norm, dtype=torch.float64))
    check_frozen(module(wave(2, 4, 2, 3)), *FROZEN[scale_norm])


def test_gate_starts_at_one_half():
    assert EAN(32).gate(torch.randn(2, 32, 4, 4)).unique().tolist() == [0.5]


def test_initial_values_are_the_papers():
    module = EAN(32)
    assert torch.equal(module.weight, torch.ones(2))
    for parameter in (module.bias, module.gain, module.offset):
        assert torch.equal(parameter, torch.zeros(2))


@pytest.mark.parametrize("scale_norm", ["l2", "l1"])
def test_zero_scales_leave_only_the_offset(scale_norm):
    module = EAN(4, groups=2, scale_norm=scale_norm)
    torch.nn.init.zeros_(module.weight)
    torch.nn.init.ones_(module.gain)
    x = torch.randn(2, 4, 3, 3)
    assert module.gate(x).unique().tolist() == [0.5]
    module(x).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in module.parameters())


@pytest.mark.parametrize("scale_norm", ["l2", "l1"])
def test_scale_ignores_a_common_factor_of_all_scales(scale_norm):
    """So a sparsity penalty on them would be answered by shrinking them all; none is applied."""
    module = EAN(8, groups=2, scale_norm=scale_norm, dtype=torch.float64)
    torch.nn.init.uniform_(module.weight, 1, 2)
    before = module.importance()
    module.weight.data *= 10
    assert_close(module.importance(), before, rtol=1e-4, atol=0)
    assert not module.scales_penalised


def test_a_single_value_per_map_leaves_only_shift_and_offset():
    """One pixel does not deviate from its mean; torch's own instance norm refuses it."""
    module = EAN(4, groups=1, dtype=torch.float64)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    logits = module.gain * module.importance() * module.bias + module.offset
    x = torch.randn(1, 4, 1, 1, dtype=torch.float64)
    assert_close(module.gate(x).flatten(), torch.sigmoid(logits))


def test_groups_that_do_not_divide_the_channels_are_refused_with_those_that_do():
    message = r"^EAN: expected groups to divide channels \(24\), got 16\. .*1, 2, 3, 4, 6, 8, 12,"
    with pytest.raises(ConfigError, match=message):
        EAN(24)
    with pytest.raises(ConfigError, match=r"got 16\. Choose groups from 1, 2, 4, 8, or leave"):
        EAN(8)


def test_unknown_scale_norm_is_refused():
    with pytest.raises(ConfigError, match=r"^EAN: expected a known scale_norm, got 'l3'.*l2, l1"):
        EAN(16, scale_norm="l3")


@pytest.mark.parametrize("eps", [0, -1.0, float("nan"), "small"])
def test_wrong_eps_is_refused(eps):
    with pytest.raises(ConfigError, match=r"^EAN: expected eps to be a finite number > 0"):
        EAN(16, eps=eps)
