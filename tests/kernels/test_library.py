"""When an op is called past torch's dispatcher, and when somebody watches who must see it."""

import pytest
import torch
from gate_cases import FORMS, as_op
from torch.autograd import forward_ad
from torch.testing import assert_close
from torch.utils._pytree import tree_map_only

from normattn.errors import InputError

# Forward-mode differentiation begins with torch's own scripts.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script:FutureWarning")
forms = pytest.mark.parametrize("case", FORMS, ids=str)


class Wrapper(torch.Tensor):
    """A tensor around another, as quantised and distributed ones are: no memory of its own."""

    seen = ()

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), dtype=inner.dtype
        )

    def __init__(self, inner):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        Wrapper.seen += (function.namespace,)
        args, kwargs = tree_map_only(Wrapper, lambda t: t.inner, (args, kwargs or {}))
        return function(*args, **kwargs)


@forms
def test_any_argument_may_be_a_tensor_that_wraps_another(kernels, case):
    op, leaves = as_op(case)
    leaves = [leaf.detach() for leaf in leaves]
    expected = op(*leaves)
    for k in range(len(leaves)):
        Wrapper.seen = ()
        found = op(*(Wrapper(leaf) if at == k else leaf for at, leaf in enumerate(leaves)))
        assert "normattn" in Wrapper.seen
        assert_close(found, expected, rtol=0, atol=0)


@forms
def test_any_argument_may_be_a_view_of_the_negative(kernels, case):
    """Its memory holds the values before their sign was turned."""
    op, leaves = as_op(case)
    leaves = [leaf.detach() for leaf in leaves]
    for k, leaf in enumerate(leaves):
        turned, views = list(leaves), list(leaves)
        turned[k], views[k] = -leaf, torch._neg_view(leaf)
        assert_close(op(*views), op(*turned), rtol=0, atol=0)


@forms
@pytest.mark.filterwarnings("ignore:`torch.jit.trace:FutureWarning")
@pytest.mark.filterwarnings("ignore:`torch.jit.trace:DeprecationWarning")
def test_a_traced_op_is_part_of_the_graph(kernels, case):
    """Not seen, its output would be a constant: the same for every input."""
    op, leaves = as_op(case)
    leaves = tuple(leaf.detach() for leaf in leaves)
    traced = torch.jit.trace(op, leaves)
    assert "normattn::" in str(traced.graph)
    others = tuple(leaf.flip(0) + 0.5 for leaf in leaves)
    assert_close(traced(*others), op(*others), rtol=0, atol=0)


@forms
def test_a_profiler_sees_the_op_and_its_backward(kernels, case):
    op, leaves = as_op(case)
    with torch.autograd.profiler.profile() as profile:
        op(*leaves).sum().backward()
    names = {event.name for event in profile.function_events}
    assert len({name for name in names if name.startswith("normattn::")}) == 2


@forms
@pytest.mark.parametrize("grad", [False, True], ids=["no gradient", "gradient"])
def test_tangents_are_refused_and_name_the_plain_form(kernels, case, grad):
    op, leaves = as_op(case)
    leaves = [leaf.detach() for leaf in leaves]
    match = r"without tangents, got forward-mode .* normattn\.unfuse\(model\)"
    for k, leaf in enumerate(leaves):
        others = [t.clone().requires_grad_(grad and at != k) for at, t in enumerate(leaves)]
        with forward_ad.dual_level():
            op(*others)  # a level without tangents is no forward-mode differentiation
            others[k] = forward_ad.make_dual(leaf, torch.ones_like(leaf))
            with pytest.raises(InputError, match=match):
                op(*others)
    with pytest.raises(InputError, match=match):
        torch.func.jvp(op, tuple(leaves), tuple(leaves))


def test_tangents_are_refused_where_torch_calls_the_op(kernels):
    x, v = torch.ones(2, 3, 4, 5), torch.ones(3)
    with forward_ad.dual_level(), pytest.raises(InputError, match=r"^norm_gate: .* tangents"):
        torch.ops.normattn.norm_gate(forward_ad.make_dual(x, x), v, v, 1e-5, "channel")
