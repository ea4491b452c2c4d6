"""PyTorch's own exported program."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from ._export_files import others_code

#: What everyone who loads such a file must know.
UNSAFE = (
    "torch.export.load reads pickles inside a .pt2, so open only those from people you trust; "
    "share .onnx, OpenVINO's or normattn.save's files, which hold none"
)


def write(model: nn.Module, images: Tensor, path: Path, about: Mapping[str, Any]) -> None:
    """Write a folded model as an exported program, for batches of any size."""
    shapes = ({0: torch.export.Dim("batch", min=1)},)
    with others_code(), torch.no_grad():
        program = torch.export.export(model, (images,), dynamic_shapes=shapes)
        for part in program.graph_module.modules():
            for node in part.graph.nodes if isinstance(part, GraphModule) else ():
                node.meta.pop("stack_trace", None)  # lines of code, with paths of this machine
        page = json.dumps(dict(about), ensure_ascii=False)
        torch.export.save(program, path, extra_files={"normattn.json": page})


class Runner(nn.Module):
    """A file of our own making, loaded again.

    Shape:
        x: ``(B, C, H, W)``. y: ``(B, classes)``.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        with others_code():
            self.program = torch.export.load(path).module()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.program(x)
        return y
