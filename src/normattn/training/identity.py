"""What a training is, whether a saved state belongs to it, and what it leaves out."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ..data import ImageData
from ..errors import ConfigError, Fault, RunError
from ..model.fuse import idle_reason
from ..model.graft import grafts
from .penalty import Penalty
from .recipes import Recipe

_SHOWN = 10
_NAMED = 3


def describe(
    model: nn.Module, data: ImageData, recipe: Recipe, seed: int, teacher: str | None = None
) -> dict[str, Any]:
    """Return what makes a training this one and no other, in plain containers.

    ``teacher`` is the checksum of the teacher's weights.
    """
    facts = data.describe()
    taught = {} if teacher is None else {"teacher": teacher}  # as in states from before teachers
    return taught | {
        "recipe": recipe.to_json(),
        "seed": seed,
        # By content, not by place: a data folder may move between two parts of a training.
        "data": {name: facts[name] for name in ("fingerprint", "train", "val", "mean", "std")},
        "grafts": [graft.site for graft in grafts(model)],
        "weights": {name: "×".join(map(str, p.shape)) for name, p in model.state_dict().items()},
    }


def require_grafts(models: Iterable[nn.Module], identity: Mapping[str, Any]) -> None:
    """Fail if a conversion or a copy lost attention: the figures would be another model's."""
    for model in models:
        found = [graft.site for graft in grafts(model)]
        if found != identity["grafts"]:
            raise Fault(f"training: expected attention at {identity['grafts']}, got {found}.")


def require_same(saved: Mapping[str, Any], wanted: Mapping[str, Any], folder: Path) -> None:
    """Raise RunError with the differences, if there are any."""
    lines = list(differences(saved, wanted))
    if lines:
        more = f"; and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
        raise RunError(
            f"{folder}: expected the training that the folder was made for, got another one "
            f"({'; '.join(lines[:_SHOWN])}{more}). Choose another folder, or repeat the first "
            "settings."
        )


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterable[str]:
    """Yield a line for each value that differs: ``recipe.epochs: 10 → 12``.

    What an older version wrote of a recipe is completed first, by what was done at the time.
    """
    for name in sorted(set(old) | set(new)):
        before, after = old.get(name, "not set"), new.get(name, "not set")
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            if name == "recipe":
                before, after = _completed(before), _completed(after)
            yield from differences(before, after, f"{prefix}{name}.")
        elif before != after:
            yield f"{prefix}{name}: {before} → {after}"


def _completed(saved: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        return Recipe.from_json(saved).to_json()
    except ConfigError:  # of a later version: compared as it stands
        return saved


def other_bits(state: Mapping[str, Any], world: int, kernels: str) -> Iterator[str]:
    """Yield a sentence for everything by which a resumed training leaves the bits of an uncut one.

    Args:
        state: What was saved.
        world: The number of processes now.
        kernels: The name of the kernels there are now.
    """
    if state["world"] != world:
        yield (
            f"Resumed with {world} processes after {state['world']}: the same batches, but not the "
            "same bits, since norms see other parts of them."
        )
    before = state.get("kernels", "plain")  # states from before there were any do not say
    if before != kernels:
        yield (
            f"Resumed with kernels {kernels!r} after {before!r}: the same batches, but where they "
            "compute not the same bits, since each rounds in its own way."
        )


def skipped_images(data: ImageData) -> str:
    """Return the sentence on images that could not be read, the first of them by name."""
    more = ", ..." if len(data.skipped) > _NAMED else ""
    return (
        f"Unreadable images are left out: {len(data.skipped)} "
        f"({', '.join(data.skipped[:_NAMED])}{more})."
    )


def left_out(
    model: nn.Module, data: ImageData, recipe: Recipe, penalty: Penalty, world: int
) -> Iterator[str]:
    """Yield a sentence for everything that a reader might think was done, and was not."""
    if data.skipped:
        yield skipped_images(data)
    dropped = len(data.train) % recipe.batch_size
    if dropped:
        yield (
            f"{dropped} of {len(data.train)} training images, others each epoch, are left out: "
            f"they fill no batch of {recipe.batch_size}."
        )
    if len(data.classes) < 6:
        yield f"No top-5 error: there are {len(data.classes)} classes."
    yield from penalty.notes()
    if reason := idle_reason(model):
        yield (
            f"No kernel computes in this model ({reason}): it trains in its plain form. See "
            "`normattn doctor`."
        )
    if world > 1:
        yield (
            f"{world} processes: norms see a part of each batch, and those of the first process "
            "are kept."
        )
