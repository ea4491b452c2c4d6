"""How far two models are from each other, measured on images."""

import torch
from torch import Tensor, nn

from ._discovery import _tensors
from ._fold_images import Batches, read
from ._fold_report import FoldError


def measure(
    original: nn.Module, folded: nn.Module, data: Batches | None, images: Tensor
) -> FoldError:
    """Return the differences of the outputs on data, or on these images without any.

    Both models are in evaluation mode already.
    """
    total = Sums()
    with torch.no_grad():
        for inputs, labels in [(images, None)] if data is None else read("fold", data, original):
            total.add(original(inputs), folded(inputs), labels)
    return FoldError(
        largest=total.largest,
        relative=total.largest / total.scale if total.scale else total.largest,
        changed=total.share(total.changed),
        accuracy=total.share(total.right) if total.labelled else None,
        folded_accuracy=total.share(total.folded_right) if total.labelled else None,
        images=total.images,
        source="noise" if data is None else "data",
    )


class Sums:
    """What is counted over batches."""

    def __init__(self) -> None:
        self.largest = self.scale = 0.0
        self.images = self.changed = self.right = self.folded_right = 0
        self.labelled = True

    def add(self, expected: object, got: object, labels: Tensor | None) -> None:
        """Count one batch; outputs that are no (B, classes) scores have no class to change."""
        pairs = list(zip(_tensors(expected), _tensors(got), strict=True))
        for a, b in pairs:
            self.largest = _largest(self.largest, a.double() - b.double())
            self.scale = _largest(self.scale, a.double())
        first, second = pairs[0]
        self.images += len(first)
        if len(pairs) > 1 or first.ndim != 2:
            self.labelled = False
            return
        best, folded_best = first.argmax(1), second.argmax(1)
        self.changed += int((best != folded_best).sum())
        if labels is None:
            self.labelled = False
            return
        truth = labels.to(best.device)
        self.right += int((best == truth).sum())
        self.folded_right += int((folded_best == truth).sum())

    def share(self, count: int) -> float:
        """Return a count as a fraction of the images."""
        return count / self.images


def _largest(known: float, values: Tensor) -> float:
    largest = float(values.abs().max()) if values.numel() else 0.0
    return largest if largest != largest or largest > known else known  # NaN is the largest
