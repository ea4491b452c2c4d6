"""Every launch of the provider, compiled as for a GPU that need not be there, and looked at.

What is read is the compiler's output, for the arguments that a real launch would have; nothing
runs. Whether the values are right is for test_provider.
"""

import importlib
import re
import subprocess
from dataclasses import dataclass

import pytest
import torch

triton = pytest.importorskip("triton", reason="needs Triton")
if triton.knobs.runtime.interpret:
    pytest.skip("needs Triton's compiler, not its interpreter", allow_module_level=True)

_launch = importlib.import_module("normattn.kernels.gpu._launch")
_provider = importlib.import_module("normattn.kernels.gpu._provider")

ORDERS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}
ELEMENTWISE = ("apply", "apply_gradient")
REDUCTIONS = ("moments", "gradient_sums")


class Device:
    """As much of a driver as the compiler asks: which device to compile for."""

    def __init__(self, capability):
        self.capability = capability

    def get_current_target(self):
        return triton.backends.compiler.GPUTarget("cuda", self.capability, 32)

    def get_current_device(self):
        return 1000 + self.capability  # and no real one, whose compiled kernels are kept by number

    def get_current_stream(self, device):
        return 0


@dataclass
class Launch:
    """What a kernel was to be launched with."""

    name: str
    kernel: object
    grid: object
    args: tuple
    kwargs: dict

    def maps(self):
        return sum(isinstance(arg, torch.Tensor) and arg.ndim == 4 for arg in self.args)

    def compile(self):
        """Return the compiled kernel, or one for each configuration."""
        made = self.kernel.warmup(*self.args, grid=self.grid, **self.kwargs)
        return made if isinstance(made, list) else [made]


@pytest.fixture
def launches(monkeypatch):
    """Return what collects a provider's launches; none takes place."""
    found = []

    class Kernel:
        def __init__(self, name, kernel):
            self.name, self.kernel = name, kernel

        def __getitem__(self, grid):
            return lambda *args, **kwargs: found.append(
                Launch(self.name, self.kernel, grid, args, kwargs)
            )

    for module in (_launch._apply, _launch._reduce, _launch._combine):
        for name in (*ELEMENTWISE, *REDUCTIONS, "coefficients", "gradients"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, Kernel(name, getattr(module, name)))
    return lambda run: run() or found


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("triton")


@pytest.fixture
def compiled(monkeypatch, launches, cache):
    """Return what compiles a provider's launches: each one's name and kernels."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(cache))

    def make(capability, run, configs=_launch._apply.CONFIGS[:1]):
        monkeypatch.setattr(triton.runtime.driver, "_active", Device(capability))
        for launch in launches(run):
            if launch.name in ELEMENTWISE:
                monkeypatch.setattr(launch.kernel, "configs", configs)
            yield launch.name, launch.compile()

    return make


def gate(shape, dtype, order="NCHW", over="channel"):
    z = torch.empty(shape, dtype=dtype).to(memory_format=ORDERS[order])
    k = torch.empty(shape[2] * shape[3] if over == "pixel" else shape[1])
    common = {"over": over, "eps": 1e-5, "weight": None, "bias": None, "scale": k, "shift": k}

    def run():
        _, mean, var = _provider.forward(z, **common)
        rest = {"gate_eps": 0.0, "residual": False, "relu": False}
        _provider.backward(z, z, None, mean=mean, var=var, **rest, **common)

    return run


def tail(shape, dtype, order="NCHW", residual=True):
    z = torch.empty(shape, dtype=dtype).to(memory_format=ORDERS[order])
    k = torch.empty(shape[1])
    common = {"over": "channel", "eps": 1e-5, "gate_eps": 1e-5, "relu": True}
    common |= {"weight": k, "bias": k, "scale": k, "shift": k}

    def run():
        out, mean, var = _provider.forward(z, residual=z if residual else None, **common)
        seen = out if residual else None
        _provider.backward(z, z, seen, mean=mean, var=var, residual=residual, **common)

    return run


def fixed_tail(shape, dtype, order="NCHW"):
    z = torch.empty(shape, dtype=dtype).to(memory_format=ORDERS[order])
    k = torch.empty(shape[1])
    common = {"over": "channel", "center": k, "relu": True}
    common |= {"p": k, "q": k, "slope": k, "offset": k}

    def run():
        out = _provider.forward_fixed(z, residual=z, **common)
        _provider.backward_fixed(z, z, out, residual=True, **common)

    return run


def instructions(kernel, pattern):
    return re.findall(pattern, kernel.asm["ptx"])


def vectors_of_maps(kernel):
    """Return how many bytes each load and store moves that may be one of a map."""
    found = instructions(kernel, r"(?:ld|st)\.global\.(?:v(\d)\.)?b(\d+)")
    return {int(count or 1) * int(bits) // 8 for count, bits in found}


def spilled(kernel, folder):
    """Return the bytes of local memory that a kernel's registers overflow into."""
    path = folder / "kernel.cubin"
    path.write_bytes(kernel.asm["cubin"])
    command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", str(path)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return sum(map(int, re.findall(r"(?:STACK|LOCAL):(\d+)", text)))


