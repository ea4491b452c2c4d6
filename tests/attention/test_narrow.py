"""Attention with channels taken from it: what is left computes what it did."""

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from normattn.attention import EAN, MECHANISMS, NAM, Gate, NAMChannel, create
from normattn.errors import ConfigError, UnsupportedModel

#: Mechanisms in which a channel's gate does not depend on the others, at inference.
BY_ITSELF = ("none", "half", "nam-channel", "nam-spatial", "nam", "ean")
#: Those that look at others, but not at ones that hold zero.
BLIND_TO_ZEROS = (*BY_ITSELF, "se", "bam")
KEPT = [0, 1, 2, 3, 8, 9, 10, 11]


def build(name, **options):
    torch.manual_seed(0)
    if MECHANISMS[name].needs_size:
        options["size"] = (5, 6)
    if name in ("se", "cbam", "bam"):
        options["reduction"] = 4
    if name == "ean":
        options.setdefault("groups", 4)
    module = create(name, 16, **options)
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) + 0.5)
    return module.eval()


@pytest.fixture
def x():
    return torch.randn(2, 16, 5, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", list(MECHANISMS))
def test_every_mechanism_runs_on_the_channels_that_it_kept(name, x):
    module = build(name)
    module.keep_channels(KEPT)
    assert module.channels == 8
    assert module(x[:, KEPT]).shape == (2, 8, 5, 6)
    with pytest.raises(ValueError, match=r"\(B, 8, H, W\)"):
        module(x)


@pytest.mark.parametrize("name", BY_ITSELF)
def test_where_a_channel_is_gated_by_itself_the_others_do_not_matter(name, x):
    module = build(name)
    expected = module(x)[:, KEPT]
    module.keep_channels(KEPT)
    assert_close(module(x[:, KEPT]), expected)


@pytest.mark.parametrize("name", BLIND_TO_ZEROS)
def test_channels_that_hold_zero_are_not_missed(name, x):
    module = build(name)
    x[:, [c for c in range(16) if c not in KEPT]] = 0
    expected = module(x)[:, KEPT]
    module.keep_channels(KEPT)
    assert_close(module(x[:, KEPT]), expected)


@pytest.mark.parametrize("name", ["se", "cbam", "bam"])
def test_a_bottleneck_stays_until_told_and_then_is_as_one_built_for_the_channels(name):
    module = build(name)
    before = module.hidden
    module.keep_channels(KEPT)
    assert module.hidden == before
    spare = module.spare_hidden(range(8))
    assert list(spare) == sorted(set(spare))
    module.keep_hidden([i for i in range(before) if i not in spare])
    fresh = create(name, 8, reduction=4)
    assert {k: v.shape for k, v in module.state_dict().items()} == {
        k: v.shape for k, v in fresh.state_dict().items()
    }
    assert repr(module) == repr(fresh)
    assert module.train()(torch.randn(2, 8, 5, 6)).shape == (2, 8, 5, 6)
    least = 4 if name == "bam" else 1  # one of each hidden layer
    assert module.hidden - len(module.spare_hidden([0])) == least


@pytest.mark.parametrize("name", ["se", "cbam", "bam"])
def test_hidden_units_that_say_nothing_go_first_and_are_not_missed(name, x):
    module = build(name)
    silent = {"bam": [1, 3, 4, 5, 8, 11, 12, 14]}.get(name, [0, 2])  # of BAM two of each layer
    layers = [module.expand] if name != "bam" else [module.channel[3], *module.spatial[3::3]]
    with torch.no_grad():
        for i in silent:
            layers[i // 4].weight[:, i % 4] = 0
    expected = module(x)
    assert module.spare_hidden(range(8)) == tuple(silent)
    module.keep_hidden([i for i in range(module.hidden) if i not in silent])
    assert_close(module(x), expected)


def test_hidden_units_weigh_what_they_read_as_well_and_only_of_the_channels_that_stay():
    module = build("se")
    with torch.no_grad():
        module.reduce.weight[3, KEPT] = 0
        module.expand.weight[KEPT, 1] = 0
    assert module.spare_hidden(KEPT) == (1, 3)


@pytest.mark.parametrize(
    ("name", "kept", "message"),
    [
        ("se", [], "rising indices of its 4 hidden units"),
        ("bam", [0, 16], "rising indices of its 16 hidden units"),
        ("bam", [0, 1, 4, 8, 12], r"as many units of each hidden layer, got \[2, 1, 1, 1\]"),
    ],
)
def test_hidden_units_that_cannot_be_kept_are_refused(name, kept, message):
    with pytest.raises(ConfigError, match=message):
        build(name).keep_hidden(kept)


@pytest.mark.parametrize("weighting", ["sum", "mean", "rms"])
def test_nam_goes_on_dividing_by_what_it_did(weighting):
    module = build("nam-channel", weighting=weighting)
    before = module.importance()
    module.keep_channels(KEPT)
    assert_close(module.importance(), before[KEPT])
    with torch.no_grad():
        module.norm.weight.mul_(3)
    assert_close(module.importance(), 3 * before[KEPT])
    module.keep_channels([1, 2])  # a second time: still the first denominator
    assert_close(module.importance(), 3 * before[KEPT][[1, 2]])


@pytest.mark.parametrize("scale_norm", ["l2", "l1"])
def test_ean_keeps_the_same_places_of_all_groups(scale_norm, x):
    module = build("ean", groups=2, scale_norm=scale_norm)
    places = [0, 3, 5, 8, 11, 13]
    expected = module(x)[:, places]
    module.keep_channels(places)
    assert (module.groups, module.weight.shape) == (2, (3,))
    assert_close(module(x[:, places]), expected)


def test_ean_keeps_whole_groups_and_then_needs_no_denominator(x):
    module = build("ean", groups=4)
    module.keep_channels(KEPT)
    assert (module.groups, module.weight.shape) == (2, (4,))
    assert module.denominator is None


def test_ean_refuses_channels_that_would_leave_its_groups_unlike():
    for kept in ([0, 1, 2], [0, 1, 4, 5], list(range(15))):
        with pytest.raises(
            UnsupportedModel, match=r"whole groups of 4 channels, or the same places"
        ):
            build("ean", groups=4).keep_channels(kept)


def test_the_units_of_ean_are_what_it_can_keep():
    whole, places = EAN(16, groups=4).unit_choices()
    assert whole[1] == (4, 5, 6, 7)
    assert places[1] == (1, 5, 9, 13)
    assert NAMChannel(3).unit_choices() == (((0,), (1,), (2,)),)


def test_the_denominator_is_a_key_of_slimmed_state_dicts_only_and_comes_with_them():
    module = build("nam")
    assert not any("denominator" in key for key in module.state_dict())
    module.keep_channels(KEPT)
    state = module.state_dict()
    assert "channel.denominator" in state
    for assign in (False, True):
        fresh = NAM(8, size=(5, 6))
        fresh.load_state_dict(state, assign=assign)
        assert torch.equal(fresh.channel.importance(), module.channel.importance())
    again = copy.deepcopy(module)
    assert torch.equal(again.channel.denominator, module.channel.denominator)
    copied = copy.deepcopy(NAMChannel(8))  # the hook goes with a copy, and to the copy
    copied.load_state_dict({**module.channel.state_dict()})
    assert copied.denominator is not None


def test_frozen_parameters_and_devices_stay_as_they_are():
    module = build("se").requires_grad_(False)
    module.keep_channels(KEPT)
    assert not any(parameter.requires_grad for parameter in module.parameters())
    assert isinstance(module.reduce.weight, nn.Parameter)
    assert module.reduce.in_features == module.expand.out_features == 8


@pytest.mark.parametrize("kept", [[], [1, 0], [0, 0], [-1, 0], [0, 16]], ids=str)
@pytest.mark.parametrize("name", list(MECHANISMS))
def test_anything_but_rising_indices_is_refused(name, kept):
    with pytest.raises(ConfigError, match="expected kept to be rising indices of its 16 channels"):
        build(name).keep_channels(kept)


def test_a_mechanism_that_does_not_say_how_is_refused():
    class Mine(Gate):
        def gate(self, x):
            return x

    with pytest.raises(UnsupportedModel, match=r"Mine: expected a mechanism that defines keep_ch"):
        Mine(4).keep_channels([0])
