"""What is common to both ops: registration, memory formats, what is kept, compile, autocast."""

import importlib
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from gate_cases import EVERYTHING, FORMS, ORDERS, Case, as_op, run
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from normattn.errors import InputError
from normattn.kernels import block_tail, cpu, norm_gate

forms = pytest.mark.parametrize("case", FORMS, ids=str)
orders = pytest.mark.parametrize("order", ORDERS)


@forms
@orders
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_results_have_the_type_and_order_of_the_map(kernels, case, order, dtype):
    op, leaves = as_op(replace(case, order=order, dtype=dtype))
    out, grads = run(op, leaves, torch.randn_like(leaves[0]))
    maps = [grad for grad in grads if grad.ndim == 4]
    assert all(m.dtype == dtype and m.stride() == leaves[0].stride() for m in (out, *maps))
    assert all(grad.dtype == leaf.dtype for grad, leaf in zip(grads, leaves, strict=True))


def slice_of(t):
    """Return the values of ``t`` with gaps between them."""
    wide = t.repeat_interleave(2, dim=1) if t.ndim == 4 else t
    return wide[:, ::2] if t.ndim == 4 else wide


def transposed(t):
    """Return the values of ``t`` in an order that is neither of the usual ones."""
    return t.transpose(2, 3).contiguous().transpose(2, 3) if t.ndim == 4 else t


def swapped(t):
    """Return the values of ``t`` in the other usual order."""
    other = torch.channels_last if t.is_contiguous() else torch.contiguous_format
    return t.contiguous(memory_format=other) if t.ndim == 4 else t


@forms
@orders
@pytest.mark.parametrize("change", [slice_of, transposed, swapped])
def test_gaps_and_strange_orders_change_no_value(kernels, case, order, change):
    op, leaves = as_op(replace(case, order=order))
    dy = torch.randn(case.shape)
    out, grads = run(op, leaves, dy)
    for at in (*range(len(leaves)), "dy"):  # each argument alone: orders then differ between them
        others = [change(leaf) if k == at else leaf for k, leaf in enumerate(leaves)]
        found, found_grads = run(op, others, change(dy) if at == "dy" else dy)
        assert_close(found, out)
        assert_close(found_grads, grads, rtol=1e-5, atol=1e-5)


@forms
def test_an_expanded_map_is_one_of_equal_images(kernels, case):
    op, leaves = as_op(case)
    one = leaves[0].detach()[:1]
    dense, spread = one.repeat(2, 1, 1, 1), one.expand(2, -1, -1, -1)
    found = [op(z, *leaves[1:]) for z in (dense, spread)]
    assert_close(*found)
    assert found[1].is_contiguous()


@forms
def test_a_gradient_that_was_expanded_is_one_of_ones(kernels, case):
    op, leaves = as_op(case)
    expected = run(op, leaves, torch.ones(case.shape))[1]
    assert_close(torch.autograd.grad(op(*leaves).sum(), leaves), expected)


class Recorder(TorchDispatchMode):
    """Keeps the arguments of our ops."""

    def __init__(self):
        super().__init__()
        self.calls = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.namespace == "normattn":
            self.calls[function] = args
        return function(*args, **(kwargs or {}))


@forms
@orders
def test_calls_past_the_dispatcher_give_what_the_op_gives(kernels, case, order):
    op, leaves = as_op(replace(case, order=order))
    dy = torch.randn_like(leaves[0])
    direct = run(op, leaves, dy)
    with Recorder() as recorder:
        dispatched = run(op, leaves, dy)
    assert len(recorder.calls) == 2
    assert_close(direct, dispatched, rtol=0, atol=0)


@forms
@orders
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor that is not a leaf"
)  # opcheck's
def test_ops_pass_torchs_own_checks(kernels, case, order, dtype):
    """Forward and backward, with the very arguments that the function passes on."""
    op, leaves = as_op(replace(case, order=order, dtype=dtype))
    with Recorder() as recorder:
        op(*leaves).sum().backward()
    (forward, given), (backward, passed) = recorder.calls.items()
    assert backward.name() == f"{forward.name()}_backward"
    assert sum(isinstance(a, torch.Tensor) and a.requires_grad for a in given) == len(leaves)
    torch.library.opcheck(forward, given)
    torch.library.opcheck(
        backward, [a.detach() if isinstance(a, torch.Tensor) else a for a in passed]
    )


