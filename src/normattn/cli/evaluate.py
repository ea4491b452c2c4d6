"""`normattn evaluate`: what saved models make of images."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from ..errors import ArtifactError, ConfigError
from . import _common, _options, _progress

if TYPE_CHECKING:
    from ..data import ImageData
    from ..data.opening import OnBadImage
    from ..model.artifact import ArtifactInfo


def evaluate(
    path: Annotated[
        Path,
        typer.Argument(
            help="A saved model, a training's folder, or a comparison's run folder.", metavar="PATH"
        ),
    ],
    data: _options.Data,
    split: Annotated[str, typer.Option(help="'val' or 'train'.", metavar="NAME")] = "val",
    on_bad_image: _options.OnBadImage = "stop",
    device: _options.Device = "auto",
    json: _options.Json = False,
    config: _options.Config = None,
) -> None:
    """Evaluate a saved model, or every finished trial of a run, on a split of a data set.

    Images are resized and normalised as for the model's training; the classes must be the model's.

    Example: normattn evaluate runs/nam --data digits
    """
    from ..model.artifact import load, read_info
    from ..training import evaluate as measure

    results = {}
    for label, place in _artifacts(path).items():
        images = _open(data, on_bad_image, read_info(place), place)
        with _progress.display(json) as progress:
            metrics = measure(load(place), images, split=split, device=device, progress=progress)
        results[label] = metrics.to_json()
    if json:
        for label, values in results.items():
            _common.print_json({"event": "result", "model": label, "split": split, **values})
    else:
        _common.out().print(_common.metrics_table(results))


def _artifacts(path: Path) -> dict[str, Path]:
    """Return the models below ``path`` by what to call them."""
    if not (path / "protocol.json").exists():
        return {str(path): path}
    from ..comparison import read_run
    from ..comparison.protocol import trial_folder

    done = [trial for trial in read_run(path).trials if trial.status == "done"]
    if not done:
        raise ArtifactError(
            f"{path}: expected a run with a finished trial, got none. "
            "Finish it with the `normattn compare` that began it."
        )
    return {trial.name: trial_folder(path, trial.mechanism, trial.seed) for trial in done}


def _open(spec: str, on_bad_image: str, info: "ArtifactInfo", model: Path) -> "ImageData":
    """Open images as the model wants them: its size, its mean and deviation, its classes."""
    from ..data import open_data
    from ..training.identity import skipped_images

    wanted = info.preprocessing or {}
    _require_preprocessing(wanted, model)
    _, height, width = wanted.get("input_size", (1, 0, 1))
    side = height if height == width else None  # others are what the data have anyway
    data = open_data(spec, on_bad_image=cast("OnBadImage", on_bad_image), image_size=side)
    if data.skipped:
        _common.note(skipped_images(data))
    if info.classes is not None and info.classes != data.classes:
        raise ConfigError(
            f"evaluate: expected the {len(info.classes)} classes that {model} was trained on, got "
            f"the {len(data.classes)} of {spec}. Evaluate it on data with the same classes."
        )
    mean, std = wanted.get("mean", data.mean), wanted.get("std", data.std)
    channels, *_ = wanted.get("input_size", (data.channels,))
    if {channels, len(mean), len(std)} != {data.channels}:
        raise ConfigError(
            f"evaluate: expected images of {channels} channels, as {model} was trained on, got "
            f"{data.channels} of {spec}. Evaluate it on data of the same kind."
        )
    return dataclasses.replace(data, mean=tuple(mean), std=tuple(std))


def _require_preprocessing(wanted: Mapping[str, Any], model: Path) -> None:
    """Refuse what is no size, mean or deviation: a person may have saved or edited it by hand."""
    for key, kinds in {"input_size": (int,), "mean": (int, float), "std": (int, float)}.items():
        value = wanted.get(key, [1, 1, 1])
        fits = isinstance(value, list) and all(type(number) in kinds for number in value)
        if fits and (key != "input_size" or len(value) == 3):
            continue
        raise ArtifactError(
            f"{model}: expected preprocessing with input_size (three integers), mean and std, got "
            f"{key} {value!r}. Correct it in model.json, or save the model again."
        )
