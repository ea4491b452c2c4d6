"""A fused model computes what the plain one computes, as exactly."""

import copy
import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from normattn import fuse, kernels
from normattn.attention import EAN, NAM, NAMChannel, NAMSpatial
from normattn.model.fuse import fused

LAYOUTS = (torch.contiguous_format, torch.channels_last)

pytestmark = pytest.mark.usefixtures("kernels_run")


def results(model, images, seed=0):
    """Return a model's output, every gradient and every buffer after one step."""
    model.zero_grad()
    x = images.clone().requires_grad_()
    y = model(x)
    weights = torch.randn(
        y.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double
    )
    (y * weights.to(y.dtype)).sum().backward()
    gradients = {f"d{name}": p.grad for name, p in model.named_parameters()}
    return {"y": y.detach(), "dx": x.grad, **gradients, **dict(model.named_buffers())}


def errors(found, exact):
    """Return each tensor's relative error; sums that vanish, but for rounding, have none."""
    return {
        name: float((found[name].double() - value).norm() / value.norm())
        for name, value in exact.items()
        if value.is_floating_point() and value.norm() > 1e-9 * value.numel() ** 0.5
    }


def assert_as_exact(plain, images, **autocast):
    """Check a fused copy against float64: no further from it than twice the plain form.

    By the median over all tensors: rounding opens or shuts a ReLU next to zero in one form and not
    in the other, which moves a few tensors by far. Those have a bound of their own. Half a unit in
    the last place is the difference between forms that are both as good as can be.
    """
    ours, theirs = [], []
    for seed in range(3):
        x = images + 0.1 * seed
        exact = results(copy.deepcopy(plain).double(), x.double(), seed)
        with torch.autocast("cpu", enabled=bool(autocast), **autocast):
            expected = results(copy.deepcopy(plain), x, seed)
            found = results(fuse(copy.deepcopy(plain)), x, seed)
        assert {n: t.dtype for n, t in found.items()} == {n: t.dtype for n, t in expected.items()}
        assert found["y"].stride() == expected["y"].stride()
        for name, tensor in found.items():
            if not tensor.is_floating_point():
                assert torch.equal(tensor, expected[name]), name
        ours += errors(found, exact).values()
        theirs += errors(expected, exact).values()
    unit = torch.finfo(found["y"].dtype).eps
    assert np.median(ours) <= 2 * np.median(theirs) + unit / 2
    assert max(ours) < max(1e-3, 10 * max(theirs))


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_outputs_gradients_and_statistics_are_as_exact(family, attention, training, tiny, images):
    for layout in LAYOUTS:
        model = tiny(family, attention).to(memory_format=layout).train(training)
        assert_as_exact(model, images.to(memory_format=layout))


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_autocast_gives_the_same_types_and_exactness(family, training, tiny, images):
    model = tiny(family, "nam-channel").train(training)
    assert_as_exact(model, images, dtype=torch.bfloat16)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_a_model_in_half_precision_is_as_exact(attention, training, tiny, images):
    model = tiny("timm bottleneck", attention).bfloat16().train(training)
    assert_as_exact(model, images.bfloat16())


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("weighting", ["sum", "rms"])
@pytest.mark.parametrize("over", ["channel", "pixel", "both"])
def test_gradients_through_the_importance_arrive(over, weighting, training, images):
    options = {"weighting": weighting, "detach_importance": False}
    torch.manual_seed(0)
    gate = {
        "channel": lambda: NAMChannel(3, **options),
        "pixel": lambda: NAMSpatial(3, size=(8, 8), **options),
        "both": lambda: NAM(3, size=(8, 8), **options),
    }[over]()
    for parameter in gate.parameters():
        nn.init.normal_(parameter)
    assert_as_exact(gate.train(training), images)


@pytest.mark.parametrize("scale_norm", ["l2", "l1"])
def test_ean_learns_all_four_vectors(scale_norm, images):
    torch.manual_seed(0)
    gate = EAN(6, groups=2, scale_norm=scale_norm)
    for parameter in gate.parameters():
        nn.init.normal_(parameter)
    assert_as_exact(gate, images.repeat(1, 2, 1, 1))


def test_frozen_norms_keep_their_statistics_and_pass_gradients_on(family, tiny, images):
    model = tiny(family, "nam-channel").train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    assert_as_exact(model, images)


@pytest.mark.parametrize("frozen", ["base", "norm"])
def test_norms_of_one_tail_in_different_modes_are_honoured(frozen, tiny, images, calls):
    model = tiny("timm basic", "nam-channel").train()
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d) and name.endswith(frozen):
            module.eval()
    assert_as_exact(model, images)
    assert calls["norm_gate"] + calls["norm_gate_fixed"] == 2 * 3  # no kernel takes the tail as one


def test_a_norm_that_averages_over_all_batches_does_so(tiny, images):
    model = tiny("timm basic", "nam-channel").train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            module.num_batches_tracked.fill_(3)
    assert_as_exact(model, images)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("tracked", [True, False], ids=["taken away", "never had"])
