"""int8 by ONNX Runtime's static quantization; gates that it would flatten stay in float."""

import contextlib
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..attention._gate import Gate
from ._export_files import imported, others_code
from ._export_onnx import INPUT, nodes_of
from ._gates_watch import STEPS, Onlooker, Range, Watch, gate_values, gates, int8_levels

#: A gate with fewer distinct values than this in int8 stays in float: of NAM's published gate two
#: to four are left, of one that uses its range 180 or more.
FEWEST = 32
#: What a gate's line, curve and product become; its convolutions and linear layers are quantised.
_HEAVY = {"Conv", "Gemm", "MatMul"}


@dataclass(frozen=True)
class GateLevels:
    """What int8 would leave of a gate.

    Args:
        gate: the module's name in the folded model.
        levels: how many of the 256 values of int8 its values take on the calibration images.
        kept: whether it stays in float for that.
    """

    gate: str
    levels: int
    kept: bool


def survey_gates(model: nn.Module, batches: Iterable[Tensor]) -> tuple[GateLevels, ...]:
    """Return what int8 would leave of each gate of a folded model, measured on images."""
    found = dict(gates(model))
    with torch.no_grad():
        with Watch(found.values()) as watch:
            for inputs in batches:
                model(inputs)
        with _Levels(watch.ranges) as levels:
            for inputs in batches:
                model(inputs)
    counts = {name: int(levels.taken[gate].sum()) for name, gate in found.items()}
    return tuple(GateLevels(name, count, count < FEWEST) for name, count in counts.items())


class _Levels(Onlooker):
    """Hooks that note which of the 256 levels a gate's values fall on."""

    def __init__(self, ranges: dict[Gate, Range]) -> None:
        super().__init__(ranges, self._note)
        self._steps = {gate: seen.step for gate, seen in ranges.items()}
        self.taken = {gate: torch.zeros(2 * (STEPS + 1), dtype=torch.bool) for gate in ranges}

    def __enter__(self) -> "_Levels":
        return self

    def _note(self, gate: Gate, x: Tensor) -> None:
        levels = int8_levels(gate_values(gate, x), self._steps[gate])
        self.taken[gate][levels + STEPS + 1] = True


def quantise(
    source: Path,
    target: Path,
    batches: Iterable[Tensor],
    kept: Iterable[GateLevels],
) -> None:
    """Write the int8 form of an ONNX file: QDQ, weights per channel, ranges from these images."""
    excluded = [
        name
        for gate in kept
        if gate.kept
        for name, operator in nodes_of(source, gate.gate)
        if operator not in _HEAVY
    ]
    quantization: Any = imported("onnxruntime.quantization")
    preprocess: Any = imported("onnxruntime.quantization.shape_inference")
    prepared = target.with_name(f"prepared-{target.name}")
    with others_code(), _silent_root():
        # Shapes only: the operators are optimised already, and must keep the names found above.
        preprocess.quant_pre_process(
            str(source), str(prepared), skip_optimization=True, skip_symbolic_shape=True
        )
        quantization.quantize_static(
            str(prepared),
            str(target),
            _reader(quantization, batches),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=excluded,
        )
    prepared.unlink()


def _reader(quantization: Any, batches: Iterable[Tensor]) -> Any:
    remaining = ({INPUT: inputs.numpy()} for inputs in batches)

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> Any:
            return next(remaining, None)

    return Reader()


@contextlib.contextmanager
def _silent_root() -> Iterator[None]:
    """The quantiser gives advice on the root logger, which is the user's."""
    logger = logging.getLogger()
    advice = logger.filters[:]
    logger.addFilter(lambda record: record.levelno >= logging.ERROR)
    try:
        yield
    finally:
        logger.filters[:] = advice
