"""`normattn salience` from outside: what it prints, what it keeps, and how it refuses."""

import json

import pytest
import torch
import typer
from typer.testing import CliRunner

import normattn
from normattn.cli._common import Commands
from normattn.cli.salience import salience

QUICK = ("--limit", "20", "--draws", "2", "--calibration", "20", "--device", "cpu")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    """An untrained model of the digits' classes and size."""
    from normattn.data import open_data

    data = open_data("digits")
    torch.manual_seed(0)
    model = normattn.graft(normattn.host("resnet20", 10, in_chans=1), "nam", input_size=8)
    preprocessing = {"input_size": [1, 8, 8], "mean": list(data.mean), "std": list(data.std)}
    folder = tmp_path_factory.mktemp("model")
    return normattn.save(model, folder, classes=data.classes, preprocessing=preprocessing)


@pytest.fixture
def run(monkeypatch):
    """Run the command by itself, with what all commands share."""
    app = typer.Typer(cls=Commands, pretty_exceptions_enable=False)
    app.callback()(lambda: None)
    app.command()(salience)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *arguments: CliRunner().invoke(app, ["salience", *map(str, arguments)])


def refusal(result):
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.strip().splitlines()
    return line


def test_it_prints_a_row_and_a_sentence_a_criterion_and_where_the_page_is(run, artifact, tmp_path):
    arguments = (artifact, "--data", "digits", "--out", tmp_path / "x", *QUICK)
    result = run(*arguments, "--criteria", "bn-scale, random")
    assert result.exit_code == 0, result.output
    assert "12 of 12" in result.stdout
    assert "bn-scale: " in result.stdout
    assert "random: it is the control" in result.stdout
    assert f"Report: {tmp_path / 'x' / 'report.html'}" in result.stdout
    assert {path.name for path in (tmp_path / "x").iterdir()} == {
        ".lock", "report.html", "salience.json", "salience.md", "salience.svg", "scores"
    }  # fmt: skip


def test_as_json_the_last_line_holds_every_criterion(run, artifact, tmp_path):
    arguments = (artifact, "--data", "digits", "--out", tmp_path, *QUICK, "--json")
    result = run(*arguments, "--criteria", "nam")
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert lines[-1]["event"] == "result"
    (found,) = lines[-1]["criteria"]
    assert (found["criterion"], found["groups"]) == ("nam", 3)
    assert "nam is not tested on 9 of 12 groups" in result.stderr


def test_the_fractions_that_were_asked_for_are_removed(run, artifact, tmp_path):
    arguments = (artifact, "--data", "digits", "--out", tmp_path / "x", *QUICK)
    result = run(*arguments, "--criteria", "bn-scale", "--fractions", "0.125,0.5")
    assert result.exit_code == 0, result.output
    points = json.loads((tmp_path / "x" / "salience.json").read_text())["points"]
    assert {point["fraction"] for point in points} == {0.0, 0.125, 0.5}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--criteria", "tailor"), "Did you mean 'taylor'"),
        (("--criteria", ""), "expected a known criterion, got ''"),
        (("--limit", "0"), "expected limit of 1 or more, got 0"),
        (("--limit", "99999"), "validation images of digits, got 99999"),
        (("--scope", "mine"), "expected a known scope, got 'mine'"),
        (("--fractions", "a,0.5"), "expected fractions as numbers, comma-separated, got 'a,0.5'"),
        (("--fractions", "0.5,0.1"), "in ascending order, got 0.5, 0.1"),
    ],
)
def test_bad_options_are_refused_in_a_sentence(run, artifact, tmp_path, options, message):
    result = run(artifact, "--data", "digits", "--out", tmp_path, *options)
    assert message in refusal(result)


def test_a_missing_or_damaged_artifact_is_refused(run, artifact, tmp_path):
    arguments = ("--data", "digits", "--out", tmp_path / "out")
    assert "nothing there" in refusal(run(tmp_path / "no", *arguments))
    page = artifact / "model.json"
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "model.json").write_text(page.read_text())
    (damaged / "model.safetensors").write_bytes(b"x" * 100)
    assert "damaged" in refusal(run(damaged, *arguments))


def test_data_of_other_classes_are_refused(run, artifact, tmp_path):
    from PIL import Image

    for split in ("train", "val"):
        for name in ("cat", "dog"):
            place = tmp_path / "data" / split / name
            place.mkdir(parents=True)
            Image.new("L", (8, 8), 100).save(place / "a.png")
    result = run(artifact, "--data", f"folder:{tmp_path / 'data'}", "--out", tmp_path / "out")
    assert "salience: expected the 10 classes" in refusal(result)


def test_the_folder_of_another_run_is_refused(run, artifact, tmp_path):
    (tmp_path / "protocol.json").write_text("{}")
    result = run(artifact, "--data", "digits", "--out", tmp_path, *QUICK)
    assert "expected an empty folder" in refusal(result)
