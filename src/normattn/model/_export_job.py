"""The files of one export: written, quantised, and loaded again in their runtime."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import Fault, InputError, UnsupportedModel
from . import _export_onnx, _export_openvino, _export_pt2
from ._export_check import Calibration
from ._export_int8 import GateLevels, quantise, survey_gates
from ._fold_images import Batches

CALIBRATION_IMAGES = 512  # more change the ranges of MinMax calibration hardly, and take longer

_WRITERS: dict[str, Callable[[nn.Module, Tensor, Path, Mapping[str, Any]], None]] = {
    "onnx": _export_onnx.write,
    "openvino": _export_openvino.write,
    "pt2": _export_pt2.write,
}
_RUNNERS: dict[str, Callable[[Path], nn.Module]] = {
    "onnx": _export_onnx.Runner,
    "openvino": _export_openvino.Runner,
    "pt2": _export_pt2.Runner,
}
_RUNTIMES = {"onnx": "ONNX Runtime", "openvino": "OpenVINO", "pt2": "torch.export"}


class Job:
    """One export: a folded model, images and facts on their way into files."""

    def __init__(
        self, to: str, folder: Path, folded: nn.Module, images: Tensor, about: Mapping[str, Any]
    ) -> None:
        self.to, self.folder, self.folded = to, folder, folded
        self.images, self.about = images, about

    def write(
        self, made: Path, int8: bool, calibration: Batches | None
    ) -> tuple[dict[str, Path], tuple[GateLevels, ...], list[str]]:
        """Write the file, and with int8 its form in float first; return all by label."""
        runtime = _RUNTIMES[self.to]
        if not int8:
            self._write(self.to, made)
            unsafe = [_export_pt2.UNSAFE] if self.to == "pt2" else []
            return self._finished({runtime: made}), (), unsafe
        assert calibration is not None
        plain = self.folder / f"float{made.suffix}"
        self._write(self.to, plain)
        onnx = self.folder / "float.onnx"
        if self.to != "onnx":
            self._write("onnx", onnx)
        shape = self.images.shape[1:]
        batches = Calibration(calibration, self.folded, shape, CALIBRATION_IMAGES)
        levels = survey_gates(self.folded, batches)
        quantised = made if self.to == "onnx" else self.folder / "int8.onnx"
        with _explaining("int8"):
            quantise(onnx, quantised, batches, levels)
            if self.to == "openvino":
                _export_openvino.write_quantised(quantised, self.images, made, self.about)
        files = self._finished({runtime: plain, f"{runtime}, int8": made})
        return files, levels, [f"Calibrated on {batches.images} images."]

    def runners(self, files: Mapping[str, Path]) -> dict[str, nn.Module]:
        """Load each file in its runtime."""
        with _explaining(self.to):
            return {label: _RUNNERS[self.to](file) for label, file in files.items()}

    def _finished(self, files: dict[str, Path]) -> dict[str, Path]:
        if self.to == "onnx":
            with _explaining(self.to):
                for file in files.values():
                    _export_onnx.finish(file, self.about)
        return files

    def _write(self, to: str, path: Path) -> None:
        with _explaining(to):
            # Two images: what is traced with one may take the batch's size for a constant. And
            # zeros, as a .pt2 keeps what it was traced with.
            images = torch.zeros(2, *self.images.shape[1:])
            _WRITERS[to](self.folded, images, path, self.about)


@contextlib.contextmanager
def _explaining(to: str) -> Iterator[None]:
    """Turn what an exporter or a runtime raises into one sentence."""
    try:
        yield
    except (InputError, Fault, MemoryError, OSError):
        raise
    except Exception as error:
        first = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise UnsupportedModel(
            f"export: expected a model that {to} can express, got {type(error).__name__}: {first} "
            "Nothing was written; try another format."
        ) from error
