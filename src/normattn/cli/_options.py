"""The options that several commands share, each said once."""

from pathlib import Path
from typing import Annotated

import typer

from ._settings import use_file

Data = Annotated[
    str,
    typer.Option(
        help="Images: digits, parquet:DIR, folder:DIR (train/ and val/, with a folder a class), "
        "or timm:NAME (anything that timm's create_dataset takes).",
        metavar="SPEC",
    ),
]
Host = Annotated[
    str,
    typer.Option(
        help="The model to graft into: any timm model, or resnet20, 32, 44, 56, 110 for CIFAR.",
        metavar="NAME",
    ),
]
Stem = Annotated[
    str, typer.Option(help="'imagenet', or 'cifar' for images up to 64 px.", metavar="NAME")
]
Attention = Annotated[
    str,
    typer.Option(
        help="Mechanisms, comma-separated, options in brackets: 'none,half,ean(groups=8)'.",
        metavar="A,B,...",
    ),
]
RecipeName = Annotated[str, typer.Option(help="A named recipe; see `normattn list`.")]
Epochs = Annotated[
    int | None,
    typer.Option(help="Shorthand for --set epochs=N.", min=1, metavar="N", show_default=False),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Override a field of the recipe, e.g. --set lr=0.05; repeatable.",
        metavar="KEY=VALUE",
        show_default=False,
    ),
]
TrainLimit = Annotated[
    int | None,
    typer.Option(
        help="Train on this many images: a seeded, class-balanced part.",
        min=1,
        metavar="N",
        show_default=False,
    ),
]
OnBadImage = Annotated[
    str, typer.Option(help="At a damaged image: 'stop', or 'skip' and count it.", metavar="RULE")
]
ImageSize = Annotated[
    int | None,
    typer.Option(help="Resize images to this many pixels.", min=1, metavar="N", show_default=False),
]
Sites = Annotated[
    str | None,
    typer.Option(
        help="Where to graft: 'blocks', 'stages', or module name patterns, comma-separated. "
        "Without it, where the mechanism's paper puts it.",
        metavar="SITES",
        show_default=False,
    ),
]
Start = Annotated[
    str,
    typer.Option(
        help="'paper', or 'preserve' so that a pretrained host's output hardly moves.",
        metavar="RULE",
    ),
]
Pretrained = Annotated[bool, typer.Option(help="Start from timm's pretrained weights.")]
Fuse = Annotated[
    bool,
    typer.Option(
        help="Let kernels compute what they can, where there are any; see `normattn doctor`."
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object a line to stdout, nothing else.")
]
Config = Annotated[
    Path | None,
    typer.Option(
        help="A YAML file with any of these options; the command line wins over it.",
        metavar="FILE",
        callback=use_file,
        is_eager=True,
        show_default=False,
    ),
]
