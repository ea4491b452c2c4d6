"""What the README says about the kernels, from the rows that `run.py --save` appended."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

from readme_rows import Group, Row, identity, newest

COMMAND = "python benchmarks/run.py gate tail others inference step-cifar step-imagenet --save"
OPERATIONS = {
    "gate": "gate",
    "tail": "tail",
    "ean": "EAN",
    "nam-spatial": "NAM spatial",
    "inference": "inference",
}
STEPS = {
    "step-cifar": "ResNet-50, CIFAR stem",
    "step-imagenet": "ResNet-50",
}
FUSED_HOST, COMPILED_HOST = "no attention, normattn", "no attention, torch.compile"
PEERS = ("authors' form", "eager formula", "torch.compile")


@dataclass(frozen=True)
class Goal:
    """A figure to reach: our time (or another field) as a multiple of a peer's, by layout."""

    op: str
    peer: str
    limits: dict[str, float]
    shape: str = ""  # part of the shape's name; all shapes if empty
    ours: str = "normattn"
    field: str = "median_ms"

    def __str__(self) -> str:
        peer = "no attention" if self.peer == "plain" else self.peer
        who = (OPERATIONS | STEPS)[self.op] + f" {self.shape.replace('x', '×')}".rstrip()
        who += " without attention" if self.ours == FUSED_HOST else ""
        kept = ", what is kept" if self.field != "median_ms" else ""
        return f"{who} against {peer}{kept}"


def _both(limit: float) -> dict[str, float]:
    return {"NCHW": limit, "channels_last": limit}


CPU_GOALS = (
    Goal("gate", "authors' form", {"NCHW": 1 / 5, "channels_last": 1 / 7}, "32x256x32x32"),
    Goal("gate", "plain", {"NCHW": 0.7, "channels_last": 1.2}, "32x256x32x32"),
    Goal("tail", "plain", {"NCHW": 0.65, "channels_last": 1.0}, "32x256x32x32"),
    Goal("tail", "plain", _both(1.0), "8x2048x7x7"),
    Goal("inference", "plain", _both(1.0)),
    Goal("ean", "eager formula", _both(1 / 3)),
    Goal("nam-spatial", "eager formula", _both(1 / 3)),
    Goal("step-cifar", "plain", _both(1.0)),
    Goal("step-cifar", "plain", _both(1.0), ours=FUSED_HOST),
    Goal("step-cifar", "plain", _both(1.01), field="saved_activations"),
)
GPU_GOALS = (
    Goal("gate", "torch.compile", _both(1.0)),
    Goal("tail", "torch.compile", _both(1.0)),
    Goal("step-cifar", "plain", _both(0.95), "bfloat16"),
)


def kernels(rows: Iterable[Row], pictures: dict[str, str]) -> str:
    """Return the tables and sentences of every device.

    Args:
        rows: all rows of all devices, each device's in the order in which they were appended.
        pictures: by device, the address of its picture.
    """
    parts = []
    for device, groups in newest(rows).items():
        lines = [
            about(device, groups),
            "",
            *steps(groups),
            *operations(groups, pictures.get(device)),
        ]
        parts.append("\n".join([*lines, *(f"- {text}" for text in verdicts(device, groups))]))
    return "\n\n".join(parts) or f"No kernel was timed yet; this does it: `{COMMAND}`."


def about(device: str, groups: list[Group]) -> str:
    """Say where, with what, when, how often and how steadily it was measured."""
    every = [row for group in groups for name, row in group.rows.items() if name != "floor"]
    runs = dict.fromkeys(identity(row) for row in every)
    made = "; ".join(
        f"{', '.join(dict.fromkeys(r['case'] for r in every if identity(r) == run))}: "
        f"commit {run[0]}, {run[1]}, torch {run[2]}, {run[3]} threads"
        for run in runs
    )
    spreads = [100 * (row["p80_ms"] - row["p20_ms"]) / row["median_ms"] for row in every]
    return (
        f"**{device}** ({made}). Medians of {_span([r['n'] for r in every], 'd')} interleaved "
        f"rounds; the 20 and 80 % quantiles lie {median(spreads):.0f} % of the median apart at "
        f"the middle row and {max(spreads):.0f} % at the widest. Made by `{COMMAND}`."
    )


def steps(groups: list[Group]) -> list[str]:
    """Return the table of whole models, in multiples of plain eager PyTorch without attention."""
    names = (*PEERS, "normattn", COMPILED_HOST, FUSED_HOST)
    shown = [group for group in groups if group.op in STEPS]
    if not shown:
        return []
    lines = [
        "A training step of a whole model (forward + backward) with NAM's channel attention, or "
        "without any: its time, and what it keeps for the backward, as multiples of the same "
        "model's without attention in plain eager PyTorch.",
        "",
        f"| model | layout | | {' | '.join(names)} |",
        "|---|---|---|" + "---:|" * len(names),
    ]
    for group in shown:
        for title, field in (("time", "ratio"), ("kept", "saved_activations")):
            model = f"{STEPS[group.op]}, {group.shape}"
            lines.append(f"| {model} | {group.layout} | {title} | {_cells(group, names, field)} |")
    return [*lines, ""]


