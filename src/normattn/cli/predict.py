"""`normattn predict`: what a saved model sees in images."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from . import _common, _options

if TYPE_CHECKING:
    from ..model._predict import Prediction


def predict(
    path: Annotated[
        Path,
        typer.Argument(help="A saved model: a folder, or a .safetensors file.", metavar="ARTIFACT"),
    ],
    images: Annotated[list[Path], typer.Argument(help="Image files.", metavar="IMAGE...")],
    top: Annotated[int, typer.Option(help="Classes to show for each.", min=1, metavar="N")] = 3,
    on_bad_image: _options.OnBadImage = "stop",
    device: _options.Device = "auto",
    json: _options.Json = False,
    config: _options.Config = None,
) -> None:
    """Name the classes of images, with their probabilities.

    Images are turned upright, resized, cropped and normalised as those that the model was evaluated
    on. Weights are checked and no pickle is opened; a model of a class of your own needs
    `normattn.load(path, builder=...)` in Python.

    Example: normattn predict runs/nam cat.jpg dog.jpg
    """
    from ..model.artifact import load
    from ..training.distributed import choose_device

    model = load(path)
    model.to(choose_device(device))
    found = model.predict(images, on_bad_image=on_bad_image)
    results = [(str(image), answer) for image, answer in zip(images, found, strict=True)]
    skipped = [image for image, answer in results if answer is None]
    if skipped:
        _common.note(f"{len(skipped)} of {len(images)} images skipped: {', '.join(skipped)}")
    if json:
        for image, answer in results:
            best = answer.to_json(top) if answer else None
            _common.print_json({"event": "result", "image": image, "predictions": best})
    else:
        _common.out().print(_table(results, top))


def _table(results: "list[tuple[str, Prediction | None]]", top: int) -> Table:
    view = Table()
    view.add_column("Image")
    view.add_column("Class")
    view.add_column("Probability (%)", justify="right")
    for image, answer in results:
        if answer is None:
            view.add_row(Text(image), "skipped", "–")
            continue
        for place, (label, probability) in enumerate(answer.top(top)):
            shown = Text("" if place else image)
            view.add_row(shown, Text(label), f"{100 * probability:.1f}")
    return view
