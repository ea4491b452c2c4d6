"""The settings of a recipe, their ranges, and what they mean."""

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
    "sparsity_by": ("loss", "subgradient", "proximal"),
    "initialisation": ("default", "kaiming-uniform"),
}
_INTEGERS = ("epochs", "batch_size", "accumulate")
_FLAGS = ("nesterov", "decay_scales", "channels_last", "sparsity_closing")
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
    "sparsity_warmup_epochs": (0, math.inf, True),
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
        sparsity: p of NAM's eq. 4, the weight of Σ|scale| in the loss. With ``decay_scales`` the
            weight decay pulls at the same scales, in proportion to their size: it shrinks what the
            penalty would leave alone, and never gives a zero.
        sparsity_on: Whose scales: ``attention``, ``norms`` or ``all`` (see `normattn.sparsity`).
        sparsity_by: How: in the ``loss``; as a ``subgradient`` added to the gradients, the same to
            the bit; or by a ``proximal`` step after the optimizer's, which gives exact zeros and
            takes no part in ``clip_norm``.
        sparsity_warmup_epochs: Over how many epochs p first rises in a line; may be broken.
        sparsity_closing: Whether norms right in front of an addition are penalised too, at whose
            zero a residual branch is shut (see `normattn.closing_norms`).
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
    sparsity_by: str = "loss"
    sparsity_warmup_epochs: float = 0.0
    sparsity_closing: bool = False
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
        for key in ("warmup_epochs", "sparsity_warmup_epochs"):
            value = getattr(self, key)
            _require(key, value, f"at most the {self.epochs} epochs", value <= self.epochs)
        rule = f"a divisor of the batch size {self.batch_size}"
        _require("accumulate", self.accumulate, rule, self.batch_size % self.accumulate == 0)
        if self.sparsity and self.sparsity_by == "proximal":
            rule = "0 with sparsity_by='proximal', since an average of scales has no exact zeros"
            _require("ema", self.ema, rule, not self.ema)
            rule = "a number < 1 with sparsity_by='proximal'"
            _require("momentum", self.momentum, rule, self.momentum < 1)

    def to_json(self) -> dict[str, Any]:
        """Return every value in plain containers."""
        return dataclasses.asdict(self) | {"milestones": list(self.milestones)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read what ``to_json`` wrote; raise ConfigError for unknown or missing keys.

        A penalty on norms that does not say whether it closes is from before any were left out.
        """
        require_known(content)
        if content.get("sparsity") and content.get("sparsity_on") in ("norms", "all"):
            content = {"sparsity_closing": True, **content}
        missing = [key for key in ("name", "epochs") if key not in content]
        _require("keys", sorted(content), "name and epochs among them", not missing)
        return cls(**content)


def require_known(content: Mapping[str, Any]) -> None:
    """Raise ConfigError for a key that is no setting of a recipe, naming the nearest."""
    known = [field.name for field in dataclasses.fields(Recipe)]
    for key in content:
        if key not in known:
            raise ConfigError(unknown("recipe", "setting", key, known))
