"""The page of a slimming: what it brought, how, and the command that does it again."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import _files
from ..errors import InputError, RunError
from ..model._runtimes import TORCH
from ..model._slim_plan import FORMAT
from ..training.slimming import SlimJob, fine_tuning
from ._chart_files import as_file
from ._lenient import entries, mapping, number, text
from ._slimmed_lines import lines
from ._slimmed_picture import draw_widths, said_of_widths
from ._slimmed_plan import foreign_plans
from ._slimmed_records import Slimmed, read_slimmed
from ._slimmed_sections import not_done, sections
from ._slimmings_sections import beside
from .facts import _pairs, _setting
from .page import Document, Facts, Section, render_markdown, render_page
from .slimmings import Slimmings, read_slimmings

PAGE = "report.html"
_SHARP = 80  # layers, up to which a picture has two pixels for one


def write_slimmed(folder: Path | str, profile: Mapping[str, Any] | None = None) -> Path:
    """Write ``report.html``, ``slim.md``, ``slim.png`` and ``slim.svg``; return the page's path.

    A slimming that is not finished, or damaged, has a page too: it says what is missing. Other
    slimmings of the same model that lie in folders beside this one are shown for comparison.

    Args:
        folder: of the slimming.
        profile: the latencies as `measure` gives them; None reads what it left.

    Raises:
        RunError: nothing of a slimming is in ``folder``, or it cannot be written.
    """
    folder = Path(folder)
    found = read_slimmed(folder, profile)
    document = slimmed_document(found, _others(found))
    pictures = ""
    if found.widths:
        chart = draw_widths(found.widths)
        scale = 2 if len(found.widths) <= _SHARP else 1
        for kind in ("png", "svg"):
            _files.write_bytes(folder / f"slim.{kind}", as_file(chart, kind, scale))
        pictures = f"\n![{said_of_widths(found.widths)}](slim.png)\n"
    markdown = render_markdown(document) + pictures
    _files.write_bytes(folder / "slim.md", markdown.encode(errors="replace"))
    _files.write_bytes(folder / PAGE, render_page(document).encode(errors="replace"))
    return folder / PAGE


def slimmed_document(found: Slimmed, others: Slimmings | None = None) -> Document:
    """Return the page of a slimming, with those that lie beside it."""
    try:
        again = command(SlimJob.from_json(dict(mapping(found.record, "job"))))
        missing: tuple[str, ...] = ()
    except (InputError, KeyError, TypeError, ValueError, AttributeError) as error:
        again = "normattn slim"
        missing = (f"The command cannot be told: the job in slim.json is not readable ({error}).",)
    return Document(
        title=_title(found),
        kind="slimming",
        verdict=_verdict(found),
        about=_about(found),
        missing=(*found.missing, *foreign_plans(found, FORMAT), *missing),
        sections=(*sections(found), beside(others), not_done(found, others), _protocol(found)),
        command=again,
        again="The same software, device and settings give the same numbers, except for measured "
        "latencies and what was planned on them.",
    )


def _others(found: Slimmed) -> Slimmings | None:
    try:
        return read_slimmings(found.folder.resolve().parent, like=found)
    except (RunError, OSError):  # nothing of another folder keeps this page from being made
        return None


def _title(found: Slimmed) -> str:
    name = Path(text(found.record, "job", "artifact") or "A model").name
    return f"{name} slimmed: {found.target or 'target unknown'}"


def _verdict(found: Slimmed) -> tuple[str, ...]:
    """Return how it ended, and what that is worth."""
    record, status = found.record, text(found.record, "status")
    if status == "failed":
        return (f"This slimming failed: {text(record, 'reason') or 'no reason recorded'}.",)
    if status != "done":
        return (f"This slimming is not finished. {_progress(found)}",)
    values = {line.name: line.values for line in lines(record, found.profile)}
    gain = values["Top-1 accuracy (%)"][2]
    parts = [] if gain is None else [f"{abs(gain):.2f} points {'less' if gain < 0 else 'more'}"]
    parts = [f"For {part} accuracy" for part in parts]
    less = [
        f"{values[name][2]:.2f} times fewer {name.lower()}"
        for name in ("Parameters", "Multiply-adds")
        if values[name][2] is not None
    ]
    timed = [(n, v[2]) for n, v in values.items() if n.startswith("Latency") and v[2] is not None]
    times = [f"{v:.2f} times as fast{_where(n)}" for n, v in timed]
    what = f"it has {' and '.join(less)}" if less else "its costs are not on record"
    speed = f", and is {' and '.join(times)}" if times else "; nobody has timed it"
    sentence = f"{', '.join([*parts, what])}{speed}."
    return (text(record, "summary") or "It is done.", sentence[0].upper() + sentence[1:])


def _where(name: str) -> str:
    """Return `` in ONNX Runtime at batch 1`` of ``Latency in ONNX Runtime, batch 1 (ms)``."""
    return name.removeprefix("Latency").removesuffix(" (ms)").replace(", ", " at ")


def _progress(found: Slimmed) -> str:
    done = [each for each in found.rounds if each.finished]
    steps = number(found.record, "job", "steps")
    of = f" of {steps:g}" if steps else ""
    said = f"{len(done)}{of} rounds are done."
    for each in (each for each in found.rounds if not each.finished):
        removed = "has removed its channels and" if each.accuracy("before") is not None else "is"
        epochs = number(found.record, "job", "recipe", "epochs")
        total = f" of {epochs:g}" if epochs else ""
        said += (
            f" Round {each.number} {removed} "
            + (f"was fine-tuned for {len(each.history)}{total} epochs." if removed != "is"
               else "planned; nothing is removed yet.")
        )  # fmt: skip
    return f"{said} The command that began it goes on."


def _about(found: Slimmed) -> str:
    job = mapping(found.record, "job")
    drop = number(job, "max_drop")
    parts = [
        f"criterion {text(job, 'criterion') or 'unknown'}, across the {text(job, 'across')}",
        f"{len(found.rounds)} of {text(job, 'steps') or '?'} rounds",
        "no limit to the drop" if drop is None else f"a drop of {drop:g} points allowed",
        text(job, "data"),
    ]
    return " · ".join(part for part in parts if part)


def _protocol(found: Slimmed) -> Section:
    record = found.record
    job = {k: v for k, v in mapping(record, "job").items() if k not in ("recipe", "artifact")}
    data = {
        key: value
        for key, value in mapping(record, "data").items()
        if key in ("spec", "train", "val", "train_limit", "channels", "size", "fingerprint")
    }
    classes, skipped = entries(record, "data", "classes"), entries(record, "data", "skipped")
    data |= {"classes": len(classes), "images skipped": len(skipped)} if data else {}
    made = {key: record[key] for key in _MADE if key in record}
    latency = {key: found.profile[key] for key in ("device", "threads") if key in found.profile}
    made |= {f"latency: {key}": value for key, value in latency.items()}
    groups = {
        "Slimming": {"model": text(record, "job", "artifact"), **job},
        "Fine-tuning, each round": mapping(record, "job", "recipe"),
        "Data": data,
        "Software and hardware": made,
    }
    items = tuple(Facts(title, tuple(_pairs(values))) for title, values in groups.items() if values)
    return Section("protocol", "Protocol", "", items, "slim.json holds nothing of it.")


_MADE = ("versions", "commit", "machine", "sha256", "started", "finished", "resumed")


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
        "--runtime": None if job.runtime == TORCH else job.runtime,
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
