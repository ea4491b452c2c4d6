"""The README's part on slimming: what each criterion kept, and what the files gain in a runtime."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Cell = Mapping[str, Any]
CONTROL = "random"
#: The files of a model, as `slimming.py` names them, and what a reader is told.
KINDS = {
    "float": "float",
    "folded": "float, gates folded",
    "int8": "int8",
    "folded-int8": "int8, gates folded",
}
#: What a resnet56 was to reach: times as fast, points of top-1 that this may cost.
GOALS = ((2.0, 1.0, ("float", "folded")), (6.0, 1.5, ("int8", "folded-int8")))
#: In the order of the table: the criteria, chance, and the narrow model trained on its own.
ORDER = ("bn-scale", "nam", "taylor", "magnitude", "gate", CONTROL)


def read_cells(run: Path) -> dict[tuple[str, float], Cell]:
    """Return what `slimming.py` kept: records by criterion (or "scratch") and size."""
    found: dict[tuple[str, float], Cell] = {}
    # "original" holds the record of the training that all began with.
    for folder in sorted(path for path in run.glob("*-*") if path.is_dir()):
        criterion, _, fewer = folder.name.rpartition("-")
        parts = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
        found[criterion, float(fewer)] = parts
    return found


def slimming(run: Path, picture: Path) -> str:
    """Return the sentences, the tables and the picture."""
    cells, options = read_cells(run), json.loads((run / "run.json").read_text())
    times = json.loads((run / "runtime.json").read_text())
    first = next(cell["slim"] for cell in cells.values() if finished(cell))
    original, job = first["original"], first["job"]
    sizes = sorted({fewer for _, fewer in cells})
    lines = [
        f"CIFAR-100, {first['data']['train']:,} training images; resnet20 with `nam-channel`, "
        f"top-1 accuracy {100 - original['metrics']['top1_error']:.2f} %, slimmed in one round to "
        f"a fraction of its multiply-adds and fine-tuned for {epochs(job['recipe'])} with the "
        "original as teacher. One seed: differences of less than about a point say nothing.",
        "",
        "| criterion | " + " | ".join(f"{fewer:g}× fewer" for fewer in sizes) + " |",
        "|---|" + "---:|" * len(sizes),
    ]
    for name in (name for name in ORDER if any(name == criterion for criterion, _ in cells)):
        row = [text(cells.get((name, fewer)), f"{name}-{fewer:g}", times) for fewer in sizes]
        label = f"`{name}`" + (" (the control)" if name == CONTROL else "")
        lines.append(f"| {label} | " + " | ".join(row) + " |")
    if any(criterion == "scratch" for criterion, _ in cells):
        row = [text(cells.get(("scratch", fewer)), "", times) for fewer in sizes]
        how = next(c["scratch"] for c in cells.values() if "scratch" in c)["recipe"]
        label = f"as narrow as `bn-scale`'s, from new weights, {epochs(how)}"
        lines.append(f"| {label} | " + " | ".join(row) + " |")
    lines += [
        "",
        "Top-1 accuracy in %; in brackets its change in points, and how many times as fast as the "
        f"original in ONNX Runtime (float32, batch {job['batch']}, {times['threads']} threads, all "
        "files in one interleaved run).",
        "",
        f"![Accuracy against measured speedup for each criterion]({picture.as_posix()})",
        "",
        *runtimes(times, cells),
        f"Commit {options['commit']}, torch {options['torch']}, {options['device']}, "
        f"{options['date']}. "
        f"Evidence: [`{place(run)}`]({place(run)}); made by `python benchmarks/slimming.py`.",
    ]
    return "\n".join(lines)


def one_slimming(run: Path) -> str:
    """Return the sentences, the goals and the table of files of a run with a single slimming."""
    cells, options = read_cells(run), json.loads((run / "run.json").read_text())
    times = json.loads((run / "runtime.json").read_text())
    slim = next(cell["slim"] for cell in cells.values() if finished(cell))
    original, job, asked = slim["original"], slim["job"], options["options"]
    before = 100 - original["metrics"]["top1_error"]
    left = slim["result"]["cost"]["paper_macs"] / original["cost"]["paper_macs"]
    spared = f", {', '.join(f'`{name}`' for name in job['skip'])} spared" if job["skip"] else ""
    lines = [
        f"{asked['host']}, {asked['training']}: top-1 accuracy {before:.2f} %. Slimmed by "
        f"`{job['criterion']}` in one round to {100 * left:.0f} % of its multiply-adds{spared}, "
        f"then fine-tuned for {epochs(job['recipe'])} with the original as teacher: "
        f"{before - slim['drop']:.2f} % ({signed(-slim['drop'])}). One seed. A gate is folded "
        f"where its values on training images stay within {asked['tolerance']:g}.",
        "",
        *runtimes(times, cells),
        *(goal(times, before, before - slim["drop"], *each) for each in GOALS),
        "",
        f"Commit {options['commit']}, torch {options['torch']}, {options['device']}, "
        f"{options['date']}. Evidence: [`{place(run)}`]({place(run)}).",
    ]
    return "\n".join(lines)


def goal(
    times: Mapping[str, Any],
    before: float,
    after: float,
    faster: float,
    points: float,
    kinds: tuple[str, ...],
) -> str:
    """Return whether a file of the slimmed model is fast and good enough, and the best one."""
    batches = sorted({row["batch"] for row in times["latency"]})
    found = []
    for kind in kinds:
        about = times["files"].get(f"{times['int8_of']}.{kind}")
        if about is not None:
            cost = before - (after if about["accuracy"] is None else 100 * about["accuracy"])
            for batch in batches:
                file = f"{times['int8_of']}.{kind}"
                found.append((speedup(times, file, batch), cost, kind, batch))
    most = f"{points:g} point{'s' * (points != 1)}"
    what = f"- {faster:g}× as fast for at most {most} of top-1: "
    met = [each for each in found if each[0] >= faster and each[1] <= points]
    if not found:
        return what + "not measured."
    best, cost, kind, batch = max(met or found)
    said = "reached" if met else "missed; the fastest file"
    return f"{what}{said} ({KINDS[kind]}, batch {batch}): {best:.2f}× for {cost:.2f} points."


def epochs(how: Mapping[str, Any]) -> str:
    """Return how long a recipe trains, in words."""
    return f"{how['epochs']} epoch" + "s" * (how["epochs"] != 1)


def place(run: Path) -> str:
    """Return the folder as the README names it."""
    return f"benchmarks/results/{run.name}"


def finished(cell: Cell | None) -> bool:
    """Return whether a slimming was done."""
    return cell is not None and cell.get("slim", {}).get("status") == "done"


def measured(cell: Cell, name: str, times: Mapping[str, Any]) -> tuple[float, float, float]:
    """Return the speedup in the runtime, the top-1 accuracy and its change."""
    batch = cell["slim"]["job"]["batch"]
    error = cell["slim"]["result"]["metrics"]["top1_error"]
    return speedup(times, f"{name}.float", batch), 100 - error, -cell["slim"]["drop"]


def speedup(times: Mapping[str, Any], file: str, batch: int) -> float:
    """Return how many times as fast as the original in float a file is."""
    rows = (r for r in times["latency"] if r["provider"] == file and r["batch"] == batch)
    return 1 / float(next(rows)["ratio"])


def text(cell: Cell | None, name: str, times: Mapping[str, Any]) -> str:
    """Return a cell of the table."""
    if cell is None:
        return "not run"
    if "scratch" in cell:
        return f"{100 - cell['scratch']['metrics']['top1_error']:.2f}"
    if not finished(cell):
        return "out of reach"
    faster, accuracy, change = measured(cell, name, times)
    return f"{accuracy:.2f} ({signed(change)}; {faster:.2f}×)"


def signed(value: float) -> str:
    """Return a change with its sign, a minus that is one."""
    return f"{value:+.2f}".replace("-", "−")


def runtimes(times: Mapping[str, Any], cells: Mapping[tuple[str, float], Cell]) -> list[str]:
    """Return the table of the files that int8 was made of, and their int8 forms."""
    batches = sorted({row["batch"] for row in times["latency"]})
    heads = " | ".join(f"batch {batch}" for batch in batches)
    lines = [
        f"| file for ONNX Runtime | top-1 (%) | size (kB) | {heads} |",
        "|---|---:|---:|" + "---:|" * len(batches),
    ]
    errors = {f"{c}-{f:g}": cell["slim"] for (c, f), cell in cells.items() if finished(cell)}
    errors = {name: slim["result"]["metrics"]["top1_error"] for name, slim in errors.items()}
    one = next(cell["slim"] for cell in cells.values() if finished(cell))
    errors["original"] = one["original"]["metrics"]["top1_error"]
    for name in ("original", times["int8_of"]):
        for kind in KINDS:
            about = times["files"].get(f"{name}.{kind}")
            if about is None:
                continue
            accuracy = 100 - errors[name] if about["accuracy"] is None else 100 * about["accuracy"]
            faster = [f"{speedup(times, f'{name}.{kind}', batch):.2f}×" for batch in batches]
            size = f"{about['bytes'] / 1e3:.0f}"
            lines.append(
                f"| {name}, {KINDS[kind]} | {accuracy:.2f} | {size} | {' | '.join(faster)} |"
            )
    return [*lines, ""]
