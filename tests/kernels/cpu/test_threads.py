"""Several threads at once, forward and backward: they meet between the passes, or the sums lie."""

from dataclasses import replace

import pytest
import torch
from gate_cases import FORMS, ORDERS, check

from normattn.kernels import cpu


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.skipif(cpu.LIBRARY is None, reason=cpu.status())
@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("case", FORMS, ids=str)
def test_three_threads_are_as_exact_as_one(case, order, dtype):
    """1,500 rows of 70 columns in channels_last, and 70 columns are two strips of an instance."""
    check(cpu, replace(case, shape=(6, 70, 25, 10), order=order, dtype=dtype))
