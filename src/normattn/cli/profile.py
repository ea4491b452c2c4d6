"""`normattn profile`: what each mechanism costs in a host, before anything is trained."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.table import Table

from ..errors import InputError
from . import _common, _options, _settings

if TYPE_CHECKING:
    from torch import nn

    from ..model.hosts import Stem
    from ..model.profile import Latency, Profile


def profile(
    host: _options.Host,
    stem: _options.Stem = "imagenet",
    classes: Annotated[int, typer.Option(help="The size of the host's output.", min=1)] = 1000,
    attention: Annotated[
        str, typer.Option(help="Mechanisms, comma-separated, or 'all'.", metavar="A,B,...")
    ] = "all",
    sites: _options.Sites = None,
    input_size: Annotated[
        int | None,
        typer.Option(
            help="The side of the images; without it 32 px for CIFAR stems, else 224.",
            min=1,
            metavar="N",
            show_default=False,
        ),
    ] = None,
    batch: Annotated[int, typer.Option(help="Images in a pass.", min=1, metavar="N")] = 1,
    latency: Annotated[
        bool, typer.Option(help="Also time all of them against each other, in alternation.")
    ] = False,
    device: _options.Device = "cpu",
    json: _options.Json = False,
    config: _options.Config = None,
) -> None:
    """Count parameters, multiply-adds and memory of a host with each mechanism.

    Multiply-adds are those of convolutions and linear layers; the papers add two for each element
    that passes a BatchNorm. Elementwise work is shown apart.

    Example: normattn profile --host resnet50 --stem cifar --classes 100 --attention all
    """
    from ..model.cifar_resnet import CIFAR_RESNETS
    from ..model.profile import latency as time_models
    from ..model.profile import profile as count

    size = input_size or (32 if stem == "cifar" or host in CIFAR_RESNETS else 224)
    models = dict(_models(host, stem, classes, attention, _settings.parse_sites(sites), size))
    counts = {label: count(model, size, batch=batch) for label, model in models.items()}
    times = time_models(models, size, batch=batch, device=device) if latency else {}
    if json:
        for label, costs in counts.items():
            record = {"event": "profile", "mechanism": label, **dataclasses.asdict(costs)}
            if latency:
                record["latency"] = dataclasses.asdict(times[label])
            _common.print_json(record)
    else:
        _common.out().print(_table(counts, times))


def _models(
    host: str,
    stem: str,
    classes: int,
    attention: str,
    sites: str | tuple[str, ...] | None,
    size: int,
) -> "Iterator[tuple[str, nn.Module]]":
    """Yield the host with each mechanism; of 'all', what does not fit is left out with a note."""
    from ..attention import available, parse_list
    from ..model.graft import graft
    from ..model.hosts import host as build

    everything = attention == "all"
    for mechanism in parse_list(",".join(available()) if everything else attention):
        model = build(host, classes, stem=cast("Stem", stem))
        try:
            yield mechanism.label, graft(model, mechanism, sites=sites, input_size=size)
        except InputError as error:
            if not everything:
                raise
            _common.note(f"{mechanism.label} is left out: {error}")


def _table(counts: "Mapping[str, Profile]", times: "Mapping[str, Latency]") -> Table:
    some = next(iter(counts.values()))
    channels, height, width = some.input_size
    view = Table(
        title=f"Batch {some.batch} of {channels}×{height}×{width}",
        caption="The papers' count adds two multiply-adds for each element that passes a BatchNorm;"
        " elementwise work is in neither.",
        caption_justify="left",
    )
    view.add_column("Mechanism")
    headings = ["Parameters", "Multiply-adds", "As papers count", "Elementwise", "Training memory"]
    for heading in headings + (["Latency (ms)", "20-80 %", "Ratio"] if times else []):
        view.add_column(heading, justify="right")
    for label, costs in counts.items():
        cells = [
            f"{costs.parameters:,}",
            f"{costs.macs / 1e6:,.2f} M",
            f"{costs.paper_macs / 1e6:,.2f} M",
            f"{costs.elementwise / 1e6:,.2f} M",
            f"{costs.training_bytes / 2**20:,.1f} MiB",
        ]
        if time := times.get(label):
            spread = f"{time.p20 * 1e3:.2f}-{time.p80 * 1e3:.2f}"
            cells += [f"{time.median * 1e3:.2f}", spread, f"{time.ratio:.3f}"]
        view.add_row(label, *cells)
    return view
