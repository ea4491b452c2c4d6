"""`normattn inspect` says what it found, writes the page, and refuses in one sentence."""

import json

import pytest
import torch
import typer
from typer.testing import CliRunner

from normattn import graft, host, save
from normattn.cli._common import Commands
from normattn.cli.inspect import inspect
from normattn.data import open_data


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    data = open_data("digits")
    torch.manual_seed(0)
    model = graft(host("resnet20", 10, in_chans=1), "nam-channel")
    about = {"input_size": [1, 8, 8], "mean": list(data.mean), "std": list(data.std)}
    place = tmp_path_factory.mktemp("models") / "nam"
    return save(model, place, classes=data.classes, preprocessing=about)


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    app = typer.Typer(cls=Commands, rich_markup_mode="markdown")
    app.callback()(lambda: None)
    app.command()(inspect)
    return lambda *words: CliRunner().invoke(app, ["inspect", *map(str, words)])


def test_the_page_is_written_and_what_the_gates_do_is_printed(run, artifact, tmp_path):
    page = tmp_path / "p.html"
    done = run(artifact, "--data", "digits", "--out", page, "--images", 1, "--limit", 10)
    assert done.exit_code == 0, done.output
    assert "gates are nearly constant" in done.stdout
    assert f"Page: {page}" in done.stdout
    assert page.exists()


def test_a_program_reads_json_alone(run, artifact, tmp_path):
    words = ("--data", "digits", "--out", tmp_path / "p.html", "--images", 1, "--limit", 10)
    lines = run(artifact, *words, "--json").stdout.splitlines()
    result = json.loads(lines[-1])
    assert result["models"][0]["model"] == "nam"
    assert all(json.loads(line)["event"] for line in lines)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--out", "page.txt"), "ends in .html"),
        (("--out", "p.html", "--images", "0"), "expected images from 1 to 64"),
        (("--out", "p.html", "--limit", "9999"), "a limit of at most"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(run, artifact, words, said):
    done = run(artifact, "--data", "digits", *words)
    assert done.exit_code == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
