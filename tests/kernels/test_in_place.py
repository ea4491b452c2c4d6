"""The tail that writes into its own input, for inference."""

from dataclasses import replace

import pytest
import torch
from gate_cases import EVERYTHING, ORDERS, Case, draw
from torch.testing import assert_close

from normattn.errors import InputError
from normattn.kernels import block_tail_fixed

orders = pytest.mark.parametrize("order", ORDERS)


def tail_in_place(inputs, **options):
    center, p, q, slope, offset = (
        inputs[name] for name in ("center", "weight", "bias", "scale", "shift")
    )
    rest = {"slope": slope, "offset": offset, "residual": inputs["residual"], "relu": True}
    return block_tail_fixed(inputs["z"], center, p, q, **rest, **options)


@orders
@pytest.mark.parametrize("gate", [True, False], ids=["gate", "no gate"])
def test_op_in_place_passes_torchs_own_checks(kernels, gate, order):
    inputs = draw(replace(Case(**EVERYTHING, fixed=True), gate=gate, order=order))
    names = ("z", "center", "weight", "bias", "scale", "shift", "residual")
    given = [inputs[name] for name in names]
    torch.library.opcheck(torch.ops.normattn.block_tail_fixed_.default, (*given, True))


@orders
def test_in_place_gives_the_same_and_gives_it_back(kernels, order):
    inputs = draw(Case(**EVERYTHING, fixed=True, order=order))
    expected = tail_in_place(inputs)
    assert expected is not inputs["z"]
    assert tail_in_place(inputs, inplace=True) is inputs["z"]
    assert torch.equal(inputs["z"], expected)


def test_in_place_reaches_a_map_with_gaps(kernels):
    inputs = draw(Case(**EVERYTHING, fixed=True))
    expected = tail_in_place(inputs)
    whole = inputs["z"].repeat_interleave(2, dim=3)
    inputs["z"] = whole[..., ::2]
    tail_in_place(inputs, inplace=True)
    assert torch.equal(whole[..., ::2], expected)
    assert not torch.equal(whole[..., 1::2], expected)


def test_in_place_is_noticed_by_who_kept_the_map(kernels):
    """Or a backward through what read z before would be wrong without a word."""
    inputs = draw(Case(**EVERYTHING, fixed=True))
    factor = torch.ones(inputs["z"].shape, requires_grad=True)
    product = inputs["z"] * factor
    tail_in_place(inputs, inplace=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.sum().backward()
    with torch.inference_mode():  # where tensors have no version to move on
        tail_in_place({name: t.clone() for name, t in inputs.items()}, inplace=True)


@pytest.mark.parametrize("name", ["z", "weight", "bias", "scale", "shift", "residual"])
def test_in_place_is_refused_where_a_gradient_is_wanted(name):
    inputs = draw(Case(**EVERYTHING, fixed=True))
    inputs[name].requires_grad_()
    with pytest.raises(InputError, match=r"^block_tail_fixed: expected nothing .*no_grad"):
        tail_in_place(inputs, inplace=True)
    with torch.no_grad():
        tail_in_place(inputs, inplace=True)


def test_op_in_place_compiles_into_one_graph(kernels):
    def doubled(z, given):
        return tail_in_place(given | {"z": 2 * z}, inplace=True)

    inputs = draw(Case(**EVERYTHING, fixed=True))
    compiled = torch.compile(doubled, fullgraph=True, backend="aot_eager")
    assert_close(compiled(inputs["z"], inputs), doubled(inputs["z"], inputs))
