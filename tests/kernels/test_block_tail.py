"""The tail of a residual block: norm, gate with its own norm in closed form, sum, ReLU."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from gate_cases import EPS, GATE_EPS, ORDERS, SHAPES, VECTORS, Case, as_op, call, check, draw, truth
from torch.testing import assert_close

from normattn.kernels import block_tail, block_tail_fixed
from normattn.kernels.block_tail import reference

FLAGS = [
    dict(zip(("gate", "residual", "relu"), flags, strict=True))
    for flags in itertools.product((False, True), repeat=3)
]
flags = pytest.mark.parametrize(
    "flags", FLAGS, ids=lambda flags: "+".join(k for k, v in flags.items() if v) or "norm alone"
)
fixed = pytest.mark.parametrize("fixed", [False, True], ids=["own", "fixed"])
orders = pytest.mark.parametrize("order", ORDERS)
CASES = [
    Case(shape, "channel", order, dtype, norm=True, fixed=fixed, mean=mean, **flags)
    for shape in SHAPES
    for order in ORDERS
    for dtype in (torch.float32, torch.bfloat16)
    for fixed in (False, True)
    for mean in (0.0, 100.0)
    for flags in FLAGS
]


@flags
@fixed
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_reference_is_torchs_norms_one_after_the_other(shape, fixed, flags):
    case = Case(shape, dtype=torch.float64, norm=True, fixed=fixed, **flags)
    inputs = draw(case)
    assert_close(call(reference, case, inputs), truth(case, inputs), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("detach", [True, False], ids=["w fixed", "w learned"])
@pytest.mark.parametrize("deviation", [1.0, 1e-3, 1e-6], ids=str)
def test_closed_form_is_batch_norm_twice(deviation, detach):
    """Also where eps is most of the variance, so that the norm's output is far from variance γ²."""
    torch.manual_seed(0)
    first, second = (torch.nn.BatchNorm2d(6, dtype=torch.float64) for _ in range(2))
    parameters = [*first.parameters(), *second.parameters()]
    for parameter in parameters:
        torch.nn.init.normal_(parameter)
    first.weight.data[0] = 0.0
    first.eps, second.eps = 1e-5, 1e-4
    z = (deviation * (torch.randn(4, 6, 5, 3, dtype=torch.float64) + 3)).requires_grad_()
    residual, dy = (torch.randn_like(z).requires_grad_() for _ in range(2))

    magnitude = (second.weight.detach() if detach else second.weight).abs()
    w = magnitude / magnitude.sum()
    x = first(z)
    twice = torch.relu(x * torch.sigmoid(w.view(1, 6, 1, 1) * second(x)) + residual)
    scale, shift = w * second.weight, w * second.bias
    gate = {"scale": scale, "shift": shift, "gate_eps": second.eps, "residual": residual}
    out, _, var = block_tail(z, first.weight, first.bias, eps=first.eps, relu=True, **gate)

    assert_close(out, twice, rtol=1e-10, atol=1e-10)
    leaves = [z, residual, *parameters]
    found, expected = (torch.autograd.grad(y, leaves, dy, retain_graph=True) for y in (out, twice))
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other, rtol=1e-10, atol=1e-10 * other.abs().max().item())
    closed = first.weight.square() * var / (var + first.eps)
    assert_close(second.running_mean, 0.1 * first.bias, rtol=1e-10, atol=1e-10)
    unbiased = 60 / 59 * closed
    assert_close(second.running_var, 0.9 + 0.1 * unbiased, rtol=1e-10, atol=1e-10)


@flags
@fixed
@orders
def test_op_passes_gradcheck_in_double_precision(order, fixed, flags):
    case = Case((2, 3, 2, 2), order=order, dtype=torch.float64, norm=True, fixed=fixed, **flags)
    op, leaves = as_op(case)
    assert torch.autograd.gradcheck(op, leaves)


@flags
def test_reference_is_differentiable_by_autograd_too(flags):
    case = Case((2, 3, 2, 2), dtype=torch.float64, norm=True, **flags)
    inputs = draw(case)
    names = [name for name in ("z", "residual", *VECTORS) if inputs[name] is not None]

    def formula(*tensors):
        given = dict(zip(names, tensors, strict=True)) | {"relu": case.relu}
        return reference.forward(over="channel", eps=EPS, gate_eps=GATE_EPS, **given)[0]

    assert torch.autograd.gradcheck(formula, [inputs[name].requires_grad_() for name in names])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_error_is_at_most_twice_that_of_plain_pytorch_or_four_units(kernels, case):
    check(kernels, case)


@flags
@fixed
@orders
def test_half_precision_is_rounded_once(kernels, order, fixed, flags):
    """Twice plain PyTorch's error would allow more: it rounds after the norm and after the gate."""
    case = Case((3, 5, 9, 7), "channel", order, torch.bfloat16, norm=True, fixed=fixed, **flags)
    inputs = draw(case)
    found, exact = call(kernels, case, inputs), truth(case, inputs)
    for name, value in exact.items():
        close = {"rtol": 2**-8, "atol": 1e-5} if value.ndim == 4 else {"rtol": 1e-4, "atol": 1e-4}
        assert_close(found[name].double(), value, **close)


