"""Progress for people and for machines, from the plain dicts that training and comparison send."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from . import _common

Event = Mapping[str, Any]
TensorBoard = Annotated[
    bool,
    typer.Option("--tensorboard", help="Write event files for TensorBoard beside the records."),
]


@contextlib.contextmanager
def display(json: bool, *, tensorboard: Path | None = None) -> Iterator[Callable[[Event], None]]:
    """Yield what shows events: JSON lines, live bars on a terminal, else a line an epoch.

    Args:
        json: Whether a program reads along.
        tensorboard: The folder whose histories get event files beside them.
    """
    with contextlib.ExitStack() as stack:
        show = stack.enter_context(_shown(json))
        if tensorboard is not None:
            from ..training._tensorboard import EventFiles

            show = stack.enter_context(EventFiles(tensorboard, show))
        yield show


@contextlib.contextmanager
def _shown(json: bool) -> Iterator[Callable[[Event], None]]:
    console = _common.out()
    if json:
        yield _common.print_json
    elif console.is_terminal:
        bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}"),
            console=console,
            transient=True,
        )
        with bars:
            yield _Bars(bars)
    else:
        yield _Lines(console)


class _Lines:
    """A line an epoch; what all trials of a run note alike is said once."""

    def __init__(self, console: Console, silent: frozenset[str] = frozenset({"done"})) -> None:
        self._console = console
        self._silent = silent
        self._noted: set[str] = set()

    def __call__(self, event: Event) -> None:
        text = describe(event)
        if text is None or event["event"] in self._silent or event.get("text") in self._noted:
            return
        if event["event"] == "note":
            self._noted.add(event["text"])
        self._console.print(text, soft_wrap=True, highlight=False, markup=False)


class _Bars:
    """Two bars: the trials of a comparison, and the training or evaluation that runs."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._above = _Lines(bars.console, silent=frozenset({"epoch", "skipped"}))
        self._trials: TaskID | None = None
        self._work: TaskID | None = None

    def __call__(self, event: Event) -> None:
        if "trials" in event:
            self._show_trials(event)
        if event["event"] in ("step", "evaluate"):
            self._show_work(event)
        else:
            self._above(event)

    def _show_trials(self, event: Event) -> None:
        if self._trials is None:
            self._trials = self._bars.add_task("trials", total=event["trials"], detail="")
        ended = event["event"] in ("done", "skipped", "failed")
        finished = event["trial"] - (0 if ended else 1)
        detail = f"{finished} of {event['trials']}"
        if finished == event["trials"]:
            detail += ", measuring costs"
        self._bars.update(self._trials, completed=finished, detail=detail)

    def _show_work(self, event: Event) -> None:
        if self._work is None:
            self._work = self._bars.add_task("", detail="")
        batch, batches = event["batch"], event["batches"]
        changes: dict[str, Any] = {"completed": batch, "total": batches, "detail": "evaluating"}
        if event["event"] == "step":
            changes["completed"] = (event["epoch"] - 1) * batches + batch
            changes["total"] = event["epochs"] * batches
            changes["detail"] = (
                f"epoch {event['epoch']} of {event['epochs']}, loss {event['loss']:.3f}"
            )
        elif "epoch" in event:  # within a training, whose own bar stays where it is
            changes = {"detail": f"epoch {event['epoch']}, evaluating"}
        self._bars.update(self._work, description=escape(_who(event) or "images"), **changes)


def describe(event: Event) -> str | None:
    """Return an event as a line, or None for what is too small to have one."""
    match event["event"]:
        case "epoch":
            text = _epoch(event)
        case "note":
            text = str(event["text"])
        case "done":
            text = f"done, top-1 error {event['metrics']['top1_error']:.2f} %"
        case "skipped":
            text = "done before"
        case "retry":
            text = f"starting it again: {event['reason']}"
        case "failed":
            text = f"failed: {event['reason']}"
        case "plan":
            text = _plan(event)
        case "round":
            text = _round(event)
        case _:
            return None
    who = _who(event)
    return f"{who}: {text}" if who else text


def _who(event: Event) -> str:
    """Name the trial, such as ``[3/21] nam, seed 0``, or the round of a slimming.

    A training of its own has no name.
    """
    if "rounds" in event:
        return f"round {event['round']} of {event['rounds']}"
    if "trials" not in event:
        return ""
    return f"[{event['trial']}/{event['trials']}] {event['mechanism']}, seed {event['seed']}"


def _epoch(event: Event) -> str:
    top5 = event["top5_error"]
    parts = [
        f"epoch {event['epoch']} of {event['epochs']}",
        f"train loss {event['train_loss']:.3f}",
        f"top-1 error {event['top1_error']:.2f} %",
        *([] if top5 is None else [f"top-5 error {top5:.2f} %"]),
        f"{event['images_per_second']:,.0f} images/s",
    ]
    return ", ".join(parts)


def _plan(event: Event) -> str:
    """Say what a round of a slimming is about to remove."""
    target = " ".join(f"{kind} {value:.3g}" for kind, value in event["target"].items())
    if not event["after"]:
        return f"towards {target}: nothing to remove. {event['note']}".rstrip()
    parts = [
        f"{name.replace('_', ' ')} {_figure(before)} → {_figure(event['after'][name])}"
        for name, before in event["before"].items()
        if before is not None
    ]
    return f"towards {target}: {', '.join(parts)}"


def _figure(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _round(event: Event) -> str:
    if event["skipped"]:
        return "done, nothing removed"
    removed, tuned = (event[side]["metrics"]["top1_error"] for side in ("before", "after"))
    text = f"done, top-1 error {removed:.2f} % after removal, {tuned:.2f} % after fine-tuning"
    return f"{text} ({event['drop']:+.2f} points against the original)"
