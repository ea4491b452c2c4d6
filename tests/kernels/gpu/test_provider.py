import pytest
import torch
from gate_cases import Case, call, check, draw
from torch.testing import assert_close

from normattn import kernels
from normattn.kernels import gpu

ORDERS = ("NCHW", "channels_last")
TAIL = {"norm": True, "gate": True, "residual": True, "relu": True}
HALVES = (torch.float16, torch.bfloat16)
#: Beside the plain one: several blocks of statistics with lanes to spare; planes of several tiles,
#: the last cut off, in splits that begin within an image; columns in several splits and blocks.
ODD, SMALL, WIDE, LONG = (3, 5, 9, 7), (2, 40, 7, 7), (3, 2, 10, 15), (2, 70, 10, 11)

CASES = [
    *(Case(ODD, over, order) for over in ("channel", "pixel", "instance") for order in ORDERS),
    *(Case(ODD, order=order, **TAIL) for order in ORDERS),
    *(Case(ODD, over, order, fixed=True) for over in ("channel", "pixel") for order in ORDERS),
    *(Case(ODD, order=order, fixed=True, **TAIL) for order in ORDERS),
    *(Case(SMALL, "channel", order, dtype, **TAIL) for order in ORDERS for dtype in HALVES),
    *(Case(WIDE, order=order, dtype=dtype) for order in ORDERS for dtype in HALVES),
    Case(WIDE, **TAIL),
    Case(LONG, order="channels_last", **TAIL),
    Case(LONG, "instance", "channels_last", torch.bfloat16),
    Case(LONG, "pixel"),
    Case(LONG, "pixel", "channels_last", fixed=True),
    Case(ODD, norm=True, gate=False, residual=True, relu=True),
    Case(ODD, norm=True, gate=False, fixed=True, relu=True),
    Case(ODD, norm=True, relu=True),
    Case(ODD, norm=True, relu=True, fixed=True),
    Case(ODD, norm=True, residual=True),
    Case((6, 5, 1, 1), **TAIL),
    Case((6, 5, 1, 1), "pixel"),
    Case((6, 5, 1, 1), "instance"),
    Case((1, 5, 7, 7), order="channels_last", **TAIL),
    Case((1, 5, 7, 7), "instance"),
    Case((4, 1, 3, 5), **TAIL),
    Case(ODD, mean=1000.0, **TAIL),
    Case(LONG, order="channels_last", mean=1000.0),
    Case(ODD, mean=1000.0, fixed=True, **TAIL),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_gradients_are_as_exact_as_plain_pytorchs(provider, case):
    check(provider, case, seeds=1)


@pytest.mark.parametrize("order", ORDERS)
def test_the_output_may_be_written_over_the_input(provider, order):
    case = Case(ODD, order=order, fixed=True, **TAIL)
    inputs = draw(case)
    z, residual = inputs["z"], inputs["residual"]
    vectors = {"center": inputs["center"], "p": inputs["weight"], "q": inputs["bias"]}
    vectors |= {"slope": inputs["scale"], "offset": inputs["shift"]}
    common = {"over": "channel", "residual": residual, "relu": True, **vectors}
    apart = provider.forward_fixed(z, **common)
    assert torch.equal(provider.forward_fixed(z, out=z, **common), apart)


def test_a_nan_goes_through_the_relu_and_back(provider):
    case = Case(ODD, fixed=True, **TAIL)
    inputs = draw(case)
    inputs["z"][1, 2, 3, 4] = float("nan")
    inputs["residual"][0, 1, 0, 0] = float("nan")
    found = call(provider, case, inputs)
    holes = torch.zeros(ODD, dtype=torch.bool)
    holes[1, 2, 3, 4] = holes[0, 1, 0, 0] = True
    assert torch.equal(found["out"].isnan(), holes)
    assert torch.equal(found["dresidual"][holes], inputs["dy"][holes])


@pytest.mark.parametrize("mean", [3.0, 10_000.0])
def test_statistics_are_exact_however_large_the_mean(provider, mean):
    z = draw(Case(LONG, mean=mean))["z"]
    k = torch.ones(LONG[1])
    _, means, variances = provider.forward(z, over="instance", eps=1e-5, scale=k, shift=k)
    exact_variances, exact_means = torch.var_mean(z.double(), dim=(2, 3), correction=0)
    assert_close(means.double(), exact_means.flatten(), rtol=2e-7, atol=0)
    assert_close(variances.double(), exact_variances.flatten(), rtol=1e-6, atol=0)


def test_maps_in_the_other_order_are_read_right(provider):
    case = Case(ODD, **TAIL)
    inputs = draw(case)
    expected = call(provider, case, inputs)
    for name in ("dy", "residual"):
        inputs[name] = inputs[name].contiguous(memory_format=torch.channels_last)
    found = call(provider, case, inputs)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_map_that_does_not_begin_on_16_bytes_is_read_right(provider):
    case = Case(ODD, **TAIL)
    inputs = draw(case)
    expected = call(provider, case, inputs)
    count = inputs["z"].numel()
    shifted = torch.cat([torch.zeros(1), inputs["z"].flatten()])[1 : count + 1].view(ODD)
    found = call(provider, case, inputs | {"z": shifted})
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("fixed", [False, True])
def test_nothing_comes_back_where_the_output_is_exactly_zero(provider, residual, fixed):
    case = Case(ODD, norm=True, relu=True, residual=residual, fixed=fixed)
    inputs = draw(case)
    inputs["z"].fill_(1.0)
    inputs["bias"].zero_()
    if fixed:
        inputs["center"].fill_(1.0)
    if residual:
        inputs["residual"].zero_()
    found = call(provider, case, inputs)
    assert not found["out"].any()
    assert not any(grad.any() for name, grad in found.items() if name != "out")


@pytest.fixture
def cuda():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return torch.device("cuda")


@pytest.mark.cuda
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_ops_take_these_kernels_and_compile_whole(cuda, dtype, order):
    memory = torch.channels_last if order == "channels_last" else torch.contiguous_format
    x = torch.randn(8, 64, 56, 56).to(cuda, dtype, memory_format=memory)
    assert kernels.runs_on(x), kernels.status()
    leaves = [x, torch.randn_like(x), *(torch.randn(64, device=cuda) for _ in range(4))]
    for leaf in leaves:
        leaf.requires_grad_()
    dy = torch.randn_like(x)

    def tail(x, residual, weight, bias, scale, shift):
        assert kernels.runs_on(x)
        common = {"residual": residual, "eps": 1e-5, "gate_eps": 1e-5, "relu": True}
        y = kernels.block_tail(x, weight, bias, scale=scale, shift=shift, **common)[0]
        return kernels.norm_gate(y, scale, shift, over="instance", eps=1e-5)[0]

    def run(function):
        out = function(*leaves)
        return out, *torch.autograd.grad(out, leaves, dy)

    plain = run(tail)
    for found, expected in zip(run(torch.compile(tail, fullgraph=True)), plain, strict=True):
        assert_close(found, expected)


@pytest.mark.cuda
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("over", ["channel", "pixel", "instance"])
def test_two_runs_give_the_same_bits(cuda, over, order):
    memory = torch.channels_last if order == "channels_last" else torch.contiguous_format
    z, dy = (torch.randn(16, 128, 28, 28).to(cuda, memory_format=memory) for _ in range(2))
    length = 28 * 28 if over == "pixel" else 128
    scale, shift = (torch.randn(length, device=cuda) for _ in range(2))
    common = {"over": over, "eps": 1e-5, "weight": None, "bias": None}
    common |= {"scale": scale, "shift": shift, "gate_eps": 0.0}

    def run():
        out, mean, var = gpu.forward(z, **common)
        grads = gpu.backward(dy, z, None, mean=mean, var=var, residual=False, relu=False, **common)
        return [t for t in (out, mean, var, *grads) if t is not None]

    first = run()
    for _ in range(5):
        assert all(map(torch.equal, first, run()))


@pytest.mark.cuda
def test_maps_beyond_32_bits_are_reached_to_their_end(cuda):
    shape = (1, 2, 32769, 32768)
    if torch.cuda.mem_get_info()[0] < 24 << 30:
        pytest.skip("needs 24 GB of free memory on the device")
    z = torch.randn(shape, device=cuda, dtype=torch.bfloat16)
    one = torch.ones(2, device=cuda)
    out, mean, var = gpu.forward(z, over="channel", eps=1e-5, scale=one, shift=one)
    last = z[0, 1, -1].float()
    expected = last * torch.sigmoid((last - mean[1]) * (var[1] + 1e-5).rsqrt() + 1)
    assert_close(out[0, 1, -1].float(), expected, rtol=1e-2, atol=1e-2)
    assert_close(var.cpu(), torch.ones(2), rtol=1e-2, atol=0)
