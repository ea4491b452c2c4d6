"""The measurements of `removal.py`: who ranks what, in which orders; one point after another."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ..data import ImageData, eval_batches, keyed, to_float
from ..data.source import class_rounds
from ..data.splits import LazySplit, MemorySplit, Split
from ..errors import ConfigError, RunError
from ..model._groups import Group, Groups, find_groups
from ..model.graft import grafts
from ..model.hosts import host_spec
from ..model.salience import CRITERIA, Salience, salience
from ..model.slim import dead_channels
from ..training import evaluate
from ..training.distributed import choose_device
from ..training.provenance import commit, machine, versions
from ._removal_mask import inexact, without
from ._removal_records import (
    LEAST,
    MOST,
    RANDOM,
    Point,
    RemovalRecords,
    digest,
    open_removal,
    save_salience,
    saved_salience,
)

if TYPE_CHECKING:
    from .removal import Removal

_CALIBRATION_BATCH = 64
Progress = Callable[[Mapping[str, Any]], None]
Curve = tuple[str, str | None, int | None, int | None]  # order, criterion, scope, draw
Units = dict[str, list[tuple[int, ...]]]  # by group, what goes first in front

WHOLE: Curve = ("", None, None, None)


class Run:
    """One run of `removal_curves`; its folder is locked, its model plain."""

    def __init__(
        self, model: nn.Module, data: ImageData, folder: Path, removal: "Removal",
        groups: Groups | None, device: str, progress: Progress | None,
    ) -> None:  # fmt: skip
        place = choose_device(device)
        self.device = str(place)
        self.model, self.data, self.folder, self.removal = model, data, folder, removal
        self.progress: Progress = progress or (lambda event: None)
        identity, about = _identity(model, data, removal, place), _about(model, data, place)
        self.records = open_removal(folder, identity, about)
        self.given = groups
        self.dead: Mapping[str, Sequence[int]] = {}

    def run(self) -> RemovalRecords:
        """Measure what is missing, and return everything."""
        # First the whole model: data that do not fit it are refused before anything is kept.
        self.measure({WHOLE: {}}, [], [0.0])
        example = next(self.batches(1))[0]
        groups = self.given or find_groups(self.model, example)
        if groups.groups:
            self.dead = dead_channels(self.model, example)
        records = self.records
        widths = {group.name: group.width for group in groups.groups}
        if records.groups not in ({}, widths):
            raise RunError(
                f"{self.folder}: expected the groups of channels that the run began with, got "
                "others: another version of normattn made it. Choose another folder."
            )
        records.groups = widths
        records.refused = [list(entry) for entry in groups.refused]
        records.inexact = list(inexact(self.model, groups.groups))
        orders = self.orders(groups.groups, self.rank(groups))
        records.write(self.folder)
        self.measure(orders, groups.groups, self.removal.fractions)
        return records

    def rank(self, groups: Groups) -> dict[str, Salience]:
        """Return what each criterion says; by default without those that have nothing to say."""
        found: dict[str, Salience] = {}
        for name in self.removal.criteria or CRITERIA:
            known = saved_salience(self.folder, name)
            if known is None:
                batches = self.batches(self.removal.calibration)
                try:
                    known = salience(
                        self.model, name, batches, groups=groups, seed=self.removal.seed
                    )
                except ConfigError as error:
                    if self.removal.criteria or not groups.groups:
                        raise
                    self.records.left_out[name] = f"left out, as it ranks nothing: {error}"
                    self.progress({"event": "note", "text": f"{name} is left out: {error}"})
                    continue
                save_salience(self.folder, known)
            self.records.left_out.pop(name, None)
            found[name] = known
        return found

    def orders(self, groups: Sequence[Group], found: dict[str, Salience]) -> dict[Curve, Units]:
        """Return the orders in which channels go: two a criterion, and random ones a scope."""
        orders: dict[Curve, Units] = {}
        for name, names in self.scopes(found).items():
            scope = self.records.scope(names)
            silent = [list(entry) for entry in found[name].silent]
            self.records.criteria[name] = {"scope": scope, "silent": silent}
            chosen = [group for group in groups if group.name in names]
            ranked = {g.name: _ranked(g, found[name].scores[g.name]) for g in chosen}
            orders[LEAST, name, scope, None] = ranked
            orders[MOST, name, scope, None] = {g: units[::-1] for g, units in ranked.items()}
            for draw in range(self.removal.draws):
                drawn = {g.name: _shuffled(g, self.removal.seed, draw) for g in chosen}
                orders[RANDOM, None, scope, draw] = drawn
        return orders

    def scopes(self, found: Mapping[str, Salience]) -> dict[str, list[str]]:
        """Return for each criterion the groups that it is tested on: never those of a fall-back."""
        own = {}
        for name, said in found.items():
            silent = {group for group, _ in said.silent}
            own[name] = [group for group in self.records.groups if group not in silent]
        if self.removal.scope == "own":
            return own
        common = [g for g in self.records.groups if all(g in names for names in own.values())]
        if not common:
            raise ConfigError(
                f"salience: expected groups that all of {', '.join(found)} rank, got none. Choose "
                "other criteria, or scope 'own'."
            )
        return dict.fromkeys(found, common)

    def measure(
        self, orders: Mapping[Curve, Units], groups: Sequence[Group], fractions: Iterable[float]
    ) -> None:
        """Evaluate every point that is not known yet, and keep each at once."""
        known = {point.key for point in self.records.points}
        wanted = [(curve, f) for curve in orders for f in fractions if (*curve, f) not in known]
        for number, (curve, fraction) in enumerate(wanted, start=1):
            removed = {g: _first(units, fraction) for g, units in orders[curve].items()}
            with without(self.model, groups, removed, self.dead):
                metrics = evaluate(self.model, self.data, device=self.device)
            widths = sum(self.records.groups[name] for name in removed)
            share = sum(map(len, removed.values())) / max(1, widths)
            accuracy = 100 - metrics.top1_error
            point = Point(*curve, fraction, share, accuracy, metrics.loss)
            self.records.points.append(point)
            self.records.write(self.folder)
            self.progress({"event": "evaluate", "batch": number, "batches": len(wanted)})
            if number == len(wanted) or wanted[number][0] != curve:
                self.tell(curve)

    def tell(self, curve: Curve) -> None:
        """Say what came of one order."""
        points = self.records.curve(*curve)
        order, criterion, _, draw = curve
        who = criterion or (f"random order {draw + 1}" if draw is not None else "whole model")
        values = ", ".join(f"{point.accuracy:.1f}" for point in points)
        where = f", {order}" if criterion else ""
        self.progress({"event": "note", "text": f"{who}{where}: top-1 accuracy {values} %"})

    def batches(self, images: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield training images as the model takes them: what is evaluated on is not looked at."""
        split = balanced(self.data.train, min(images, len(self.data.train)))
        for batch in eval_batches(split, batch_size=_CALIBRATION_BATCH):
            inputs = to_float(batch.images, self.data.mean, self.data.std, device=self.device)
            yield inputs, batch.labels