def test_a_norm_without_running_statistics_takes_those_of_the_batch(tracked, training, images):
    model = nn.Sequential(NAMChannel(3, weighting="mean"))
    model[0].norm = nn.BatchNorm2d(3, track_running_stats=tracked)
    model[0].norm.running_mean = model[0].norm.running_var = None
    nn.init.normal_(model[0].norm.weight)
    assert_as_exact(model.train(training), images)


def test_statistics_switched_off_later_are_left_alone(tiny, images):
    model = fuse(tiny("timm basic", "nam-channel").train())
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats = False
    before = copy.deepcopy(dict(model.named_buffers()))
    inside = [name for name in before if not name.startswith("2.downsample")]
    model(images)
    assert all(torch.equal(before[name], model.get_buffer(name)) for name in inside)


def test_every_layer_that_has_a_kernel_takes_it(tiny, images, calls):
    model = fuse(tiny("timm bottleneck", "nam-channel"))
    model.train()(images)
    assert calls == {"block_tail": 6}
    model.eval()(images)
    assert calls == {"block_tail": 6, "block_tail_fixed": 6}
    other = fuse(tiny("timm basic", "nam"))
    other.train()(images)
    other.eval()(images)
    assert calls["norm_gate"] == calls["norm_gate_fixed"] == 4


def test_inference_writes_over_what_only_the_block_knows(tiny, images, monkeypatch):
    op, layer, inplace = kernels.block_tail_fixed, kernels.layer, []

    def watched(*args, **kwargs):
        inplace.append(kwargs["inplace"])
        return op(*args, **kwargs)

    def watched_layer(z, norms, **kwargs):
        y = layer(z, norms, **kwargs)
        if y is not None:
            inplace.append(y is z)
        return y

    monkeypatch.setattr(kernels, "block_tail_fixed", watched)
    monkeypatch.setattr(kernels, "layer", watched_layer)
    model = fuse(tiny("timm bottleneck", "nam-channel").eval())
    model(images)
    assert inplace == [False] * 6  # gradients may be asked for
    with torch.no_grad():
        expected = model(images)
        assert inplace[6:] == [True] * 6
    with torch.inference_mode():
        assert_close(model(images), expected)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model(images)
    assert inplace[12:] == [True] * 12


@torch.no_grad()
def test_what_a_hook_was_given_is_not_written_over(tiny, images):
    model = fuse(tiny("timm bottleneck", "nam-channel").eval())
    seen = []
    model[1].conv3.register_forward_hook(lambda module, args, y: seen.append((y, y.clone())))
    model(images)
    assert torch.equal(*seen[0])


class Results(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.kept = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        y = func(*args, **(kwargs or {}))
        if "convolution" in str(func):
            self.kept.append((y, y.clone()))
        return y


class Calls(TorchFunctionMode):
    def __init__(self):
        super().__init__()
        self.kept = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        y = func(*args, **(kwargs or {}))
        if "conv2d" in str(func):
            self.kept.append((y, y.clone()))
        return y


@torch.no_grad()
@pytest.mark.parametrize("mode", [Results, Calls])
def test_what_a_mode_was_given_is_not_written_over(mode, tiny, images):
    model = fuse(tiny("timm bottleneck", "nam-channel").eval())
    with mode() as seen:
        model(images)
    assert len(seen.kept) == 8
    assert all(torch.equal(*pair) for pair in seen.kept)


def test_two_threads_at_once_get_the_results_of_one(tiny, images):
    model = fuse(tiny("timm bottleneck", "nam").eval())
    with torch.no_grad():
        expected = model(images)
    found = {}

    def run(number):
        with torch.no_grad():
            found[number] = [model(images) for _ in range(20)]

    threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(y, expected) for number in range(2) for y in found[number])


def test_maps_of_every_size_work(family, tiny):
    for training, shape in ((True, (2, 3, 2, 2)), (True, (1, 3, 7, 5)), (False, (1, 3, 1, 1))):
        model = tiny(family, "nam-channel").train(training)
        x = torch.randn(shape, generator=torch.Generator().manual_seed(3))
        expected = copy.deepcopy(model)(x)
        assert_close(fuse(model)(x), expected, rtol=1e-4, atol=1e-5)


def test_an_empty_batch_is_treated_as_before(tiny):
    model = fuse(tiny("timm basic", "nam-channel").eval())
    assert model(torch.empty(0, 3, 8, 8)).shape == (0, 16, 4, 4)


def test_the_report_names_what_kernels_compute(tiny):
    report = fused(fuse(tiny("timm bottleneck", "nam-channel")))
    assert [block.site for block in report.blocks] == ["1", "2"]
    assert report.blocks[0].kernels == (
        "bn1 + act1",
        "bn2 + act2",
        "bn3 + NAMChannel + shortcut + act3",
    )
    assert [m.site for m in report.mechanisms] == ["1.bn3.attn", "2.bn3.attn"]
    assert report.left == ()
