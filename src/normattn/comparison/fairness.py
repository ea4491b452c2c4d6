"""What was not equal: the sentences that belong beside every table of a comparison."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..attention import MECHANISMS, Mechanism
from .records import RunRecords, TrialRecord


def inequalities(records: RunRecords) -> tuple[str, ...]:
    """Return in sentences everything that a reader must know before believing the table."""
    done = [trial for trial in records.trials if trial.status == "done"]
    found = [
        *_unfinished(records.trials),
        *_sizes(done),
        *_places(records),
        *_penalty(records),
        *_setting(done, "commits of normattn", ("commit",)),
        *_setting(done, "devices", ("machine", "name")),
        *_setting(done, "numbers of threads", ("machine", "threads")),
        *_setting(done, "numbers of processes", ("processes",)),
        *_setting(done, "kernels", ("kernels", "name"), missing="plain"),
        *_versions(done),
        *_interrupted(done),
        *_data(records, done),
        *_epochs(done),
    ]
    return tuple(found)


def _unfinished(trials: Sequence[TrialRecord]) -> Iterable[str]:
    words = {"failed": "Failed", "partial": "Begun but not finished", "missing": "Not begun"}
    for status, word in words.items():
        names = [trial.name for trial in trials if trial.status == status]
        if names:
            yield f"{word}: {'; '.join(names)}. Means are over the finished trials only."


def _sizes(done: Sequence[TrialRecord]) -> Iterable[str]:
    sizes = {trial.mechanism: trial.details.get("parameters") for trial in done}
    known = {name: size for name, size in sizes.items() if size is not None}
    if len(set(known.values())) > 1:
        small, large = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
        yield (
            f"Parameters differ: from {known[small]:,} ({small}) to {known[large]:,} ({large}). "
            "Part of a difference may be size alone."
        )


def _places(records: RunRecords) -> Iterable[str]:
    if records.protocol.sites is not None:
        return
    by_sites: dict[str, list[str]] = defaultdict(list)
    for label in records.protocol.mechanisms:
        name = Mechanism.parse(label).name
        if name != "none":
            by_sites[MECHANISMS[name].default_sites].append(label)
    if len(by_sites) > 1:
        groups = "; ".join(f"{', '.join(labels)} at {s}" for s, labels in by_sites.items())
        yield f"Places differ, each mechanism standing where its paper puts it: {groups}."


def _penalty(records: RunRecords) -> Iterable[str]:
    recipe = records.protocol.recipe
    if not recipe.sparsity or recipe.sparsity_on != "attention":
        return
    labels = records.protocol.mechanisms
    hit = [name for name in labels if MECHANISMS[Mechanism.parse(name).name].scales_penalised]
    if 0 < len(hit) < len(labels):
        yield (
            f"The sparsity penalty (p = {recipe.sparsity:g}) acts on {', '.join(hit)} only: "
            "the others have no attention scales."
        )


def _setting(
    done: Sequence[TrialRecord], plural: str, path: Sequence[str], missing: str = "unknown"
) -> Iterable[str]:
    """Compare what the records have at ``path``; most trials' value is named once."""
    groups: dict[str, list[str]] = defaultdict(list)
    for trial in done:
        value: Any = trial.details
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        groups[missing if value is None else str(value)].append(trial.name)
    if len(groups) > 1:
        most = max(groups, key=lambda value: len(groups[value]))
        others = "; ".join(f"{v} for {', '.join(n)}" for v, n in groups.items() if v != most)
        yield f"Trials ran with different {plural}: {most} for most, {others}."


def _versions(done: Sequence[TrialRecord]) -> Iterable[str]:
    for tool in dict.fromkeys(tool for t in done for tool in t.details.get("versions") or {}):
        yield from _setting(done, f"versions of {tool}", ("versions", tool))


def _interrupted(done: Sequence[TrialRecord]) -> Iterable[str]:
    names = [t.name for t in done if t.attempts or t.details.get("resumed")]
    if names:
        yield (
            f"Cut and resumed: {'; '.join(names)}. On the same software and device the result is "
            "the same to the bit; their training times are not comparable."
        )


def _data(records: RunRecords, done: Sequence[TrialRecord]) -> Iterable[str]:
    limit = records.protocol.train_limit
    if limit is not None:
        yield (
            f"Trained on {limit:,} images only, balanced over the classes (train_limit): "
            "the errors do not compare with those of published full trainings."
        )
    counts = {len((trial.details.get("data") or {}).get("skipped") or ()) for trial in done}
    if any(counts):
        shown = " or ".join(f"{count:,}" for count in sorted(counts))
        yield f"Unreadable images were left out: {shown} in each trial (on_bad_image: skip)."
    prints = {(trial.details.get("data") or {}).get("fingerprint") for trial in done}
    if len(prints) > 1:
        yield "The data changed between trials: their fingerprints differ."


def _epochs(done: Sequence[TrialRecord]) -> Iterable[str]:
    if done:
        yield (
            "Errors are those of the last epoch. Each trial's best epoch, which papers often "
            "report, is chosen on the validation images and so flatters; trial.json keeps both."
        )