@forms
def test_second_derivatives_are_refused_and_name_the_plain_form(kernels, case):
    op, leaves = as_op(case)
    first = torch.autograd.grad(op(*leaves).square().sum(), leaves, create_graph=True)
    with pytest.raises(InputError, match=r"differentiated once, .* normattn\.unfuse\(model\)"):
        sum(grad.square().sum() for grad in first).backward()


@forms
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("watcher", [nullcontext, Recorder], ids=["direct", "dispatched"])
def test_backward_keeps_the_map_and_vectors_and_an_output_only_for_its_mask(case, dtype, watcher):
    """In float32 the gate keeps 4.1 bytes an element, the tail 8.1, its output included."""
    shape = (4, 64, 16, 16)
    op, leaves = as_op(replace(case, shape=shape, dtype=dtype))
    kept = {}

    def keep(t):
        kept[t.data_ptr()] = t.numel() * t.itemsize
        return t

    with watcher(), torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        op(*leaves)
    maps = 2 if case.residual and case.relu else 1
    count = leaves[0].numel()
    size = leaves[0].itemsize
    assert maps * size <= sum(kept.values()) / count <= maps * size + 0.1


@forms
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_autocast_changes_nothing(kernels, case, dtype):
    op, leaves = as_op(replace(case, dtype=dtype))
    dy = torch.randn_like(leaves[0])
    expected = run(op, leaves, dy)
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(run(op, leaves, dy), expected, rtol=0, atol=0)


@forms
def test_vectors_in_half_precision_are_widened_and_get_their_gradient_back(kernels, case):
    """A module that was converted with .bfloat16() has its parameters there."""
    op, leaves = as_op(replace(case, dtype=torch.bfloat16))
    halves = [leaf.detach().bfloat16().requires_grad_() for leaf in leaves]
    widened = [leaf.detach().to(t.dtype) for leaf, t in zip(halves, leaves, strict=True)]
    out, grads = run(op, halves, torch.ones_like(leaves[0]))
    assert_close(out, op(*widened), rtol=0, atol=0)
    assert all(grad.dtype == torch.bfloat16 for grad in grads)


@forms
@orders
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_fake_results_have_the_shape_type_and_order_of_real_ones(case, order, dtype):
    op, leaves = as_op(replace(case, order=order, dtype=dtype))
    real = (op(*leaves), *torch.autograd.grad(op(*leaves).sum(), leaves))
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fakes = [mode.from_tensor(leaf.detach()).requires_grad_() for leaf in leaves]
        out = op(*fakes)
        fake = (out, *torch.autograd.grad(out.sum(), fakes))
    for one, other in zip(fake, real, strict=True):
        assert isinstance(one, FakeTensor)
        assert (one.shape, one.dtype, one.stride()) == (other.shape, other.dtype, other.stride())


def test_only_some_inputs_may_want_a_gradient(kernels):
    op, leaves = as_op(Case(**EVERYTHING))
    expected = run(op, leaves, torch.ones_like(leaves[0]))[1]
    for k, leaf in enumerate(leaves):
        others = [t if t is leaf else t.detach() for t in leaves]
        assert_close(torch.autograd.grad(op(*others).sum(), leaf)[0], expected[k])


def test_statistics_carry_no_gradient(kernels):
    x, v = torch.randn(2, 3, 4, 5, requires_grad=True), torch.ones(3)
    for _, mean, var in (norm_gate(x, v, v, over="channel", eps=1.0), block_tail(x, v, v, eps=1.0)):
        assert not mean.requires_grad
        assert not var.requires_grad


@forms
@orders
def test_kernels_are_given_dense_maps_in_one_order(monkeypatch, case, order):
    """They walk over memory, so a map in another order would be another map."""
    monkeypatch.setattr(cpu, "supports", lambda x: False)
    seen = []

    def watch(function):
        def watched(*maps, **rest):
            given = [t for t in (*maps, rest.get("residual")) if isinstance(t, torch.Tensor)]
            seen.append([t.stride() for t in given])
            return function(*maps, **rest)

        return watched

    names = ("forward", "backward", "forward_fixed", "backward_fixed")
    for owner in ("norm_gate", "block_tail"):
        module = importlib.import_module(f"normattn.kernels.{owner}.reference")
        for name in names:
            monkeypatch.setattr(module, name, watch(getattr(module, name)))
    op, leaves = as_op(replace(case, order=order))
    run(op, [leaves[0], *map(swapped, leaves[1:])], swapped(torch.randn_like(leaves[0])))
    assert len(seen) == 2
    assert {stride for strides in seen for stride in strides} == {leaves[0].stride()}
