"""How an image becomes a model's input: what an artifact says of it, by the rule of `data`.

This module alone of `model` imports `data`. An image that somebody hands in is to be read, cropped
and normalised exactly as those that the model was evaluated on, and a second rule would drift.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..data.batches import to_float
from ..data.decode import decode
from ..data.keep import SMALL
from ..data.splits import EVAL_MARGIN, fit, pixels
from ..errors import ArtifactError, ConfigError, DataError

_MODES = {1: "L", 3: "RGB"}
_KNOWN = ("input_size", "mean", "std", "crop_pct", "interpolation", "crop_mode")
_METHODS = {method.name.lower(): method for method in Image.Resampling}


@dataclass(frozen=True)
class Preprocessing:
    """What a model was evaluated on.

    Args:
        size: Channels (1 or 3), height and width.
        mean: Of pixels in [0, 1], a number a channel.
        std: Likewise.
        crop: The share of the height and width that is kept, at the centre.
        method: How images are resized.
    """

    size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: float
    method: Image.Resampling

    @classmethod
    def parse(cls, given: Mapping[str, Any], who: str) -> "Preprocessing":
        """Read what an artifact says; its words are ours and those of timm's data configuration.

        Raises:
            ArtifactError: something is missing, unknown, or not what it should be.
        """
        size: Any = given.get("input_size")
        mean: Any = given.get("mean")
        std: Any = given.get("std")
        if not (_numbers(size, int) and len(size) == 3 and size[0] in _MODES and min(size) > 0):
            raise _wrong(who, "input_size: 1 or 3 channels, height, width", size)
        for name, values in (("mean", mean), ("std", std)):
            if not (_numbers(values, (int, float)) and len(values) == size[0]):
                raise _wrong(who, f"{name}: a number for each of {size[0]} channels", values)
        if min(std) <= 0:
            raise _wrong(who, "std: numbers above 0", std)
        crop = given.get("crop_pct", 1 - 2 * EVAL_MARGIN if max(size[1:]) > SMALL else 1)
        if not _numbers([crop], (int, float)) or not 0 < crop <= 1:
            raise _wrong(who, "crop_pct: a share above 0, at most 1", crop)
        method = given.get("interpolation", "bilinear")
        if not isinstance(method, str) or method not in _METHODS:
            raise _wrong(who, f"interpolation: one of {', '.join(_METHODS)}", method)
        if given.get("crop_mode", "center") != "center":
            raise _wrong(who, "crop_mode: center", given["crop_mode"])
        if strange := [name for name in given if name not in _KNOWN]:
            raise _wrong(who, f"nothing but {', '.join(_KNOWN)}", strange[0])
        return cls(tuple(size), tuple(mean), tuple(std), crop, _METHODS[method])

    def read(self, image: Any, name: str) -> Tensor:
        """Return one image as the model sees it, before it is normalised: uint8 (C, H, W).

        Raises:
            DataError: it is missing, damaged, or no image; with its ``name``.
            ConfigError: it is of a type or shape that no image has.
        """
        channels, height, width = self.size
        whole = decode(_opener(image, name), name, _MODES[channels])
        return pixels(fit(whole, (width, height), (1 - self.crop) / 2, self.method))

    def normalise(self, images: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
        """Return uint8 (B, C, H, W) as the model's input, on ``device`` and in ``dtype``."""
        return to_float(images, self.mean, self.std, dtype=dtype, device=device)


def separate(images: Any) -> tuple[bool, Iterator[tuple[str, Any]]]:
    """Return whether ``images`` is one, and an iterator over it or all of them, with their names.

    Raises:
        ConfigError: it is neither an image nor several.
    """
    if isinstance(images, str | Path | Image.Image) or _is_pixels(images, dimensions=(2, 3)):
        return True, iter([(_name(images, None), images)])
    several = isinstance(images, Iterable) and not isinstance(images, bytes | Mapping)
    if not several or (isinstance(images, Tensor | np.ndarray) and images.ndim != 4):
        raise ConfigError(_no_image("predict", images))
    return False, ((_name(image, number), image) for number, image in enumerate(images))


def _name(image: Any, number: int | None) -> str:
    if isinstance(image, str | Path):
        return str(image)
    return "the image" if number is None else f"image {number}"


def _opener(image: Any, name: str) -> Any:
    """Return the function that `decode` opens an image with."""
    if isinstance(image, str | Path):
        path = Path(image)
        if not path.is_file():
            got = "a folder" if path.is_dir() else "nothing there"
            raise DataError(f"{name}: expected the file of an image, got {got}. Check the path.")
        return lambda: Image.open(path)
    if isinstance(image, Image.Image):
        return image.copy  # `decode` closes what it has read
    if not _is_pixels(image, dimensions=(2, 3)):
        raise ConfigError(_no_image(name, image))
    if isinstance(image, Tensor):
        image = image.cpu().numpy()
        image = image.transpose(1, 2, 0) if image.ndim == 3 else image
    fits = image.dtype == np.uint8 or (image.dtype == np.uint16 and image.ndim == 2)
    if not fits or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)) or 0 in image.shape:
        raise ConfigError(_no_image(name, image))
    plain = np.ascontiguousarray(image[..., 0] if image.shape[2:] == (1,) else image)
    return lambda: Image.fromarray(plain)


def _is_pixels(value: Any, dimensions: tuple[int, ...]) -> bool:
    return isinstance(value, Tensor | np.ndarray) and value.ndim in dimensions


def _numbers(value: Any, kinds: Any) -> bool:
    """Tell whether this is a list of finite numbers; a file may hold anything."""
    with contextlib.suppress(TypeError, ValueError):
        return (
            isinstance(value, list | tuple)
            and not any(isinstance(v, bool) or not isinstance(v, kinds) for v in value)
            and bool(np.isfinite(np.array(value, dtype=float)).all())
        )
    return False


def _wrong(who: str, rule: str, got: Any) -> ArtifactError:
    return ArtifactError(
        f"{who}: expected preprocessing with {rule}, got {got!r:.100}. "
        "Correct it, and save the model again."
    )


def _no_image(who: str, got: Any) -> str:
    what = type(got).__name__
    if isinstance(got, Tensor | np.ndarray):
        what = f"{what} of {got.dtype}, {tuple(got.shape)}"
    return (
        f"{who}: expected a path, a PIL image, a uint8 tensor (C, H, W) or array (H, W, C) of 1, 3 "
        f"or 4 channels, or several of them, got {what}. Inputs that are normalised already go to "
        "the model itself."
    )
