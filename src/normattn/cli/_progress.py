"""Progress for people and for machines, from the plain dicts that training and comparison send."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from . import _common

Event = Mapping[str, Any]


@contextlib.contextmanager
def display(json: bool) -> Iterator[Callable[[Event], None]]:
    """Yield what shows events: JSON lines, live bars on a terminal, else a line an epoch."""
    console = _common.out()
    if json:
        yield lambda event: _common.print_json(dict(event))
    elif console.is_terminal:
        bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}"),
            console=console,
            transient=True,
        )
        with bars:
            yield _Bars(bars)
    else:
        yield lambda event: _print_line(console, event)


class _Bars:
    """Two bars: the trials of a comparison, and the steps of the training that runs."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._run: TaskID | None = None
        self._job: TaskID | None = None

    def __call__(self, event: Event) -> None:
        if "trials" in event:
            if self._run is None:
                self._run = self._bars.add_task("trials", total=event["trials"], detail="")
            finished = event["event"] in ("done", "skipped", "failed")
            done = event["trial"] - (0 if finished else 1)
            self._bars.update(self._run, completed=done, detail=f"{done} of {event['trials']}")
        if event["event"] == "step":
            self._step(event)
        elif event["event"] != "evaluate":
            _print_line(self._bars.console, event)

    def _step(self, event: Event) -> None:
        if self._job is None:
            self._job = self._bars.add_task("", detail="")
        self._bars.update(
            self._job,
            description=escape(_who(event)) or "training",
            completed=event["step"],
            total=event["steps"],
            detail=f"epoch {event['epoch']} of {event['epochs']}, loss {event['loss']:.3f}",
        )


def _print_line(console: Console, event: Event) -> None:
    text = describe(event)
    if text:
        console.print(text, soft_wrap=True, highlight=False, markup=False)


def describe(event: Event) -> str | None:
    """Return an event as a line, or None for what is too small to have one."""
    who = _who(event)
    prefix = f"{who}: " if who else ""
    match event["event"]:
        case "epoch":
            return prefix + _epoch(event)
        case "note":
            return prefix + str(event.get("message", ""))
        case "skipped":
            return f"{prefix}done before"
        case "retry" | "failed":
            verb = "starting again" if event["event"] == "retry" else "failed"
            return f"{prefix}{verb}: {event['reason']}"
    return None


def _who(event: Event) -> str:
    """Name the trial: ``[3/21] nam, seed 0``; nothing for a training of its own."""
    if "trials" not in event:
        return ""
    return f"[{event['trial']}/{event['trials']}] {event['mechanism']}, seed {event['seed']}"


def _epoch(event: Event) -> str:
    parts = [f"epoch {event['epoch']} of {event['epochs']}"]
    shown = {
        "train_loss": ("train loss", "{:.3f}"),
        "top1_error": ("top-1 error", "{:.2f} %"),
        "top5_error": ("top-5 error", "{:.2f} %"),
        "images_per_second": ("", "{:,.0f} images/s"),
    }
    for key, (name, form) in shown.items():
        if event.get(key) is not None:
            parts.append(f"{name} {form.format(event[key])}".strip())
    return ", ".join(parts)
