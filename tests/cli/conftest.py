"""What the tests of the command line share: a way to run it inside this process."""

import pytest
from typer.testing import CliRunner

from normattn.cli import app


@pytest.fixture
def cli(monkeypatch):
    """Run `normattn` with these arguments; the result has exit_code, stdout and stderr."""
    for name in ("GITHUB_ACTIONS", "FORCE_COLOR", "PY_COLORS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments):
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return run


@pytest.fixture
def refused(cli):
    """Run `normattn`, expect the exit code of bad input, and return its one sentence."""

    def run(*arguments):
        result = cli(*arguments)
        assert result.exit_code == 2, result.output
        assert result.stdout == ""
        assert "Traceback" not in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1, result.stderr
        return result.stderr.strip()

    return run
