"""Recipes: everything about how a model is trained, as one frozen value.

``nam-cifar``
    The script of NAM's authors for CIFAR-100: 200 epochs, ×0.2 after 60, 120 and 160 of them,
    weight decay on everything. Its sparsity penalty is 0, because the released script never applies
    it (it looks for stages on a model already wrapped for data parallelism); the paper's eq. 4 is
    ``recipe("nam-cifar", sparsity=1e-4)``. Different here: the script normalises with CIFAR-*10*'s
    mean and deviation, we with those of the training data; the script reports the best test epoch,
    we report the last and keep the best beside it.
``nam-imagenet``
    The paper's penalty for ImageNet, 1e-3, as a loss term; the authors released nothing else about
    this training, so the rest is the usual ResNet schedule (90 epochs, ×0.1 after each 30).
``slimming``
    Network Slimming (Liu et al., ICCV 2017) for CIFAR: 160 epochs, batches of 64, ×0.1 at a half
    and at three quarters, a penalty on the norms' scales; 1e-5 is theirs for residual networks,
    1e-4 for VGG. Different here: scales start at 1, not ½, and do not decay beside the penalty.
``quick``
    A few epochs that a CPU finishes while one waits; for the demo and for first impressions.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from ..errors import ConfigError, unknown

_CHOICES = {
    "optimizer": ("sgd", "adamw"),
    "schedule": ("step", "cosine", "constant"),
    "precision": ("float32", "bfloat16"),
    "sparsity_on": ("attention", "norms", "all"),
    "initialisation": ("default", "kaiming-uniform"),
}
_INTEGERS = ("epochs", "batch_size", "accumulate")
_FLAGS = ("nesterov", "decay_scales", "channels_last")
# Each number's range as (at least, at most, whether the lower end itself is allowed).
_RANGES = {
    "lr": (0, math.inf, False),
    "momentum": (0, 1, True),
    "weight_decay": (0, math.inf, True),
    "gamma": (0, 1, False),
    "warmup_epochs": (0, math.inf, True),
    "label_smoothing": (0, 1, True),
    "ema": (0, 1, True),
    "clip_norm": (0, math.inf, True),
    "sparsity": (0, math.inf, True),
    "distill": (0, 1, True),
    "temperature": (0, math.inf, False),
}


def _require(key: str, value: object, rule: str, holds: bool) -> None:
    if not holds:
        raise ConfigError(
            f"recipe: expected {key} to be {rule}, got {value!r}. Correct it in the settings."
        )


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is trained; two trainings with one recipe, one seed and one device are equal.

    Args:
        name: What it is called in records.
        epochs: How often the training images are seen.
        batch_size: Images an optimizer step, over all processes and accumulated parts.
        optimizer: ``sgd`` or ``adamw``.
        lr: The learning rate after the warm-up.
        momentum: SGD's momentum; AdamW keeps its usual betas.
        nesterov: Nesterov's form of the momentum.
        weight_decay: The optimizer's weight decay.
        decay_scales: Whether scales, shifts and biases decay too (all tensors of one dimension, and
            whatever a gate calls its scales).
        schedule: ``step``, ``cosine`` (to zero) or ``constant``.
        milestones: Where ``step`` acts, as fractions of the training, rising.
        gamma: What ``step`` multiplies the learning rate by.
        warmup_epochs: Over how many epochs the learning rate first rises in a line; may be broken.
        label_smoothing: The share of each label spread over all classes.
        precision: ``float32``, or ``bfloat16`` by autocast with weights in float32.
        channels_last: Whether images and weights lie in memory with the channels last.
        ema: Decay of a moving average of the weights, which is then what is evaluated and saved;
            0 for none.
        clip_norm: The largest norm of the whole gradient; 0 for no limit.
        accumulate: Into how many equal parts a batch is cut to save memory. Norms see the parts.
        sparsity: p of NAM's eq. 4, the weight of Σ|scale| in the loss.
        sparsity_on: Whose scales: ``attention``, ``norms`` or ``all`` (see `normattn.sparsity`).
        distill: The weight of what a teacher says against that of the labels, where `fit` is given
            a teacher; 0 for none, 1 for nothing else.
        temperature: What the outputs of both are divided by before they are compared.
        augment: A name of `normattn.data.AUGMENTS`; ``default`` takes what fits the data.
        initialisation: ``default``, or ``kaiming-uniform`` for the host's convolutions.

    Raises:
        ConfigError: a value is of the wrong type or out of its range.
    """

    name: str
    epochs: int
    batch_size: int = 128
    optimizer: str = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    decay_scales: bool = False
    schedule: str = "cosine"
    milestones: tuple[float, ...] = ()
    gamma: float = 0.1
    warmup_epochs: float = 0.0
    label_smoothing: float = 0.0
    precision: str = "float32"
    channels_last: bool = False
    ema: float = 0.0
    clip_norm: float = 0.0
    accumulate: int = 1
    sparsity: float = 0.0
    sparsity_on: str = "attention"
    distill: float = 0.0
    temperature: float = 4.0
    augment: str = "default"
    initialisation: str = "default"

    def __post_init__(self) -> None:
        if isinstance(self.milestones, list):  # as JSON and YAML give it
            object.__setattr__(self, "milestones", tuple(self.milestones))
        for key in ("name", "augment"):
            _require(key, getattr(self, key), "a name", isinstance(getattr(self, key), str))
        for key in _FLAGS:
            _require(key, getattr(self, key), "true or false", type(getattr(self, key)) is bool)
        for key in _INTEGERS:
            value = getattr(self, key)
            _require(key, value, "an integer >= 1", type(value) is int and value >= 1)
        for key, choices in _CHOICES.items():
            if getattr(self, key) not in choices:
                raise ConfigError(unknown("recipe", key, str(getattr(self, key)), choices))
        for key, (low, high, closed) in _RANGES.items():
            rule = f"a number {'>=' if closed else '>'} {low}" + (
                "" if high > 1 else f", <= {high}"
            )
            value = getattr(self, key)
            inside = _is_number(value) and (low < value or (closed and value == low))
            _require(key, value, rule, inside and value <= high)
        self._check_combinations()

    def _check_combinations(self) -> None:
        rising = isinstance(self.milestones, tuple) and all(map(_is_number, self.milestones))
        rising = rising and list(self.milestones) == sorted(
            {m for m in self.milestones if 0 < m < 1}
        )
        _require("milestones", self.milestones, "rising fractions between 0 and 1", rising)
        if self.schedule == "step":
            _require("milestones", (), "fractions of the training", bool(self.milestones))
        if self.nesterov:
            _require("momentum", self.momentum, "a number > 0 with nesterov", self.momentum > 0)
        _require("ema", self.ema, "a number < 1", self.ema < 1)
        rule = f"at most the {self.epochs} epochs"
        _require("warmup_epochs", self.warmup_epochs, rule, self.warmup_epochs <= self.epochs)
        rule = f"a divisor of the batch size {self.batch_size}"
        _require("accumulate", self.accumulate, rule, self.batch_size % self.accumulate == 0)

    def to_json(self) -> dict[str, Any]:
        """Return every value in plain containers."""
        return dataclasses.asdict(self) | {"milestones": list(self.milestones)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read what ``to_json`` wrote; raise ConfigError for unknown or missing keys."""
        _require_known(content)
        missing = [key for key in ("name", "epochs") if key not in content]
        _require("keys", sorted(content), "name and epochs among them", not missing)
        return cls(**content)


RECIPES: Mapping[str, Recipe] = {
    "nam-cifar": Recipe(
        name="nam-cifar",
        epochs=200,
        decay_scales=True,
        schedule="step",
        milestones=(0.3, 0.6, 0.8),
        gamma=0.2,
        initialisation="kaiming-uniform",
    ),
    "nam-imagenet": Recipe(
        name="nam-imagenet",
        epochs=90,
        batch_size=256,
        weight_decay=1e-4,
        decay_scales=True,
        schedule="step",
        milestones=(1 / 3, 2 / 3),
        sparsity=1e-3,
    ),
    "slimming": Recipe(
        name="slimming",
        epochs=160,
        batch_size=64,
        nesterov=True,
        weight_decay=1e-4,
        schedule="step",
        milestones=(0.5, 0.75),
        sparsity=1e-5,
        sparsity_on="norms",
    ),
    "quick": Recipe(
        name="quick",
        epochs=10,
        batch_size=128,
        lr=0.2,
        nesterov=True,
        warmup_epochs=1,
        precision="bfloat16",
        channels_last=True,
    ),
}


def recipe(name: str, /, **overrides: Any) -> Recipe:
    """Return a recipe by name, with some of its values changed.

    Raises:
        ConfigError: no such recipe or value (the nearest are named), or a value out of range.

    Example:
        >>> recipe("nam-cifar", epochs=30).milestones
        (0.3, 0.6, 0.8)
    """
    if name not in RECIPES:
        raise ConfigError(unknown("recipe", "recipe", name, RECIPES))
    _require_known(overrides)
    return dataclasses.replace(RECIPES[name], **overrides)


def _require_known(content: Mapping[str, Any]) -> None:
    known = [field.name for field in dataclasses.fields(Recipe)]
    for key in content:
        if key not in known:
            raise ConfigError(unknown("recipe", "setting", key, known))
