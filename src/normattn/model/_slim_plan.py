"""A plan of what slimming removes: immutable, printable, and plain enough for a JSON file."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError
from ._groups import Role

FORMAT = 1


@dataclass(frozen=True)
class Cost:
    """What a model costs.

    Args:
        parameters: numbers learned.
        multiply_adds: of one image, as the papers count them (`Profile.paper_macs`).
        latency_ms: of the example's batch, measured on this machine, in the plan's runtime; None
            where it was not.
    """

    parameters: int
    multiply_adds: int
    latency_ms: float | None = None


@dataclass(frozen=True)
class LayerPlan:
    """What goes of one dimension of a layer.

    Args:
        layer: as in `Member`.
        role: which dimension.
        width: of it, before.
        removed: indices.
    """

    layer: str
    role: Role
    width: int
    removed: tuple[int, ...]


@dataclass(frozen=True)
class GroupPlan:
    """What goes of a group of coupled channels.

    Args:
        name: the first layer that computes them.
        before: how many there are.
        after: how many stay.
        removed: those that go.
        layers: what that means for each layer.
    """

    name: str
    before: int
    after: int
    removed: tuple[int, ...]
    layers: tuple[LayerPlan, ...]


@dataclass(frozen=True)
class Fold:
    """A constant that removed channels held, and where it goes.

    Args:
        layer: which reads the channels.
        channels: their indices there, before.
        values: what they hold in every pixel of every image.
        into: the parameter or buffer that takes what the layer made of them: its bias, or the
            running mean of the norm behind it.
    """

    layer: str
    channels: tuple[int, ...]
    values: tuple[float, ...]
    into: str


@dataclass(frozen=True)
class SlimPlan:
    """What `slim` will remove, and what that brings.

    ``SlimPlan.from_json(plan.to_json())`` equals ``plan``.

    Args:
        target: what was asked for.
        criterion: what ranked the channels.
        across: whether they were ranked in each "group" or in the whole "model".
        round_to: what the widths that are left are multiples of, where they can be.
        fraction: of its channels that each group (or the model) was asked to give, counted from
            the first plan's where there were several.
        groups: those that could be ranked, also where nothing of them goes.
        refused: layers whose channels stay, with the reason.
        before: what the model costs.
        after: what the slimmed model costs.
        reached: whether the target was.
        note: what to know about it, such as the best possible; else empty.
        folds: constants of removed channels.
        weights: a fingerprint of the model, if there are such constants.
        runtime: where latency was measured.
    """

    target: Mapping[str, float]
    criterion: str
    across: str
    round_to: int
    fraction: float
    groups: tuple[GroupPlan, ...]
    refused: tuple[tuple[str, str], ...]
    before: Cost
    after: Cost
    reached: bool
    note: str
    folds: tuple[Fold, ...] = ()
    weights: str | None = None
    runtime: str = "torch"  # also that of plans from before there was a choice

    def to_json(self) -> dict[str, Any]:
        """Return plain containers, with the version of the format."""
        content = {"format": FORMAT, **dataclasses.asdict(self)}
        content["target"] = dict(self.target)
        for group in content["groups"]:
            for layer in group["layers"]:  # most layers number a group's channels as it does
                if layer["removed"] == group["removed"]:
                    layer["removed"] = None
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "SlimPlan":
        """Return the plan that `to_json` was called on.

        Raises:
            ConfigError: this is no plan, or a later version wrote it.
        """
        try:
            values = dict(content)
            version = values.pop("format")
            if version != FORMAT:
                raise ConfigError(
                    f"SlimPlan: expected a plan of format {FORMAT}, got {version!r}. Plan again."
                )
            values["groups"] = tuple(_group(group) for group in values["groups"])
            values["refused"] = tuple((name, reason) for name, reason in values["refused"])
            values["folds"] = tuple(
                Fold(f["layer"], tuple(f["channels"]), tuple(f["values"]), f["into"])
                for f in values["folds"]
            )
            values["before"], values["after"] = Cost(**values["before"]), Cost(**values["after"])
            return cls(**values)
        except (KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"SlimPlan: expected what to_json() gave, got something else ({error!r}). Plan "
                "again."
            ) from error

    def __str__(self) -> str:
        asked = ", ".join(f"{kind} {value:g}" for kind, value in self.target.items())
        across = "in each group" if self.across == "group" else "in the whole model"
        state = "reached" if self.reached else "NOT reached"
        longest = max([len(group.name) for group in self.groups] + [14])
        lines = [
            f"plan to {asked} ({state}), channels ranked by {self.criterion} {across}",
            *_costs(self.before, self.after, longest, self.runtime),
            *(f"{g.name:<{longest}} {g.before:>13} {g.after:>13}" for g in self.groups),
            *(f"{name}: stays, as {reason}" for name, reason in self.refused),
        ]
        return "\n".join([*lines, self.note] if self.note else lines)


def _group(content: Mapping[str, Any]) -> GroupPlan:
    removed = tuple(content["removed"])
    layers = tuple(
        LayerPlan(
            layer["layer"],
            layer["role"],
            layer["width"],
            removed if layer["removed"] is None else tuple(layer["removed"]),
        )
        for layer in content["layers"]
    )
    return GroupPlan(content["name"], content["before"], content["after"], removed, layers)


def _costs(before: Cost, after: Cost, longest: int, runtime: str) -> list[str]:
    lines = [f"{'':<{longest}} {'before':>13} {'after':>13}   ratio"]
    for name in ("parameters", "multiply_adds", "latency_ms"):
        both = (getattr(before, name), getattr(after, name))
        if None in both:
            continue
        digits = ".2f" if name == "latency_ms" else ",d"
        shown = " ".join(f"{value:>13{digits}}" for value in both)
        where = f", in {runtime}" if name == "latency_ms" and runtime != "torch" else ""
        ratio = f"{both[0] / both[1]:6.2f}×{where}"
        lines.append(f"{name.replace('_', ' '):<{longest}} {shown} {ratio}")
    return lines