def balanced(split: Split, images: int) -> Split:
    """Return so many images of a split, always the same, each class as often as the others."""
    chosen = np.sort(class_rounds(split.labels.numpy(), "salience")[:images])
    if isinstance(split, LazySplit):
        return replace(split, rows=split.rows.select(chosen))
    assert isinstance(split, MemorySplit)
    return MemorySplit(split.images[chosen], split.labels[chosen])


def _ranked(group: Group, scores: Tensor) -> list[tuple[int, ...]]:
    """Return the group's units, the least salient first: by the mean over their channels."""
    means = torch.stack([scores[list(unit)].mean() for unit in group.unit])
    return [group.unit[i] for i in means.argsort(stable=True).tolist()]


def _shuffled(group: Group, seed: int, draw: int) -> list[tuple[int, ...]]:
    order = keyed.permutation(len(group.unit), seed, "removal", draw, group.name)
    return [group.unit[i] for i in order.tolist()]


def _first(units: Sequence[tuple[int, ...]], fraction: float) -> list[int]:
    """Return the channels of the first units: as near to the fraction as may be, never all."""
    count = min(round(fraction * len(units)), len(units) - 1)
    return sorted(channel for unit in units[:count] for channel in unit)


def _identity(
    model: nn.Module, data: ImageData, removal: "Removal", device: torch.device
) -> dict[str, Any]:
    """Return what makes a run this one; criteria are not part of it, they can be added."""
    facts = data.describe()
    settings = {**asdict(removal), "fractions": list(removal.fractions)}
    del settings["criteria"]
    kept = ("fingerprint", "train", "val", "mean", "std", "size")
    return {
        "weights": digest(model),
        "data": {name: facts[name] for name in kept},
        "settings": settings,
        "device": device.type,
    }


def _about(model: nn.Module, data: ImageData, device: torch.device) -> dict[str, Any]:
    spec = host_spec(model)
    return {
        "host": spec.name if spec else type(model).__name__,
        "attention": sorted({record.mechanism for record in grafts(model)}),
        "data": data.spec,
        "images": len(data.val),
        "classes": len(data.classes),
        "versions": versions(),
        "commit": commit(),
        "machine": machine(device),
    }