def operations(groups: list[Group], picture: str | None) -> list[str]:
    """Return the picture and the table of operations, in multiples of a clone of x."""
    names = (*PEERS, "normattn", "plain", "floor")
    shown = [group for group in groups if group.op in OPERATIONS]
    if not shown:
        return []
    lines = [
        "One operation, as a multiple of a clone of x. *Gate*: NAM's channel gate. *Tail*: the end "
        "of a residual block (BatchNorm, that gate, shortcut, ReLU). *Inference*: gate, shortcut "
        "and ReLU, without gradients; normattn's does the norm as well. The others: forward + "
        "backward. *No attention*: PyTorch's BatchNorm alone for the gate, else the same without "
        "it. *Floor*: the bytes that must move, at the speed of a copy.",
        "",
        *(
            [f"![Time of each operation, multiples of a clone of x]({picture})", ""]
            if picture
            else []
        ),
        "<details><summary>Every operation, layout and shape</summary>",
        "",
        f"| | layout | x | {' | '.join(PEERS)} | normattn | no attention | floor |",
        "|---|---|---|" + "---:|" * len(names),
    ]
    for group in shown:
        place = f"{OPERATIONS[group.op]} | {group.layout} | {group.size}"
        lines.append(f"| {place} | {_cells(group, names, 'ratio')} |")
    return [*lines, "", "</details>", ""]


def verdicts(device: str, groups: list[Group]) -> Iterator[str]:
    """Say what the figures come to, losses included."""
    shown = [group for group in groups if group.op in STEPS]
    if shown:
        yield (
            "What counts are the whole models, for an operation is a small part of a step. With "
            f"NAM, normattn takes {_range(shown, 'normattn')} the time of no attention in plain "
            f"PyTorch (authors' form: {_range(shown, PEERS[0])}) and keeps "
            f"{_range(shown, 'normattn', 'saved_activations')} its activations (authors' form: "
            f"{_range(shown, PEERS[0], 'saved_activations')}). Without attention it takes "
            f"{_range(shown, FUSED_HOST)} the time."
        )
    for op in ("gate", "tail"):
        field = "saved_bytes_an_element"
        alike = [group for group in groups if group.op == op]
        said = [
            f"{name} {_span(found, '.1f')}"
            for name in ("normattn", *PEERS)
            if (found := [group.rows[name][field] for group in alike if name in group.rows])
        ]
        if said:
            yield f"Kept for the backward, bytes an element, {op}: {', '.join(said)}."
    yield losses(groups)
    yield from goals(device, groups)


def losses(groups: list[Group]) -> str:
    """Say where we are slower than what we are compared with."""
    pairs = [("normattn", peer, peer) for peer in PEERS]
    pairs += [
        ("normattn", "plain", "no attention in plain PyTorch"),
        (FUSED_HOST, "plain", "plain PyTorch (both without attention)"),
        (FUSED_HOST, COMPILED_HOST, "torch.compile (both without attention)"),
    ]
    said = []
    for ours, peer, title in pairs:
        slower: dict[str, list[Group]] = {}
        for group in groups:
            if (group.against(peer, ours) or 0) > 1:
                name = (OPERATIONS | STEPS)[group.op]
                slower.setdefault(f"{name} {group.layout}", []).append(group)
        places = [f"{place} {_ratios(found, peer, ours)}" for place, found in slower.items()]
        said += [f"than {title}: {', '.join(places)}"] if places else []
    if not said:
        return "Nowhere in these rows is normattn slower than what it is compared with."
    return f"**Slower** {'; '.join(said)}. (≈: all quantiles overlap, so it may be as fast.)"


def _ratios(groups: list[Group], peer: str, ours: str) -> str:
    about = "≈ " if all(group.is_close(peer, ours) for group in groups) else ""
    return f"{about}{_span([group.against(peer, ours) for group in groups], '.2f')}×"


def goals(device: str, groups: list[Group]) -> Iterator[str]:
    """Say which goals are reached, and name the others."""
    reached, missed = 0, []
    for goal in GPU_GOALS if "NVIDIA" in device else CPU_GOALS:
        for layout, limit in goal.limits.items():
            meant = [g for g in groups if (g.op, g.layout) == (goal.op, layout)]
            found = [
                ratio
                for group in meant
                if goal.shape in group.shape
                if (ratio := group.against(goal.peer, goal.ours, goal.field)) is not None
            ]
            if found and max(found) <= limit:
                reached += 1
            elif found:
                missed.append(f"{goal} {layout} {max(found):.3f}× (≤ {limit:.3f}×)")
    if reached or missed:
        said = f"; missed: {', '.join(missed)}" if missed else ""
        count = f"{reached} of {reached + len(missed)}"
        yield f"Of the [goals set beforehand](benchmarks/README.md), {count} are reached{said}."


def _cells(group: Group, names: tuple[str, ...], field: str) -> str:
    found = {name: multiple(group.rows.get(name, {}).get(field)) for name in names}
    return " | ".join(f"**{text}**" if n == "normattn" else text for n, text in found.items())


def _range(groups: list[Group], name: str, field: str = "ratio") -> str:
    return _span([g.rows[name][field] for g in groups if name in g.rows], ".2f") + "×"


def _span(values: list[Any], form: str) -> str:
    """Return the smallest and the largest of some values, or the one that all are."""
    if not values:
        return "–"
    low, high = f"{min(values):{form}}", f"{max(values):{form}}"
    return low if low == high else f"{low}–{high}"


def multiple(value: float | None) -> str:
    """Return a ratio with as many digits as it can bear."""
    if value is None:
        return "–"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"
