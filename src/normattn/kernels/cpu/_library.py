"""The compiled library: found, checked and loaded once, as plain C through ctypes.

It knows nothing of torch, so that one build serves every version; torch, imported before it, brings
the OpenMP runtime whose threads both then share.
"""

import ctypes
import os
import sys
import warnings
from pathlib import Path

from .._version import VERSION
from ._built import checksum, is_whole

SUFFIX = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")
PATH = Path(__file__).parent / f"libnormattn{SUFFIX}"

#: As in interface.cpp. "counted" is for tests: one thread, and every access is counted.
INSTRUCTIONS = ("baseline", "avx2", "avx512", "counted")

_POINTERS_1 = ("z", "residual", "dy", "result", "out", "dz", "dresidual")
_VECTORS_1 = ("weight", "bias", "scale", "shift")
_VECTORS_2 = ("mean", "var", "center", "p", "q", "slope", "offset")
_GRADIENTS = ("dweight", "dbias", "dscale", "dshift")


class Task(ctypes.Structure):
    """One call; field for field what task.h says."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("groups", "outer", "channels", "inner")),
        ("threads", ctypes.c_int),
        ("relu", ctypes.c_bool),
        *((name, ctypes.c_void_p) for name in (*_POINTERS_1, *_VECTORS_1)),
        *((name, ctypes.c_double) for name in ("eps", "gate_eps")),
        *((name, ctypes.c_void_p) for name in (*_VECTORS_2, *_GRADIENTS)),
    )


class Norm(ctypes.Structure):
    """A batch norm's vectors; field for field what task.h says."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("weight", "bias", "mean", "var", "batches")),
        *((name, ctypes.c_double) for name in ("momentum", "eps")),
    )


class Layer(ctypes.Structure):
    """A norm, NAM's gate, or both, whose vectors a task takes; field for field what task.h says."""

    _fields_ = (
        ("norm", Norm),
        ("gate", Norm),
        ("weighting", ctypes.c_int),
        ("vectors", ctypes.c_void_p),
    )


class Library:
    """The loaded library."""

    def __init__(self, path: Path) -> None:
        self._lib = ctypes.CDLL(str(path))
        self._lib.normattn_version.restype = ctypes.c_char_p
        self._lib.normattn_accesses.restype = ctypes.c_int64
        self._run = self._lib.normattn_run
        self._run.argtypes = [ctypes.POINTER(Task), *[ctypes.c_int] * 4]
        self._run.restype = None
        self._layer = self._lib.normattn_layer
        self._layer.argtypes = [ctypes.POINTER(Task), ctypes.POINTER(Layer), *[ctypes.c_int] * 4]
        self._layer.restype = None
        self._lib.normattn_interface.restype = ctypes.c_char_p
        self.version = self._lib.normattn_version().decode()
        self.interface = self._lib.normattn_interface().decode()
        self.task_size: int = self._lib.normattn_task_size()
        self.instructions: int = self._lib.normattn_best()

    def run(self, task: Task, *, half: bool, backward: bool, fixed: bool) -> None:
        """Compute; ctypes gives other Python threads their turn meanwhile."""
        self._run(ctypes.byref(task), self.instructions, half, backward, fixed)

    def run_layer(
        self, task: Task, layer: Layer, *, half: bool, backward: bool, fixed: bool
    ) -> None:
        """Compute with the vectors of modules, and move their running statistics on."""
        self._layer(
            ctypes.byref(task), ctypes.byref(layer), self.instructions, half, backward, fixed
        )

    def accesses(self) -> int:
        """Return how many elements the "counted" instructions touched, and count from 0 again."""
        count: int = self._lib.normattn_accesses(1)
        return count


def find(path: Path = PATH) -> tuple[Library | None, str]:
    """Return the library, or None, and one line on what was found.

    A file that is damaged or of another version is reported by one warning: it was meant to work.
    """
    if not path.exists():
        return None, (
            "none: no library was built, as where there is no C++ compiler. Install one (g++ or "
            "clang++), then reinstall normattn; `pip install -v` shows what the compiler says."
        )
    if not is_whole(path):
        return None, _warned(f"{path.name} is damaged")
    try:
        library = Library(path)
    except (OSError, AttributeError) as error:
        return None, _warned(f"{path.name} cannot be loaded ({error})")
    if library.version != VERSION:
        return None, _warned(f"{path.name} is of version {library.version}, not {VERSION}")
    if not _is_current(library, path.parent / "csrc"):
        return None, _warned(f"{path.name} was built before its sources were changed")
    return library, f"c++ {INSTRUCTIONS[library.instructions]}"


def _is_current(library: Library, sources: Path) -> bool:
    """Return whether the library takes the tasks that are made here.

    Its version says so, but not in a checkout whose sources move under a library built before.
    """
    current = not (sources / "task.h").exists() or library.interface == checksum(sources)
    return current and library.task_size == ctypes.sizeof(Task) + ctypes.sizeof(Layer)


def _warned(reason: str) -> str:
    warnings.warn(
        f"normattn: {reason}; the plain PyTorch forms are used. Reinstall normattn to build it.",
        RuntimeWarning,
        stacklevel=2,
    )
    return f"none: {reason}. Reinstall normattn to build it."


_forked = False


def forked() -> bool:
    """Return whether this is the child of a process that may have started OpenMP's threads.

    They did not come along, and the runtime would wait for them for ever. Whoever started them:
    torch's own operations do as well, and nothing tells whether they have.
    """
    return _forked


def _after_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


#: None where the package was installed without a compiler.
LIBRARY, STATUS = find()
