"""How far two models are from each other, measured on images."""

import math

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
        relative=total.relative,
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
        self.noise = self.signal = 0.0
        self.images = self.changed = self.right = self.folded_right = 0
        self.labelled = True

    @property
    def relative(self) -> float:
        """The largest difference, by the largest output."""
        return self.largest / self.scale if self.scale else self.largest

    @property
    def rms(self) -> float:
        """The root mean square of the differences, by that of the outputs."""
        return math.sqrt(self.noise / self.signal) if self.signal else math.sqrt(self.noise)

    def look(self, expected: object, got: object) -> Tensor | None:
        """Measure the differences; return the images' classes if there are any to return."""
        pairs = list(zip(_tensors(expected), _tensors(got), strict=True))
        for a, b in pairs:
            difference = b.double() - a.double()
            self.largest = _largest(self.largest, difference)
            self.scale = _largest(self.scale, a.double())
            self.noise += float(difference.square().sum())
            self.signal += float(a.double().square().sum())
        scores = len(pairs) == 1 and pairs[0][0].ndim == 2
        return torch.stack([t.argmax(1) for t in pairs[0]]) if scores else None

    def add(self, expected: object, got: object, labels: Tensor | None) -> None:
        """Count one batch; outputs that are no (B, classes) scores have no class to change."""
        classes = self.look(expected, got)
        self.images += len(next(_tensors(expected)))
        if classes is None or labels is None:
            self.labelled = False
        if classes is None:
            return
        best, other = classes
        self.changed += int((best != other).sum())
        if labels is not None:
            truth = labels.to(best.device)
            self.right += int((best == truth).sum())
            self.folded_right += int((other == truth).sum())

    def share(self, count: int) -> float:
        """Return a count as a fraction of the images."""
        return count / self.images


def _largest(known: float, values: Tensor) -> float:
    largest = float(values.abs().max()) if values.numel() else 0.0
    return largest if largest != largest or largest > known else known  # NaN is the largest
