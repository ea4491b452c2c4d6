"""What an export wrote, and how it compares with the model that it was made from."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ._export_int8 import GateLevels
from ._fold_report import FoldReport, aligned
from .profile import Latency

_HEAD = ("", "accuracy", "latency", "speed", "size")


@dataclass(frozen=True)
class Parity:
    """How far an exported file's outputs are from the folded model's in PyTorch.

    Args:
        relative: the largest difference, by the largest output.
        rms: the root mean square of the differences, by that of the outputs.
        changed: the fraction of images whose highest output is another.
        images: how many images were compared.
        source: "data", or "noise" where no data were given.
        measure: which of the two numbers is held against the limit.
        limit: what it may be at most.
    """

    relative: float
    rms: float
    changed: float
    images: int
    source: Literal["data", "noise"]
    measure: Literal["relative", "rms"]
    limit: float

    @property
    def holds(self) -> bool:
        """Whether the outputs agree; NaN agrees with nothing."""
        value = self.relative if self.measure == "relative" else self.rms
        return value <= self.limit

    def __str__(self) -> str:
        images = "real images" if self.source == "data" else "images of noise"
        loud = -20 * math.log10(self.rms) if self.rms > 0 else math.inf
        text = (
            f"differs by at most {self.relative:.2g} of the largest output ({loud:.1f} dB), "
            f"another class for {100 * self.changed:.2f} % of {self.images} {images}"
        )
        return text if self.holds else f"{text}; {self.measure} above the limit of {self.limit:g}"


@dataclass(frozen=True)
class ExportRow:
    """One form of the model.

    Args:
        bytes: of its file, or of its weights in PyTorch.
        accuracy: the fraction of the data that it gets right; None without labels.
        latency: one image on one thread of this machine, in one interleaved run with the others.
        parity: with the folded model; None for PyTorch's own forms.
    """

    bytes: int
    accuracy: float | None
    latency: Latency | None
    parity: Parity | None


@dataclass(frozen=True)
class ExportReport:
    """What `export` did; ``str(report)`` is a table.

    Args:
        path: the file, which holds the last of ``rows``.
        to: its format.
        int8: whether it is quantised.
        rows: the model in PyTorch, folded, in the runtime and, with int8, quantised, by label.
        fold: what folding did before.
        gates: with int8, what it would leave of each gate, and which stay in float.
        notes: what else is to be known.
    """

    path: Path
    to: str
    int8: bool
    rows: Mapping[str, ExportRow]
    fold: FoldReport
    gates: tuple[GateLevels, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain containers."""
        return {**asdict(self), "path": str(self.path)}

    def __str__(self) -> str:
        lines = [str(self.fold)]
        for gate in self.gates:
            word = "stays in float" if gate.kept else "in int8"
            lines.append(f"  {gate.gate}: {gate.levels} of 256 values are left in int8; {word}")
        lines += [f"{label} {row.parity}." for label, row in self.rows.items() if row.parity]
        lines += aligned([_HEAD, *(_cells(label, row) for label, row in self.rows.items())])
        return "\n".join([*lines, *self.notes, f"Written: {self.path}"])


def _cells(label: str, row: ExportRow) -> tuple[str, ...]:
    accuracy = "–" if row.accuracy is None else f"{100 * row.accuracy:.2f} %"
    times = ("–", "–")
    if row.latency is not None:
        times = (f"{1e3 * row.latency.median:.2f} ms", f"{1 / row.latency.ratio:.2f}×")
    return label, accuracy, *times, f"{row.bytes / 1e6:.2f} MB"
