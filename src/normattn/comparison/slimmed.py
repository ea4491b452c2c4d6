"""What a slimming brought and what it cost: a table, a picture and a page, from its record alone.

::

    FOLDER/profile.json         latency of both models, interleaved, measured once
           slim.md              the table, the rounds, how to run it again
           slim.png, slim.svg   the width of every layer, before and after
"""

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from .. import _files
from ..errors import InputError, RunError
from ..model.artifact import load
from ..model.profile import latency
from ..training.slimming import SlimJob, fine_tuning
from .costs import BATCHES
from .facts import _counted, _pairs, _setting
from .report import _environment
from .table import NOTHING

_SECONDS = 10.0  # what the timing of one batch size may take, if the fewest rounds fit in
_ROUNDS = (5, 50)
_WARM_UP = 3  # passes of each model that `latency` makes before it times

CAPTION = (
    "Ratio: how many times less; of accuracy, the difference in points. Latencies are medians of "
    "one interleaved run of both models, as they are loaded, on one thread."
)


@dataclass(frozen=True)
class Line:
    """A line of the table, in words; ``tone`` is ``better``, ``worse`` or nothing."""

    name: str
    before: str
    after: str
    ratio: str
    tone: str = ""


def measure(folder: Path | str, original: Path | str, *, device: str = "cpu") -> dict[str, Any]:
    """Return the content of ``profile.json``: the latencies of both models, measured only once.

    Args:
        folder: Of a finished slimming.
        original: Where the model that it began with is saved.
        device: Where to time.
    """
    folder = Path(folder)
    path = folder / "profile.json"
    if path.exists():
        content: dict[str, Any] = _files.read_json(path)
        return content
    size = read(folder)["data"]
    models = {"before": load(original), "after": load(folder)}
    found: dict[str, Any] = {"device": device, "threads": 1, "latency": {}, "notes": []}
    for batch in BATCHES:
        try:
            times = _time(models, (size["channels"], *size["size"]), batch, device)
        except (InputError, RuntimeError) as error:
            found["notes"].append(f"Latency with batch {batch} could not be timed ({error}).")
        else:
            found["latency"][str(batch)] = times
    _files.write_json(path, found)
    return found


def _time(
    models: Mapping[str, Any], size: tuple[int, ...], batch: int, device: str
) -> dict[str, dict[str, float]]:
    probe = latency(models, size, batch=batch, rounds=1, device=device)
    fewest, most = _ROUNDS
    together = sum(each.median for each in probe.values())
    rounds = max(fewest, min(most, int(_SECONDS / together) - _WARM_UP))
    times = latency(models, size, batch=batch, rounds=rounds, device=device)
    return {
        label: {"median": t.median, "p20": t.p20, "p80": t.p80, "ratio": t.ratio}
        for label, t in times.items()
    }


def read(folder: Path | str) -> dict[str, Any]:
    """Return the record of a finished slimming.

    Raises:
        RunError: there is none in ``folder``, it is damaged, or it is not finished.
    """
    path = Path(folder) / "slim.json"
    if not path.is_file():
        raise RunError(
            f"{folder}: expected a folder with slim.json, got none. "
            "Give the folder that `normattn slim --out` made."
        )
    record = _files.read_json(path)
    if not isinstance(record, dict) or record.get("status") != "done":
        raise RunError(
            f"{path}: expected the record of a finished slimming, got another. "
            "Finish it with the command that began it."
        )
    return record


def lines(record: Mapping[str, Any], profile: Mapping[str, Any]) -> tuple[Line, ...]:
    """Return the table: accuracy, parameters, multiply-adds, latencies, size of the file."""
    before, after = record["original"], record["result"]
    drop = record["drop"]
    had, has = (f"{100 - side['metrics']['top1_error']:.2f}" for side in (before, after))
    tone = "" if abs(drop) < 0.005 else "worse" if drop > 0 else "better"
    found = [Line("Top-1 accuracy (%)", had, has, _signed(-drop), tone)]
    for name, key in {"Parameters": "parameters", "Multiply-adds": "paper_macs"}.items():
        found.append(_counts(name, before["cost"][key], after["cost"][key]))
    for batch in map(str, BATCHES):
        name, times = f"Latency, batch {batch} (ms)", profile["latency"].get(batch)
        if times is None:
            found.append(Line(name, NOTHING, NOTHING, NOTHING))
            continue
        had, has = (f"{times[side]['median'] * 1e3:.2f}" for side in ("before", "after"))
        found.append(Line(name, had, has, *_times_less(1 / times["after"]["ratio"])))
    found.append(_counts("File (bytes)", before["bytes"], after["bytes"]))
    return tuple(found)


