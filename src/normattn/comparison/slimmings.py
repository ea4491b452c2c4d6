"""Several slimmings of one model, read back: what each criterion kept, and what it gained in time.

::

    FOLDER/<name>/slim.json, profile.json    a slimming each, as `normattn slim --out` makes them
                  refused.json               in place of them: a target that was out of reach
           runtime.json                      latencies of all exported files, in one interleaved run

The last two are what `benchmarks/slimming.py` writes; nobody else has to.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RunError
from ._lenient import entries, find, mapping, number, read_mapping, text
from ._slimmed_records import RECORD, Slimmed, read_outline

if TYPE_CHECKING:
    from ._slimmings_page import write_slimmings as write_slimmings

CONTROL = "random"


@dataclass(frozen=True)
class Outcome:
    """What one slimming came to.

    Args:
        name: of its folder.
        criterion: what ranked the channels.
        target: what was asked for, in words.
        accuracy: top-1, in percent, of the validation images.
        drop: in points, of the original's accuracy.
        parameters: how many times fewer.
        multiply_adds: how many times fewer.
        batch: images in the passes that were timed.
        speedup: how many times as fast as the original, both timed in one interleaved run; None
            where nobody did.
        latency: median milliseconds of a pass.
    """

    name: str
    criterion: str
    target: str
    accuracy: float
    drop: float | None
    parameters: float | None
    multiply_adds: float | None
    batch: int
    speedup: float | None
    latency: float | None


@dataclass(frozen=True)
class Slimmings:
    """Slimmings of one model on the same data.

    Args:
        original: the top-1 accuracy that all began with, in percent.
        latency: the original's median milliseconds for a pass, if all were timed in one run.
        outcomes: those that are finished, by criterion.
        timed: by what and how the latencies were measured, in words.
        first: a finished one, for what all share.
        missing: what is not shown, and why, in sentences.
    """

    original: float
    latency: float | None
    outcomes: tuple[Outcome, ...]
    timed: str
    first: Slimmed
    missing: tuple[str, ...]

    @property
    def criteria(self) -> tuple[str, ...]:
        """The criteria in the order of their names; the control is the last."""
        names = {outcome.criterion for outcome in self.outcomes}
        return tuple(sorted(names, key=lambda name: (name == CONTROL, name)))


def read_slimmings(folder: Path | str, like: Slimmed | None = None) -> Slimmings:
    """Read the slimmings that lie in a folder, each in one of its own.

    Args:
        folder: whose folders are searched, not theirs in turn.
        like: take those alone that began with this one's model, on the same data; by default, with
            the model that most of them began with.

    Raises:
        RunError: there is no finished slimming in it.
    """
    folder = Path(folder)
    notes: list[str] = []
    found = list(_candidates(folder, notes)) if folder.is_dir() else []
    done = [each for each in found if each.done and _result(each) is not None]
    first = like or _commonest(done)
    if first is None or first.accuracy is None:
        raise RunError(
            f"{folder}: expected a folder with finished slimmings in it, got none. "
            "Give the folder above those that `normattn slim --out` made."
        )
    same = [each for each in done if _identity(each) == _identity(first)]
    others = len(done) - len(same)
    if others and like is None:
        notes.append(f"Left out: {others} of another model or other data than {first.folder.name}.")
    notes += [f"{each.folder.name} is not finished." for each in found if not each.done]
    times = read_mapping(folder / "runtime.json", notes) if like is None else None
    outcomes = [_outcome(each, times) for each in same]
    outcomes.sort(key=lambda o: (o.criterion == CONTROL, o.criterion, o.name))
    return Slimmings(
        original=first.accuracy,
        latency=_runtime(times, "original", _batch(first))[1],
        outcomes=tuple(
            sorted(outcomes, key=lambda o: (o.criterion == CONTROL, o.criterion, o.name))
        ),
        timed=_timed(first, times),
        first=first,
        missing=tuple(notes),
    )


def _candidates(folder: Path, notes: list[str]) -> Iterator[Slimmed]:
    for path in sorted(p for p in folder.iterdir() if p.is_dir()):
        if (path / RECORD).is_file():
            yield read_outline(path)
        elif (path / "refused.json").is_file():
            reason = text(read_mapping(path / "refused.json", notes), "reason")
            notes.append(f"{path.name} was refused: {reason or 'no reason recorded'}")


def _commonest(done: Sequence[Slimmed]) -> Slimmed | None:
    counts = Counter(map(_identity, done))
    return max(done, key=lambda each: counts[_identity(each)], default=None)


def _identity(each: Slimmed) -> tuple[object, ...]:
    data = mapping(each.record, "data")
    return find(each.record, "sha256"), data.get("fingerprint") or data.get("spec")


def _result(each: Slimmed) -> float | None:
    return number(each.record, "result", "metrics", "top1_error")


def _batch(each: Slimmed) -> int:
    return int(number(each.record, "job", "batch") or 1)


def _outcome(each: Slimmed, times: Mapping[str, Any] | None) -> Outcome:
    error = _result(each)
    assert error is not None  # the caller's condition
    batch = _batch(each)
    at = mapping(each.profile, "latency", str(batch))
    ratio, median = number(at, "after", "ratio"), number(at, "after", "median")
    speedup, latency = (1 / ratio if ratio else None), (None if median is None else 1e3 * median)
    if times is not None:
        speedup, latency = _runtime(times, each.folder.name, batch)
    return Outcome(
        name=text(each.folder.name),
        criterion=text(each.record, "job", "criterion") or "unknown",
        target=each.target,
        accuracy=100 - error,
        drop=None if each.accuracy is None else each.accuracy - (100 - error),
        parameters=_fewer(each, "parameters"),
        multiply_adds=_fewer(each, "paper_macs"),
        batch=batch,
        speedup=speedup,
        latency=latency,
    )


def _fewer(each: Slimmed, key: str) -> float | None:
    before, after = (number(each.record, side, "cost", key) for side in ("original", "result"))
    return before / after if before and after else None


def _runtime(
    times: Mapping[str, Any] | None, name: str, batch: int
) -> tuple[float | None, float | None]:
    """Return the speedup and the milliseconds that the runtime's float file has."""
    for row in entries(times, "latency"):
        if find(row, "provider") == f"{name}.float" and find(row, "batch") == batch:
            ratio = number(row, "ratio")
            return (1 / ratio if ratio else None), number(row, "median_ms")
    return None, None


def _timed(first: Slimmed, times: Mapping[str, Any] | None) -> str:
    source: Mapping[str, Any] = times or first.profile
    threads, batch = number(source, "threads"), _batch(first)
    where = text(source, "device" if times else "name") or "an unknown device"
    on = f"{where}, {threads:g} threads" if threads else where
    if times:
        return f"ONNX Runtime, float32, batch {batch}, {on}, all files in one interleaved run"
    return f"PyTorch, batch {batch}, {on}, each beside the original in one interleaved run"


def __getattr__(name: str) -> Any:
    # The page is made of what is read here; reading needs none of it.
    if name == "write_slimmings":
        from ._slimmings_page import write_slimmings

        return write_slimmings
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
