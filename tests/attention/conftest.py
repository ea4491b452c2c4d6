"""Inputs and weights that any language can write down, for values frozen from another program."""

import pytest
import torch
from torch.testing import assert_close


@pytest.fixture
def wave():
    """Return a function that makes an input: 2·sin(0.7 n) for the n-th element."""

    def make(*shape):
        count = torch.Size(shape).numel()
        return (2 * torch.sin(0.7 * torch.arange(count, dtype=torch.float64))).view(shape)

    return make


@pytest.fixture
def fill():
    """Return a function that sets element n of the i-th tensor of the state to cos(n + i).

    Running variances are |cos(n + i)| + ½.
    """

    def fill_state(module):
        for i, (key, tensor) in enumerate(module.state_dict().items()):
            if tensor.is_floating_point():
                values = torch.cos(torch.arange(tensor.numel(), dtype=torch.float64) + i)
                if key.endswith("running_var"):
                    values = values.abs() + 0.5
                tensor.copy_(values.view(tensor.shape))
        return module

    return fill_state


@pytest.fixture
def check_frozen():
    """Return a check of elements 1, 2, -2 and -1 and of the sum of magnitudes."""

    def check(y, picked, total):
        found = [y.flatten()[i].item() for i in (1, 2, -2, -1)]
        assert_close(found, picked, rtol=0, atol=1e-9)
        assert_close(y.abs().sum().item(), total, rtol=0, atol=1e-7)

    return check
