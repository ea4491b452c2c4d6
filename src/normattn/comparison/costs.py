"""Whether every mechanism can be built, before the training; what each costs, after it."""

from typing import Any

import torch
from torch import nn

from ..data import steps_per_epoch
from ..errors import InputError
from ..model.fuse import runs
from ..model.profile import latency, profile
from ..training import Job, build, choose_device
from ..training.jobs import open_job_data
from ..training.provenance import kernels
from .protocol import Protocol

BATCHES = (1, 32)
_SECONDS = 4.0  # what the timing of one batch size may take
_ROUNDS = (5, 50)  # fewer would say nothing; more would add little
_WARM_UP = 3  # passes of each model that `latency` makes before it times


def check(protocol: Protocol, device: str) -> None:
    """Open the data and build every mechanism's model, so that bad input is refused right away.

    Raises:
        InputError: the data, the host, a mechanism, a site or the device cannot be had, or the data
            do not fill a batch.
    """
    choose_device(device)
    jobs = _jobs(protocol)
    data = open_job_data(jobs[0])
    steps_per_epoch(data.train, protocol.recipe.batch_size)
    for job in jobs:
        build(job, data)


def measure(protocol: Protocol, device: str) -> dict[str, Any]:
    """Return the content of ``profile.json``: counts, and interleaved timings by batch size.

    What cannot be measured is left out, and ``notes`` say why.
    """
    place, jobs = choose_device(device), _jobs(protocol)
    data = open_job_data(jobs[0])
    models = {job.mechanism: build(job, data) for job in jobs}
    input_size = (data.channels, *data.size)
    notes: list[str] = []
    counts = {label: _count(label, model, input_size, notes) for label, model in models.items()}
    timed: dict[str, dict[str, dict[str, float]]] = {}
    computed: dict[str, str] = {}  # what ran, which is known only afterwards
    for batch in map(str, BATCHES):
        for model in models.values():
            runs(model.to(place), reset=True)
        timed[batch] = _time(models, input_size, int(batch), place, notes)
        if timed[batch]:
            computed[f"batch {batch}"] = _one_text({n: _ran(model) for n, model in models.items()})
    return {
        "input_size": list(input_size),
        "device": torch.cuda.get_device_name(place) if place.type == "cuda" else place.type,
        "threads": 1,
        "kernels": _one_text(computed),
        "mechanisms": {label: count for label, count in counts.items() if count},
        "latency": {batch: found for batch, found in timed.items() if found},
        "notes": notes,
    }


def _jobs(protocol: Protocol) -> list[Job]:
    """One job for each mechanism: what it costs does not depend on the seed."""
    return [protocol.job(label, protocol.seeds[0]) for label in protocol.mechanisms]


def _count(
    label: str, model: nn.Module, input_size: tuple[int, int, int], notes: list[str]
) -> dict[str, int]:
    try:
        found = profile(model, input_size)
    except (InputError, RuntimeError) as error:
        notes.append(f"{label}: the multiply-adds could not be counted ({error}).")
        return {}
    names = ("parameters", "macs", "paper_macs", "elementwise")
    return {name: getattr(found, name) for name in names}


def _ran(model: nn.Module) -> str:
    found = kernels(model)
    return str(found["name"]) if found else "unknown"


def _one_text(by_name: dict[str, str]) -> str:
    """Return the text that all names share; else every text with its names.

    >>> _one_text({"none": "plain", "se": "plain"}), _one_text({"none": "plain", "nam": "c++"})
    ('plain', 'none: plain; nam: c++')
    """
    groups: dict[str, list[str]] = {}
    for name, text in by_name.items():
        groups.setdefault(text, []).append(name)
    if len(groups) < 2:
        return next(iter(groups), "not timed")
    return "; ".join(f"{', '.join(names)}: {text}" for text, names in groups.items())


def _time(
    models: dict[str, nn.Module],
    input_size: tuple[int, int, int],
    batch: int,
    device: torch.device,
    notes: list[str],
) -> dict[str, dict[str, float]]:
    """Time all models in one interleaved run, in as many rounds as the time allows."""
    fewest, most = _ROUNDS
    try:
        one = dict([next(iter(models.items()))])
        probe = next(iter(latency(one, input_size, batch=batch, rounds=1, device=device).values()))
        rounds = min(most, int(_SECONDS / (probe.median * len(models))) - _WARM_UP)
        if rounds < fewest:
            notes.append(
                f"Latency with batch {batch} was not timed: {fewest} rounds of {len(models)} models"
                f" at {probe.median:.2g} s each would take more than {_SECONDS:g} s."
            )
            return {}
        found = latency(models, input_size, batch=batch, rounds=rounds, device=device)
    except (InputError, RuntimeError) as error:
        notes.append(f"Latency with batch {batch} could not be timed ({error}).")
        return {}
    return {
        label: {"median": each.median, "p20": each.p20, "p80": each.p80}
        for label, each in found.items()
    }
