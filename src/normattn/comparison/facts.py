"""What the report states: size, what is missing, what was held equal, how to run it again."""

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from ..training import RECIPES
from .protocol import Protocol
from .records import RunRecords
from .statistics import Summary

Pairs = tuple[tuple[str, str], ...]
_NAMES_SHOWN = 12  # of a long list
_MADE_WITH = ("versions", "commit", "machine", "processes")


def about(records: RunRecords) -> str:
    """Say in one line how large the run is and how much of it is done."""
    protocol, trials = records.protocol, records.trials
    done = sum(trial.status == "done" for trial in trials)
    parts = [
        _counted(len(protocol.mechanisms), "mechanism"),
        _counted(len(protocol.seeds), "seed"),
        _counted(protocol.recipe.epochs, "epoch"),
        f"recipe {protocol.recipe.name}",
        f"{done} of {_counted(len(trials), 'trial')} done",
    ]
    return " · ".join(parts)


def incomplete(records: RunRecords, summary: Summary) -> tuple[str, ...]:
    """Say which trials failed, which are unfinished, and what else is missing."""
    lines = [
        f"Failed: {trial.name}, after {_counted(trial.attempts, 'attempt')}: "
        f"{trial.reason or 'no reason recorded'}"
        for trial in records.trials
        if trial.status == "failed"
    ]
    epochs = records.protocol.recipe.epochs
    lines += [
        f"Begun and not finished: {trial.name}, {len(trial.history)} of {epochs} epochs."
        for trial in records.trials
        if trial.status == "partial"
    ]
    waiting: dict[str, list[int]] = {}
    for trial in records.trials:
        if trial.status == "missing":
            waiting.setdefault(trial.mechanism, []).append(trial.seed)
    lines += [
        f"Not begun: {name}, seed{'s' if len(seeds) > 1 else ''} {_listed(seeds)}."
        for name, seeds in waiting.items()
    ]
    return tuple(dict.fromkeys([*lines, *summary.notes]))


def held_equal(records: RunRecords) -> tuple[tuple[str, Pairs], ...]:
    """Return titled lists of names and values: protocol, recipe, data, software and hardware."""
    protocol = _present(records.protocol.to_json())
    recipe = protocol.pop("recipe")
    del protocol["format"]
    details = next((t.details for t in records.trials if t.details.get("versions")), {})
    made_with = {key: details[key] for key in _MADE_WITH if key in details}
    # Of these the name alone can be the same for all mechanisms; `inequalities` says who differs.
    names = {t.details["kernels"].get("name") for t in records.trials if t.details.get("kernels")}
    if names:
        made_with["kernels"] = names.pop() if len(names) == 1 else "not the same in all trials"
    profile = records.profile or {}
    measured = {
        f"latency: {key}": profile[key]
        for key in ("device", "threads", "kernels", "input_size")
        if key in profile
    }
    found: tuple[tuple[str, Mapping[str, Any]], ...] = (
        ("Protocol", protocol),
        ("Data", _data(details.get("data") or {})),
        ("Software and hardware", {**made_with, **_times(records), **measured}),
        ("Recipe", recipe),
    )
    nothing = (("Nothing yet", "no trial has begun"),)
    return tuple((title, tuple(_pairs(values)) or nothing) for title, values in found)


def notes(records: RunRecords) -> tuple[str, ...]:
    """Return what the data and the trials noted, each once."""
    found: list[str] = []
    for trial in records.trials:
        data = trial.details.get("data") or {}
        found += [*data.get("notes", ()), *trial.details.get("notes", ())]
    return tuple(dict.fromkeys(map(str, found)))


def _data(described: Mapping[str, Any]) -> dict[str, Any]:
    if not described:
        return {}
    classes, skipped = described.get("classes", ()), described.get("skipped", ())
    rest = ("train_per_class", "train_limit", "size", "channels", "mean", "std", "fingerprint")
    return {
        "source": described.get("spec"),
        "training images": described.get("train"),
        "validation images": described.get("val"),
        "images skipped": f"{len(skipped)}: {_listed(skipped)}" if skipped else 0,
        "classes": f"{len(classes)}: {_listed(classes)}",
        **_present({key: described.get(key) for key in rest}),
    }


def _times(records: RunRecords) -> dict[str, str]:
    details = [trial.details for trial in records.trials]
    started = [str(d["started"]) for d in details if d.get("started")]
    finished = [str(d["finished"]) for d in details if d.get("finished")]
    first = {"first trial began": min(started)} if started else {}
    return first | ({"last trial ended": max(finished)} if finished else {})


def _present(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value not in (None, {}, [])}


def command(protocol: Protocol) -> str:
    """Return the command line that runs the comparison again."""
    recipe, named = protocol.recipe.to_json(), RECIPES.get(protocol.recipe.name)
    standard = named.to_json() if named else {}
    changed = {k: v for k, v in recipe.items() if k != "name" and v != standard.get(k, _Unset)}
    sites = protocol.sites if isinstance(protocol.sites, str | None) else ",".join(protocol.sites)
    options: dict[str, Any] = {
        "--data": protocol.data,
        "--host": protocol.host,
        "--stem": protocol.stem,
        "--attention": ",".join(protocol.mechanisms),
        "--seeds": _seeds(protocol.seeds),
        "--recipe": protocol.recipe.name,
        "--train-limit": protocol.train_limit,
        "--on-bad-image": None if protocol.on_bad_image == "stop" else protocol.on_bad_image,
        "--image-size": protocol.image_size,
        "--sites": sites,
        "--start": None if protocol.start == "paper" else protocol.start,
    }
    words = ["normattn", "compare"]
    for option, value in options.items():
        words += [] if value is None else [option, str(value)]
    for key, value in changed.items():
        words += ["--set", f"{key}={_setting(value)}"]
    words += ["--pretrained"] if protocol.pretrained else []
    words += [] if protocol.fuse else ["--no-fuse"]
    return shlex.join([*words, "--out", "runs/again"])


def again(protocol: Protocol) -> str:
    """Say what the command does, and what it cannot express."""
    text = "The same software, device and settings give the same numbers, to the bit."
    if protocol.host_options:
        text += (
            " The host was built with options that the command line does not have: "
            f"{_value(protocol.host_options)}. Use normattn.comparison.compare with protocol.json."
        )
    return text


class _Unset:
    """Stands for a setting that a recipe does not have."""


def _seeds(seeds: tuple[int, ...]) -> str:
    """A count where the seeds are 0, 1, ...; else the list, whose comma marks it as one."""
    if seeds == tuple(range(len(seeds))):
        return str(len(seeds))
    return ",".join(map(str, seeds)) + ("," if len(seeds) == 1 else "")


def _setting(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _pairs(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        yield key.replace("_", " "), _value(value)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_value(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return _listed(value)
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _listed(values: list[Any] | tuple[Any, ...]) -> str:
    if not values:
        return "none"
    shown = ", ".join(_value(value) for value in values[:_NAMES_SHOWN])
    rest = len(values) - _NAMES_SHOWN
    return f"{shown}, … and {rest} more" if rest > 0 else shown


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
