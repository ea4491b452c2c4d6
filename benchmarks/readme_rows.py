"""Rows of the kernels' cases as `run.py --save` appended them, put together by what was timed."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]

#: case → its operations; a case with several gives as many tables of layouts, in this order
CASES = {
    "gate": ("gate",),
    "tail": ("tail",),
    "others": ("ean", "nam-spatial"),
    "inference": ("inference",),
    "step-cifar": ("step-cifar",),
    "step-imagenet": ("step-imagenet",),
}
#: What every other time of a run is a multiple of. Rows with another one are of older cases.
BASELINES = ("clone of x", "no attention, eager")
#: "plain" is PyTorch without attention: BatchNorm alone for a gate, the same without it elsewhere.
PLAIN = ("BatchNorm alone", "no attention, eager", "no attention: add + ReLU in place")


@dataclass(frozen=True)
class Group:
    """What was timed together, interleaved: every provider on one layout and shape.

    Args:
        op: what was computed; a key of `OPERATIONS` or `STEPS`.
        layout: "NCHW" or "channels_last".
        shape: of x; or batch, size and type of a step.
        rows: by provider, under names that all cases share.
    """

    op: str
    layout: str
    shape: str
    rows: dict[str, Row]

    def against(self, peer: str, ours: str = "normattn", field: str = "median_ms") -> float | None:
        """Return our figure as a multiple of the peer's, where both were measured."""
        if ours not in self.rows or peer not in self.rows:
            return None
        return float(self.rows[ours][field] / self.rows[peer][field])

    def is_close(self, peer: str, ours: str) -> bool:
        """Return whether the 20/80 quantiles of both overlap."""
        a, b = self.rows[ours], self.rows[peer]
        return bool(a["p20_ms"] <= b["p80_ms"] and b["p20_ms"] <= a["p80_ms"])

    @property
    def size(self) -> str:
        """The shape in a reader's signs: 8×256×56×56."""
        return re.sub(r"(?<=\d)x(?=\d)", "×", self.shape)


def newest(rows: Iterable[Row]) -> dict[str, list[Group]]:
    """Return, by device, the newest run of each case."""
    runs: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row["case"] in CASES and row.get("baseline") in BASELINES:
            run = runs.setdefault((row["device"], row["case"]), [])
            if run and identity(run[-1]) != identity(row):
                run.clear()
            run.append(row)
    found: dict[str, list[Group]] = {}
    for (device, case), run in sorted(runs.items(), key=lambda item: list(CASES).index(item[0][1])):
        found.setdefault(device, []).extend(_groups(case, run))
    return dict(sorted(found.items()))


def _groups(case: str, run: list[Row]) -> Iterator[Group]:
    """Put together what was timed together; of a case that was run twice, the last."""
    parts: list[list[Row]] = []
    for row in run:
        if row["provider"] == row["baseline"]:
            parts.append([])
        parts[-1].append(row)
    found = {}
    layouts = len({part[0]["layout"] for part in parts})
    for number, part in enumerate(parts):
        op = part[0].get("op") or CASES[case][number // layouts % len(CASES[case])]
        by_name = {_name(row["provider"]): row for row in part}
        group = Group(op, part[0]["layout"], part[0]["shape"], by_name)
        found[op, group.layout, group.shape] = group
    yield from found.values()


def _name(provider: str) -> str:
    if provider in PLAIN:
        return "plain"
    name = provider.partition(":")[0]  # "floor: 8 accesses"
    return "normattn" if name.startswith("normattn") else name


def identity(row: Row) -> tuple[Any, ...]:
    """Return what the rows of one run have in common."""
    return tuple(row[name] for name in ("commit", "date", "torch", "threads"))
