"""The page of a slimming: table, picture, rounds, and the command that does it again."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import _files
from ..training.slimming import SlimJob, fine_tuning
from ._slimmed_picture import draw_widths
from .facts import _counted, _pairs, _setting
from .report import _environment
from .slimmed import CAPTION, lines, read
from .table import NOTHING, _signed


def write_slimmed(folder: Path | str, profile: Mapping[str, Any]) -> Path:
    """Write ``slim.md``, ``slim.png`` and ``slim.svg`` of a finished slimming; return the page."""
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
        "allowed drop (points)": "none set" if job["max_drop"] is None else job["max_drop"],
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
        "--round-to": None if job.round_to == 8 else job.round_to,
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
