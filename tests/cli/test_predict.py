"""`normattn predict` and `normattn push`, from outside."""

import json

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

import normattn
from normattn.cli._common import Commands
from normattn.cli.predict import predict
from normattn.cli.push import push

NAMES = ["cat", "[red]dog[/red]", "eel", "fox"]
SAID = {"input_size": [3, 32, 32], "mean": [0.5] * 3, "std": [0.25] * 3}


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    app = typer.Typer(cls=Commands)
    app.command()(predict)
    app.command()(push)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    torch.manual_seed(0)
    model = normattn.host("resnet20", 4)
    path = tmp_path_factory.mktemp("artifact") / "x.safetensors"
    return normattn.save(model, path, classes=NAMES, preprocessing=SAID, metrics={"loss": 1.0})


@pytest.fixture
def images(tmp_path):
    paths = [tmp_path / f"[b]{k}.png" for k in range(2)]
    for k, path in enumerate(paths):
        pixels = np.random.default_rng(k).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return paths


def test_predict_prints_a_line_of_json_for_each_image(run, artifact, images):
    result = run("predict", artifact, *images, "--json", "--top", 2)
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    expected = normattn.load(artifact).predict(images)
    for line, path, answer in zip(lines, images, expected, strict=True):
        assert line["image"] == str(path)
        assert [found["class"] for found in line["predictions"]] == [n for n, _ in answer.top(2)]
        assert line["predictions"][0]["probability"] == pytest.approx(answer.probability)


def test_predict_shows_a_table_with_names_as_they_are(run, artifact, images):
    result = run("predict", artifact, *images, "--top", 4)
    assert result.exit_code == 0, result.output
    for text in ("[red]dog[/red]", "cat", "[b]0.png", "[b]1.png", "Probability (%)"):
        assert text in result.stdout


def test_predict_stops_at_a_damaged_image_or_says_what_it_skipped(run, artifact, images):
    images[0].write_bytes(images[0].read_bytes()[:200])
    result = run("predict", artifact, *images)
    assert result.exit_code == 2
    assert "0.png: expected" in result.stderr
    assert result.stdout == ""
    result = run("predict", artifact, *images, "--on-bad-image", "skip", "--json")
    assert result.exit_code == 0
    assert "1 of 2 images skipped" in result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["predictions"] is None for line in lines] == [True, False]
    assert "skipped" in run("predict", artifact, *images, "--on-bad-image", "skip").stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("predict", "nowhere", "x.png"), "nothing there"),
        (("predict", "ARTIFACT", "nowhere.png"), "nothing there"),
        (("predict", "ARTIFACT", "x.png", "--device", "abacus"), "device"),
        (("push", "nowhere", "me/x"), "nothing there"),
        (("push", "ARTIFACT", "x"), "user/name"),
    ],
    ids=str,
)
def test_bad_input_is_one_sentence_and_exit_code_2(run, artifact, arguments, words):
    result = run(*(artifact if a == "ARTIFACT" else a for a in arguments))
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_push_writes_what_it_would_push(run, artifact, images, tmp_path):
    arguments = ("push", artifact, "me/cats", "--folder", tmp_path / "hub", "--license", "mit")
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == str(tmp_path / "hub")
    assert "license: mit" in (tmp_path / "hub" / "README.md").read_text()
    record = json.loads(run(*arguments, "--json").stdout)
    expected = {"event": "result", "repository": "me/cats", "place": str(tmp_path / "hub")}
    assert record == expected
    pushed, local = (
        run("predict", place, *images, "--json").stdout for place in (tmp_path / "hub", artifact)
    )
    assert pushed == local != ""
