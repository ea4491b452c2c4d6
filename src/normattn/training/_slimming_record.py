"""The record of a slimming, ``slim.json``: whose it is, and what it says in the end."""

import contextlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .. import _files
from ..errors import InputError, RunError
from ..model._runtimes import TORCH
from ..model.artifact import ArtifactInfo
from ._slimming_job import SlimJob
from .identity import differences

RECORD = "slim.json"
PLAN = "plan.json"
LOCK = ".lock"


def open_record(job: SlimJob, info: ArtifactInfo, folder: Path) -> dict[str, Any]:
    """Return the folder's slim.json, {} if there is nothing in it to go on with.

    A folder belongs to a job from its first plan on, as in `run_job`.

    Raises:
        RunError: the folder holds another job, or a model or a training.
    """
    path = folder / RECORD
    if not path.exists():
        for name in ("model.json", "trial.json", "protocol.json"):
            if (folder / name).exists():
                raise RunError(
                    f"{folder}: expected a folder for a slimming alone, got one with {name}. "
                    "Choose another folder."
                )
        return {}
    record = _files.read_json(path)
    if not isinstance(record, dict) or not isinstance(record.get("job"), dict):
        raise RunError(
            f"{path}: expected the record of a slimming, got something else. Choose another folder."
        )
    # By content, not by place: a model may move. Kernels change how the same is computed.
    same = {"artifact": None, "fuse": None}
    # Jobs from before there was a choice measured in PyTorch.
    saved = {"runtime": TORCH, **record["job"], **same, "sha256": record.get("sha256")}
    lines = list(differences(saved, {**job.to_json(), **same, "sha256": info.sha256}))
    if not lines:
        return record
    if record.get("status") != "done" and not (folder / PLAN).exists():
        return {}
    raise RunError(
        f"{folder}: expected the job that the folder was made for, got another one "
        f"({'; '.join(lines)}). Choose another folder, or repeat the first settings."
    )


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Own the folder while inside; what is refused leaves none that was not there before.

    From the first plan on a folder is kept: there is something to go on with.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    with _files.folder_lock(folder):
        try:
            yield
        except InputError:
            if made and not (folder / PLAN).exists():
                for name in (RECORD, LOCK):
                    (folder / name).unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # somebody has put something there since
                    for path in made:
                        path.rmdir()
            raise


def now() -> str:
    """Return the time, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def recorded_threads(folder: Path | str) -> int | None:
    """Return with how many threads an unfinished slimming began, None where none goes on."""
    try:
        record = _files.read_json(Path(folder) / RECORD)
        threads = record["machine"]["threads"] if record["status"] != "done" else None
    except (InputError, OSError, KeyError, TypeError):
        return None  # whoever opens the folder says what is wrong with it
    return threads if type(threads) is int and threads >= 1 else None


def verdict(record: Mapping[str, Any]) -> str:
    """Return in a sentence or two how a slimming ended."""
    job, kept = record["job"], record["kept"]
    ((kind, value),) = job["target"].items()
    before = record["original"]["metrics"]["top1_error"]
    after = record["result"]["metrics"]["top1_error"]
    cost = f"top-1 error {before:.2f} → {after:.2f} %"
    if record["outcome"] == "target":
        return f"Reached the target, {kind} {value:g}, in {rounds(kept)}: {cost}."
    if record["outcome"] == "end":
        note = record["rounds"][-1]["note"]
        return f"Missed the target, {kind} {value:g}, after {rounds(kept)}: {cost}. {note}".rstrip()
    last = record["rounds"][-1]
    lost = (
        f"round {last['round']} of {job['steps']} lost {last['drop']:.2f} points of top-1 "
        f"accuracy, and {job['max_drop']:g} are allowed"
    )
    if not kept:
        return f"Stopped before the allowed drop with nothing removed: {lost}."
    return f"Stopped before the allowed drop: {lost}. The result is that of round {kept}: {cost}."


def rounds(count: int) -> str:
    """Return ``1 round`` or ``3 rounds``."""
    return f"{count} round{'s' if count != 1 else ''}"