def _counts(name: str, before: int, after: int) -> Line:
    return Line(name, f"{before:,}", f"{after:,}", *_times_less(before / after))


def _times_less(ratio: float) -> tuple[str, str]:
    tone = "" if math.isclose(ratio, 1, abs_tol=0.005) else "better" if ratio > 1 else "worse"
    return f"{ratio:.2f}×", tone


def _signed(value: float) -> str:
    text = f"{value:+.2f}"
    return "0.00" if float(text) == 0 else text.replace("-", "−")


def slimmed_table(record: Mapping[str, Any], profile: Mapping[str, Any]) -> Table:
    """Return the table for a terminal."""
    view = Table(
        caption=CAPTION, caption_justify="left", box=SIMPLE_HEAD, show_edge=False, pad_edge=False
    )
    view.add_column("")
    for heading in ("Before", "After", "Ratio"):
        view.add_column(heading, justify="right")
    styles = {"better": "green", "worse": "red", "": ""}
    for line in lines(record, profile):
        ratio = Text(line.ratio, style=styles[line.tone])
        view.add_row(Text(line.name), line.before, line.after, ratio)
    return view


def write_slimmed(folder: Path | str, profile: Mapping[str, Any]) -> Path:
    """Write ``slim.md``, ``slim.png`` and ``slim.svg`` of a finished slimming; return the page."""
    from ._slimmed_picture import draw_widths

    folder = Path(folder)
    record = read(folder)
    alt = ""
    for kind in ("png", "svg"):
        content, alt = draw_widths(record["widths"], kind)
        _files.write_bytes(folder / f"slim.{kind}", content)
    job = SlimJob.from_json(record["job"])
    page = {
        "title": f"{Path(job.artifact).name} slimmed: {job.kind} {job.value:g}",
        "summary": record["summary"],
        "lines": lines(record, profile),
        "caption": CAPTION,
        "alt": alt,
        "rounds": [_round(each) for each in record["rounds"]],
        "facts": tuple(_pairs(_facts(record))),
        "notes": (*record["data"].get("notes", ()), *record["notes"], *profile["notes"]),
        "command": command(job),
    }
    template = _environment("slim.md.j2").get_template("slim.md.j2")
    _files.write_bytes(folder / "slim.md", template.render(page=page).encode(errors="replace"))
    return folder / "slim.md"


def _round(found: Mapping[str, Any]) -> tuple[str, ...]:
    ((kind, value),) = found["target"].items()
    start = (str(found["round"]), f"{kind} {value:.3g}")
    if found["skipped"]:
        return (*start, *([NOTHING] * 4), found["note"] or "nothing to remove")
    before, after = (100 - found[side]["metrics"]["top1_error"] for side in ("before", "after"))
    cost = found["after"]["cost"]
    counts = (f"{cost['parameters']:,}", f"{cost['paper_macs']:,}")
    return (*start, *counts, f"{before:.2f}", f"{after:.2f}", _signed(-found["drop"]))


def _facts(record: Mapping[str, Any]) -> dict[str, Any]:
    job, data = record["job"], record["data"]
    return {
        "model": job["artifact"],
        "data": f"{data['spec']}, {_counted(data['train'], 'training image')}, "
        f"{_counted(data['val'], 'validation image')}",
        "criterion": f"{job['criterion']}, across the {job['across']}",
        "allowed drop": "none set" if job["max_drop"] is None else f"{job['max_drop']:g} points",
        "fine-tuning, each round": job["recipe"],
        **{key: record[key] for key in ("versions", "commit", "machine", "started", "finished")},
    }


def command(job: SlimJob) -> str:
    """Return the command line that does it again."""
    standard, recipe = fine_tuning().to_json(), job.recipe.to_json()
    options: dict[str, Any] = {
        "--data": job.data,
        f"--{job.kind.replace('_', '-')}": f"{job.value:g}",
        "--max-drop": None if job.max_drop is None else f"{job.max_drop:g}",
        "--steps": job.steps,
        "--criterion": job.criterion,
        "--across": job.across,
        "--skip": ",".join(job.skip) or None,
        "--batch": None if job.batch == 1 else job.batch,
        "--seed": job.seed or None,
        "--train-limit": job.train_limit,
        "--on-bad-image": None if job.on_bad_image == "stop" else job.on_bad_image,
        "--image-size": job.image_size,
    }
    words = ["normattn", "slim", job.artifact]
    for option, value in options.items():
        words += [] if value is None else [option, str(value)]
    for key, value in recipe.items():
        words += [] if value == standard[key] else ["--set", f"{key}={_setting(value)}"]
    words += [] if job.fuse else ["--no-fuse"]
    return shlex.join([*words, "--out", "runs/again"])
