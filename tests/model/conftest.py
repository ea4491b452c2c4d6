"""What the tests of fuse share: small hosts of every family, and both ways to compute."""

from collections import Counter

import pytest
import timm.models.resnet as timm_resnet
import torch
import torchvision.models.resnet as torchvision_resnet
from torch import nn

from normattn import graft, kernels
from normattn.kernels import cpu
from normattn.model import cifar_resnet

OPS = ("block_tail", "block_tail_fixed", "norm_gate", "norm_gate_fixed")


def _stack(block, planes, **options):
    """Return a stem and two blocks, the second with a convolution in its shortcut."""
    shortcut = nn.Sequential(nn.Conv2d(8, 16, 1, stride=2, bias=False), nn.BatchNorm2d(16))
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        block(8, planes, **options),
        block(8, 2 * planes, stride=2, downsample=shortcut, **options),
    )


def _cifar(shortcut):
    blocks = (cifar_resnet.BasicBlock(*sizes, shortcut) for sizes in ((8, 8, 1), (8, 16, 2)))
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), *blocks)


FAMILIES = {
    "timm basic": lambda **options: _stack(timm_resnet.BasicBlock, 8, **options),
    "timm bottleneck": lambda **options: _stack(timm_resnet.Bottleneck, 2, **options),
    "torchvision basic": lambda: _stack(torchvision_resnet.BasicBlock, 8),
    "torchvision bottleneck": lambda: _stack(torchvision_resnet.Bottleneck, 2),
    "cifar identity": lambda: _cifar("identity"),
    "cifar projection": lambda: _cifar("projection"),
}
ATTENTION = {
    "none": {},
    "nam-channel": {"weighting": "mean"},  # the paper's gate is so near ½ that errors would hide
    "nam-spatial": {"weighting": "mean"},
    "nam": {"weighting": "mean"},
    "ean": {"groups": 4},
    "se": {"reduction": 4},
}


def pytest_generate_tests(metafunc):
    for name, values in (("family", FAMILIES), ("attention", ATTENTION)):
        if name in metafunc.fixturenames and name not in _own_parameters(metafunc):
            metafunc.parametrize(name, list(values))


def _own_parameters(metafunc):
    found = set()
    for mark in metafunc.definition.iter_markers("parametrize"):
        names = mark.args[0]
        found.update([names] if isinstance(names, str) else names)
    return found


@pytest.fixture(autouse=True)
def every_map_pays(monkeypatch):
    """Have kernels take the small maps of these tests, which they would leave.

    The limits are lowered and nothing is replaced, so that the real question is asked.
    """
    for name in ("GATE_ELEMENTS", "NCHW_ELEMENTS", "CHANNELS_LAST_ELEMENTS"):
        monkeypatch.setattr(cpu, name, 0)


@pytest.fixture
def tiny():
    """Return a function that builds a small host with attention; no two values in it are alike."""

    def build(family="timm basic", attention="nam-channel", **options):
        torch.manual_seed(0)
        model = FAMILIES[family](**options)
        graft(model, attention, input_size=8, **ATTENTION[attention])
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var"):
                nn.init.uniform_(tensor, 0.5, 1.5)
            elif tensor.is_floating_point() and tensor.ndim == 1:
                nn.init.normal_(tensor, mean=0.5, std=0.5)
        return model

    return build


@pytest.fixture
def images():
    """Return images for the hosts of `tiny`."""
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=["reference", "library"])
def kernels_run(request):
    """Run a test with the ops' reference, and with the library where it was built.

    So a machine without a compiler tests all that fuse does, too.
    """
    if request.param == "reference":
        request.getfixturevalue("reference_runs")
    elif cpu.status().startswith("none"):
        pytest.skip(f"no library of kernels: {cpu.status()}")


@pytest.fixture
def calls(monkeypatch):
    """Count the calls of each op."""
    counted = Counter()

    def watched(name, op):
        def call(*args, **kwargs):
            counted[name] += 1
            return op(*args, **kwargs)

        return call

    for name in OPS:
        monkeypatch.setattr(kernels, name, watched(name, getattr(kernels, name)))

    # In plain eager code a layer takes one call, past the ops; it counts as what it stands for.
    def direct(z, norms, layer=kernels.layer, **kwargs):
        y = layer(z, norms, **kwargs)
        op = "norm_gate" if norms.norm is None else "block_tail"
        if y is not None:
            counted[f"{op}_fixed" if norms.fixed else op] += 1
        return y

    monkeypatch.setattr(kernels, "layer", direct)
    return counted
