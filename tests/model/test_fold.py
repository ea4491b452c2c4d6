"""A folded model computes what the model computes, in fewer operations."""

import copy
import json
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.testing import assert_close

from normattn import fuse, graft, grafts, host
from normattn.attention import BAM, EAN, NAM, Half, NAMChannel, NAMSpatial
from normattn.errors import ConfigError, DataError, Fault, UnsupportedModel
from normattn.kernels import cpu
from normattn.model._fold_error import Sums
from normattn.model._fold_gates import FactorGate, FoldedGate
from normattn.model.fold import fold, fold_report


def norms(model):
    return [
        module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)
    ]


def scatter(model):
    """Give every norm values of its own, so that no two channels are alike."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif tensor.is_floating_point() and tensor.ndim == 1:
            tensor.normal_(0.5, 0.5, generator=generator)
    return model


def assert_folds(model, images, *, within=1e-12):
    """Fold in float64 and compare; return the folded model."""
    model = model.double().eval()
    x = images.double()
    folded = fold(model, data=[x])
    with torch.no_grad():
        expected, found = model(x), folded(x)
    assert (found - expected).abs().max() <= within * expected.abs().max()
    return folded


# The exact form


def test_outputs_are_the_same_and_no_norm_is_left(family, attention, tiny, images):
    folded = assert_folds(tiny(family, attention), images)
    assert norms(folded) == []
    assert fold_report(folded).norms_left == ()


@pytest.mark.parametrize(
    ("name", "options", "left"),
    [
        ("resnet20", {"shortcut": "projection"}, 0),
        ("mobilenetv2_035", {}, 0),  # norms with the activation in them
        ("mobilenetv3_small_050", {}, 0),
        ("regnetx_002", {}, 0),
        ("resnetv2_18", {}, 9),  # norms in front of convolutions
        ("convnext_atto", {}, 0),  # none at all
        ("densenet121", {"growth_rate": 4, "block_config": (2, 2)}, 6),
    ],
)
def test_every_family_of_hosts_folds(name, options, left):
    model = scatter(host(name, 5, **options))
    if name != "densenet121":
        graft(model, "nam-channel", input_size=32, weighting="mean")
    folded = assert_folds(model, torch.randn(2, 3, 32, 32), within=1e-10)
    assert len(norms(folded)) == left == len(fold_report(folded).norms_left)


def test_the_model_itself_is_left_as_it_was(tiny, images):
    model = fuse(tiny("timm basic", "nam-channel").train())
    model[0].eval()
    before = copy.deepcopy(model.state_dict())
    classes, modes = [type(m) for m in model.modules()], [m.training for m in model.modules()]
    folded = fold(model, tolerance=0.9, data=[images])
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    assert [type(m) for m in model.modules()] == classes
    assert [m.training for m in model.modules()] == modes
    assert len(grafts(model)) == 2
    assert not any(module.training for module in folded.modules())
    assert not any(a is b for a in folded.parameters() for b in model.parameters())


@pytest.mark.skipif(cpu.status().startswith("none"), reason="no library of kernels")
def test_a_fused_model_folds_to_plain_layers(family, tiny, images):
    model = tiny(family, "nam").eval()
    plain, fused = fold(model, data=[images]), fold(fuse(copy.deepcopy(model)), data=[images])
    assert [type(m) for m in plain.modules()] == [type(m) for m in fused.modules()]
    assert_close(fused(images), plain(images))


def test_a_folded_model_is_no_host_with_grafts(tiny, images):
    folded = fold(tiny("timm basic", "ean"), data=[images])
    assert isinstance(folded[1].bn2.attn, EAN)
    assert grafts(folded) == ()


def test_it_survives_copies_pickles_and_state_dicts(tiny, images):
    folded = fold(tiny("timm basic", "nam"), data=[images])
    expected = folded(images)
    for again in (copy.deepcopy(folded), pickle.loads(pickle.dumps(folded))):
        assert torch.equal(again(images), expected)
        assert fold_report(again) == fold_report(folded)
    other = fold(scatter(tiny("timm basic", "nam")), data=[images])
    other.load_state_dict(folded.state_dict())
    assert torch.equal(other(images), expected)


def test_half_precision_folds_within_its_rounding(tiny, images):
    model = tiny("timm basic", "nam-channel").bfloat16().eval()
    folded = fold(model, data=[images])
    exact = copy.deepcopy(model).float()
    with torch.no_grad():
        error = (folded(images.bfloat16()).float() - exact(images)).norm()
        plain = (model(images.bfloat16()).float() - exact(images)).norm()
    assert error <= 1.5 * plain


def test_folding_twice_changes_nothing(tiny, images):
    once = fold(tiny("timm basic", "nam"), data=[images])
    assert torch.equal(fold(once, data=[images])(images), once(images))


# Norms that must stay


class Net(nn.Module):
    """A convolution, a norm, and whatever lies between them."""

    def __init__(self, conv=None, norm=None):
        super().__init__()
        self.conv = conv or nn.Conv2d(3, 4, 3)
        self.norm = norm or nn.BatchNorm2d(4)
        scatter(self)

    def forward(self, x):
        return self.norm(self.conv(x)).flatten(1)


class ReadTwice(Net):
    def forward(self, x):
        y = self.conv(x)
        return (self.norm(y) + y).flatten(1)


class ReadLater(Net):
    def forward(self, x):
        y = self.conv(x)
        z = self.norm(y)
        return (z + y[:, :, :1, :1]).flatten(1)


class HandedOut(Net):
    def forward(self, x):
        y = self.conv(x)
        return [self.norm(y), y]


class ChangedBetween(Net):
    def forward(self, x):
        return self.norm(self.conv(x).relu_()).flatten(1)


class NormTwice(Net):
    def forward(self, x):
        return self.norm(self.norm(self.conv(x))).flatten(1)


class ConvTwice(Net):
    def forward(self, x):
        self.conv(x)
        return self.norm(self.conv(2 * x)).flatten(1)


class ByRows(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Linear(6, 5)
        self.norm = nn.BatchNorm1d(3)
        scatter(self)

    def forward(self, x):
        return self.norm(self.conv(x.mean(dim=2))).flatten(1)


def hooked(net):
    net.norm.register_forward_hook(lambda module, args, output: 2 * output)
    return net


class OwnNorm(nn.BatchNorm2d):
    def forward(self, x):
        return 3 * super().forward(x)


class OwnConv(nn.Conv2d):
    def forward(self, x):
        return nn.functional.conv2d(x, self.weight / self.weight.norm(), self.bias).sin()


STAYING = {
    "read twice": (ReadTwice, "something else reads"),
    "read later": (ReadLater, "something else reads"),
    "handed out": (HandedOut, "something else reads"),
    "changed between": (ChangedBetween, "no convolution right in front"),
    "norm runs twice": (NormTwice, "not run exactly once"),
    "convolution runs twice": (ConvTwice, "no convolution right in front"),
    "channels elsewhere": (ByRows, "channels elsewhere"),
    "hook on the norm": (lambda: hooked(Net()), "hooks on it"),
    "no statistics": (
        lambda: Net(norm=nn.BatchNorm2d(4, track_running_stats=False)),
        "no running statistics",
    ),
    "another norm": (lambda: Net(norm=OwnNorm(4)), "OwnNorm"),
    "another convolution": (lambda: Net(conv=OwnConv(3, 4, 3)), "no convolution"),
    "a computed weight": (
        lambda: Net(conv=parametrizations.weight_norm(nn.Conv2d(3, 4, 3))),
        "no convolution",
    ),
    "transposed": (lambda: Net(conv=nn.ConvTranspose2d(3, 4, 3)), "no convolution"),
}


@pytest.mark.parametrize("case", STAYING)
def test_a_norm_that_cannot_go_stays_and_the_report_says_why(case):
    make, reason = STAYING[case]
    model = make().double().eval()
    x = torch.randn(2, 3, 6, 6, dtype=torch.double)
    folded = fold(model, data=[x])
    ((name, said),) = fold_report(folded).norms_left
    assert name == "norm"
    assert reason in said
    assert_close(folded(x), model(x))


def test_hooks_on_a_convolution_are_respected():
    model = Net().eval()
    model.conv.register_forward_pre_hook(lambda module, args: (2 * args[0],))
    folded = fold(model, data=[(x := torch.randn(2, 3, 6, 6))])
    assert "hooks on the convolution" in fold_report(folded).norms_left[0][1]
    assert_close(folded(x), model(x))


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("groups", [1, 2])
def test_the_arithmetic_by_hand(groups, bias, affine):
    conv = nn.Conv2d(4, 6, 3, groups=groups, bias=bias, padding=1)
    norm = nn.BatchNorm2d(6, eps=0.1, affine=affine)
    model = scatter(nn.Sequential(conv, norm)).eval()
    factor = (norm.weight if affine else 1) / (norm.running_var + 0.1).sqrt()
    shift = (conv.bias if bias else 0) - norm.running_mean
    folded = fold(model, data=[torch.randn(1, 4, 5, 5)])[0]
    assert_close(folded.weight, nn.Parameter(conv.weight * factor[:, None, None, None]))
    assert_close(folded.bias, nn.Parameter(shift * factor + (norm.bias if affine else 0)))


def test_linear_layers_take_norms_too():
    model = scatter(nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.BatchNorm1d(5)))
    assert norms(assert_folds(model, torch.randn(3, 3, 2, 2))) == []


# Gates


@pytest.mark.parametrize("gate", [NAMChannel, NAMSpatial], ids=["channel", "pixel"])
def test_nams_constants_are_the_formulas(gate):
    options = {"size": (4, 5)} if gate is NAMSpatial else {}
    module = scatter(gate(6, weighting="rms", **options)).eval()
    line = fold(nn.Sequential(module), data=[torch.randn(2, 6, 4, 5)])[0]
    assert isinstance(line, FoldedGate)
    norm = module.norm
    w = norm.weight.abs() / norm.weight.square().mean().sqrt()
    slope = w * norm.weight / (norm.running_var + norm.eps).sqrt()
    assert_close(line.slope.flatten(), slope.detach())
    assert_close(line.offset.flatten(), (w * norm.bias - slope * norm.running_mean).detach())


def test_a_line_written_as_a_norm_is_the_same_line():
    line = FoldedGate(6, torch.randn(1, 6, 1, 1), torch.randn(1, 6, 1, 1))
    x = torch.randn(2, 6, 4, 5)
    expected = x * torch.sigmoid(line.slope * x + line.offset)
    assert_close(line(x), expected)
    line.as_norm = True
    assert_close(line(x), expected)


def test_a_pixel_gate_keeps_to_its_size():
    line = FoldedGate(6, torch.randn(1, 1, 4, 5), torch.randn(1, 1, 4, 5))
    with pytest.raises(ValueError, match="expected maps of 4×5"):
        line(torch.randn(1, 6, 5, 4))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_lines_gate_is_float32_in_half_precision(dtype):
    line = FoldedGate(2, torch.full((1, 2, 1, 1), 1e-3), torch.zeros(1, 2, 1, 1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = line(torch.ones(1, 2, 1, 1, dtype=dtype))
        assert line.gate(torch.ones(1, 2, 1, 1, dtype=dtype)).unique().item() > 0.5001
    assert y.dtype == dtype
    assert line.to(dtype).gate(torch.ones(1, 2, 1, 1, dtype=dtype)).dtype == torch.float32


def test_a_constant_gate_goes_into_the_convolution_without_a_tolerance(family, tiny, images):
    model = tiny(family, "none")
    graft(model, "half", input_size=8)
    folded = assert_folds(model, images)
    assert not any(isinstance(module, Half) for module in folded.modules())
    report = fold_report(folded)
    assert [site.became for site in report.sites] == ["nothing"] * 2
    assert report.sites[0].into.rpartition(".")[2].startswith("conv")


def narrow(model, shift=0.7):
    """Make all NAM gates of a model nearly constant, each at a value of its own."""
    for module in model.modules():
        if isinstance(module, NAMChannel | NAMSpatial):
            module.weighting = "mean"
            nn.init.uniform_(module.norm.weight, 1e-4, 2e-4)
            nn.init.uniform_(module.norm.bias, -shift, shift)
    return model


@pytest.mark.parametrize("mechanism", ["nam-channel", "nam-spatial", "nam"])
def test_nearly_constant_gates_become_their_means_in_the_convolution(
    family, mechanism, tiny, images
):
    if mechanism != "nam-channel":  # a pixel's gate is its own; shifts must be alike
        model = narrow(tiny(family, mechanism), shift=1e-4)
    else:
        model = narrow(tiny(family, mechanism))
    model = model.double().eval()
    x = images.double()
    folded = fold(model, tolerance=1e-2, data=[x])
    report = fold_report(folded)
    assert report.constant == len(report.sites) == (4 if mechanism == "nam" else 2)
    assert {site.became for site in report.sites} == {"nothing"}
    assert not any(isinstance(m, FoldedGate | FactorGate) for m in folded.modules())
    with torch.no_grad():
        expected, found = model(x), folded(x)
    assert 0 < (found - expected).abs().max() < 1e-2 * expected.abs().max()


def test_the_mean_and_the_range_are_those_of_the_data(tiny):
    model = tiny("timm basic", "nam-channel").double().eval()
    data = [torch.randn(3, 3, 8, 8).double(), torch.randn(1, 3, 8, 8).double()]
    gate, seen = model[1].bn2.attn, []
    hook = gate.register_forward_hook(lambda module, args, _: seen.append(module.gate(args[0])))
    with torch.no_grad():
        for x in data:
            model(x)
    hook.remove()
    values = torch.cat(seen).transpose(0, 1).flatten(1)  # (C, all)
    width = float((values.amax(1) - values.amin(1)).max())
    folded = fold(model, tolerance=1.01 * width, data=data)
    site = fold_report(folded).sites[0]
    assert (site.width, site.lowest, site.highest) == pytest.approx(
        (width, float(values.min()), float(values.max()))
    )
    backwards = fold_report(fold(model, tolerance=1.01 * width, data=data[::-1])).sites[0]
    assert (backwards.lowest, backwards.highest) == (site.lowest, site.highest)
    exact = fold(model, data=data)[1].conv2
    assert_close(
        folded[1].conv2.weight.detach(),
        exact.weight.detach() * values.mean(1)[:, None, None, None],
    )
    stays = fold(model, tolerance=0.99 * width, data=data)
    assert fold_report(stays).sites[0].became == "constants"


def test_ranges_are_those_of_the_calibration_where_it_is_given(tiny):
    model = tiny("timm basic", "nam-channel").double().eval()
    near, far = torch.randn(2, 3, 8, 8).double(), 9 * torch.randn(2, 3, 8, 8).double()
    alone = fold_report(fold(model, tolerance=0.5, data=[near]))
    both = fold_report(fold(model, tolerance=0.5, data=[far], calibration=[near]))
    assert both.sites[0].width == alone.sites[0].width
    assert both.error.images == 2
    assert both.error.largest != alone.error.largest  # measured on the data all the same


def test_a_factor_passes_the_gate_in_front_of_it(tiny, images):
    """The pixels' gate is constant, the channels' is not: the mean still gets to the conv."""
    model = tiny("timm basic", "nam").double().eval()
    x = images.double()
    for module in model.modules():
        if isinstance(module, NAM):
            nn.init.constant_(module.spatial.norm.weight, 1e-9)
            nn.init.constant_(module.spatial.norm.bias, 0.3)
            module.spatial.weighting = "mean"
    folded = fold(model, tolerance=1e-3, data=[x])
    channel, spatial = fold_report(folded).sites[:2]
    assert (channel.became, spatial.became, spatial.into) == ("constants", "nothing", "1.conv2")
    assert_close(folded(x), model(x), rtol=1e-6, atol=1e-6)


def test_factors_pass_gates_that_are_gone_already():
    model = nn.Sequential(nn.Conv2d(3, 6, 1), NAMChannel(6, weighting="mean"), Half(6), Half(6))
    folded = assert_folds(scatter(model).append(nn.Flatten()), torch.randn(2, 3, 4, 5))
    assert [type(m) for m in folded[1:4]] == [FoldedGate, nn.Identity, nn.Identity]


def test_a_factor_does_not_pass_a_pixels_gate():
    gates = NAMSpatial(6, size=(4, 5), weighting="mean"), Half(6)
    model = scatter(nn.Sequential(nn.Conv2d(3, 6, 1), *gates, nn.Flatten()))
    assert isinstance(assert_folds(model, torch.randn(2, 3, 4, 5))[2], FactorGate)


def test_a_linear_layer_along_a_row_takes_no_factor_of_a_channel():
    model = nn.Sequential(nn.Linear(5, 3), nn.BatchNorm2d(3), Half(3), nn.Linear(3, 3), Half(3))
    folded = assert_folds(scatter(model).append(nn.Flatten()), torch.randn(2, 3, 4, 5))
    assert isinstance(folded[2], nn.Identity)  # a norm that stays takes it
    assert isinstance(folded[4], FactorGate)


def test_a_gate_with_nothing_in_front_becomes_a_factor():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 1), nn.ReLU(), BAM(16), nn.Flatten()).eval()
    nn.init.zeros_(model[2].spatial[-1].weight)
    nn.init.zeros_(model[2].spatial[-1].bias)
    folded = fold(model, tolerance=1e-3, data=[(x := torch.randn(2, 3, 4, 4))])
    assert isinstance(folded[2], FactorGate)
    assert fold_report(folded).sites[0].note == "no layer right in front can take it"
    assert_close(folded(x), model(x))


def test_what_leads_elsewhere_too_keeps_its_scale():
    class Fork(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.attn = nn.Conv2d(3, 4, 1), Half(4)

        def forward(self, x):
            y = self.conv(x)
            return (self.attn(y) + y).flatten(1)

    model = Fork()
    folded = fold(model, data=[(x := torch.randn(2, 3, 4, 4))])
    assert_close(folded(x), model(x))
    assert isinstance(folded.attn, FactorGate)


def test_a_gate_of_another_kind_is_listed_and_stays(images):
    class Own(nn.Module):
        def __init__(self, channels):
            super().__init__()

        def forward(self, x):
            return 0.5 * x

    model = graft(host("resnet20", 4), Own)
    folded = fold(model, tolerance=0.5, data=[torch.randn(2, 3, 32, 32)])
    report = fold_report(folded)
    assert {(s.gate, s.became) for s in report.sites} == {("Own", "itself")}
    assert "no gate that we can watch" in str(report)


def test_a_hooked_gate_stays(tiny, images):
    model = tiny("timm basic", "nam-channel").eval()
    model[1].bn2.attn.register_forward_hook(lambda module, args, output: 2 * output)
    folded = fold(model, tolerance=0.9, data=[images])
    assert fold_report(folded).sites[0].note == "there are hooks on it"
    assert_close(folded(images).shape, model(images).shape)


def watched_norm(gate):
    gate.norm.register_forward_hook(lambda module, args, output: 2 * output)


def no_statistics(gate):
    gate.norm.running_mean = gate.norm.running_var = None


@pytest.mark.parametrize("change", [watched_norm, no_statistics])
def test_a_gate_whose_norm_is_no_line_stays(change, tiny, images):
    model = tiny("timm basic", "nam-channel").eval()
    change(model[1].bn2.attn)
    folded = fold(model, data=[images])
    assert [site.became for site in fold_report(folded).sites] == ["itself", "constants"]
    assert_close(folded(images), model(images))


def test_a_hooked_nam_stays_whole(tiny, images):
    model = tiny("timm basic", "nam").eval()
    model[1].bn2.attn.register_forward_hook(lambda module, args, output: 2 * output)
    folded = fold(model, data=[images])
    assert isinstance(folded[1].bn2.attn, NAM)
    assert_close(folded(images), model(images))


def test_a_gate_in_float32_is_watched_in_a_model_of_half_precision(tiny, images):
    model = tiny("timm basic", "se").bfloat16().eval()
    for block in model[1:]:
        block.bn2.attn.float()
    report = fold_report(fold(model, tolerance=1e-3, data=[images]))
    assert 0 < report.sites[0].width < 1


# What is said


class Scores(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x).mean(dim=(2, 3))


def test_the_error_is_measured_on_the_data(tiny, images):
    model = Scores(tiny("timm basic", "nam-channel")).eval()
    labels = torch.arange(4) % 2
    data = [(images[:3], labels[:3]), (images[3:], labels[3:])]
    folded = fold(model, tolerance=0.99, data=data)
    with torch.no_grad():
        expected, found = model(images), folded(images)
    error = fold_report(folded).error
    assert error.largest == pytest.approx(float((found - expected).abs().max()), rel=1e-4)
    assert error.relative == pytest.approx(error.largest / float(expected.abs().max()), rel=1e-4)
    assert error.changed == float((found.argmax(1) != expected.argmax(1)).double().mean())
    assert error.accuracy == float((expected.argmax(1) == labels).double().mean())
    assert error.folded_accuracy == float((found.argmax(1) == labels).double().mean())
    assert (error.images, error.source) == (4, "data")


def test_what_is_counted_is_what_changed():
    total = Sums()
    before = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, -4.0]])
    after = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, -4.0]])
    total.add(before, after, torch.tensor([0, 0, 1]))
    total.add(after, before, torch.tensor([1, 1, 1]))
    assert (total.largest, total.relative) == (1.0, 0.25)
    assert total.rms == pytest.approx((4 / 36) ** 0.5)
    assert [total.share(n) for n in (total.changed, total.right, total.folded_right)] == [
        2 / 6,
        3 / 6,
        1 / 6,
    ]
    total.add(after, after * float("nan"), None)
    assert total.largest != total.largest
    assert not total.labelled


def test_without_data_the_error_is_measured_on_noise():
    report = fold_report(fold(host("resnet20", 4)))
    assert (report.error.images, report.error.source) == (4, "noise")
    assert report.error.accuracy is None
    assert "images of noise" in str(report)


def test_the_report_prints_and_goes_into_json(tiny, images):
    folded = fold(narrow(tiny("timm basic", "nam-channel")), tolerance=0.01, data=[images])
    report = fold_report(folded)
    text = str(report)
    assert "2 of 2 gates became their mean (range below 0.01)" in text
    assert "1.bn2" in text
    assert json.loads(json.dumps(report.to_json()))["sites"][0]["into"] == "1.conv2"


def test_only_a_folded_model_has_a_report():
    with pytest.raises(UnsupportedModel, match="expected a model that normattn"):
        fold_report(host("resnet20", 4))


# Bad input


@pytest.mark.parametrize("tolerance", [0, -1.0, float("nan"), float("inf"), True, "1"])
def test_a_tolerance_that_is_none_is_refused(tolerance, images):
    with pytest.raises(ConfigError, match="expected tolerance to be a number above 0"):
        fold(Net(), tolerance=tolerance, data=[images])


def test_a_tolerance_needs_data():
    with pytest.raises(ConfigError, match=r"expected data with a tolerance.*real images"):
        fold(Net(), tolerance=0.1)


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (iter([torch.randn(1, 3, 8, 8)]), ConfigError, "read several times, got list_iterator"),
        (torch.randn(1, 3, 8, 8), ConfigError, "expected data as batches"),
        (7, ConfigError, "expected data as batches"),
        ("digits", ConfigError, "expected data as batches"),
        ([], DataError, "at least one batch"),
        ([torch.zeros(1, 3, 8, 8, dtype=torch.uint8)], DataError, "torch.uint8"),
        ([torch.randn(3, 8, 8)], DataError, "normalised images"),
        ([torch.randn(0, 3, 8, 8)], DataError, "normalised images"),
        (["x"], DataError, "got str"),
        ([torch.randn(1, 3, 8, 8), torch.randn(1, 3, 9, 9)], DataError, "one size"),
    ],
)
def test_data_of_another_kind_are_refused(data, error, words):
    with pytest.raises(error, match=words):
        fold(Net(), data=data)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: torch.compile(Net()), "a compiled one"),
        (lambda: nn.DataParallel(Net()), "wrapped for distribution"),
        (lambda: torch.jit.script(Net()), "a scripted one"),
        (lambda: nn.Sequential(nn.LazyConv2d(4, 3)), "not yet initialised"),
        (lambda: Net().to("meta"), "'conv.weight' on the meta device"),
        (lambda: "resnet20", "expected an nn.Module, got str"),
    ],
)
@pytest.mark.filterwarnings("ignore:.torch.jit")  # PyTorch deprecates it
def test_a_model_that_is_no_plain_one_is_refused(make, words):
    with pytest.raises(UnsupportedModel, match=words):
        fold(make())


def test_a_quantised_model_is_refused():
    class Stand(nn.Module):
        pass

    Stand.__module__ = "torch.ao.nn.quantized.modules.conv"
    with pytest.raises(UnsupportedModel, match="a quantised one"):
        fold(nn.Sequential(Stand()))


def test_images_that_do_not_fit_are_refused():
    model = graft(host("resnet20", 4), "nam-spatial", input_size=64)
    with pytest.raises(UnsupportedModel, match=r"input_size=\(H, W\)"):
        fold(model)
    assert norms(fold(model, input_size=64)) == []


def test_a_model_that_never_says_the_same_twice_is_a_fault():
    class Random(Net):
        def forward(self, x):
            return super().forward(x) + torch.randn(())

    with pytest.raises(Fault, match="expected the outputs of Random within"):
        fold(Random(), data=[torch.randn(2, 3, 6, 6)])
