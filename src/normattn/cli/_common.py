"""What every command shares: how it fails, and where its words go."""

import contextlib
import json
import shlex
import signal
from collections.abc import Iterator
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from ..errors import InputError


class Commands(TyperGroup):
    """The commands of `normattn`, with one place that turns what went wrong into an exit code.

    2 the user's input, in one sentence; 130 Ctrl-C and 143 SIGTERM, with the command that resumes;
    anything else is a fault: it leaves with its traceback and 1.
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
    """Return the console for results; made anew, for stdout may be redirected at any time."""
    return Console()


def complain(message: str) -> None:
    """Say on stderr, in red, what the user can mend."""
    Console(stderr=True).print(Text(message, style="red"), soft_wrap=True)


def note(message: str) -> None:
    """Say on stderr, in yellow, what the user should know."""
    Console(stderr=True).print(Text(f"Note: {message}", style="yellow"), soft_wrap=True)


def print_json(record: dict[str, Any]) -> None:
    """Print one JSON object on a line of its own."""
    typer.echo(json.dumps(record, ensure_ascii=False, allow_nan=False))


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
