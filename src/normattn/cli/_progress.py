"""Progress for people and for machines, from the plain dicts that training and comparison send."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from . import _common, _live

Event = Mapping[str, Any]
TensorBoard = Annotated[
    bool,
    typer.Option("--tensorboard", help="Write event files for TensorBoard beside the records."),
]


@contextlib.contextmanager
def display(
    json: bool, *, run: Path | None = None, tensorboard: Path | None = None
) -> Iterator[Callable[[Event], None]]:
    """Yield what shows events: JSON lines, a live view on a terminal, else a line an epoch.

    Args:
        json: Whether a program reads along.
        run: The folder of a comparison, whose earlier trials the live view shows.
        tensorboard: The folder whose histories get event files beside them.
    """
    console = _common.out()
    with contextlib.ExitStack() as stack:
        show: Callable[[Event], None] = _Lines(console)
        if json:
            show = _common.print_json
        elif console.is_terminal and not console.is_dumb_terminal:
            show = _Screen(console, stack, run)
        if tensorboard is not None:
            from ..training._tensorboard import EventFiles

            show = stack.enter_context(EventFiles(tensorboard, show))
        yield show


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
        if self._console.is_terminal:  # which would act on control characters
            text = "\n".join(map(_live.plain, text.splitlines()))
        self._console.print(text, soft_wrap=True, highlight=False, markup=False)


class _Screen:
    """A comparison, told by its events, has a view of its own; other work has a bar."""

    def __init__(
        self, console: Console, stack: contextlib.ExitStack, run: Path | None = None
    ) -> None:
        self._console, self._stack, self._run = console, stack, run
        self._show: Callable[[Event], None] | None = None

    def __call__(self, event: Event) -> None:
        if self._show is None:
            above = _Lines(self._console, silent=frozenset({"epoch", "skipped"}))
            if self._run is not None or "trials" in event:
                view = _live.LiveComparison(self._console, above, self._run)
                self._show = self._stack.enter_context(view)
            else:
                self._show = _Bar(self._stack.enter_context(_bars(self._console)), above)
        self._show(event)


def _bars(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}"),
        console=console,
        transient=True,
    )


class _Bar:
    """The training or evaluation that runs."""

    def __init__(self, bars: Progress, lines: Callable[[Event], None]) -> None:
        self._bars, self._lines = bars, lines
        self._work: TaskID | None = None

    def __call__(self, event: Event) -> None:
        if event["event"] in ("step", "evaluate"):
            self._show_work(event)
        else:
            self._lines(event)

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
        self._bars.update(
            self._work, description=_live.plain(escape(_who(event) or "images")), **changes
        )


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
