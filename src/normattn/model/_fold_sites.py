"""The gates of a model being folded, one by one: each becomes as little as it may."""

from collections.abc import Mapping
from dataclasses import replace as changed

import torch
from torch import Tensor, nn

from ..attention._gate import Gate
from ._fold_gates import FactorGate, FoldedGate, Range, as_line, constant, gates
from ._fold_images import like
from ._fold_norms import replace, scale, takes_factor, untouched
from ._fold_report import FoldedGateSite
from ._fold_trace import FoldTrace


class Folding:
    """Folds the gates of one model, in place.

    Args:
        model: with its norms folded already.
        trace: what fed what before that.
        stands_for: by a norm that is gone, the layer that does its work.
        ranges: what was seen of the gates.
        tolerance: the width below which a gate is a constant.
    """

    def __init__(
        self,
        model: nn.Module,
        trace: FoldTrace,
        stands_for: Mapping[nn.Module, nn.Module],
        ranges: Mapping[Gate, Range],
        tolerance: float | None,
    ) -> None:
        self.model = model
        self.trace = trace
        self.stands_for = dict(stands_for)
        self._gone: set[nn.Module] = set()  # gates that multiply nothing any more
        self.ranges = ranges
        self.tolerance = tolerance
        self._names = {module: name for name, module in model.named_modules()}

    def all(self, sites: Mapping[nn.Module, str]) -> tuple[FoldedGateSite, ...]:
        """Fold every gate and return what became of each, by the names of ``sites``."""
        found = []
        for name, gate in list(gates(self.model)):
            site = FoldedGateSite(sites.get(gate, name), type(gate).__name__, "itself")
            seen = self.ranges.get(gate)
            if seen is not None:
                lowest, highest = float(seen.lowest.min()), float(seen.highest.max())
                site = changed(site, lowest=lowest, highest=highest, width=seen.width)
            found.append(self._fold(gate, site))
        for module, name in sites.items():
            if not isinstance(module, Gate):
                kind = type(module).__name__
                found.append(FoldedGateSite(name, kind, "itself", note="no gate that we can watch"))
        return tuple(found)

    def _fold(self, gate: Gate, site: FoldedGateSite) -> FoldedGateSite:
        if not untouched(gate):
            return changed(site, note="there are hooks on it")
        factor = self._factor(gate)
        if factor is not None:
            return self._to_factor(gate, factor, site)
        line = as_line(gate)
        if line is None:
            return site
        self._put(gate, line)
        return changed(site, became="constants")

    def _factor(self, gate: Gate) -> Tensor | None:
        """Return what the gate multiplies each channel by, if that is a constant."""
        value = constant(gate)
        if value is not None:
            device = like(self.model).device
            return torch.full((gate.channels,), value, dtype=torch.float64, device=device)
        seen = self.ranges.get(gate)
        if self.tolerance is None or seen is None or not seen.width < self.tolerance:
            return None
        return seen.mean

    def _to_factor(self, gate: Gate, factor: Tensor, site: FoldedGateSite) -> FoldedGateSite:
        if constant(gate) == 1:
            self._remove(gate)
            return changed(site, became="nothing")
        lines, layer = self._in_front(gate)
        if layer is None:
            wide = torch.promote_types(torch.float32, like(self.model).dtype)
            self._put(gate, FactorGate(gate.channels, factor.to(wide)))
            return changed(site, became="factor", note="no layer right in front can take it")
        for line in lines:  # each sees its input multiplied already
            line.slope.div_(factor.view(1, -1, 1, 1).to(line.slope))
        scale(layer, factor)
        self._remove(gate)
        return changed(site, became="nothing", into=self._names[layer])

    def _in_front(self, gate: Gate) -> tuple[list[FoldedGate], nn.Module | None]:
        """Return the layer that a factor can move to, and the gates that it passes on its way.

        ``m·x·σ(slope·x + offset)`` is ``x'·σ(slope/m·x' + offset)`` of ``x' = m·x``.
        """
        lines: list[FoldedGate] = []
        feed = self.trace.feed(gate)
        while feed is not None and feed.maker is not None and feed.alone:
            maker = feed.maker
            layer = self.stands_for.get(maker, maker)
            if layer in self._gone:
                feed = self.trace.feed(layer)
            elif isinstance(layer, FoldedGate) and layer.per_channel:
                lines.append(layer)
                feed = self.trace.feed(maker)
            elif takes_factor(layer) and not isinstance(layer, nn.Linear):
                return lines, layer
            else:
                break
        return [], None

    def _put(self, gate: Gate, new: nn.Module) -> None:
        replace(self.model, gate, new)
        self.stands_for[gate] = new

    def _remove(self, gate: Gate) -> None:
        replace(self.model, gate, nn.Identity())
        self._gone.add(gate)
