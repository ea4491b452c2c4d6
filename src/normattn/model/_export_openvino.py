"""OpenVINO: from PyTorch's exported program, or in int8 from a quantised ONNX file."""

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ._export_files import imported, others_code
from ._export_onnx import INPUT, OUTPUT


def write(model: nn.Module, images: Tensor, path: Path, about: Mapping[str, Any]) -> None:
    """Write a folded model as ``.xml`` and ``.bin``, for batches of any size."""
    openvino = imported("openvino")
    shapes = ({0: torch.export.Dim("batch", min=1)},)
    with others_code(), torch.no_grad():
        program = torch.export.export(model, (images,), dynamic_shapes=shapes)
        made = openvino.convert_model(program)
    _save(made, images, path, about)


def write_quantised(onnx: Path, images: Tensor, path: Path, about: Mapping[str, Any]) -> None:
    """Write what ONNX Runtime quantised: OpenVINO reads its QDQ nodes as its own int8."""
    with others_code():
        made = core().read_model(onnx)
    _save(made, images, path, about)


@functools.cache
def core() -> Any:
    """Return the one `Core` of this process, which nobody ever lets go of.

    The plugin for the CPU gives the thread that makes it a stack for signals, and takes it away in
    whichever thread frees it: where that is another, the first is left with a stack that is gone,
    and dies at the next signal that has a handler, such as the end of a child of a data loader.
    """
    return imported("openvino").Core()


def _save(made: Any, images: Tensor, path: Path, about: Mapping[str, Any]) -> None:
    made.inputs[0].get_tensor().set_names({INPUT})
    made.outputs[0].get_tensor().set_names({OUTPUT})
    made.reshape({INPUT: [-1, *images.shape[1:]]})
    for key, value in about.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        made.set_rt_info(text, ["normattn", key])
    with others_code():
        imported("openvino").save_model(made, path, compress_to_fp16=False)


class Runner(nn.Module):
    """An OpenVINO model on the CPU, its float operations in float32.

    Args:
        path: its ``.xml``.
        threads: with how many it computes.

    Shape:
        x: ``(B, C, H, W)``. y: ``(B, classes)``.
    """

    def __init__(self, path: Path, threads: int = 1) -> None:
        super().__init__()
        # By default some processors would compute in bfloat16, and the outputs be compared to that.
        settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
        with others_code():
            self._compiled = core().compile_model(path, "CPU", settings)

    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(self._compiled(x.contiguous().numpy())[0].copy())
