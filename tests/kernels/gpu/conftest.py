"""The Triton kernels as a provider on CPU tensors: by the interpreter, and by a GPU where one is.

The interpreter is chosen once and for all when Triton is imported, and other tests of the same
process may need the compiler; so it has a process of its own.
"""

import importlib.util
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch

from normattn.kernels import gpu


class Elsewhere:
    """The provider's functions, each run by `send(function, args, kwargs)`."""

    def __init__(self, send):
        self.send = send

    def __getattr__(self, name):
        return lambda *args, **kwargs: self.send(getattr(gpu, name), args, kwargs)


def on_gpu(function, args, kwargs):
    moved = {}  # a tensor given twice stays one tensor

    def move(arg):
        if not isinstance(arg, torch.Tensor):
            return arg
        return moved.setdefault(id(arg), arg.cuda())

    results = function(*map(move, args), **{name: move(arg) for name, arg in kwargs.items()})
    if isinstance(results, torch.Tensor):
        return results.cpu()
    return tuple(None if result is None else result.cpu() for result in results)


@pytest.fixture(scope="session")
def interpreter():
    if importlib.util.find_spec("triton") is None:
        pytest.skip("needs Triton")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        pool = ProcessPoolExecutor(
            1,
            mp_context=multiprocessing.get_context("spawn"),
            # Fresh memory is full of NaN there too, until it is written.
            initializer=torch.use_deterministic_algorithms,
            initargs=(True,),
        )
        pool.submit(os.getpid).result()  # starts it, with the variable set
    with pool:
        yield Elsewhere(
            lambda function, args, kwargs: pool.submit(function, *args, **kwargs).result()
        )


@pytest.fixture(params=["interpreter", pytest.param("gpu", marks=pytest.mark.cuda)])
def provider(request):
    if request.param == "interpreter":
        return request.getfixturevalue("interpreter")
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return Elsewhere(on_gpu)
