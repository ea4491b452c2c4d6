"""Threads: as exact as one, changed in number, several of Python's, and left behind by a fork."""

import multiprocessing
import sys
import threading
from dataclasses import replace

import numpy
import pytest
import torch
from gate_cases import FORMS, ORDERS, check

from normattn.kernels import cpu

pytestmark = pytest.mark.skipif(cpu.LIBRARY is None, reason=cpu.status())


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("case", FORMS, ids=str)
def test_three_threads_are_as_exact_as_one(case, order, dtype):
    """1,500 rows of 70 columns in channels_last, and 70 columns are two strips of an instance."""
    check(cpu, replace(case, shape=(6, 70, 25, 10), order=order, dtype=dtype))


@pytest.mark.parametrize("order", ORDERS)
def test_a_changed_thread_count_changes_rounding_at_most(order):
    x = torch.randn(16, 33, 9, 9).to(memory_format=ORDERS[order])
    v, before = torch.rand(33), torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 5, 1):
            torch.set_num_threads(threads)
            results.append(cpu.forward(x, over="channel", eps=1e-5, scale=v, shift=v))
    finally:
        torch.set_num_threads(before)
    for out, mean, var in results[1:]:
        torch.testing.assert_close(out, results[0][0], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(mean, results[0][1], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(var, results[0][2], rtol=1e-6, atol=1e-6)
    assert torch.equal(results[0][0], results[-1][0])


def test_two_python_threads_at_once_do_not_meet():
    maps = [torch.randn(8, 64, 14, 14) for _ in range(4)]
    v = torch.rand(64)

    def compute(x):
        return cpu.forward(x, over="channel", eps=1e-5, scale=v, shift=v)[0]

    expected = [compute(x) for x in maps]
    wrong = []

    def work(number):
        for _ in range(30):
            if not torch.equal(compute(maps[number]), expected[number]):
                wrong.append(number)

    workers = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def _in_child(x, v, expected):
    y = cpu.forward(x, over="channel", eps=1e-5, scale=v, shift=v)[0]
    # By numpy: torch's own large operations do wait for the threads that stayed behind.
    same = numpy.allclose(y.numpy(), expected.numpy(), rtol=1e-6, atol=1e-6)
    sys.exit(not (same and cpu.status().endswith("one thread after a fork")))


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_fork_after_use_computes_the_same_says_so_and_ends():
    """OpenMP's threads stay behind in the parent, and a child that waits for them never ends."""
    x, v, before = torch.randn(8, 64, 14, 14), torch.rand(64), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        expected = cpu.forward(x, over="channel", eps=1e-5, scale=v, shift=v)[0]
        context = multiprocessing.get_context("fork")
        child = context.Process(target=_in_child, args=(x, v, expected))
        child.start()
        child.join(60)
        if child.is_alive():
            child.kill()
            child.join()
        assert child.exitcode == 0
        assert "fork" not in cpu.status()
    finally:
        torch.set_num_threads(before)
