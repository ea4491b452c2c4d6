"""Triton, where it is installed; where it is not, a stand-in with which our files can be read.

PyTorch brings Triton along on Linux with CUDA only. Tools that import every file (doctest, readers
of documentation) must get through everywhere, so a kernel's decorators have to mean something.
"""

import importlib
from typing import Any


class _Absent:
    """Whatever is asked of it, itself again: `@jit` and `constexpr` without Triton."""

    def __getattr__(self, name: str) -> "_Absent":
        return self

    def __call__(self, *_: object, **__: object) -> "_Absent":
        return self


#: Why there is no Triton; None where there is one.
failure: str | None = None

try:
    _triton: Any = importlib.import_module("triton")
    _language: Any = importlib.import_module("triton.language")
except Exception as error:  # a broken installation fails in its own ways, not by ImportError alone
    failure = f"{type(error).__name__}: {error}"
    _triton = _language = _Absent()

triton = _triton
tl = _language
