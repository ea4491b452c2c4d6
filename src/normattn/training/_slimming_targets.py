"""The interim targets of a slimming: spaced geometrically, and asked of the model as it is.

A round plans on what the rounds before it left, so its target is what is still missing: two rounds
to a speedup of 2 ask for √2 and, where the first gave 1.3 (widths are rounded), for 2 / 1.3.
"""

from collections.abc import Mapping

from ._slimming_job import SlimJob

_NOTHING = 1e-9  # a share this near to 1 asks for nothing


def remaining(kind: str, value: float) -> float:
    """Return the share of the original that a target leaves; of ``latency_ms``, its value."""
    if kind == "speedup":
        return 1 / value
    return 1 - value if kind == "channels" else value


def target(kind: str, share: float) -> dict[str, float]:
    """Return the target that leaves this share: the inverse of ``remaining``."""
    if kind == "speedup":
        return {kind: 1 / share}
    return {kind: 1 - share if kind == "channels" else share}


def interim(job: SlimJob, number: int, start: float) -> dict[str, float]:
    """Return the target of a round, from 1 on, relative to the original.

    Args:
        job: Its target is that of the last round, exactly.
        number: Of the round.
        start: Where the way begins: the original's latency in ms for ``latency_ms``, else 1.
    """
    if number == job.steps:
        return dict(job.target)
    end = remaining(job.kind, job.value)
    return target(job.kind, start * (end / start) ** (number / job.steps))


def missing(wanted: Mapping[str, float], left: float) -> dict[str, float] | None:
    """Return what a target asks of a model that has the share ``left``; None if it has it already.

    ``latency_ms`` is asked as it is: the plan measures where the model stands.
    """
    ((kind, value),) = wanted.items()
    if kind == "latency_ms":
        return dict(wanted)
    share = remaining(kind, value) / left
    return target(kind, share) if share < 1 - _NOTHING else None
