"""A layer in one call: what the modules themselves would give, and where there is no such way."""

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from normattn.attention import NAMChannel, NAMSpatial
from normattn.errors import InputError
from normattn.kernels import Norms, cpu, layer

CHANNELS, SIZE = 5, (3, 6)
ORDERS = [torch.contiguous_format, torch.channels_last]
WEIGHTINGS = ["sum", "mean", "rms"]

pytestmark = pytest.mark.skipif(
    cpu.LIBRARY is None, reason="no library of kernels was built: there is no direct way"
)
orders = pytest.mark.parametrize("order", ORDERS, ids=["NCHW", "channels_last"])
modes = pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])


def drawn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape) + shape[0]))


def set_vectors(norm):
    """Give a norm vectors that differ, a negative and a zero scale among them."""
    count = norm.num_features
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(-0.7, 1.3, count))
        norm.weight[1] = 0.0
        norm.bias.copy_(torch.linspace(0.4, -0.6, count))
        norm.running_mean.copy_(torch.linspace(-1, 1, count))
        norm.running_var.copy_(torch.linspace(0.3, 2, count))


class Plain(nn.Module):
    """What a layer stands for, by modules."""

    def __init__(self, kind, weighting):
        super().__init__()
        self.norm = None if kind in ("channel", "pixel") else nn.BatchNorm2d(CHANNELS, momentum=0.3)
        gates = {"pixel": NAMSpatial, "norm": None}
        gate = gates.get(kind, NAMChannel)
        options = {"size": SIZE} if kind == "pixel" else {}
        self.gate = gate and gate(CHANNELS, weighting=weighting, **options)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                set_vectors(module)
        self.relu = self.norm is not None

    def forward(self, z, residual):
        y = z if self.norm is None else self.norm(z)
        y = y if self.gate is None else self.gate(y)
        y = y if residual is None else y + residual
        return y.relu() if self.relu else y

    def norms(self, *, fixed):
        gate = self.gate and self.gate.norm
        weighting = self.gate.weighting if self.gate else "sum"
        over = "pixel" if isinstance(self.gate, NAMSpatial) else "channel"
        return Norms(self.norm, gate, weighting, over, self.relu, fixed)


CASES = [
    *((kind, "sum", residual) for kind in ("norm", "both") for residual in (True, False)),
    *(("both", weighting, True) for weighting in ("mean", "rms")),
    *((kind, weighting, False) for kind in ("channel", "pixel") for weighting in WEIGHTINGS),
]


@orders
@modes
@pytest.mark.parametrize(("kind", "weighting", "has_residual"), CASES)
def test_a_layer_gives_what_its_modules_give_in_float64(
    kind, weighting, has_residual, training, order
):
    ours = Plain(kind, weighting).train(training)
    exact = copy.deepcopy(ours).double()
    for step in range(2):  # twice, as the running statistics move each time
        z = drawn(4 + step, CHANNELS, *SIZE).to(memory_format=order).requires_grad_(training)
        residual = drawn(4 + step, CHANNELS, *SIZE).flip(0) if has_residual else None
        if has_residual:
            residual = residual.to(memory_format=order).requires_grad_(training)
        inputs = [
            x.detach().double().requires_grad_(training) for x in (z, residual) if x is not None
        ]
        y = exact(*inputs, *([None] if residual is None else []))
        with torch.set_grad_enabled(training):
            out = layer(z, ours.norms(fixed=not training), residual=residual, own=False)
        assert_close(out.double(), y, atol=2e-6, rtol=2e-6)
        assert out.stride() == z.stride()
        if training:
            dy = drawn(*y.shape).flip(1)
            out.backward(dy)
            y.backward(dy.double())
            assert_close(z.grad.double(), inputs[0].grad, atol=3e-6, rtol=3e-6)
            if residual is not None:
                assert_close(residual.grad.double(), inputs[1].grad)
    for (name, p), q in zip(ours.named_parameters(), exact.parameters(), strict=True):
        if training:
            assert_close(p.grad.double(), q.grad, atol=1e-5, rtol=1e-5, msg=lambda m, n=name: n + m)
    for (name, b), c in zip(ours.named_buffers(), exact.buffers(), strict=True):
        assert_close(b.to(c.dtype), c, atol=1e-6, rtol=1e-6, msg=lambda m, n=name: n + m)


