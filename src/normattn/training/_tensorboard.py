"""Event files for TensorBoard, beside the histories that they are written from.

``history.jsonl`` stays the one source of truth. A training that is taken up again has its event
file written anew from there, so that no point stands twice and none is lost, whatever was killed
in between.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeGuard

from ..errors import ConfigError
from .loop import Progress

_HISTORY = "history.jsonl"
_EVENTS = "events.out.tfevents.*"
_OPEN = 8  # writers kept open, each with a thread; one more trial at a time would be unusual

_SCALARS = {
    "loss/train": "train_loss",
    "loss/validation": "loss",
    "top1_error/train": "train_top1_error",
    "top1_error/validation": "top1_error",
    "top5_error/validation": "top5_error",
    "lr": "lr",
    "images_per_second": "images_per_second",
    "penalty/value": "penalty",
    "penalty/factor": "sparsity",
}


def require_tensorboard() -> None:
    """Raise ConfigError, with the line that installs it, where TensorBoard is missing."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"--tensorboard: expected the package tensorboard, got none that works ({error}). "
            "Run: pip install 'normattn[tensorboard]'"
        ) from error


class EventFiles:
    """Keeps an event file beside every history under ``folder``, and passes events on.

    ::

        with EventFiles(folder, progress) as heard:
            run_job(job, folder, progress=heard)

    Points are epochs; the time of a point counts from the training's start, interruptions left
    out. Where an event file cannot be written, a note says so and the training goes on.
    """

    def __init__(self, folder: Path | str, progress: Progress) -> None:
        require_tensorboard()
        self._folder, self._progress = Path(folder), progress
        self._seen: dict[Path, tuple[int, int]] = {}
        self._files: dict[Path, _EventFile] = {}
        self._off = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._guarded(self._close_all)

    def __call__(self, event: Mapping[str, Any]) -> None:
        # The first event comes when the folder is known to be this job's; each epoch's when its
        # line has been written.
        if event["event"] not in ("step", "evaluate"):
            self._guarded(self._look)
        self._progress(event)

    def _look(self) -> None:
        """Bring the event files of all histories that have changed up to date."""
        for path in sorted(self._folder.rglob(_HISTORY)):
            found = path.stat()
            state = (found.st_mtime_ns, found.st_size)
            if self._seen.get(path) == state:
                continue
            self._follow(path, _read(path, self._note))
            self._seen[path] = state

    def _follow(self, path: Path, records: Sequence[Mapping[str, Any]]) -> None:
        file = self._files.pop(path, None)
        if file is not None and not file.leads_to(records):  # it went back to an earlier state
            file.close()
            file = None
        self._files[path] = file = file or _EventFile(path, records)
        file.write(records)
        while len(self._files) > _OPEN:
            self._files.pop(next(iter(self._files))).close()

    def _close_all(self) -> None:
        for path in list(self._files):
            self._files.pop(path).close()

    def _guarded(self, work: Callable[[], None]) -> None:
        if self._off:
            return
        try:
            work()
        except Exception as error:  # a picture of the training, which must not end the training
            self._off = True
            self._note(
                f"TensorBoard: no event files from here on ({type(error).__name__}: {error}). "
                "The records are whole; the same command writes the files from them."
            )

    def _note(self, text: str) -> None:
        self._progress({"event": "note", "text": text})


class _EventFile:
    """The event file of one training."""

    def __init__(self, history: Path, records: Sequence[Mapping[str, Any]]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        for old in history.parent.glob(_EVENTS):
            old.unlink()
        # purge_step: a TensorBoard that is looking forgets what it read in the file before.
        self._writer = SummaryWriter(str(history.parent), purge_step=0)
        self._written: list[Mapping[str, Any]] = []
        self._time = history.stat().st_mtime - sum(map(_seconds, records))

    def leads_to(self, records: Sequence[Mapping[str, Any]]) -> bool:
        """Whether what is written is the beginning of ``records``."""
        return list(records[: len(self._written)]) == self._written

    def write(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Append the epochs that are not written yet."""
        for record in records[len(self._written) :]:
            self._time += _seconds(record)
            at = {"global_step": record["epoch"], "walltime": self._time}
            for tag, value in _scalars(record).items():
                self._writer.add_scalar(tag, value, **at)
            for tag, histogram in _histograms(record).items():
                self._writer.add_histogram_raw(tag, **histogram, **at)
            self._written.append(record)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def _read(path: Path, note: Callable[[str], None]) -> list[dict[str, Any]]:
    """Return a history's lines; one that is damaged is left out, with a note."""
    records = []
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            record = None
        if isinstance(record, dict) and type(record.get("epoch")) is int:
            records.append(record)
        else:
            note(f"TensorBoard: line {number} of {path} is no epoch and is left out.")
    return records


def _seconds(record: Mapping[str, Any]) -> float:
    values = (record.get("seconds"), record.get("seconds_evaluation"))
    return float(sum(value for value in values if _is_number(value)))


def _scalars(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures of an epoch by tag; what it does not know has no point."""
    found: dict[str, object] = {tag: record.get(name) for tag, name in _SCALARS.items()}
    for where, statistics in (record.get("scales") or {}).items():
        found |= {f"scales_{where}/{name}": value for name, value in (statistics or {}).items()}
    return {tag: value for tag, value in found.items() if _is_number(value)}


def _histograms(record: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the scale factors' histograms by tag, as `add_histogram_raw` takes them."""
    kept = dict(record.get("histograms") or {})
    edges, sizes = kept.pop("edges", None), record.get("scales") or {}
    found = {}
    for where, counted in kept.items():
        if counted:
            statistics = sizes.get(where) or sizes.get("norms") or {}
            found[f"scale_factors/{where}"] = _histogram(counted, edges, statistics.get("max", 0.0))
    return found


def _histogram(counted: Mapping[str, Any], edges: Mapping[str, Any], most: float) -> dict[str, Any]:
    """Return the bins of `scale_histograms` from the first that holds something to the last.

    One bin more, [0, 0], is for scales that are exactly 0; the last one ends at the largest.
    """
    first, last = (math.log10(edges[side]) for side in ("first", "last"))
    step = (last - first) / (edges["count"] - 1)
    limits = [10.0 ** (first + step * i) for i in range(edges["count"])]
    limits = [0.0, *limits, max(most, limits[-1])]
    counts = [counted["zeros"], *counted["counts"]]
    filled = [i for i, number in enumerate(counts) if number]
    start, end = filled[0], filled[-1] + 1
    return {
        "min": limits[max(start - 1, 0)],
        "max": limits[end - 1],
        "num": counted["scales"],
        "sum": float("nan"),  # which the records do not keep, and TensorBoard does not show
        "sum_squares": float("nan"),
        "bucket_limits": limits[start:end],
        "bucket_counts": counts[start:end],
    }


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
