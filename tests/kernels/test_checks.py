"""What the ops refuse, and what they take although it looks like nothing."""

import pytest
import torch
from gate_cases import ORDERS, Case, as_op
from torch._subclasses import FakeTensorMode
from torch.testing import assert_close

from normattn.errors import InputError
from normattn.kernels import block_tail, block_tail_fixed, norm_gate, norm_gate_fixed

SHAPE = (2, 3, 4, 5)


def call_gate(x, vector, over="channel", **changed):
    return norm_gate(x, **{"scale": vector, "shift": vector} | changed, over=over, eps=1e-5)


def call_gate_fixed(x, vector, over="channel", **changed):
    vectors = {"center": vector, "slope": vector, "offset": vector}
    return norm_gate_fixed(x, **vectors | changed, over=over)


def call_tail(x, vector, **changed):
    vectors = dict.fromkeys(("weight", "bias", "scale", "shift"), vector)
    return block_tail(x, **{**vectors, "eps": 1e-5, "gate_eps": 1e-5, "residual": x} | changed)


def call_tail_fixed(x, vector, **changed):
    vectors = dict.fromkeys(("center", "p", "q", "slope", "offset"), vector)
    return block_tail_fixed(x, **{**vectors, "residual": x} | changed)


CALLS = {
    "norm_gate": (call_gate, ("scale", "shift")),
    "norm_gate_fixed": (call_gate_fixed, ("center", "slope", "offset")),
    "block_tail": (call_tail, ("weight", "bias", "scale", "shift")),
    "block_tail_fixed": (call_tail_fixed, ("center", "p", "q", "slope", "offset")),
}
VECTORS = [(name, vector) for name, (_, vectors) in CALLS.items() for vector in vectors]
each_op = pytest.mark.parametrize("name", CALLS)
each_vector = pytest.mark.parametrize(("name", "vector"), VECTORS)
tails = pytest.mark.parametrize("name", ["block_tail", "block_tail_fixed"])


@each_op
def test_maps_of_another_rank_are_refused(name):
    for shape in ((3,), (3, 4, 5), (2, 3, 4, 5, 6)):
        match = rf"^{name}: expected a map of shape \(B, C, H, W\), got \({shape[0]}.* Reshape"
        with pytest.raises(InputError, match=match):
            CALLS[name][0](torch.zeros(shape), torch.zeros(3))


@each_op
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool, torch.complex64], ids=str)
def test_maps_without_fractions_are_refused(name, dtype):
    match = rf"^{name}: expected a map of floating-point numbers, got {dtype}\. Convert"
    with pytest.raises(InputError, match=match):
        CALLS[name][0](torch.zeros(SHAPE, dtype=dtype), torch.zeros(3))


@each_vector
def test_vectors_of_another_length_are_refused(name, vector):
    for wrong in (torch.zeros(4), torch.zeros(1), torch.zeros(3, 1), torch.zeros(())):
        match = rf"^{name}: expected {vector} to be of shape \(3,\).*got .* Take the vectors"
        with pytest.raises(InputError, match=match):
            CALLS[name][0](torch.zeros(SHAPE), torch.zeros(3), **{vector: wrong})


@pytest.mark.parametrize(("name", "vector"), [v for v in VECTORS if v[0].startswith("norm_gate")])
def test_vectors_of_pixels_have_one_value_a_pixel(name, vector):
    given = {"over": "pixel", vector: torch.zeros(3)}
    with pytest.raises(InputError, match=rf"expected {vector} to be of shape \(20,\), for a map"):
        CALLS[name][0](torch.zeros(SHAPE), torch.zeros(20), **given)


@each_vector
def test_vectors_on_another_device_are_refused(name, vector):
    match = rf"^{name}: expected {vector} on cpu, where the map is, got meta\. Move"
    with pytest.raises(InputError, match=match):
        CALLS[name][0](torch.zeros(SHAPE), torch.zeros(3), **{vector: torch.zeros(3).to("meta")})


@each_vector
def test_vectors_of_integers_are_refused(name, vector):
    match = rf"^{name}: expected {vector} in torch\.float32, .* got torch\.int64\. Convert"
    with pytest.raises(InputError, match=match):
        CALLS[name][0](torch.zeros(SHAPE), torch.zeros(3), **{vector: torch.ones(3).long()})