def test_all_scales_at_zero_make_a_gate_of_one_half():
    plain = Plain("channel", "sum")
    nn.init.zeros_(plain.gate.norm.weight)
    z = drawn(2, CHANNELS, *SIZE)
    out = layer(z, plain.norms(fixed=False), residual=None, own=False)
    assert torch.equal(out, z / 2)


def test_what_is_written_is_noticed_by_who_kept_it():
    plain = Plain("both", "sum")
    before = [buffer._version for buffer in plain.buffers()]
    layer(drawn(2, CHANNELS, *SIZE), plain.norms(fixed=False), residual=None, own=False)
    assert all(b._version > v for b, v in zip(plain.buffers(), before, strict=True))
    with torch.no_grad():
        z = drawn(2, CHANNELS, *SIZE)
        version = z._version
        assert layer(z, plain.eval().norms(fixed=True), residual=None, own=True) is z
        assert z._version > version


def test_a_vector_changed_before_the_backward_is_refused():
    plain = Plain("both", "sum")
    out = layer(drawn(2, CHANNELS, *SIZE), plain.norms(fixed=False), residual=None, own=False)
    with torch.no_grad():
        plain.norm.weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_gradients_in_batches_are_refused_by_name():
    plain = Plain("both", "sum")
    out = layer(drawn(2, CHANNELS, *SIZE), plain.norms(fixed=False), residual=None, own=False)
    dys = drawn(3, 2, CHANNELS, *SIZE)
    with pytest.raises(InputError, match=r"values in memory.*unfuse"):
        torch.autograd.grad(out, plain.norm.weight, dys, is_grads_batched=True)


def test_a_second_derivative_is_refused():
    plain = Plain("both", "sum")
    z = drawn(2, CHANNELS, *SIZE).requires_grad_()
    out = layer(z, plain.norms(fixed=False), residual=None, own=False)
    (dz,) = torch.autograd.grad(out.square().sum(), z, create_graph=True)
    with pytest.raises(InputError, match="differentiated once"):
        dz.sum().backward()


class Odd(nn.Parameter):
    """A parameter with a meaning of its own, which the library could not know."""


def _double(plain):
    plain.norm.double()


def _average(plain):
    plain.norm.momentum = None


def _subclass(plain):
    plain.norm.weight = Odd(plain.norm.weight.data)


def _strided(plain):
    plain.norm.weight = nn.Parameter(torch.ones(2 * CHANNELS)[::2])


def _longer(plain):
    plain.norm.weight = nn.Parameter(torch.ones(2 * CHANNELS))


def _lacking(plain):
    plain.norm.bias = None


@pytest.mark.parametrize("change", [_double, _average, _subclass, _strided, _longer, _lacking])
def test_there_is_no_direct_way_with_vectors_that_the_library_does_not_take(change):
    plain = Plain("both", "sum")
    z = drawn(2, CHANNELS, *SIZE)
    assert layer(z, plain.norms(fixed=False), residual=None, own=False) is not None
    change(plain)
    before = [buffer.clone() for buffer in plain.buffers()]
    assert layer(z, plain.norms(fixed=False), residual=None, own=False) is None
    assert all(torch.equal(b, c) for b, c in zip(plain.buffers(), before, strict=True))


def test_fixed_statistics_have_no_direct_gradient():
    plain = Plain("both", "sum").eval()
    z = drawn(2, CHANNELS, *SIZE)
    assert layer(z, plain.norms(fixed=True), residual=None, own=False) is None
    with torch.no_grad():
        assert layer(z, plain.norms(fixed=True), residual=None, own=False) is not None


def test_who_watches_operations_sees_the_ops():
    plain = Plain("both", "sum")
    z = drawn(2, CHANNELS, *SIZE)
    with torch.profiler.profile():
        assert layer(z, plain.norms(fixed=False), residual=None, own=False) is None
