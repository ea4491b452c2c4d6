"""A comparison while it runs, on a terminal: what is done, what runs, how long it takes, who leads.

Names come from users and reasons from anywhere: both are `Text`, never markup, and characters that
a terminal would act on are replaced.
"""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..errors import InputError
from ._board import Board, Event, Standing, Trial

_FEWEST = 10  # columns that a name keeps, however narrow the terminal is
_PAUSE = 0.25  # seconds between two drawings
_SPARE = 2  # lines: the prompt's own, and one for what the terminal echoes, such as ^C


class LiveComparison:
    """Shows the events of a comparison in place; what is worth keeping is printed above.

    The view is gone when the context ends, however it ends.

    Args:
        console: A terminal.
        lines: Takes each event, too, and prints what should stay.
        run: The run folder, which knows the trials of earlier calls; without it they count, but
            their errors are not shown.
    """

    def __init__(
        self, console: Console, lines: Callable[[Event], None], run: Path | None = None
    ) -> None:
        self._lines, self._run = lines, run
        self._lock = threading.Lock()  # the view is drawn by a thread of its own
        self._board: Board | None = None
        self._live = Live(self, console=console, auto_refresh=False, transient=True)
        self._over = threading.Event()
        self._drawer = threading.Thread(target=self._draw, daemon=True)

    def __enter__(self) -> Self:
        self._live.start()
        self._drawer.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._drawer.join()
        self._live.stop()

    def __call__(self, event: Event) -> None:
        with self._lock:
            if self._board is None:  # the first event comes when the protocol is in the folder
                self._board = Board(recorded(self._run) if self._run else ())
            self._board.hear(event)
            ended = self._board.ended
        self._lines(event)
        if ended and not self._over.is_set():
            self._over.set()  # what follows are timings, which nothing should disturb
            self._drawer.join()
            self._live.refresh()

    def _draw(self) -> None:
        while not self._over.wait(_PAUSE):
            self._live.refresh()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        with self._lock:
            if self._board is not None:
                yield draw(self._board, options.max_width, console.size.height - _SPARE)


def recorded(run: Path) -> list[Trial]:
    """Return the trials of a run folder as the board takes them; [] where it cannot be read."""
    from ..comparison import read_run

    try:
        records = read_run(run)
    except (InputError, OSError):
        return []
    trials = []
    for record in records.trials:
        trial = Trial(record.mechanism, record.seed)
        if record.status == "done":
            trial.status, trial.error = "done", record.metrics.get("top1_error")
            times = [e.get(k) for e in record.history for k in ("seconds", "seconds_evaluation")]
            trial.seconds = sum(t for t in times if isinstance(t, int | float)) or None
        trials.append(trial)
    return trials


def draw(board: Board, width: int, height: int) -> RenderableType:
    """Return the view, at most ``height`` lines of ``width`` columns."""
    parts: list[RenderableType] = [_counts(board), _bar(board, width), _times(board)]
    room = height - len(parts)
    running, standings = board.running, board.standings
    if running and room >= 3:
        shown = running[: max(1, room // 2 - 2)]
        parts += [Text(), _running(shown, width), *_more(len(running) - len(shown), "running")]
        room -= len(shown) + 2 + (len(running) > len(shown))
    if standings and room >= 4:
        chosen = _chosen(standings, room - 2)
        parts += [Text(), _standings(chosen, standings, width)]
        parts += _more(len(standings) - len(chosen), "mechanisms")
    return Group(*parts)


def plain(text: str) -> str:
    r"""Return text without what a terminal or a reader's eye would be led by.

    >>> plain("a\x1b[2Jb")
    'a�[2Jb'
    """
    return "".join(c if c.isprintable() else "�" for c in text)


def _counts(board: Board) -> Text:
    counts = board.counts
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(f"{counts['done']} of {board.total} trials done", "bold")
    text.append(f", {counts['running']} running", "cyan" if counts["running"] else "")
    text.append(f", {counts['failed']} failed", "bold red" if counts["failed"] else "")
    return text.append(f", {counts['waiting']} waiting")


def _bar(board: Board, width: int) -> Table:
    row = Table.grid(padding=(0, 1, 0, 0))
    bar = ProgressBar(total=1.0, completed=board.share, width=min(width, 60) - 6)
    row.add_row(bar, f"{100 * board.share:.0f} %")
    return row


def _times(board: Board) -> Text:
    passed = span(board.clock() - board.started)
    if board.ended:
        text = f"{passed} so far; measuring what each mechanism costs"
    elif (left := board.left()) is None:
        text = f"{passed} so far; time left not known until an epoch is done"
    else:
        text = f"{passed} so far; about {span(left)} left"
    return Text(text, no_wrap=True, overflow="ellipsis")


def span(seconds: float) -> str:
    """Return a time as one would say it.

    >>> span(5.4), span(100), span(3 * 3600 + 61), span(100 * 3600)
    ('5 s', '2 min', '3 h 01 min', '4 days 4 h')
    """
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 90:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    hours = round(minutes / 60)
    return f"{hours // 24} days {hours % 24} h"


def _running(trials: Sequence[Trial], width: int) -> Table:
    figures = (("Seed", 4), ("Epoch", 7), ("Batch", 10), ("Loss", 6), ("Images/s", 8))
    table = _table("Running", figures, width)
    for trial in trials:
        who, step = (_name(trial.mechanism), str(trial.seed)), trial.step
        if not step:
            table.add_row(*who, "", "starting", "", "")
            continue
        batch = f"{step['batch']}/{step['batches']}"
        table.add_row(
            *who,
            f"{step['epoch']}/{step['epochs']}",
            "evaluating" if trial.evaluating else batch,
            f"{step['loss']:.3f}",
            f"{step['images_per_second']:,.0f}",
        )
    return table


def _standings(chosen: Sequence[Standing], every: Sequence[Standing], width: int) -> Table:
    figures = (("Done", 7), ("Mean", 6), ("Best", 6), ("Now", 6))
    table = _table("Top-1 error (%)", figures, width)
    leading = min((each.mean for each in every if each.mean is not None), default=None)
    for each in chosen:
        errors = (_figure(value) for value in (each.mean, each.best, each.now))
        leads = each.mean is not None and each.mean == leading
        style = "bold green" if leads else "cyan" if each.running else ""
        table.add_row(_name(each.mechanism), f"{each.done}/{each.trials}", *errors, style=style)
    return table


def _table(first: str, figures: Sequence[tuple[str, int]], width: int) -> Table:
    """Return an empty table whose first column gives way, so that the figures stay."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    most = width - sum(size + 1 for _, size in figures) - 1
    table.add_column(first, no_wrap=True, overflow="ellipsis", max_width=max(_FEWEST, most))
    for title, size in figures:
        table.add_column(title, no_wrap=True, overflow="ellipsis", justify="right", min_width=size)
    return table


def _chosen(standings: Sequence[Standing], room: int) -> Sequence[Standing]:
    """Return what fits: those that run, then those with the lowest error, in the usual order."""
    if len(standings) <= room:
        return standings
    ranked = sorted(standings, key=lambda s: (not s.running, s.mean is None, s.mean or 0.0))
    kept = {each.mechanism for each in ranked[: room - 1]}
    return [each for each in standings if each.mechanism in kept]


def _more(number: int, what: str) -> list[Text]:
    if number <= 0:
        return []
    return [Text(f"… and {number} more {what}", "dim", no_wrap=True, overflow="ellipsis")]


def _name(text: str) -> Text:
    return Text(plain(text))


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
