"""Images as a saved model wants them: its size, its crop, its mean and deviation, its classes."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from ..data import ImageData, open_data
from ..errors import ConfigError
from ..model._artifact_images import Preprocessing
from ..model.artifact import read_info

if TYPE_CHECKING:
    from ..data.opening import OnBadImage


def open_for(
    who: str, model: Path | str, spec: str, *, on_bad_image: "OnBadImage" = "stop"
) -> ImageData:
    """Open data to be resized, cropped and normalised as a saved model's own were.

    Images that are not augmented come out as `Predictor` would hand them to the model. A model that
    was saved without preprocessing takes the data as they are.

    Args:
        who: what messages name.
        model: the artifact.
        spec: as for `open_data`.
        on_bad_image: likewise.

    Raises:
        ArtifactError: there is no artifact, or its preprocessing makes no sense.
        ConfigError: the classes, channels or size of the data are not the model's.
        DataError: as `open_data` does.
    """
    info = read_info(model)
    if info.preprocessing is None:
        data = open_data(spec, on_bad_image=on_bad_image)
        _require_classes(who, model, info.classes, data)
        return data
    wanted = Preprocessing.parse(info.preprocessing, str(model))
    _, height, width = wanted.size
    data = open_data(
        spec,
        on_bad_image=on_bad_image,
        image_size=height if height == width else None,
        crop=wanted.crop,
        method=wanted.method,
    )
    _require_classes(who, model, info.classes, data)
    _require_shape(who, model, wanted, data)
    return dataclasses.replace(data, mean=wanted.mean, std=wanted.std)


def _require_classes(
    who: str, model: Path | str, classes: tuple[str, ...] | None, data: ImageData
) -> None:
    if classes is not None and classes != data.classes:
        raise ConfigError(
            f"{who}: expected the {len(classes)} classes that {model} was trained on, got the "
            f"{len(data.classes)} of {data.spec}. Give data with the same classes."
        )


def _require_shape(who: str, model: Path | str, wanted: Preprocessing, data: ImageData) -> None:
    """Refuse other channels, and another size: data are resized to squares alone."""
    channels, height, width = wanted.size
    if channels != data.channels:
        raise ConfigError(
            f"{who}: expected images of {channels} channels, as {model} was trained on, got "
            f"{data.channels} of {data.spec}. Give data of the same kind."
        )
    cropped = height != width and wanted.crop < 1
    if data.size != (height, width) or cropped:
        how = f", the centre {100 * wanted.crop:g} % of larger ones" if cropped else ""
        raise ConfigError(
            f"{who}: expected images of {height}×{width}{how}, as {model} was trained on, got "
            f"{data.size[0]}×{data.size[1]} of {data.spec}, and data are resized to squares alone. "
            "Prepare the files themselves."
        )