@pytest.mark.parametrize(
    ("capability", "dtype", "order"),
    [
        (80, torch.float32, "NCHW"),
        (80, torch.bfloat16, "channels_last"),
        (90, torch.float32, "channels_last"),
        (90, torch.bfloat16, "NCHW"),
    ],
)
def test_kernels_compile_without_spills_and_with_loads_of_16_bytes(
    compiled, tmp_path, capability, dtype, order
):
    kernels = list(compiled(capability, tail((8, 64, 56, 56), dtype, order)))
    assert len(kernels) == 7
    for name, (kernel,) in kernels:
        assert kernel.asm["cubin"], name
        assert spilled(kernel, tmp_path) == 0, name
        if name in ELEMENTWISE + REDUCTIONS:
            assert 16 in vectors_of_maps(kernel), name
        if name in ELEMENTWISE:
            assert 2 not in vectors_of_maps(kernel), name


@pytest.mark.parametrize(
    ("run", "widest"),
    [
        (gate((8, 64, 14, 14), torch.float32), 16),
        (gate((8, 64, 14, 14), torch.bfloat16), 8),
        (gate((8, 64, 7, 7), torch.bfloat16), 2),
        (gate((8, 64, 16, 16), torch.float16, "NCHW", "instance"), 16),
        (gate((8, 64, 14, 14), torch.float16, "channels_last", "pixel"), 16),
    ],
    ids=["14x14", "14x14-half", "7x7", "instance", "pixel"],
)
def test_loads_are_as_wide_as_a_map_allows(compiled, tmp_path, run, widest):
    for name, (kernel,) in compiled(90, run):
        assert spilled(kernel, tmp_path) == 0, name
        if name in ELEMENTWISE:
            # Coefficients, of 4 bytes, are loaded as well.
            assert max(vectors_of_maps(kernel) - {4}) == widest, name


def test_every_tuned_configuration_compiles_and_none_divides_by_value(compiled):
    run = tail((8, 64, 14, 14), torch.bfloat16, residual=False)
    tried = 0
    for name, kernels in compiled(90, run, _launch._apply.CONFIGS):
        for kernel in kernels:
            tried += name in ELEMENTWISE
            if name in (*ELEMENTWISE, "gradient_sums"):
                # The program's own number is taken apart; a thread has 8 values or more.
                assert len(instructions(kernel, r"\b(?:rem|div)\.")) <= 3, name
    assert tried == 2 * len(_launch._apply.CONFIGS)


def test_the_map_is_addressed_with_64_bits(compiled):
    for name, (kernel,) in compiled(80, gate((8, 64, 56, 56), torch.float32)):
        if name in ELEMENTWISE + REDUCTIONS:
            assert instructions(kernel, r"\b(?:mul|mad)\.lo\.s64"), name


def test_reductions_are_not_tuned():
    """Another tile would be another order of addition, and a resumed training other bits."""
    for name in REDUCTIONS:
        assert isinstance(getattr(_launch._reduce, name), triton.runtime.JITFunction)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("make", "forward", "backward"),
    [(gate, 3, 5), (tail, 4, 7), (fixed_tail, 3, 5)],
    ids=["gate", "tail", "fixed-tail"],
)
def test_maps_pass_through_memory_as_often_as_counted(launches, order, make, forward, backward):
    run = make((2, 16, 8, 8), torch.float32, order)
    maps = {launch.name: launch.maps() for launch in launches(run)}
    assert maps.get("moments", 0) + maps["apply"] == forward
    assert maps["gradient_sums"] + maps.get("apply_gradient", 0) == backward
