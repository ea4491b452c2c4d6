"""The inference form of a model: norms in the convolutions, attention as constants or gone."""

import copy
import math

import torch
from torch import nn

from ..attention._gate import Gate
from ..errors import ConfigError, Fault, UnsupportedModel
from ._discovery import _quietly
from ._fold_checks import refuse_unfoldable
from ._fold_error import measure
from ._fold_gates import Range, Watch, gates, split
from ._fold_images import Batches, check_batches, like, noise, read
from ._fold_norms import fold_norms
from ._fold_report import FoldedGateSite as FoldedGateSite
from ._fold_report import FoldError as FoldError
from ._fold_report import FoldReport as FoldReport
from ._fold_sites import Folding
from ._fold_trace import trace_feeds
from ._insertion import MARK, attention_at, layers
from ._sites import InputSize
from .fuse import plain, unfuse

_REPORT = "normattn_fold"


def fold(
    model: nn.Module,
    *,
    tolerance: float | None = None,
    data: Batches | None = None,
    calibration: Batches | None = None,
    input_size: InputSize | None = None,
) -> nn.Module:
    """Return a copy of a model for inference alone: the same function in fewer operations.

    Batch norms go into the convolutions or linear layers that feed them, NAM becomes
    ``x·σ(slope·x + offset)`` with constants, and a constant gate goes into the layer in front. EAN
    keeps its statistics, which are each image's own; SE, CBAM, BAM and Triplet keep their gates.
    Who feeds whom is found by running the model once, so no symbolic trace is needed.

    With a tolerance, attention that is nearly constant costs nothing any more: where the values of
    a gate on real images stay, channel by channel, within a range narrower than ``tolerance``, the
    gate becomes its mean. What that changes is measured: see `fold_report`.

    Args:
        model: any model, fused or slimmed or neither; it is left as it was.
        tolerance: a width of gates; None folds what is exact, and no more.
        data: batches of ``(inputs, labels)``, normalised as for training; a list or a DataLoader.
            The error is measured on them, otherwise on noise.
        calibration: batches on which the ranges of gates are measured, best of the training split:
            a mean that was taken on the images of the error makes it look smaller. By default
            ``data``.
        input_size: side, or (H, W), of the images where there are no data; by default what the host
            was made for, or 224.

    Returns:
        The copy, in evaluation mode. It is no host for `normattn.graft` any more.

    Raises:
        ConfigError: ``tolerance`` is no number above 0, or comes without data.
        DataError: ``data`` hold something else than normalised images.
        UnsupportedModel: the model is compiled, wrapped, quantised, on the meta device, or does not
            run on such images.
        Fault: the exact form's outputs are not the model's.

    Example:
        >>> import normattn
        >>> model = normattn.graft(normattn.host("resnet20", 10), "nam-channel")
        >>> folded = fold(model)
        >>> folded.layer1[0].bn2
        Graft(
          (base): Identity()
          (attn): FoldedGate(channels=16)
        )
        >>> fold_report(folded).norms
        19
    """
    _check(model, tolerance, data, calibration)
    folded = unfuse(copy.deepcopy(model))
    for module in folded.modules():
        module.training = False
    images = noise(model, input_size) if data is None else next(read("fold", data, model))[0]
    sites = _site_names(folded)
    split(folded)
    trace = trace_feeds(folded, images[:1])
    taken, left = fold_norms(folded, trace)
    watched = data if calibration is None else calibration
    ranges = _ranges(folded, watched) if watched is not None else {}
    found = Folding(folded, trace, taken, ranges, tolerance).all(sites)
    staying = dict(folded.named_modules())
    left = [each for each in left if each[0] in staying]  # not those that were a gate's own
    with _quietly(model), plain(model):
        error = measure(model, folded, data, images)
    report = FoldReport(found, len(taken), tuple(left), tolerance, error)
    _check_exact(model, report)
    setattr(folded, _REPORT, report)
    return folded


def fold_report(model: nn.Module) -> FoldReport:
    """Return what `fold` did to the model that it returned: a table when printed.

    Raises:
        UnsupportedModel: the model was not made by `fold`.
    """
    report = getattr(model, _REPORT, None)
    if not isinstance(report, FoldReport):
        raise UnsupportedModel(
            f"fold_report: expected a model that normattn.fold returned, got "
            f"{type(model).__name__}. Fold it first."
        )
    return report


def _check(
    model: nn.Module,
    tolerance: float | None,
    data: Batches | None,
    calibration: Batches | None,
) -> None:
    refuse_unfoldable("fold", model)
    for batches in (data, calibration):
        if batches is not None:
            check_batches("fold", batches)
    if tolerance is None:
        return
    number = isinstance(tolerance, int | float) and not isinstance(tolerance, bool)
    if not (number and math.isfinite(tolerance) and tolerance > 0):
        raise ConfigError(f"fold: expected tolerance to be a number above 0, got {tolerance!r}.")
    if data is None:
        raise ConfigError(
            "fold: expected data with a tolerance, got none. The range of a gate is measured on "
            "real images; give data=, batches of (inputs, labels)."
        )


def _site_names(model: nn.Module) -> dict[nn.Module, str]:
    """Return the names by which a person knows the gates, and takes the grafts' marks off."""
    names: dict[nn.Module, str] = {gate: name for name, gate in gates(model)}
    for place in layers(model):
        attention = attention_at(place.module)
        if attention is not None:
            names[attention] = place.name
            delattr(attention, MARK)  # what is left is no graft that could be taken out again
    for gate, name in list(names.items()):
        for part, child in gate.named_children():
            if isinstance(child, Gate):  # NAM's two
                names[child] = f"{name} ({part})"
    return names


def _ranges(model: nn.Module, data: Batches) -> dict[Gate, Range]:
    with torch.no_grad(), Watch(gate for _, gate in gates(model)) as watch:
        for inputs, _ in read("fold", data, model):
            model(inputs)
    return watch.ranges


def _check_exact(model: nn.Module, report: FoldReport) -> None:
    """Refuse to hand on an exact form that is none; only a gate's mean may change the outputs."""
    dtype = like(model).dtype
    limit = math.sqrt(torch.finfo(dtype).eps)
    exact = report.tolerance is None or report.constant == 0
    if exact and not report.error.relative <= limit:
        raise Fault(
            f"fold: expected the outputs of {type(model).__name__} within {limit:.1g} of their "
            f"largest, got {report.error.relative:.2g}. Nothing was changed; if the model gives the"
            " same outputs twice in evaluation mode, report it with the model's name."
        )
