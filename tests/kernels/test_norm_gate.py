"""The gate by itself: y = x · σ(scale · x̂ + shift), over channels, pixels and instances."""

import math

import pytest
import torch
from gate_cases import EPS, ORDERS, SHAPES, Case, as_op, call, check, draw, truth
from torch.testing import assert_close

from normattn.kernels import norm_gate
from normattn.kernels.block_tail import reference

FORMS = [(over, False) for over in ("channel", "pixel", "instance")]
FORMS += [("channel", True), ("pixel", True)]
forms = pytest.mark.parametrize(("over", "fixed"), FORMS)
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)
CASES = [
    Case(shape, over, order, dtype, fixed=fixed, mean=mean)
    for shape in SHAPES
    for over, fixed in FORMS
    for order in ORDERS
    for dtype in (torch.float32, torch.bfloat16)
    for mean in (0.0, 100.0)
    if over != "instance" or shape[2:] != (1, 1)  # one value has no deviation: a test of its own
]
orders = pytest.mark.parametrize("order", ORDERS)


@forms
@shapes
def test_reference_is_torchs_norm_and_a_sigmoid(shape, over, fixed):
    case = Case(shape, over, dtype=torch.float64, fixed=fixed)
    inputs = draw(case)
    assert_close(call(reference, case, inputs), truth(case, inputs), rtol=1e-9, atol=1e-9)


def test_gate_of_a_pixel_by_hand(kernels):
    """The other tests trust torch's norms; this one a list of four numbers."""
    values = (1.0, 4.0, 7.0, 12.0)
    x = torch.tensor(values).view(2, 2, 1, 1)
    y, mean, var = norm_gate(x, torch.tensor([0.5]), torch.tensor([0.25]), over="pixel", eps=0.5)
    assert (mean.item(), var.item()) == (6.0, (25 + 4 + 1 + 36) / 4)
    gates = [1 / (1 + math.exp(-(0.5 * (v - 6) / math.sqrt(17) + 0.25))) for v in values]
    assert_close(y.flatten(), x.flatten() * torch.tensor(gates))


@pytest.mark.parametrize("over", ["channel", "pixel", "instance"])
@orders
def test_statistics_are_those_of_each_slice(over, order, kernels):
    x = draw(Case((3, 4, 5, 6), over, order, mean=3.0))["z"]
    vector = torch.ones(30 if over == "pixel" else 4)
    _, mean, var = kernels.forward(x, over=over, eps=EPS, scale=vector, shift=vector)
    dims = {"channel": (0, 2, 3), "pixel": (0, 1), "instance": (2, 3)}[over]
    assert_close(mean, x.double().mean(dims).flatten().float())
    assert_close(var, x.double().var(dims, correction=0).flatten().float())


@forms
@orders
@pytest.mark.parametrize("shape", [(2, 3, 2, 2), (3, 2, 1, 1), (1, 2, 3, 1)], ids=str)
def test_op_passes_gradcheck_in_double_precision(shape, order, over, fixed):
    op, leaves = as_op(Case(shape, over, order, torch.float64, fixed=fixed))
    assert torch.autograd.gradcheck(op, leaves)


@pytest.mark.parametrize("over", ["channel", "pixel", "instance"])
def test_reference_is_differentiable_by_autograd_too(over):
    inputs = draw(Case((2, 3, 2, 2), over, dtype=torch.float64))
    leaves = [inputs[name].requires_grad_() for name in ("z", "scale", "shift")]

    def formula(x, scale, shift):
        return reference.forward(x, over=over, eps=EPS, scale=scale, shift=shift)[0]

    assert torch.autograd.gradcheck(formula, leaves)
    assert torch.autograd.gradgradcheck(formula, leaves)  # the plain form that the op refers to


@pytest.mark.parametrize("case", CASES, ids=str)
def test_error_is_at_most_twice_that_of_plain_pytorch_or_four_units(kernels, case):
    check(kernels, case)


@forms
@orders
def test_half_precision_is_rounded_once(kernels, over, order, fixed):
    """Twice plain PyTorch's error would allow more: it rounds after the norm as well."""
    case = Case((3, 5, 9, 7), over, order, torch.bfloat16, fixed=fixed)
    inputs = draw(case)
    found, exact = call(kernels, case, inputs), truth(case, inputs)
    for name, value in exact.items():
        close = {"rtol": 2**-8, "atol": 1e-5} if value.ndim == 4 else {"rtol": 1e-4, "atol": 1e-4}
        assert_close(found[name].double(), value, **close)


@forms
def test_float16_which_only_the_reference_takes_on_a_cpu_is_as_exact(over, fixed):
    check(reference, Case((3, 5, 9, 7), over, dtype=torch.float16, fixed=fixed))


@orders
def test_the_gate_of_a_single_value_is_that_of_its_shift(kernels, order):
    """Its own mean is itself: x̂ is 0, t is the shift, and only the gate's own slope is left."""
    case = Case((6, 5, 1, 1), "instance", order)
    inputs = draw(case)
    found, gate = call(kernels, case, inputs), inputs["shift"].double().sigmoid().view(1, 5, 1, 1)
    assert_close(found["out"], (inputs["z"] * gate).float())
    assert found["dscale"].abs().max() == 0
    # Into x̂, which is 0 whatever x is, goes nothing: it would come back √(1/eps) as large.
    assert_close(found["dz"], (inputs["dy"] * gate).float(), rtol=1e-6, atol=1e-7)


@forms
def test_scales_of_zero_leave_a_constant_gate(kernels, over, fixed):
    case = Case((3, 4, 5, 6), over, fixed=fixed)
    inputs = draw(case)
    inputs["scale"].zero_()
    inputs["shift"].zero_()
    found = call(kernels, case, inputs)
    assert_close(found["out"], inputs["z"] / 2)
    assert_close(found["dz"], inputs["dy"] / 2)
    assert found["dscale"].abs().min() > 0


@forms
@orders
def test_large_logits_saturate_without_nan(kernels, over, order, fixed):
    case = Case((3, 4, 5, 6), over, order, fixed=fixed)
    inputs = draw(case)
    inputs["scale"] *= 1e4
    found = call(kernels, case, inputs)
    assert all(value.isfinite().all() for value in found.values())
    assert_close(found["out"], truth(case, inputs)["out"].float(), rtol=1e-3, atol=1e-3)


@forms
@orders
def test_nan_and_infinity_are_not_hidden(kernels, over, order, fixed):
    case = Case((3, 4, 5, 6), over, order, fixed=fixed)
    for bad in (math.nan, math.inf):
        inputs = draw(case)
        inputs["z"][1, 2, 3, 4] = bad
        out = call(kernels, case, inputs)["out"]
        assert not out[1, 2, 3, 4].isfinite()
