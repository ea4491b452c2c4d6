"""The README's part on slimming: what each criterion kept, and what the files gain in a runtime."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from readme_pictures import ACCENT, INK, MUTED

Cell = Mapping[str, Any]
CONTROL = "random"
#: In the order of the table: the criteria, chance, and the narrow model trained on its own.
ORDER = ("bn-scale", "nam", "taylor", "magnitude", "gate", CONTROL)


def read_cells(run: Path) -> dict[tuple[str, float], Cell]:
    """Return what `slimming.py` kept: records by criterion (or "scratch") and speedup asked for."""
    found: dict[tuple[str, float], Cell] = {}
    for folder in sorted(path for path in run.iterdir() if path.is_dir()):
        criterion, _, speedup = folder.name.rpartition("-")
        parts = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
        found[criterion, float(speedup)] = parts
    return found


def slimming(run: Path, picture: Path) -> str:
    """Return the sentences, the tables and the picture."""
    cells, options = read_cells(run), json.loads((run / "run.json").read_text())
    first = next(cell["slim"] for cell in cells.values() if finished(cell))
    original, job = first["original"], first["job"]
    batch, threads = str(job["batch"]), first["machine"]["threads"]
    speedups = sorted({speedup for _, speedup in cells})
    lines = [
        f"CIFAR-100, {first['data']['train']:,} training images; resnet20 with `nam-channel`, "
        f"top-1 accuracy {100 - original['metrics']['top1_error']:.2f} %, slimmed in one round to "
        f"a measured speedup (PyTorch, batch {batch}, {threads} threads, float32) and fine-tuned "
        f"for {epochs(job['recipe'])} with the original as teacher. One seed: differences of less "
        "than about a point say nothing.",
        "",
        "| criterion | " + " | ".join(f"{speedup:g}× asked" for speedup in speedups) + " |",
        "|---|" + "---:|" * len(speedups),
    ]
    names = [name for name in ORDER if any(criterion == name for criterion, _ in cells)]
    for name in names:
        row = [text(cells.get((name, speedup)), batch) for speedup in speedups]
        label = f"`{name}`" + (" (the control)" if name == CONTROL else "")
        lines.append(f"| {label} | " + " | ".join(row) + " |")
    if any(criterion == "scratch" for criterion, _ in cells):
        row = [text(cells.get(("scratch", speedup)), batch) for speedup in speedups]
        how = next(c["scratch"] for c in cells.values() if "scratch" in c)["recipe"]
        label = f"as narrow as `bn-scale`'s, from new weights, {epochs(how)}"
        lines.append(f"| {label} | " + " | ".join(row) + " |")
    lines += [
        "",
        "Top-1 accuracy in %; in brackets its change in points, and the speedup measured "
        "afterwards, both models interleaved.",
        "",
        f"![Accuracy against measured speedup for each criterion]({picture.as_posix()})",
        "",
        *runtimes(run),
        f"Commit {options['commit']}, torch {options['torch']}, {options['device']}, "
        f"{options['date']}. "
        f"Evidence: [`{place(run)}`]({place(run)}); made by `python benchmarks/slimming.py`.",
    ]
    return "\n".join(lines)


def epochs(how: Mapping[str, Any]) -> str:
    """Return how long a recipe trains, in words."""
    return f"{how['epochs']} epoch" + "s" * (how["epochs"] != 1)


def place(run: Path) -> str:
    """Return the folder as the README names it."""
    return f"benchmarks/results/{run.name}"


def finished(cell: Cell | None) -> bool:
    """Return whether a slimming was done, and timed."""
    return cell is not None and cell.get("slim", {}).get("status") == "done" and "profile" in cell


def measured(cell: Cell, batch: str) -> tuple[float, float, float]:
    """Return the speedup, the top-1 accuracy and its change."""
    error = cell["slim"]["result"]["metrics"]["top1_error"]
    ratio = cell["profile"]["latency"][batch]["after"]["ratio"]
    return 1 / ratio, 100 - error, -cell["slim"]["drop"]


def text(cell: Cell | None, batch: str) -> str:
    """Return a cell of the table."""
    if cell is None:
        return "not run"
    if "scratch" in cell:
        return f"{100 - cell['scratch']['metrics']['top1_error']:.2f}"
    if not finished(cell):
        return "out of reach"
    speedup, accuracy, change = measured(cell, batch)
    return f"{accuracy:.2f} ({signed(change)}; {speedup:.2f}×)"


def signed(value: float) -> str:
    """Return a change with its sign, a minus that is one."""
    return f"{value:+.2f}".replace("-", "−")


def runtimes(run: Path) -> list[str]:
    """Return the table of files in ONNX Runtime, if they were made."""
    path = run / "runtime.json"
    if not path.exists():
        return []
    found = json.loads(path.read_text())
    batches = sorted({row["batch"] for row in found["latency"]})
    heads = " | ".join(f"batch {batch}" for batch in batches)
    lines = [
        f"The original and `{found['slimmed']}` folded and exported, in ONNX Runtime "
        f"({found['threads']} threads), all files of a batch size in one interleaved run:",
        "",
        f"| file | top-1 (%) | size (kB) | {heads} |",
        "|---|---:|---:|" + "---:|" * len(batches),
    ]
    for name, about in found["files"].items():
        times = [
            f"{row['median_ms']:.2f} ms ({1 / row['ratio']:.2f}×)"
            for batch in batches
            for row in found["latency"]
            if row["batch"] == batch and row["provider"] == name
        ]
        accuracy, size = f"{100 * about['accuracy']:.2f}", f"{about['bytes'] / 1e3:.0f}"
        lines.append(f"| {name.replace('-', ', ')} | {accuracy} | {size} | {' | '.join(times)} |")
    return [*lines, ""]


def draw_slimming(run: Path) -> Figure:
    """Draw accuracy against measured speedup, a line a criterion."""
    cells = read_cells(run)
    first = next(cell["slim"] for cell in cells.values() if finished(cell))
    batch, original = str(first["job"]["batch"]), first["original"]["metrics"]["top1_error"]
    figure = Figure(figsize=(8.2, 3.2), layout="constrained")
    axes = figure.add_subplot()
    styles = dict(zip(ORDER, ("-", "-", "--", "-.", ":", "-"), strict=True))
    for number, name in enumerate(ORDER):
        points = sorted(
            measured(cell, batch)[:2]
            for (criterion, _), cell in cells.items()
            if criterion == name and finished(cell)
        )
        if not points:
            continue
        color = {"nam": ACCENT, CONTROL: MUTED}.get(name, INK)
        xs, ys = zip((1.0, 100 - original), *points, strict=True)
        axes.plot(xs, ys, styles[name], color=color, marker="osD^v*"[number], ms=5, label=name)
    axes.set_xlabel(f"measured speedup (PyTorch, batch {batch})")
    axes.set_ylabel("top-1 accuracy (%)")
    axes.legend(frameon=False, labelcolor=INK, fontsize=9)
    axes.tick_params(colors=INK, length=0)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["bottom", "left"]].set_color(MUTED)
    return figure
