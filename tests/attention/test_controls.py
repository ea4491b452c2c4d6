"""The controls do exactly what their names say."""

import pytest
import torch

from normattn.attention import Half, NoAttention

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_half_halves_exactly(dtype):
    x = torch.randn(2, 3, 4, 5).to(dtype)
    y = Half(3)(x)
    assert y.dtype == dtype
    assert torch.equal(y + y, x)


def test_half_passes_half_of_the_gradient():
    x = torch.randn(2, 3, 4, 5, requires_grad=True)
    Half(3)(x).sum().backward()
    assert x.grad.unique().tolist() == [0.5]


def test_no_attention_returns_its_input_itself():
    """Not a product with one, which would charge the baseline of a comparison for attention."""
    x = torch.randn(2, 3, 4, 5)
    assert NoAttention(3)(x) is x
    assert NoAttention(3).gate(x).item() == 1


@pytest.mark.parametrize("cls", [Half, NoAttention])
def test_controls_have_nothing_to_learn(cls):
    assert not cls(3).state_dict()
    assert cls(3).scales() == ()
