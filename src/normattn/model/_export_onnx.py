"""ONNX: written by PyTorch's exporter, checked by ONNX, run by ONNX Runtime."""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ._export_files import imported, others_code
from ._fold_gates import FoldedGate

INPUT, OUTPUT = "images", "logits"
_NOTES = ("pkg.", "onnx.infer", "onnx.quant")


def write(model: nn.Module, images: Tensor, path: Path, about: Mapping[str, Any]) -> None:
    """Write a folded model as ONNX, for batches of any size.

    The exporter's notes on each node stay in: `nodes_of` reads them. `tidy` takes them off.

    NAM's line is written as a batch norm: runtimes keep one in the layout of the convolutions
    around it, where a product and a sum cost two changes of layout (ONNX Runtime, resnet56 on
    32×32: 3.1 ms, and 7.2 ms with the product).
    """
    onnx = imported("onnx")
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, FoldedGate):
            module.as_norm = True
    with others_code(), torch.no_grad():
        program = torch.onnx.export(
            model,
            (images,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            input_names=[INPUT],
            output_names=[OUTPUT],
            verbose=False,
        )
    assert program is not None
    onnx.save(program.model_proto, path)


def finish(path: Path, about: Mapping[str, Any]) -> None:
    """Make a file one to hand out: tidy, with facts in its metadata, and checked by ONNX."""
    onnx = imported("onnx")
    proto = onnx.load(path)
    tidy(proto)
    describe(proto, about)
    onnx.save(proto, path)
    onnx.checker.check_model(path, full_check=True)


def describe(proto: Any, about: Mapping[str, Any]) -> None:
    """Write facts into the file's metadata: text as it is, anything else as JSON."""
    known = {entry.key: entry for entry in proto.metadata_props}
    for key, value in about.items():
        entry = known.get(key) or proto.metadata_props.add(key=key)
        entry.value = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def tidy(proto: Any) -> None:
    """Take the exporter's notes off: among them are lines of code, with paths of this machine."""
    graph = proto.graph
    values = (*graph.input, *graph.output, *graph.value_info, *graph.initializer)
    for part in (proto, graph, *graph.node, *values):
        kept = [(p.key, p.value) for p in part.metadata_props if not p.key.startswith(_NOTES)]
        del part.metadata_props[:]
        for key, value in kept:
            part.metadata_props.add(key=key, value=value)


def nodes_of(path: Path, module: str) -> list[tuple[str, str]]:
    """Return the name and the operator of each node that a module's forward became."""
    proto = imported("onnx").load(path)
    found = []
    for node in proto.graph.node:
        scopes = [p.value for p in node.metadata_props if p.key == "pkg.torch.onnx.name_scopes"]
        if scopes and repr(module) in scopes[0]:
            found.append((node.name, node.op_type))
    return found


class Runner(nn.Module):
    """An ONNX file in ONNX Runtime, on the CPU.

    Args:
        path: the file.
        threads: with how many it computes.

    Shape:
        x: ``(B, C, H, W)``. y: ``(B, classes)``.
    """

    def __init__(self, path: Path, threads: int = 1) -> None:
        super().__init__()
        runtime = imported("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3  # its notes on its own optimisations are none of the user's
        with others_code():
            self._session = runtime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )

    def forward(self, x: Tensor) -> Tensor:
        (y,) = self._session.run(None, {INPUT: x.contiguous().numpy()})
        return torch.from_numpy(y)