@flags
@orders
def test_a_center_far_above_the_deviation_costs_no_digits(kernels, order, flags):
    """Plain PyTorch multiplies first, and loses what p · z and p · center have in common."""
    case = Case((3, 5, 9, 7), "channel", order, norm=True, fixed=True, mean=1e4, **flags)
    inputs = draw(case)
    found, exact = call(kernels, case, inputs), truth(case, inputs)
    for name, value in exact.items():
        assert_close(found[name].double(), value, rtol=1e-5, atol=1e-5 * value.abs().max().item())


@pytest.mark.parametrize("over", ["channel", "pixel", "instance"])
@orders
def test_functions_of_a_provider_take_any_broadcast(kernels, over, order):
    """The ops ask for channels alone; a norm before the gate has the same meaning over the rest."""
    everything = {"norm": True, "gate": True, "residual": True, "relu": True}
    check(kernels, Case((3, 4, 5, 6), over, order, **everything))
    if over != "instance":
        check(kernels, Case((3, 4, 5, 6), over, order, fixed=True, **everything))


@flags
@orders
def test_norm_of_weight_zero_leaves_the_bias(kernels, order, flags):
    case = Case((3, 4, 5, 6), order=order, norm=True, **flags)
    inputs = draw(case)
    inputs["weight"].zero_()
    found = call(kernels, case, inputs)
    gate = inputs["shift"].sigmoid() if case.gate else torch.ones(4)
    out = (inputs["bias"] * gate).view(1, 4, 1, 1) + (inputs["residual"] if case.residual else 0)
    assert_close(found["out"], (out.relu() if case.relu else out).expand(case.shape))
    assert found["dz"].abs().max() == 0
    assert found["dweight"].abs().max() > 0


@flags
@orders
def test_the_norm_of_a_single_value_passes_nothing_back(kernels, order, flags):
    case = Case((6, 5, 1, 1), "instance", order, norm=True, **flags)
    found = call(kernels, case, draw(case))
    assert found["dz"].abs().max() == 0
    assert found["dweight"].abs().max() == 0
    assert found["dbias"].abs().max() > 0


@flags
@orders
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_output_may_take_the_place_of_its_input(kernels, order, flags, dtype):
    case = Case((3, 5, 9, 7), order=order, dtype=dtype, norm=True, fixed=True, **flags)
    inputs = draw(case)
    arguments = {"over": "channel", "relu": case.relu, "residual": inputs["residual"]}
    names = {"weight": "p", "bias": "q", "scale": "slope", "shift": "offset", "center": "center"}
    arguments |= {names[name]: inputs[name] for name in names}
    expected = kernels.forward_fixed(inputs["z"].clone(), **arguments)
    elsewhere = torch.full_like(inputs["z"], math.nan)
    assert kernels.forward_fixed(inputs["z"], out=elsewhere, **arguments) is elsewhere
    z = inputs["z"].clone()
    assert kernels.forward_fixed(z, out=z, **arguments) is z
    assert torch.equal(elsewhere, expected)
    assert torch.equal(z, expected)


@orders
@pytest.mark.parametrize("residual", [True, False], ids=["residual", "alone"])
@pytest.mark.parametrize("gate", [True, False], ids=["gate", "no gate"])
def test_nan_passes_the_relu_in_both_directions(kernels, order, gate, residual):
    flags = {"gate": gate, "residual": residual, "relu": True}
    case = Case((3, 4, 5, 6), order=order, norm=True, fixed=True, **flags)
    inputs = draw(case)
    inputs["z"][1, 2, 3, 4] = math.nan
    inputs["dy"][1, 2, 3, 4] = 1.0
    found, expected = call(kernels, case, inputs), truth(case, inputs)
    assert found["out"][1, 2, 3, 4].isnan()
    assert found["out"].isnan().sum() == 1
    assert torch.equal(found["dz"].isnan(), expected["dz"].isnan())
    if residual:
        assert found["dresidual"][1, 2, 3, 4] == 1.0  # torch's own ReLU lets it through as well


def test_nan_in_a_batch_reaches_its_channel_and_no_other(kernels):
    case = Case((3, 4, 5, 6), norm=True, residual=True, relu=True)
    inputs = draw(case)
    inputs["z"][1, 2, 3, 4] = math.nan
    out = call(kernels, case, inputs)["out"]
    assert out[:, 2].isnan().all()
    assert not out[:, [0, 1, 3]].isnan().any()


def test_inputs_are_left_as_they_were(kernels):
    for fixed in (False, True):
        case = Case((3, 4, 5, 6), norm=True, residual=True, relu=True, fixed=fixed)
        inputs = draw(case)
        call(kernels, case, inputs)
        assert_close(inputs, draw(case), rtol=0, atol=0)


def test_fixed_form_is_an_evaluated_batch_norm(kernels):
    norm = torch.nn.BatchNorm2d(4).eval()
    for tensor in norm.state_dict().values():
        if tensor.is_floating_point():
            torch.nn.init.uniform_(tensor, 0.5, 2.0)
    z = torch.randn(2, 4, 5, 6)
    p = norm.weight * (norm.running_var + norm.eps).rsqrt()
    out = block_tail_fixed(z, norm.running_mean, p, norm.bias, relu=True)
    assert_close(out, F.relu(norm(z)))
