"""Ctrl-C and SIGTERM: the state is saved, the exit code tells, the resume command is printed."""

import contextlib
import json
import signal
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from normattn.cli import _common

PROGRAM = "from normattn.cli import main; main()"


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def stop_at_first_step(process, number):
    for line in process.stdout:
        if json.loads(line)["event"] == "step":
            process.send_signal(number)
            break
    _, stderr = process.communicate(timeout=120)
    return stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("command", ["train", "compare"])
def test_a_signal_ends_with_its_code_and_the_resume_command(tmp_path, command, number, code):
    arguments = [command, "--data", "digits", "--host", "resnet20", "--attention", "none"]
    arguments += ["--epochs", "50", "--train-limit", "256", "--json", "--out", tmp_path / "a run"]
    process = start(*arguments)
    stderr = stop_at_first_step(process, number)
    assert process.returncode == code, stderr
    assert "Traceback" not in stderr
    assert f"normattn {command} --data digits" in stderr
    assert f"--out '{tmp_path / 'a run'}'" in stderr
    assert list(tmp_path.rglob("state.pt"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("resumable", [True, False])
def test_a_signal_outside_of_the_loop_has_its_code_too(number, code, resumable):
    program = typer.Typer(cls=_common.Commands, pretty_exceptions_enable=False)

    @program.callback()
    def group():
        pass

    @program.command()
    def work(ctx: typer.Context):
        with _common.resumable(ctx) if resumable else contextlib.nullcontext():
            signal.raise_signal(number)

    before = signal.getsignal(signal.SIGTERM)
    result = CliRunner().invoke(program, ["work"])
    assert result.exit_code == code
    assert ("normattn work" in result.stderr) is resumable
    assert signal.getsignal(signal.SIGTERM) is before
