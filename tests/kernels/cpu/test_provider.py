"""What the C++ functions do with tensors that the ops would not give them as they are."""

import pytest
import torch
from gate_cases import EVERYTHING, FORMS, ORDERS, Case, call, draw
from torch.testing import assert_close

from normattn.errors import InputError
from normattn.kernels import cpu

pytestmark = pytest.mark.skipif(cpu.LIBRARY is None, reason=cpu.status())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("case", FORMS, ids=str)
def test_torchs_default_type_changes_nothing(case, order, dtype):
    """The library writes float32: into room for half as much it would write past the end."""
    inputs = draw(Case(**vars(case) | {"order": order}))
    expected, before = call(cpu, case, inputs), torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        found = call(cpu, case, inputs)
    finally:
        torch.set_default_dtype(before)
    assert {name: t.dtype for name, t in found.items()} == dict.fromkeys(found, torch.float32)
    assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("case", FORMS, ids=str)
def test_torchs_default_device_changes_nothing(case):
    inputs = draw(case)
    expected = call(cpu, case, inputs)
    with torch.device("meta"):
        found = call(cpu, case, inputs)
    assert_close(found, expected, rtol=0, atol=0)


def test_statistics_with_gaps_and_of_another_type_are_read_as_they_are():
    case = Case(**EVERYTHING)
    inputs = draw(case)
    z, dy, residual = inputs["z"], inputs["dy"], inputs["residual"]
    vectors = {name: inputs[name] for name in ("weight", "bias", "scale", "shift")}
    common = {"over": "channel", "relu": True, "eps": 1e-5, "gate_eps": 1e-3, **vectors}
    out, mean, var = cpu.forward(z, residual=residual, **common)
    expected = cpu.backward(dy, z, out, mean=mean, var=var, residual=True, **common)
    for change in (lambda v: v.repeat_interleave(2)[::2], torch.Tensor.double):
        changed = {"mean": change(mean), "var": change(var)}
        assert_close(cpu.backward(dy, z, out, residual=True, **changed, **common), expected)


class Wrapper(torch.Tensor):
    """A tensor around another, as quantised and distributed ones are: no memory of its own."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        assert function is torch.ops.aten.empty_like.default
        return torch.empty(args[0].shape)


@pytest.mark.parametrize("name", ["z", "residual", "weight", "scale"])
def test_tensors_without_memory_are_refused(name):
    inputs = draw(Case(**EVERYTHING))
    inputs = {name: inputs[name] for name in ("z", "residual", "weight", "bias", "scale", "shift")}
    inputs[name] = Wrapper(inputs[name])
    with pytest.raises(InputError, match=r"^cpu: expected tensors with values in memory, got a W"):
        cpu.forward(over="channel", eps=1e-5, gate_eps=1e-3, relu=True, **inputs)


def test_calls_for_neither_norm_nor_gate_are_refused():
    z, v = torch.ones(2, 3, 4, 5), torch.ones(3)
    nothing = dict.fromkeys(("weight", "bias", "scale", "shift"))
    fixed = dict.fromkeys(("p", "q", "slope", "offset"))
    rest = {"over": "channel", "residual": False, "relu": False}
    for function in (
        lambda: cpu.forward(z, over="channel", eps=1.0),
        lambda: cpu.forward_fixed(z, over="channel", center=v),
        lambda: cpu.backward(z, z, None, mean=v, var=v, eps=1.0, gate_eps=0.0, **nothing, **rest),
        lambda: cpu.backward_fixed(z, z, None, center=v, **fixed, **rest),
    ):
        with pytest.raises(AssertionError, match="a norm, a gate or both, got neither"):
            function()


def test_fixed_statistics_of_instances_are_refused():
    z, v = torch.ones(2, 3, 4, 5), torch.ones(3)
    vectors = {"over": "instance", "center": v, "slope": v, "offset": v}
    rest = {"p": None, "q": None, "residual": False, "relu": False}
    for function in (
        lambda: cpu.forward_fixed(z, **vectors),
        lambda: cpu.backward_fixed(z, z, None, **vectors, **rest),
    ):
        with pytest.raises(AssertionError, match="statistics that can be fixed"):
            function()
