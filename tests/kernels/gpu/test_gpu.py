import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch._subclasses import FakeTensorMode

from normattn.kernels import gpu


def on_cuda(shape, dtype=torch.float32, **options):
    """Return a tensor of a GPU that need not be there."""
    with FakeTensorMode():
        return torch.empty(shape, dtype=dtype, device="cuda", **options)


@pytest.fixture
def ready(monkeypatch):
    monkeypatch.setattr(gpu, "_ready", lambda device: True)


@pytest.mark.usefixtures("ready")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_dense_maps_of_a_megabyte_are_supported(dtype):
    channels = (1 << 20) // (64 * 64 * dtype.itemsize)
    assert gpu.supports(on_cuda((1, channels, 64, 64), dtype))
    last = on_cuda((2, channels, 64, 64), dtype, memory_format=torch.channels_last)
    assert gpu.supports(last)
    assert not gpu.supports(on_cuda((1, channels, 64, 63), dtype))


@pytest.mark.usefixtures("ready")
def test_other_maps_are_the_references():
    large = (4, 64, 64, 64)
    assert not gpu.supports(torch.empty(large))
    assert not gpu.supports(on_cuda(large, torch.float64))
    assert not gpu.supports(on_cuda(large, torch.int32))
    assert not gpu.supports(on_cuda(large).transpose(2, 3))
    assert not gpu.supports(on_cuda(large)[:, ::2])
    assert not gpu.supports(on_cuda((0, 64, 64, 64)))
    assert not gpu.supports(on_cuda((4, 64, 64 * 64)))


@pytest.fixture
def device(monkeypatch):
    """Return a function that pretends to a CUDA device."""

    def pretend(name, capability, probe=lambda device: None):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        probes = type(sys)("probe")
        probes.run = probe
        monkeypatch.setitem(sys.modules, "normattn.kernels.gpu._probe", probes)

    gpu._status.cache_clear()
    yield pretend
    gpu._status.cache_clear()


def test_status_names_the_compiler_and_the_device(device):
    triton = pytest.importorskip("triton", reason="needs Triton")
    device("NVIDIA H200", (9, 0))
    assert gpu.status() == f"triton {triton.__version__}, NVIDIA H200"
    assert gpu._ready(0)


def test_status_says_why_there_are_no_kernels(device, monkeypatch):
    pytest.importorskip("triton", reason="needs Triton")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.status() == "none: no CUDA device"
    device("Tesla V100", (7, 0))
    assert gpu.status() == "none: Tesla V100 has compute capability 7.0, not 8.0"
    assert not gpu._ready(0)
    gpu._status.cache_clear()

    def fail(device):
        raise RuntimeError("Failed to find C compiler.")

    device("NVIDIA A100", (8, 0), fail)
    assert gpu.status().endswith("cannot run: RuntimeError: Failed to find C compiler.")
    assert gpu.status().startswith("none: Triton")
    assert not gpu._ready(0)


def test_without_triton_status_says_so_and_all_files_are_importable():
    code = """
import sys
sys.modules["triton"] = None
import torch
torch.cuda.get_device_name = lambda device: "NVIDIA A100"
torch.cuda.get_device_capability = lambda device: (8, 0)
from normattn.kernels import gpu
import normattn.kernels.gpu._probe
print(gpu._status(0))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("none: Triton cannot be imported: ModuleNotFoundError")


def test_importing_the_kernels_does_not_wait_for_triton():
    code = "import sys, normattn.kernels; sys.exit('triton.language' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_compiler_takes_the_answer_as_a_constant(monkeypatch):
    # Looking at a file stands for compiling a kernel: no compiler can follow either.
    monkeypatch.setattr(gpu, "_status", lambda device: Path(__file__).read_text()[:6])
    compiled = torch.compile(
        lambda x: x + 1 if gpu._ready(0) else x - 1, backend="eager", fullgraph=True
    )
    assert compiled(torch.zeros(())).item() == 1


def test_there_is_nothing_else():
    with pytest.raises(AttributeError, match="forwards"):
        gpu.forwards  # noqa: B018
