"""Rank channels: what a trained model, or chance, says about each channel of each group.

A group is what can only be removed together: a convolution's outputs, the norm and the attention
behind it, and the inputs of the layers that read it; or a whole residual stream.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from ..errors import ConfigError, InputError, UnsupportedModel, unknown
from ._salience_data import Batches, Found, gate, taylor
from ._salience_weights import bn_scale, magnitude, nam, random
from ._sites import _image_size

if TYPE_CHECKING:
    from ._groups import Group, Groups

#: What ranks a group that a criterion is silent about: the first of these that does.
FALL_BACKS = ("bn-scale", "magnitude")


@dataclass(frozen=True)
class Criterion:
    """How channels are ranked.

    Args:
        score: returns for each group its channels' scores, or why there are none.
        about: what the scores are, in a line.
        needs_data: whether it looks at images.
        relative: whether scores are divided by their group's mean, as their level depends on what
            says nothing of importance: how many weights there are, how many channels share a sum.
    """

    score: Callable[[nn.Module, Sequence["Group"], Batches, int], Found]
    about: str
    needs_data: bool = False
    relative: bool = False


CRITERIA: dict[str, Criterion] = {
    "bn-scale": Criterion(bn_scale, "mean |γ| of the host's norms"),
    "nam": Criterion(nam, "NAM's importance, group mean 1", relative=True),
    "taylor": Criterion(taylor, "first-order change of the loss", needs_data=True),
    "magnitude": Criterion(magnitude, "L2 norm of all weights, group mean 1", relative=True),
    "random": Criterion(random, "uniform random numbers, the control"),
    "gate": Criterion(gate, "mean |x · gate|, group mean 1", needs_data=True, relative=True),
}


@dataclass(frozen=True, eq=False)
class Salience:
    """What a criterion says of each channel; the larger, the later it should go.

    Args:
        criterion: its name in `CRITERIA`.
        scores: by the group's name, float32 ``(width,)`` on the CPU, finite and not negative.
        silent: groups that the criterion itself says nothing about, each with the reason and with
            what ranks it instead. A group that is in ``silent`` alone, not in ``scores``, is ranked
            by nothing.
    """

    criterion: str
    scores: Mapping[str, Tensor]
    silent: tuple[tuple[str, str], ...] = ()

    def order(self, group: str) -> list[int]:
        """Return the group's channels, the least salient first; of equals the lower index."""
        return cast("list[int]", self.scores[group].argsort(stable=True).tolist())

    def to_json(self) -> dict[str, Any]:
        """Return plain containers."""
        scores = {name: values.tolist() for name, values in self.scores.items()}
        silent = [list(entry) for entry in self.silent]
        return {"criterion": self.criterion, "scores": scores, "silent": silent}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Salience":
        """Return what `to_json` was called on."""
        scores = {name: torch.tensor(values) for name, values in content["scores"].items()}
        silent = tuple((name, reason) for name, reason in content["silent"])
        return cls(content["criterion"], scores, silent)

    def __str__(self) -> str:
        about = CRITERIA[self.criterion].about if self.criterion in CRITERIA else "scores"
        longest = max((len(name) for name in self.scores), default=5)
        lines = [
            f"{self.criterion}: {about}",
            f"{'group':<{longest}}  width    least   median     most",
        ]
        for name, values in self.scores.items():
            figures = (values.min(), values.median(), values.max())
            shown = " ".join(f"{float(value):8.3g}" for value in figures)
            lines.append(f"{name:<{longest}}  {len(values):5d} {shown}")
        return "\n".join([*lines, *(f"{name}: {reason}" for name, reason in self.silent)])


