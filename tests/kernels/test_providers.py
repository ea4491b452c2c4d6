"""Who computes, and running statistics that are moved outside of the ops."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from normattn.kernels import block_tail, norm_gate, runs_on, status, update_running


def test_every_device_says_what_is_loaded():
    assert status().keys() == {"cpu", "cuda"}
    assert all(isinstance(text, str) and text for text in status().values())


def test_kernels_run_where_their_provider_says_so(kernels):
    here = kernels.__name__.endswith("cpu")
    x = torch.zeros(2, 3, 4, 5)
    assert runs_on(x) is here
    assert runs_on(x.contiguous(memory_format=torch.channels_last)) is here
    assert not runs_on(x.double())
    assert not runs_on(x.long())
    assert not runs_on(x.to("meta"))
    assert not runs_on(x[..., ::2])
    assert not runs_on(x[0])
    assert not runs_on(x[:0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("momentum", [0.1, None, 1.0, 0.0])
def test_running_statistics_are_those_of_batch_norm(kernels, momentum, dtype):
    torch.manual_seed(0)
    ours, theirs = (nn.BatchNorm2d(5, momentum=momentum, dtype=dtype) for _ in range(2))
    for step in range(4):
        x = (torch.randn(3, 5, 4, 2) * (step + 1) + step).to(dtype)
        theirs(x)
        _, mean, var = norm_gate(x, ours.weight, ours.bias, over="channel", eps=ours.eps)
        update_running(ours, mean, var, count=24)
        assert_close(ours.state_dict(), theirs.state_dict())
    assert ours.num_batches_tracked == 4


def test_evaluation_after_it_is_that_of_batch_norm(kernels):
    torch.manual_seed(0)
    ours, theirs = nn.BatchNorm2d(5), nn.BatchNorm2d(5)
    x = torch.randn(3, 5, 4, 2)
    theirs(x)
    _, mean, var = block_tail(x, ours.weight, ours.bias, eps=ours.eps)
    update_running(ours, mean, var, count=24)
    assert_close(ours.eval()(x), theirs.eval()(x))


def test_a_norm_that_keeps_no_statistics_is_left_alone():
    for norm in (nn.BatchNorm2d(3, track_running_stats=False), nn.BatchNorm2d(3)):
        norm.track_running_stats = False  # which torch heeds on a norm that has buffers, too
        before = {name: t.clone() for name, t in norm.state_dict().items()}
        update_running(norm, torch.ones(3), torch.ones(3), count=2)
        assert_close(norm.state_dict(), before)


def test_a_norm_that_does_not_count_its_batches_is_moved_as_torch_does():
    """As loaded from before torch counted: without a momentum it never moves."""
    for momentum in (0.1, None):
        ours, theirs = nn.BatchNorm2d(3, momentum=momentum), nn.BatchNorm2d(3, momentum=momentum)
        ours.num_batches_tracked = theirs.num_batches_tracked = None
        x = torch.randn(4, 3, 2, 2)
        theirs(x)
        update_running(ours, x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0), count=16)
        assert_close(ours.state_dict(), theirs.state_dict())


def test_running_statistics_take_no_part_in_the_graph():
    norm = nn.BatchNorm2d(3)
    mean, var = (torch.ones(3, requires_grad=True) for _ in range(2))
    update_running(norm, 2 * mean, 2 * var, count=2)
    assert not norm.running_mean.requires_grad
    assert not norm.running_var.requires_grad


@pytest.mark.parametrize("momentum", [0.1, None])
def test_statistics_move_inside_one_compiled_graph(kernels, momentum):
    class Module(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(5, momentum=momentum)

        def forward(self, x):
            if not runs_on(x) and x.ndim != 4:
                return x
            w, b = self.norm.weight, self.norm.bias
            out, mean, var = block_tail(x, w, b, eps=self.norm.eps)
            update_running(self.norm, mean, var, x.numel() // x.shape[1])
            return out

    torch.compiler.reset()
    module, plain = Module(), nn.BatchNorm2d(5, momentum=momentum)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(3):
            x = torch.randn(3, 5, 4, 2)
            assert_close(compiled(x), plain(x))
    assert_close(module.norm.state_dict(), plain.state_dict())
