"""Images to look at a model with: the user's, checked, or noise."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError, DataError
from ._predict import attached
from ._sites import InputSize, _image_size

_NOISE = 4

#: Batches as the user gives them: ``(inputs, labels)``, or inputs alone.
Batches = Iterable[Any]


def noise(model: nn.Module, input_size: InputSize | None) -> Tensor:
    """Return standard normal images for a model, the same ones always.

    Shape:
        ``(4, C, H, W)``, of the model's type and on its device.
    """
    height, width = _image_size(model, _known_size(model) if input_size is None else input_size)
    convolutions = (m for m in model.modules() if isinstance(m, nn.Conv2d))
    channels = next((m.in_channels for m in convolutions), 3)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(_NOISE, channels, height, width, generator=generator)
    return images.to(like(model))


def _known_size(model: nn.Module) -> InputSize | None:
    """Return the size of images that a loaded model was trained on."""
    loaded = attached(model)
    size = None if loaded is None else (loaded.given or {}).get("input_size")
    return None if size is None else (size[1], size[2])


def like(model: nn.Module) -> Tensor:
    """Return a tensor of the type and the device that a model's images need."""
    tensors = (p for p in model.parameters() if p.is_floating_point())
    return next(tensors, torch.empty(0))


def check_batches(who: str, data: object) -> None:
    """Refuse data that cannot be read more than once, as several passes need.

    Raises:
        ConfigError: ``data`` is no iterable, or one that is used up by reading it.
    """
    if isinstance(data, Tensor) or not isinstance(data, Iterable) or isinstance(data, str):
        raise ConfigError(
            f"{who}: expected data as batches of (inputs, labels), got {type(data).__name__}. "
            "Give a list of batches or a DataLoader."
        )
    if isinstance(data, Iterator):
        raise ConfigError(
            f"{who}: expected data that can be read several times, got {type(data).__name__}. "
            "Give a list of batches or a DataLoader."
        )


def read(who: str, data: Batches, model: nn.Module) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield inputs of the model's type, on its device, and their labels, if any.

    Raises:
        DataError: there is no batch, or one holds something else than normalised images.
    """
    sample = like(model)
    shape: torch.Size | None = None
    for batch in data:
        pair = isinstance(batch, list | tuple) and len(batch) == 2
        inputs, labels = batch if pair else (batch, None)
        _check_images(who, inputs)
        if shape is not None and inputs.shape[1:] != shape:
            raise DataError(
                f"{who}: expected images of one size, got {tuple(inputs.shape[1:])} after "
                f"{tuple(shape)}. Resize them."
            )
        shape = inputs.shape[1:]
        yield inputs.to(sample), labels
    if shape is None:
        raise DataError(f"{who}: expected at least one batch of data, got none.")


def _check_images(who: str, inputs: object) -> None:
    if isinstance(inputs, Tensor):
        if inputs.ndim == 4 and inputs.is_floating_point() and len(inputs):
            return
        got = f"{inputs.dtype} of shape {tuple(inputs.shape)}"
    else:
        got = type(inputs).__name__
    raise DataError(
        f"{who}: expected normalised images (B, C, H, W) of a floating-point type, got {got}. "
        "Normalise them first, as for training."
    )
