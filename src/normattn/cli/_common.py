"""What every command shares: how it fails, and where its words go."""

import contextlib
import json
import math
import os
import shlex
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from ..errors import Fault, InputError

if TYPE_CHECKING:
    from ..data import ImageData
    from ..data.opening import OnBadImage

WIDE = 140  # columns in a file or a pipe, where a table need not fold
SMALL = 64  # pixels; up to this side the CIFAR stem is the usual one


class Commands(TyperGroup):
    """The commands of `normattn`, with one place that turns what went wrong into an exit code.

    2 the user's input and 1 a fault that we foresaw, in one sentence; 130 Ctrl-C and 143 SIGTERM,
    with the command that resumes; anything else leaves with its traceback and 1.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.obj = shlex.join(["normattn", *args])
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            with _sigterm_as_exception():
                return super().invoke(ctx)
        except InputError as error:
            complain(str(error))
            raise typer.Exit(2) from error
        except Fault as error:
            complain(str(error))
            raise typer.Exit(1) from error
        except KeyboardInterrupt as error:
            complain("Interrupted.")
            raise typer.Exit(128 + signal.SIGINT) from error
        except Terminated as error:
            complain("Terminated.")
            raise typer.Exit(128 + signal.SIGTERM) from error


@contextlib.contextmanager
def resumable(ctx: typer.Context) -> Iterator[None]:
    """Around work that the same command takes up again: when a signal ends it, say so."""
    from ..training import Interrupted

    try:
        yield
        return
    except Interrupted as error:
        number = error.signal
    except KeyboardInterrupt:
        number = signal.SIGINT
    except Terminated:
        number = signal.SIGTERM
    name = signal.Signals(number).name
    complain(f"Stopped by {name}; nothing saved is lost. Resume with:\n  {ctx.obj}")
    raise typer.Exit(128 + number)


def out() -> Console:
    """Return the console for results; under torchrun the first process alone has one."""
    console = Console(quiet=not _first())
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = WIDE
    return console


def print_json(record: Mapping[str, Any]) -> None:
    """Print one JSON object on a line of its own."""
    if _first():
        typer.echo(json.dumps(record, ensure_ascii=False, allow_nan=False))


def complain(message: str) -> None:
    """Say on stderr, in red, what went wrong."""
    Console(stderr=True).print(Text(message, style="red"), soft_wrap=True)


def note(message: str) -> None:
    """Say on stderr, in yellow, what the user should know."""
    console = Console(stderr=True, quiet=not _first())
    console.print(Text(f"Note: {message}", style="yellow"), soft_wrap=True)


def images_for(who: str, model: Path, spec: str, on_bad_image: str) -> "ImageData":
    """Open data as a saved model takes them, and say which images were left out."""
    from ..training.identity import skipped_images
    from ..training.saved import open_for

    data = open_for(who, model, spec, on_bad_image=cast("OnBadImage", on_bad_image))
    if data.skipped:
        note(skipped_images(data))
    return data


def suggest_stem(host: str, stem: str, data: str, image_size: int | None) -> None:
    """Say where the CIFAR stem would suit: ImageNet's throws away most of a small image."""
    if stem != "imagenet" or not host.startswith(("resnet", "resnext", "mobilenetv2")):
        return
    from timm.models import is_model

    from ..data import open_data

    if not is_model(host):  # ours, which have no other stem; or unknown, which is said elsewhere
        return

    size = (image_size,) if image_size else open_data(data, train_limit=1).size
    if max(size) <= SMALL:
        note(
            f"{host} has ImageNet's stem, which shrinks images of {max(size)} px to "
            f"{math.ceil(max(size) / 4)} px at once. For small images use --stem cifar."
        )


def metrics_table(results: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return errors and losses, a line a model."""
    view = Table()
    view.add_column("Model")
    for heading in ("Top-1 error (%)", "Top-5 error (%)", "Loss"):
        view.add_column(heading, justify="right")
    for label, metrics in results.items():
        values = [metrics.get(key) for key in ("top1_error", "top5_error", "loss")]
        forms = ("{:.2f}", "{:.2f}", "{:.4f}")
        cells = ["–" if v is None else f.format(v) for v, f in zip(values, forms, strict=True)]
        view.add_row(Text(label), *cells)
    return view


def _first() -> bool:
    return os.environ.get("RANK", "0") == "0"


class Terminated(BaseException):
    """SIGTERM arrived; as little to be caught by `except Exception` as KeyboardInterrupt is."""


@contextlib.contextmanager
def _sigterm_as_exception() -> Iterator[None]:
    """Unwind on SIGTERM as on Ctrl-C, so that locks, children and the terminal are left in order.

    While a training runs, its own handler stands in front of this one and saves the state first.
    """

    def terminate(number: int, frame: object) -> NoReturn:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