@tails
def test_residuals_unlike_the_map_are_refused(name):
    wrong = {
        r"shape \(2, 3, 4, 5\), got \(2, 3, 1, 1\)": torch.zeros(2, 3, 1, 1),
        r"torch\.float32, got torch\.bfloat16": torch.zeros(SHAPE).bfloat16(),
        r"device cpu, got meta": torch.zeros(SHAPE).to("meta"),
    }
    for text, residual in wrong.items():
        match = rf"^{name}: expected a residual .* of {text}\. Bring both branches"
        with pytest.raises(InputError, match=match):
            CALLS[name][0](torch.zeros(SHAPE), torch.zeros(3), residual=residual)


@tails
def test_half_a_gate_is_refused(name):
    slope, offset = CALLS[name][1][-2:]
    for missing in (slope, offset):
        match = rf"^{name}: expected {slope} and {offset} together, got no {missing}\. Give both"
        with pytest.raises(InputError, match=match):
            CALLS[name][0](torch.zeros(SHAPE), torch.zeros(3), **{missing: None})


@pytest.mark.parametrize("name", ["norm_gate", "norm_gate_fixed"])
def test_unknown_broadcasts_are_refused_with_the_known_ones(name):
    with pytest.raises(InputError, match=rf"^{name}: expected a known over, got 'channels'\. Did"):
        CALLS[name][0](torch.zeros(SHAPE), torch.zeros(3), over="channels")


def test_fixed_statistics_of_instances_are_refused():
    with pytest.raises(InputError, match=r"^norm_gate_fixed: .* got 'instance'\. Take norm_gate"):
        call_gate_fixed(torch.zeros(SHAPE), torch.zeros(3), over="instance")


@pytest.mark.parametrize("batch", [0, 1])
def test_statistics_of_fewer_than_two_values_are_refused(batch):
    few = {"channel": (batch, 3, 1, 1), "pixel": (batch, 1, 4, 5)}
    for over, shape in few.items():
        match = rf"^norm_gate: expected more than one value per {over} in training.* or call eval"
        with pytest.raises(InputError, match=match):
            call_gate(torch.zeros(shape), torch.zeros(3 if over == "channel" else 20), over=over)
    with pytest.raises(InputError, match=r"^block_tail: expected more than one value per channel"):
        call_tail(torch.zeros(few["channel"]), torch.zeros(3))


def test_fixed_statistics_take_a_single_value():
    assert call_gate_fixed(torch.ones(1, 3, 1, 1), torch.ones(3)).shape == (1, 3, 1, 1)
    assert call_tail_fixed(torch.ones(1, 3, 1, 1), torch.ones(3)).shape == (1, 3, 1, 1)


EMPTY = [
    Case((0, 3, 4, 5), "channel", fixed=True),
    Case((0, 3, 4, 5), "pixel", fixed=True),
    Case((2, 3, 0, 5), "channel", fixed=True),
    Case((0, 3, 4, 5), "instance"),
    Case((2, 3, 0, 5), "instance"),
    Case((0, 3, 4, 5), norm=True, residual=True, relu=True, fixed=True),
]


@pytest.mark.parametrize("case", EMPTY, ids=str)
@pytest.mark.parametrize("order", ORDERS)
def test_empty_maps_give_empty_maps_and_gradients_of_zero(kernels, case, order):
    op, leaves = as_op(case)
    leaves = [
        leaf.detach().contiguous(memory_format=ORDERS[order]) if leaf.ndim == 4 else leaf.detach()
        for leaf in leaves
    ]
    out = op(*[leaf.requires_grad_() for leaf in leaves])
    assert out.shape == case.shape
    for leaf, grad in zip(leaves, torch.autograd.grad(out.sum(), leaves), strict=True):
        assert_close(grad, torch.zeros_like(leaf))


@each_op
def test_the_fake_kernel_refuses_the_same(name):
    """So that a mistake is found when a model is compiled, and by its name."""
    match = rf"^{name}: expected \w+ to be of shape \(3,\)"
    with FakeTensorMode(), pytest.raises(InputError, match=match):
        CALLS[name][0](torch.zeros(SHAPE), torch.zeros(4))


def test_backward_ops_refuse_a_gradient_of_another_shape():
    x, v = torch.zeros(SHAPE), torch.zeros(3)
    with pytest.raises(InputError, match=r"^norm_gate_backward: .* \(or gradient\) like the map"):
        torch.ops.normattn.norm_gate_backward(x[:1], x, v, v, v, v, 1e-5, "channel")
    with pytest.raises(InputError, match=r"mean to be of shape \(6,\)"):
        torch.ops.normattn.norm_gate_backward(x, x, v, v, v, v, 1e-5, "instance")
