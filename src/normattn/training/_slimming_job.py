"""What a slimming is asked to do: everything that its rounds need, as one frozen value."""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from ..errors import ConfigError, unknown
from ..model._runtimes import RUNTIMES, TORCH
from .recipes import Recipe, recipe

#: What can be asked for, with the rule and the range that a value must lie inside.
TARGETS: Mapping[str, tuple[str, float, float]] = {
    "speedup": ("how many times as fast, a number > 1", 1, math.inf),
    "flops": ("a fraction between 0 and 1", 0, 1),
    "params": ("a fraction between 0 and 1", 0, 1),
    "channels": ("a fraction between 0 and 1", 0, 1),
    "latency_ms": ("milliseconds, a number > 0", 0, math.inf),
}
ACROSS = ("group", "model")

# Half of what `quick` trains with: after a removal a large rate that falls again recovers more than
# the small one that a training ended with (Renda, Frankle and Carbin, 2020, arXiv:2003.02389).
_FINE_TUNING: Mapping[str, Any] = {"name": "fine-tuning", "lr": 0.1, "distill": 0.9}


def fine_tuning(**overrides: Any) -> Recipe:
    """Return the recipe that a round trains with, some of its values changed.

    It is ``quick`` with a smaller learning rate, and with distillation from the original.

    Raises:
        ConfigError: no such value (the nearest are named), or one out of range.
    """
    return recipe("quick", **{**_FINE_TUNING, **overrides})


@dataclass(frozen=True)
class SlimJob:
    """Everything that a slimming needs.

    Args:
        artifact: Where the trained model is saved.
        data: What to fine-tune and judge on, as in `Job`.
        target: One of ``speedup``, ``flops``, ``params``, ``channels`` and ``latency_ms``, with its
            value, as `normattn.plan_slim` takes it.
        recipe: How each round fine-tunes; with ``distill`` the original teaches.
        criterion: What says which channels matter, a name of `normattn.salience`'s.
        across: Whether channels compete inside their ``group`` or over the whole ``model``.
        steps: In how many rounds; the interim targets are spaced geometrically.
        max_drop: How many points of top-1 accuracy may be lost; None for no limit.
        round_to: What the widths that are left should be multiples of.
        skip: Patterns of layers that keep their channels.
        batch: Images in the passes whose latency is measured.
        seed: Of order, augmentation and dropout, and of the criteria that draw.
        train_limit: Fine-tune on this many images only, balanced over the classes.
        on_bad_image: ``stop`` or ``skip``.
        image_size: Resize images to this size; None keeps theirs.
        fuse: Whether kernels compute what they can while training, as in `normattn.fuse`.
        runtime: Where latency is measured, as in `normattn.plan_slim`: ``torch``, ``onnxruntime``
            or ``openvino``.

    Raises:
        ConfigError: no target or several, or a value that is out of its range.
    """

    artifact: str
    data: str
    target: Mapping[str, float]
    recipe: Recipe = dataclasses.field(default_factory=fine_tuning)
    criterion: str = "bn-scale"
    across: str = "group"
    steps: int = 3
    max_drop: float | None = None
    round_to: int = 8
    skip: tuple[str, ...] = ()
    batch: int = 1
    seed: int = 0
    train_limit: int | None = None
    on_bad_image: str = "stop"
    image_size: int | None = None
    fuse: bool = True
    runtime: str = TORCH

    def __post_init__(self) -> None:
        object.__setattr__(self, "target", _checked_target(self.target))
        object.__setattr__(self, "skip", tuple(self.skip))
        if self.across not in ACROSS:
            raise ConfigError(unknown("slim", "across", str(self.across), ACROSS))
        if self.runtime not in RUNTIMES:
            raise ConfigError(unknown("slim", "runtime", str(self.runtime), RUNTIMES))
        for name, least in {"steps": 1, "round_to": 1, "batch": 1, "seed": 0}.items():
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ConfigError(
                    f"slim: expected {name} to be an integer >= {least}, got {value!r}."
                )
        if type(self.fuse) is not bool:
            raise ConfigError(f"slim: expected fuse to be True or False, got {self.fuse!r}.")
        if self.max_drop is not None and not (_is_number(self.max_drop) and self.max_drop >= 0):
            raise ConfigError(
                "slim: expected max_drop in points of top-1 accuracy, a number >= 0, got "
                f"{self.max_drop!r}. Leave it out for no limit."
            )

    @property
    def kind(self) -> str:
        """What the target is about."""
        return next(iter(self.target))

    @property
    def value(self) -> float:
        """What the target asks of it."""
        return next(iter(self.target.values()))

    def to_json(self) -> dict[str, Any]:
        """Return the job in plain containers, as JSON would give them back."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values |= {"recipe": self.recipe.to_json(), "target": dict(self.target)}
        plain: dict[str, Any] = json.loads(json.dumps(values))
        return plain

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read what ``to_json`` wrote; raise ConfigError for an unknown key."""
        known = [f.name for f in dataclasses.fields(cls)]
        for name in content:
            if name not in known:
                raise ConfigError(unknown("slim", "key", name, known))
        return cls(**{**content, "recipe": Recipe.from_json(content["recipe"])})


def _checked_target(target: Mapping[str, float]) -> dict[str, float]:
    if len(target) != 1:
        got = " and ".join(f"{name} {value:g}" for name, value in target.items()) or "none"
        raise ConfigError(
            f"slim: expected one target, got {got}. Give one of {', '.join(TARGETS)}."
        )
    ((kind, value),) = target.items()
    if kind not in TARGETS:
        raise ConfigError(unknown("slim", "target", kind, TARGETS))
    rule, low, high = TARGETS[kind]
    if not _is_number(value) or not low < value < high:
        raise ConfigError(f"slim: expected {kind} to be {rule}, got {value!r}. Change the target.")
    return {kind: float(value)}


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]
