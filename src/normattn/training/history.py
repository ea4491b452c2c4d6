"""What a training leaves behind: a record an epoch."""

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from ..attention import Gate
from ..model.sparsify import scale_factors

_FIRST, _LAST, _EDGES = -8, 1, 37  # powers of ten, with four edges to each


@dataclass(frozen=True)
class EpochRecord:
    """One epoch. Errors are in percent, times in seconds of wall clock; ``epoch`` counts from 1.

    ``seconds`` is the training part, ``seconds_compute`` what of it went into forward, backward
    and optimizer; evaluation is apart. ``penalty`` is p·Σ|scale| at the end of the epoch, 0 where
    there is nothing to penalise. ``scales`` describes |scale| of the gates (``attention``) and of
    the host (``norms``), see `scale_statistics`; ``histograms`` counts them by size, see
    `scale_histograms`. ``sparsity`` is p at the last step, which rises while it warms up. Records
    from before the last two were kept have None there.
    """

    epoch: int
    step: int
    lr: float
    train_loss: float
    train_top1_error: float
    penalty: float
    loss: float | None
    top1_error: float
    top5_error: float | None
    images_per_second: float
    seconds: float
    seconds_compute: float
    seconds_evaluation: float
    scales: Mapping[str, Mapping[str, float] | None]
    sparsity: float | None = None
    histograms: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the record in plain containers."""
        return asdict(self)


@dataclass(frozen=True)
class History:
    """The epochs of a training, in order. The last one is what is reported."""

    epochs: tuple[EpochRecord, ...]

    @property
    def last(self) -> EpochRecord:
        """The last epoch."""
        return self.epochs[-1]

    @property
    def best(self) -> EpochRecord:
        """The epoch with the lowest top-1 error on the evaluation images, the first of several.

        The papers' scripts report this one. It is chosen by the images it is judged on, so it is
        kept beside the last epoch's figures and never in their place.
        """
        return min(self.epochs, key=lambda record: record.top1_error)

    def to_lines(self) -> str:
        """Return a JSON object a line."""
        return "".join(json.dumps(record.to_json()) + "\n" for record in self.epochs)


def scale_statistics(model: nn.Module) -> dict[str, dict[str, float] | None]:
    """Describe |scale| of gates and norms: ``mean``, ``min``, ``max``, ``cv``, ``below_1e-3``.

    ``cv`` is the deviation within a layer over that layer's mean, averaged over layers: what is
    left of it when a mechanism shares out importance inside a layer. ``below_1e-3`` is the
    fraction of scales that small. None where there are no scales.
    """
    norms = [scale for _, scale in scale_factors(model, "norms")]
    return {"attention": _describe(_gate_scales(model)), "norms": _describe(norms)}


def scale_histograms(model: nn.Module, closing: Collection[str] = ()) -> dict[str, Any]:
    """Count |scale| by size, in bins that are the same each epoch; under 1 kB of JSON.

    ``edges`` gives ``first``, ``last`` and ``count`` of the edges, evenly spaced by logarithm. For
    the gates (``attention``), the host (``norms``) and those of its norms that are named in
    ``closing``, each None without scales: ``scales``, how many there are; ``zeros``, how many are
    exactly 0; ``counts`` of the others below the first edge, from each edge to the next, and from
    the last on.
    """
    named = scale_factors(model, "norms")
    apart, norms = ([s for n, s in named if (n in closing) == asked] for asked in (True, False))
    return {
        "edges": {"first": 10.0**_FIRST, "last": 10.0**_LAST, "count": _EDGES},
        "attention": _count(_gate_scales(model)),
        "norms": _count(norms),
        "closing": _count(apart),
    }


def _gate_scales(model: nn.Module) -> list[nn.Parameter]:
    gates = [module for module in model.modules() if isinstance(module, Gate)]
    return list({id(scale): scale for gate in gates for scale in gate.scales()}.values())


def _count(scales: list[nn.Parameter]) -> dict[str, Any] | None:
    if not scales:
        return None
    sizes = torch.cat([scale.detach().flatten().abs().double().cpu() for scale in scales])
    step = (_LAST - _FIRST) / (_EDGES - 1)
    edges = torch.tensor([10.0 ** (_FIRST + step * i) for i in range(_EDGES)], dtype=torch.float64)
    places = torch.bucketize(sizes[sizes != 0], edges, right=True)
    return {
        "scales": sizes.numel(),
        "zeros": int((sizes == 0).sum()),
        "counts": torch.bincount(places, minlength=_EDGES + 1).tolist(),
    }


def _describe(scales: list[nn.Parameter]) -> dict[str, float] | None:
    if not scales:
        return None
    layers = [scale.detach().flatten().abs().double().cpu() for scale in scales]
    together = torch.cat(layers)
    tiny = torch.finfo(torch.float64).tiny
    spread = [layer.std(correction=0) / layer.mean().clamp_min(tiny) for layer in layers]
    return {
        "mean": float(together.mean()),
        "min": float(together.min()),
        "max": float(together.max()),
        "cv": float(torch.stack(spread).mean()),
        "below_1e-3": float((together < 1e-3).double().mean()),
    }
