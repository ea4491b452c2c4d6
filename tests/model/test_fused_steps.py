"""Kernels are called for maps large enough to gain by them, and for no others."""

import pytest
import torch

from normattn import create, fuse
from normattn.kernels import cpu
from normattn.model.cifar_resnet import BasicBlock

CHANNELS = 4
#: By the name of the limit, the order in memory and whether there is a gate.
CASES = {
    "GATE_ELEMENTS": (torch.contiguous_format, True),
    "NCHW_ELEMENTS": (torch.contiguous_format, False),
    "CHANNELS_LAST_ELEMENTS": (torch.channels_last, False),
}
REAL = {name: getattr(cpu, name) for name in CASES}

pytestmark = pytest.mark.usefixtures("kernels_run")


@pytest.fixture
def real_limits(kernels_run, monkeypatch):
    for name, limit in REAL.items():
        monkeypatch.setattr(cpu, name, limit)


@pytest.mark.parametrize("channels", [64, 65])
def test_in_channels_last_a_norm_of_many_channels_is_left_to_pytorch(channels):
    x = torch.empty(1, channels, 128, 129).to(memory_format=torch.channels_last)
    assert cpu.pays(x, False) is (channels == 64)
    assert cpu.pays(x.contiguous(), False)
    assert cpu.pays(x, True)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("enough", [True, False], ids=["large", "small"])
def test_a_map_goes_to_the_kernels_from_the_limit_on(name, enough, real_limits, calls):
    order, gate = CASES[name]
    width = REAL[name] // (CHANNELS * 64) - (not enough)
    x = torch.randn(1, CHANNELS, 64, width).to(memory_format=order)
    models = [create("nam-channel", CHANNELS), create("ean", CHANNELS, groups=1)]
    if not gate:
        models = [BasicBlock(CHANNELS, CHANNELS, 1, "identity").to(memory_format=order)]
    with torch.no_grad():
        for model in models:
            fuse(model)(x)
    assert calls.total() == (2 if enough else 0)
