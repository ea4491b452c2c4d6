"""What a slimming starts from: a saved model, and data that it was made for."""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..data import ImageData, open_data
from ..errors import ConfigError
from ..model._artifact_images import Preprocessing
from ..model.artifact import INFO, WEIGHTS, ArtifactInfo
from ._slimming_job import SlimJob


def open_for(job: SlimJob, info: ArtifactInfo) -> ImageData:
    """Open the job's data, to be normalised as the model's own were.

    Raises:
        ConfigError: their classes, channels or size are not the model's.
    """
    how: dict[str, Any] = {}
    if info.preprocessing is not None:  # images that are resized come as `predict` would take them
        known = Preprocessing.parse(info.preprocessing, job.artifact)
        how = {"crop": known.crop, "method": known.method}
    data = open_data(
        job.data,
        train_limit=job.train_limit,
        on_bad_image=job.on_bad_image,  # type: ignore[arg-type]  # checked by open_data
        image_size=job.image_size,
        **how,
    )
    _require_classes(job, info, data)
    wanted = info.preprocessing or {}
    size = [data.channels, *data.size]
    expected = wanted.get("input_size", size)
    if list(expected) != size:
        advice = ""
        if expected[0] == data.channels and expected[1] == expected[2]:
            advice = f" If they should be resized, say so: --image-size {expected[1]}."
        raise ConfigError(
            f"slim: expected images of {_by(expected)}, as {job.artifact} was trained on, got "
            f"{_by(size)} of {job.data}. Give data of the same kind.{advice}"
        )
    mean, std = wanted.get("mean", data.mean), wanted.get("std", data.std)
    if {len(mean), len(std)} != {data.channels}:
        raise ConfigError(
            f"slim: expected a mean and a deviation for each of {data.channels} channels, got "
            f"{len(mean)} and {len(std)} in {job.artifact}. Save the model again."
        )
    return dataclasses.replace(data, mean=tuple(mean), std=tuple(std))


def _require_classes(job: SlimJob, info: ArtifactInfo, data: ImageData) -> None:
    if info.classes is not None and info.classes != data.classes:
        missing = [name for name in info.classes if name not in data.classes]
        which = f" (there is no {missing[0]!r})" if missing else ""
        raise ConfigError(
            f"slim: expected the {len(info.classes)} classes that {job.artifact} was trained on, "
            f"got the {len(data.classes)} of {job.data}{which}. Give data with the same classes."
        )


def _by(size: Any) -> str:
    return "×".join(map(str, size))


def example(data: ImageData, batch: int, device: torch.device) -> Tensor:
    """Return a batch of zeros, (batch, C, H, W) float32, of the size that the model sees."""
    return torch.zeros(batch, data.channels, *data.size, device=device)


def require_alone() -> None:
    """Refuse torchrun: every process would measure another latency and make another plan."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1:
        raise ConfigError(
            f"slim: expected one process, got {world} of torchrun. Start it without torchrun."
        )


def size_on_disk(path: Path | str) -> int:
    """Return the bytes of an artifact: of one file, or of a folder's weights and description."""
    path = Path(path)
    files = [path / WEIGHTS, path / INFO] if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)


def widths(before: nn.Module, after: nn.Module) -> dict[str, list[int]]:
    """Return the outputs of each convolution and linear layer: ``{name: [before, after]}``."""
    now = dict(_outputs(after))
    return {name: [width, now[name]] for name, width in _outputs(before) if name in now}


def _outputs(model: nn.Module) -> Iterator[tuple[str, int]]:
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            yield name, module.out_channels
        elif isinstance(module, nn.Linear):
            yield name, module.out_features