def salience(
    model: nn.Module,
    criterion: str = "bn-scale",
    data: Batches | None = None,
    *,
    example_input: Tensor | None = None,
    groups: "Groups | None" = None,
    seed: int = 0,
) -> Salience:
    """Score every channel that could be removed from a model, which stays as it is.

    Within a group the scores rank the channels. Across groups they can be compared as follows:
    "bn-scale" and "taylor" by their own level (the deviation of a normalised channel, as Network
    Slimming's one threshold for the whole model takes it; the change of one loss), "random" by
    design, and "nam", "magnitude" and "gate" only relative to their group, whose mean is made 1.
    A group that the criterion is silent about (no NAM gates it, no norm follows it) takes the
    scores of the first of `FALL_BACKS` that ranks it, scaled so that their mean is that of all
    groups which the criterion does rank; ``silent`` names each.

    Args:
        model: the model, fused or not, on any device. It runs in evaluation mode.
        criterion: "bn-scale", mean |γ| over the host's norms; "nam", the importance by which
            NAM's channel attention weights its gate, summed over its sites; "taylor", the
            first-order change of the loss; "magnitude", the L2 norm of all coupled weights;
            "random"; or "gate", mean |x · gate(x)|.
        data: batches of (inputs, labels), the inputs normalised floats ``(B, C, H, W)``. Needed by
            "taylor" and "gate".
        example_input: one batch for the search of groups; by default zeros of the host's own size.
        groups: the groups, if they are already found.
        seed: what "random" depends on, besides the groups' names.

    Raises:
        ConfigError: an unknown criterion, data missing or not such batches, or nothing to rank.
        UnsupportedModel: the model's groups cannot be found, or ``groups`` are another model's.

    Example:
        >>> import normattn
        >>> found = salience(normattn.host("resnet20", 10), "random")
        >>> found.criterion, min(len(scores) for scores in found.scores.values())
        ('random', 16)
    """
    if criterion not in CRITERIA:
        raise ConfigError(unknown("salience", "criterion", str(criterion), CRITERIA))
    if CRITERIA[criterion].needs_data and data is None:
        raise ConfigError(
            f"salience: expected data for the criterion {criterion!r}, got none. Give batches of "
            "(inputs, labels), or use a criterion that looks at the weights alone."
        )
    _check(model)
    groups = groups or _groups(model, example_input)
    if not groups.groups:
        raise ConfigError(
            f"salience: expected a model with channels that can be removed, got none in "
            f"{type(model).__name__} ({_refused(groups)}). There is nothing to rank."
        )
    with _at_rest(model):
        return _ranked(model, criterion, groups.groups, data or (), seed)


def _ranked(
    model: nn.Module, criterion: str, groups: Sequence["Group"], data: Batches, seed: int
) -> Salience:
    found = _scores(model, criterion, groups, data, seed)
    own = [scores for scores in found.values() if isinstance(scores, Tensor)]
    if not own:
        reasons = sorted({str(reason) for reason in found.values()})
        raise ConfigError(
            f"salience: expected channels that {criterion!r} can rank, got none in "
            f"{len(groups)} groups ({'; '.join(reasons[:3])}). Choose another criterion."
        )
    level = torch.cat(own).mean()
    missing = [group for group in groups if isinstance(found[group.name], str)]
    rest = [name for name in FALL_BACKS if name != criterion]
    others = {name: _scores(model, name, missing, (), seed) for name in rest}
    ranked: dict[str, Tensor] = {}
    silent: list[tuple[str, str]] = []
    for group in groups:
        scores = found[group.name]
        if isinstance(scores, str):
            stand_ins = ((n, s) for n in others if isinstance(s := others[n][group.name], Tensor))
            name, values = next(stand_ins, (None, None))
            silent.append((group.name, f"{scores}; {f'by {name}' if name else 'not ranked'}"))
            if values is None:
                continue
            scores = _relative(values) * level
        ranked[group.name] = scores
    return Salience(criterion, ranked, tuple(silent))


def _scores(
    model: nn.Module, criterion: str, groups: Sequence["Group"], data: Batches, seed: int
) -> Found:
    kind = CRITERIA[criterion]
    found = kind.score(model, groups, data, seed)
    for name, scores in found.items():
        if isinstance(scores, Tensor):
            if not scores.isfinite().all():
                raise InputError(
                    f"salience: expected finite scores, got NaN or infinity from {criterion!r} for "
                    f"{name!r}. Go back to a model from before its training diverged."
                )
            scores = scores.detach().float().cpu()
            found[name] = _relative(scores) if kind.relative else scores
    return found


def _relative(scores: Tensor) -> Tensor:
    """Divide by the mean; scores that are all zero stay zero."""
    return scores / scores.mean().clamp_min(torch.finfo(torch.float32).tiny)


def _check(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise UnsupportedModel(f"salience: expected an nn.Module, got {type(model).__name__}.")
    if any(tensor.is_meta for tensor in model.parameters()):
        raise UnsupportedModel(
            f"salience: expected a model with weights, got {type(model).__name__} on the meta "
            "device. Load its weights first."
        )


def _groups(model: nn.Module, example_input: Tensor | None) -> "Groups":
    from ._groups import find_groups

    if example_input is None:
        first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
        channels = first.in_channels if first is not None else 3
        weight = next(model.parameters(), torch.empty(0))
        example_input = weight.new_zeros(1, channels, *_image_size(model, None))
    return find_groups(model, example_input)


def _refused(groups: "Groups") -> str:
    return "; ".join(f"{layer}: {reason}" for layer, reason in groups.refused[:3]) or "no layers"


@contextlib.contextmanager
def _at_rest(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and plain layers, as after training; afterwards each module as it was."""
    from .fuse import plain

    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with plain(model):
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
