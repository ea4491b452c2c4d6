"""`normattn evaluate`: what saved models make of images."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import ArtifactError
from . import _common, _options, _progress


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

    Images are resized, cropped and normalised as the model's own were; the classes must be the
    model's.

    Example: normattn evaluate runs/nam --data digits
    """
    from ..model.artifact import load
    from ..training import evaluate as measure

    results = {}
    for label, place in _artifacts(path).items():
        images = _common.images_for("evaluate", place, data, on_bad_image)
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
