"""Ops inside of torch.compile: one graph, whatever the batch."""

from dataclasses import replace

import pytest
import torch
from gate_cases import FORMS, as_op, run
from torch.testing import assert_close

forms = pytest.mark.parametrize("case", FORMS, ids=str)


@forms
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_ops_compile_into_one_graph(kernels, case, dynamic):
    torch.compiler.reset()
    op, _ = as_op(case)
    compiled = torch.compile(op, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=dynamic):
        for batch in (2, 4, 3):
            leaves = as_op(replace(case, shape=(batch, *case.shape[1:])))[1]
            dy = torch.randn_like(leaves[0])
            assert_close(run(compiled, leaves, dy), run(op, leaves, dy))
