"""Every launch of the provider, compiled as for a GPU that need not be there, and looked at.

What is read is the compiler's output, for the arguments that a real launch would have; nothing
runs. Whether the values are right is for test_provider.
"""

import importlib
import re
import subprocess

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


class Compiled:
    """A kernel whose launches are compiled and kept; how many maps each takes is counted."""

    def __init__(self, name, kernel, launches):
        self.name, self.kernel, self.launches = name, kernel, launches

    def __getitem__(self, grid):
        def launch(*args, **kwargs):
            made = self.kernel.warmup(*args, grid=grid, **kwargs)
            made = made if isinstance(made, list) else [made]
            maps = sum(isinstance(arg, torch.Tensor) and arg.ndim == 4 for arg in args)
            self.launches.append((self.name, maps, made))

        return launch


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("triton")


@pytest.fixture
def compiled(monkeypatch, cache):
    """Return what makes the provider's launches: their names, maps and compiled kernels."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(cache))
    launches = []
    for module in (_launch._apply, _launch._reduce, _launch._combine):
        for name in (*ELEMENTWISE, *REDUCTIONS, "coefficients", "gradients"):
            if hasattr(module, name):
                kernel = Compiled(name, getattr(module, name), launches)
                monkeypatch.setattr(module, name, kernel)

    def make(capability, run, configs=_launch._apply.CONFIGS[:1]):
        for name in ELEMENTWISE:
            monkeypatch.setattr(getattr(_launch._apply, name).kernel, "configs", configs)
        monkeypatch.setattr(triton.runtime.driver, "_active", Device(capability))
        run()
        return launches

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
    launches = compiled(capability, tail((8, 64, 56, 56), dtype, order))
    assert len(launches) == 7
    for name, _, (kernel,) in launches:
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
    for name, _, (kernel,) in compiled(90, run):
        assert spilled(kernel, tmp_path) == 0, name
        if name in ELEMENTWISE:
            # Coefficients, of 4 bytes, are loaded as well.
            assert max(vectors_of_maps(kernel) - {4}) == widest, name


def test_every_tuned_configuration_compiles_and_none_divides_by_value(compiled):
    run = tail((8, 64, 14, 14), torch.bfloat16, residual=False)
    tried = 0
    for name, _, kernels in compiled(90, run, _launch._apply.CONFIGS):
        for kernel in kernels:
            tried += name in ELEMENTWISE
            if name in (*ELEMENTWISE, "gradient_sums"):
                # The program's own number is taken apart; a thread has 8 values or more.
                assert len(instructions(kernel, r"\b(?:rem|div)\.")) <= 3, name
    assert tried == 2 * len(_launch._apply.CONFIGS)


def test_the_map_is_addressed_with_64_bits(compiled):
    for name, _, (kernel,) in compiled(80, gate((8, 64, 56, 56), torch.float32)):
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
def test_maps_pass_through_memory_as_often_as_counted(compiled, order, make, forward, backward):
    launches = compiled(90, make((2, 16, 8, 8), torch.float32, order))
    maps = {name: count for name, count, _ in launches}
    assert maps.get("moments", 0) + maps["apply"] == forward
    assert maps["gradient_sums"] + maps.get("apply_gradient", 0) == backward
