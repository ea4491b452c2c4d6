import sys
from pathlib import Path

import pytest
import torch

from normattn.kernels import cpu
from normattn.kernels.block_tail import reference

sys.path.insert(0, str(Path(__file__).parent))  # gate_cases.py, which the tests here share


@pytest.fixture(params=["reference", "cpu"])
def kernels(request, monkeypatch):
    """Return each provider in turn, which the ops then take too."""
    if request.param == "reference":
        monkeypatch.setattr(cpu, "supports", lambda x: False)
        return reference
    if not cpu.supports(torch.zeros(1, 1, 2, 2)):
        pytest.skip(f"no CPU kernels: {cpu.status()}")
    return cpu
