"""What a slimming brought and what it cost: a table, a picture and a page, from its records alone.

::

    FOLDER/profile.json         latency of both models, interleaved, measured once
           model.onnx, export.json      where it was exported
           report.html, slim.md the page: what it brought, how, and how to do it again
           slim.png, slim.svg   the width of every layer, before and after (`slimmed_page.py`)
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from .. import _files
from ..errors import InputError, RunError
from ..model._runtimes import TORCH, check_runtime, in_runtime, label, version_of
from ..model.artifact import load, read_info
from ..model.profile import latency
from ..training._slimming_start import open_for
from ..training.exporting import export_with
from ..training.slimming import SlimJob
from ._slimmed_lines import CAPTION, batches, runtime
from ._slimmed_lines import lines as lines
from .protocol import trial_folder
from .records import RunRecords
from .sections import errors_by_seed

_SECONDS = 10.0  # what the timing of one batch size may take, if the fewest rounds fit in
_ROUNDS = (5, 50)
_WARM_UP = 3  # passes of each model that `latency` makes before it times


def measure(folder: Path | str, original: Path | str) -> dict[str, Any]:
    """Return the content of ``profile.json``: the latencies of both models, measured only once.

    Args:
        folder: Of a finished slimming.
        original: Where the model that it began with is saved.
    """
    folder = Path(folder)
    path = folder / "profile.json"
    if path.exists():
        content: dict[str, Any] = _files.read_json(path)
        return content
    record = read(folder)
    data, machine = record["data"], record["machine"]
    models = {"before": load(original), "after": load(folder)}
    found: dict[str, Any] = {**machine, "latency": {}, "notes": []}
    size = (data["channels"], *data["size"])
    found["latency"] = _times(models, size, record, machine, found["notes"])
    if runtime(record) != TORCH:
        found["runtime"] = _in_runtime(models, size, record, found["notes"])
    _files.write_json(path, found)
    return found


def _time(
    models: Mapping[str, Any], size: tuple[int, ...], batch: int, machine: Mapping[str, Any]
) -> dict[str, dict[str, float]]:
    """Time both where and with as many threads as the plan was measured with."""
    on: dict[str, Any] = {"device": machine["device"], "threads": machine["threads"]}
    probe = latency(models, size, batch=batch, rounds=1, **on)
    fewest, most = _ROUNDS
    together = sum(each.median for each in probe.values())
    rounds = max(fewest, min(most, int(_SECONDS / together) - _WARM_UP))
    times = latency(models, size, batch=batch, rounds=rounds, **on)
    return {
        label: {"median": t.median, "p20": t.p20, "p80": t.p80, "ratio": t.ratio}
        for label, t in times.items()
    }


def _times(
    models: Mapping[str, Any],
    size: tuple[int, ...],
    record: Mapping[str, Any],
    machine: Mapping[str, Any],
    notes: list[str],
    where: str = "",
) -> dict[str, Any]:
    """Time both with each batch size; what could not be timed is noted."""
    found = {}
    for batch in batches(record):
        try:
            found[str(batch)] = _time(models, size, batch, machine)
        except (InputError, RuntimeError) as error:
            notes.append(f"Latency{where} with batch {batch} could not be timed ({error}).")
    return found


def _in_runtime(
    models: Mapping[str, Any], size: tuple[int, ...], record: Mapping[str, Any], notes: list[str]
) -> dict[str, Any]:
    """Time both where the target's latency counted, on the CPU."""
    name, machine = runtime(record), {**record["machine"], "device": "cpu"}
    found: dict[str, Any] = {"name": name, "label": label(name), "latency": {}}
    where, threads = f" in {label(name)}", machine["threads"]
    try:
        check_runtime("slim", name)
        found["version"] = version_of(name)
        loaded = {k: in_runtime(m, size, name, threads=threads) for k, m in models.items()}
    except (InputError, RuntimeError) as error:
        notes.append(f"Latency{where} could not be timed ({error}).")
    else:
        found["latency"] = _times(loaded, size, record, machine, notes, where)
    return found


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


def best_model(records: RunRecords) -> tuple[str, Path]:
    """Return the best model of a run, and where it is saved.

    It is the best trial of the mechanism with the lowest mean top-1 error: the mean over seeds says
    which mechanism is better, one lucky seed would not.

    Raises:
        RunError: no trial is finished.
    """
    errors = {name: errors_by_seed(records.of(name)) for name in records.protocol.mechanisms}
    means = {name: sum(found.values()) / len(found) for name, found in errors.items() if found}
    if not means:
        raise RunError(
            f"{records.folder}: expected a run with a finished trial, got none. "
            "Finish it with the command that began it."
        )
    mechanism = min(means, key=lambda name: means[name])
    seed = min(errors[mechanism], key=lambda number: errors[mechanism][number])
    return f"{mechanism}, seed {seed}", trial_folder(records.folder, mechanism, seed)


def export_result(folder: Path | str) -> dict[str, Any]:
    """Export a slimming's result to ONNX, checked on the validation images; only once.

    Args:
        folder: Of a finished slimming; ``model.onnx`` and ``export.json`` are written there.

    Returns:
        The report as `normattn.export` gives it, in plain containers, and as ``text``, short.

    Raises:
        InputError: what exports need is not installed; it says how to.
        Fault: the runtime computes something else than PyTorch.
    """
    folder = Path(folder)
    path = folder / "export.json"
    if path.exists():
        content: dict[str, Any] = _files.read_json(path)
        return content
    target = folder / "model.onnx"
    target.unlink(missing_ok=True)  # left by a kill before its report was written
    data = open_for(SlimJob.from_json(read(folder)["job"]), read_info(folder))
    report = export_with(load(folder), target, data, "onnx")
    text = str(report).removeprefix(str(report.fold)).strip()
    _files.write_json(path, {"text": text, **report.to_json()})
    found: dict[str, Any] = _files.read_json(path)
    return found
