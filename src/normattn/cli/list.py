"""`normattn list`: the names that the other commands take."""

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from ..errors import ConfigError, unknown
from . import _common, _options

DATA = {
    "digits": "Handwritten digits of scikit-learn: 1,797 gray images of 8×8 pixels; no download.",
    "parquet:DIR": "Parquet shards in the layout of Hugging Face data sets.",
    "folder:DIR": "train/ and val/ or test/, with a folder a class.",
    "timm:NAME": "Whatever timm's create_dataset takes: torch/cifar100, hfds/..., wds/...",
}


def list_names(
    what: Annotated[
        str | None,
        typer.Argument(
            help="mechanisms, hosts, recipes or data; all of them without it.", show_default=False
        ),
    ] = None,
    json: _options.Json = False,
) -> None:
    """List the mechanisms, hosts, recipes and kinds of data.

    Example: normattn list mechanisms
    """
    kinds = {"mechanisms": _mechanisms, "hosts": _hosts, "recipes": _recipes, "data": DATA.copy}
    if what is not None and what not in kinds:
        raise ConfigError(unknown("list", "kind of names", what, kinds))
    for kind in [what] if what else kinds:
        entries = kinds[kind]()
        if kind == "hosts" and what is None:
            entries = _shortened(entries)
        if json:
            for name, text in entries.items():
                _common.print_json({"event": kind, "name": name, "description": text})
        else:
            table = Table(title=kind, title_justify="left", show_header=False, box=None)
            for name, text in entries.items():
                table.add_row(Text(name, style="bold"), Text(text))
            _common.out().print(table)


def _mechanisms() -> dict[str, str]:
    from ..attention import MECHANISMS

    return {name: (gate.__doc__ or "").partition("\n")[0] for name, gate in MECHANISMS.items()}


def _hosts() -> dict[str, str]:
    from ..model.cifar_resnet import CIFAR_RESNETS
    from ..model.hosts import host_names

    return {
        name: "for CIFAR (He et al.)" if name in CIFAR_RESNETS else "timm" for name in host_names()
    }


def _shortened(hosts: dict[str, str]) -> dict[str, str]:
    own = {name: text for name, text in hosts.items() if text != "timm"}
    count = len(hosts) - len(own)
    return {**own, "...": f"and {count:,} models of timm: see `normattn list hosts`"}


def _recipes() -> dict[str, str]:
    from ..training import RECIPES

    return {
        name: f"{r.epochs} epochs, batch {r.batch_size}, {r.optimizer} lr {r.lr:g}, {r.schedule}, "
        f"weight decay {r.weight_decay:g}, sparsity {r.sparsity:g}, {r.precision}"
        for name, r in RECIPES.items()
    }
