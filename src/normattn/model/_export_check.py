"""Run all forms of a model on the same images: do they agree, and who is right how often."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import DataError, Fault
from ._export_report import Parity
from ._fold_error import Sums
from ._fold_images import Batches, read

#: Of the largest output, in float32: rounding alone is some 1e-7 to 1e-5.
FLOAT_LIMIT = 1e-4
#: Of the outputs' root mean square, in int8: a file beyond it says something else.
INT8_LIMIT = 0.3


def compare(
    folded: nn.Module,
    forms: Mapping[str, nn.Module],
    data: Batches | None,
    images: Tensor,
) -> dict[str, Sums]:
    """Return what was counted of each form against the folded model.

    Without data these images are compared. In any case a single image is run too: a file that takes
    only the batch size that it was traced with is none for batches of any size.
    """
    found = {label: Sums() for label in forms}
    with torch.inference_mode():
        for label, form in forms.items():
            one = Sums()
            one.look(folded(images[:1]), _run(label, form, images[:1]))
            found[label].largest, found[label].scale = one.largest, one.scale
        batches = [(images, None)] if data is None else read("export", data, folded)
        for inputs, labels in batches:
            expected = folded(inputs)
            _check_labels(labels, expected)
            for label, form in forms.items():
                found[label].add(expected, _run(label, form, inputs), labels)
    return found


def parity(sums: Sums, *, int8: bool, source: Literal["data", "noise"]) -> Parity:
    """Return how far a runtime's outputs are from PyTorch's."""
    return Parity(
        relative=sums.relative,
        rms=sums.rms,
        changed=sums.share(sums.changed),
        images=sums.images,
        source=source,
        measure="rms" if int8 else "relative",
        limit=INT8_LIMIT if int8 else FLOAT_LIMIT,
    )


class Calibration:
    """The first images of a split, as often as they are asked for.

    Args:
        data: batches as the user gives them.
        model: whose type and device the inputs get.
        size: (C, H, W) of the images that the model takes.
        limit: how many images.

    Raises:
        DataError: the images have another size.
    """

    def __init__(self, data: Batches, model: nn.Module, size: torch.Size, limit: int) -> None:
        self._data, self._model, self._size, self._limit = data, model, size, limit
        self.images = sum(len(inputs) for inputs in self)

    def __iter__(self) -> Iterator[Tensor]:
        left = self._limit
        for inputs, _ in read("export", self._data, self._model):
            if inputs.shape[1:] != self._size:
                raise DataError(
                    f"export: expected calibration images of shape {tuple(self._size)}, got "
                    f"{tuple(inputs.shape[1:])}. Calibrate on images prepared as for the model."
                )
            yield inputs[:left]
            left -= len(inputs)
            if left <= 0:
                return


def _run(label: str, form: nn.Module, inputs: Tensor) -> Any:
    try:
        return form(inputs)
    except Exception as error:
        raise Fault(
            f"export: expected {label} to run on a batch of shape {tuple(inputs.shape)}, got "
            f"{type(error).__name__}: {error}"
        ) from error


def _check_labels(labels: Tensor | None, outputs: Tensor) -> None:
    if labels is not None and (int(labels.max()) >= outputs.shape[1] or int(labels.min()) < 0):
        raise DataError(
            f"export: expected labels from 0 to {outputs.shape[1] - 1}, one for each output of the "
            f"model, got {int(labels.max())}. Give data with the model's classes."
        )
