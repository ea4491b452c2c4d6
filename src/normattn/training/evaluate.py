"""What a model makes of images that it was not trained on."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torchmetrics.classification import MulticlassAccuracy

from ..data import ImageData, eval_batches, to_float
from ..errors import ConfigError
from .distributed import Ranks, joined

Progress = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Metrics:
    """Errors in percent; ``top5_error`` is None below six classes, where it would say nothing.

    ``loss`` is the mean cross-entropy without label smoothing; None when it is no finite number.
    """

    top1_error: float
    top5_error: float | None
    loss: float | None
    images: int
    images_per_second: float

    def to_json(self) -> dict[str, float | int | None]:
        """Return the metrics as plain JSON values."""
        return asdict(self)


def evaluate(
    model: nn.Module,
    data: ImageData,
    *,
    split: str = "val",
    batch_size: int = 256,
    device: str = "auto",
    precision: str = "float32",
    channels_last: bool = False,
    progress: Progress | None = None,
) -> Metrics:
    """Evaluate ``model`` on a split of ``data``; it is moved to ``device`` and keeps its mode.

    Args:
        model: A classifier with one output a class.
        data: The images, their classes, and the mean and deviation to normalise with.
        split: ``val`` or ``train``.
        batch_size: Images a batch, and over all processes under ``torchrun``.
        device: ``auto``, ``cpu``, ``cuda``.
        precision: ``float32``, or ``bfloat16`` by autocast.
        channels_last: Whether the images lie in memory with the channels last.
        progress: Called with ``{"event": "evaluate", "batch", "batches"}`` after each batch.

    Raises:
        ConfigError: no such split or device, or another number of outputs than classes.
    """
    if split not in ("val", "train"):
        raise ConfigError(f"evaluate: expected split to be 'val' or 'train', got {split!r}.")
    with joined(device) as ranks, _evaluating(model.to(ranks.device)):
        return _measure(model, data, split, batch_size, ranks, precision, channels_last, progress)


def _measure(
    model: nn.Module,
    data: ImageData,
    split: str,
    batch_size: int,
    ranks: Ranks,
    precision: str,
    channels_last: bool,
    progress: Progress | None,
) -> Metrics:
    images = getattr(data, split)
    classes, device = len(data.classes), ranks.device
    # torchmetrics gathers over the processes itself when compute() is called.
    accuracies = {
        k: MulticlassAccuracy(classes, top_k=k, average="micro", validate_args=False).to(device)
        for k in ((1, 5) if classes > 5 else (1,))
    }
    batches = math.ceil(len(images) / batch_size)
    loss = torch.zeros((), dtype=torch.float64, device=device)
    started = time.perf_counter()
    loader = eval_batches(images, batch_size=batch_size, rank=ranks.rank, world=ranks.world)
    for number, batch in enumerate(loader, start=1):
        inputs = to_float(
            batch.images,
            data.mean,
            data.std,
            dtype=torch.float32,
            channels_last=channels_last,
            device=device,
        )
        labels = batch.labels.to(device)
        with autocast(device, precision):
            logits = model(inputs)
        require_outputs(logits, classes)
        logits = logits.float()
        loss += functional.cross_entropy(logits, labels, reduction="sum").double()
        for accuracy in accuracies.values():
            accuracy.update(logits, labels)
        if progress:
            progress({"event": "evaluate", "batch": number, "batches": batches})
    errors = {k: 100 * (1 - float(accuracy.compute())) for k, accuracy in accuracies.items()}
    mean = ranks.total(float(loss))[0] / len(images)
    return Metrics(
        top1_error=errors[1],
        top5_error=errors.get(5),
        loss=mean if math.isfinite(mean) else None,
        images=len(images),
        images_per_second=len(images) / (time.perf_counter() - started),
    )


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the context that computes in ``precision``; weights stay in float32."""
    enabled = precision == "bfloat16"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


def require_outputs(logits: torch.Tensor, classes: int) -> None:
    """Refuse a model whose outputs are not one a class."""
    if logits.ndim != 2 or logits.shape[1] != classes:
        raise ConfigError(
            f"model: expected one output for each of the {classes} classes, got outputs of shape "
            f"{tuple(logits.shape)}. Build the host with num_classes={classes}."
        )


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode; afterwards each module is in its own, as norms may be frozen in theirs."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
