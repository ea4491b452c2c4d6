"""`normattn export`: a saved model as a file that runs anywhere."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from . import _common, _options


def export(
    artifact: Annotated[
        Path, typer.Argument(help="A saved model, or a training's folder.", metavar="ARTIFACT")
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="The new file: .onnx, .xml for OpenVINO, .pt2. It must not exist.", metavar="FILE"
        ),
    ],
    to: Annotated[str, typer.Option(help="onnx, openvino or pt2.", metavar="FORMAT")] = "onnx",
    data: Annotated[
        str | None,
        typer.Option(
            help="Images to compare on, as for `normattn train`; the training split calibrates "
            "int8. Without it the outputs are compared on noise.",
            metavar="SPEC",
            show_default=False,
        ),
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="Quantise; gates that would turn flat stay in float.")
    ] = False,
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="Replace gates whose range on the images is narrower by their mean, which costs "
            "nothing; for instance 0.001.",
            metavar="WIDTH",
            show_default=False,
        ),
    ] = None,
    on_bad_image: _options.OnBadImage = "stop",
    json: _options.Json = False,
    config: _options.Config = None,
) -> None:
    """Fold a saved model, write it for a runtime, and check the file against PyTorch.

    Shows the accuracy on the validation split, the latency of one image on one thread, and the size
    of each form. A file whose outputs are others is kept as FILE.failed, with exit code 1.

    Example: normattn export runs/nam --to onnx --int8 --data digits --out nam.onnx
    """
    from ..model.artifact import load
    from ..model.export import check_export
    from ..model.export import export as write
    from ..training.exporting import export_with

    check_export(out, to, int8=int8, tolerance=tolerance, data=data)
    model = load(artifact)
    if data is None:
        report = write(model, out, to)
    else:
        images = _common.images_for("export", artifact, data, on_bad_image)
        report = export_with(model, out, images, to, int8=int8, tolerance=tolerance)
    if json:
        _common.print_json({"event": "result", **report.to_json()})
    else:
        _common.out().print(Text(str(report)), soft_wrap=True)
