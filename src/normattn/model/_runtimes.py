"""A model as a runtime computes it: folded, written to a temporary file, and loaded there.

PyTorch runs a network layer by layer, which binds narrow ones by what each call costs beside the
arithmetic; a runtime runs the whole. What a slimming gains there is measured on what ships.
"""

import copy
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import ConfigError, UnsupportedModel, unknown
from . import _export_onnx, _export_openvino
from ._discovery import _quietly
from ._export_files import _EXTRAS, FORMATS, _installed, imported
from ._export_job import _RUNTIMES, _WRITERS, _explaining
from .fold import fold

TORCH = "torch"
#: By runtime: the format that it reads.
_FORMATS = {"onnxruntime": "onnx", "openvino": "openvino"}
RUNTIMES = (TORCH, *_FORMATS)
_LOADERS: dict[str, Callable[[Path, int], nn.Module]] = {
    "onnxruntime": _export_onnx.Runner,
    "openvino": _export_openvino.Runner,
}


def check_runtime(who: str, runtime: str) -> None:
    """Refuse a runtime that is unknown, or that is not installed with what writes its files.

    Raises:
        ConfigError: says the line that installs it.
    """
    if runtime not in RUNTIMES:
        raise ConfigError(unknown(who, "runtime", str(runtime), RUNTIMES))
    needed = () if runtime == TORCH else FORMATS[_FORMATS[runtime]][2]
    missing = [name for name in needed if not _installed(name)]
    if missing:
        extras = ",".join(sorted({_EXTRAS[name] for name in missing}))
        raise ConfigError(
            f"{who}: expected {' and '.join(missing)} for the runtime {runtime}, got no such "
            f"package. Run `pip install 'normattn[{extras}]'`."
        )


def version_of(runtime: str) -> str:
    """Return a runtime's version, without what names the build."""
    package: Any = torch if runtime == TORCH else imported(runtime)
    return str(package.__version__).partition("-")[0].partition("+")[0]


def label(runtime: str) -> str:
    """Return a runtime's name as people write it."""
    return "PyTorch" if runtime == TORCH else _RUNTIMES[_FORMATS[runtime]]


def in_runtime(
    model: nn.Module, input_size: Sequence[int], runtime: str, *, threads: int = 1
) -> nn.Module:
    """Return a model as a runtime computes it: folded, exported and loaded, in float32.

    Args:
        model: any that `normattn.export` takes; it is left as it was.
        input_size: (C, H, W) of the images.
        runtime: "onnxruntime" or "openvino".
        threads: of the CPU, with which it will compute.

    Returns:
        A module for evaluation alone, for batches of any size on the CPU; no file is left.

    Raises:
        UnsupportedModel: the model cannot be folded, exported or run there.
    """
    to = _FORMATS[runtime]
    channels, height, width = input_size
    source = copy.deepcopy(model).to(device="cpu", dtype=torch.float32)
    with tempfile.TemporaryDirectory(prefix="normattn-") as folder, _quietly(source):
        made = Path(folder) / f"model{FORMATS[to][0]}"
        try:
            folded = fold(source, input_size=(height, width))
            with _explaining(to):
                # Two images: what is traced with one may take the batch's size for a constant.
                _WRITERS[to](folded, torch.zeros(2, channels, height, width), made, {})
                return _LOADERS[runtime](made, threads)
        except UnsupportedModel as error:
            raise UnsupportedModel(
                f"slim: expected a model that can be timed in {label(runtime)}, got one that "
                f"cannot ({error}) Use the runtime torch."
            ) from error
