"""`normattn export`, from outside."""

import json

import onnx
import pytest
import torch
import typer
from typer.testing import CliRunner

import normattn
from normattn.cli._common import Commands
from normattn.cli.export import export
from normattn.data import open_data
from normattn.model import _export_check
from normattn.training import evaluate
from normattn.training.exporting import Normalised


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    app = typer.Typer(cls=Commands)
    app.command()(export)
    app.command("other")(lambda: None)  # one command alone would lose its name
    return lambda *arguments: CliRunner().invoke(app, ["export", *map(str, arguments)])


@pytest.fixture
def refused(run):
    def refuse(*arguments):
        result = run(*arguments)
        assert result.exit_code == 2, result.output
        assert len(result.stderr.strip().splitlines()) == 1, result.stderr
        return result.stderr

    return refuse


@pytest.fixture(scope="module")
def images():
    return open_data("digits")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory, images):
    """A model of digits whose norms have seen digits."""
    torch.manual_seed(0)
    model = normattn.graft(normattn.host("resnet20", 10, in_chans=1), "nam", input_size=8).train()
    with torch.no_grad():
        for inputs, _ in Normalised(images, "train", 256):
            model(inputs)
    return normattn.save(
        model,
        tmp_path_factory.mktemp("artifact") / "x",
        classes=images.classes,
        preprocessing={
            "input_size": [1, 8, 8],
            "mean": list(images.mean),
            "std": list(images.std),
            "crop_pct": 1.0,
        },
    )


def test_a_file_comes_with_a_table(run, artifact, tmp_path):
    result = run(artifact, "--out", tmp_path / "x.onnx")
    assert result.exit_code == 0, result.output
    for words in ("norms folded", "ONNX Runtime", "accuracy", f"Written: {tmp_path / 'x.onnx'}"):
        assert words in result.stdout
    found = {entry.key: entry.value for entry in onnx.load(tmp_path / "x.onnx").metadata_props}
    assert json.loads(found["input_size"]) == [1, 8, 8]  # known without data


def test_int8_is_compared_on_the_validation_split(run, artifact, images, tmp_path):
    out = tmp_path / "x.onnx"
    result = run(artifact, "--data", "digits", "--int8", "--out", out, "--json")
    assert result.exit_code == 0, result.output
    (line,) = result.stdout.splitlines()
    report = json.loads(line)
    assert report["path"] == str(out)
    expected = evaluate(normattn.load(artifact), images, device="cpu").top1_error
    assert 100 * (1 - report["rows"]["PyTorch"]["accuracy"]) == pytest.approx(expected)
    parity = report["rows"]["ONNX Runtime, int8"]["parity"]
    assert parity["images"] == len(images.val)
    assert report["notes"] == ["Calibrated on 512 images."]
    found = {entry.key: entry.value for entry in onnx.load(out).metadata_props}
    assert json.loads(found["classes"]) == list(images.classes)
    assert json.loads(found["mean"]) == list(images.mean)
    assert json.loads(found["crop_pct"]) == 1  # as the artifact says


def test_the_images_of_calibration_are_the_same_each_time_and_of_all_classes(images):
    once, again = (list(Normalised(images, "train", 100)) for _ in range(2))
    assert sum(len(labels) for _, labels in once) == 100
    assert all(torch.equal(a[0], b[0]) for a, b in zip(once, again, strict=True))
    assert len(torch.cat([labels for _, labels in once]).unique()) == 10
    assert sum(len(labels) for _, labels in Normalised(images, "val")) == len(images.val)


def test_a_file_that_says_something_else_leaves_with_1(run, artifact, tmp_path, monkeypatch):
    monkeypatch.setattr(_export_check, "FLOAT_LIMIT", 0.0)
    result = run(artifact, "--out", tmp_path / "x.onnx")
    assert result.exit_code == 1, result.output
    assert "kept as" in result.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["x.onnx.failed"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--to", "tflite"], "Known: onnx, openvino, pt2"),
        (["--int8"], "give data (--data)"),
        (["--tolerance", "0.1"], "give data (--data)"),
        (["--to", "openvino"], "ends in .xml"),
    ],
)
def test_bad_options_are_refused_before_anything_is_read(refused, tmp_path, options, words):
    assert words in refused(tmp_path / "no model", *options, "--out", tmp_path / "x.onnx")


def test_what_is_no_model_and_what_exists_is_refused(refused, artifact, tmp_path):
    assert "got nothing there" in refused(tmp_path / "none", "--out", tmp_path / "x.onnx")
    (tmp_path / "y.onnx").write_text("")
    assert "which exists" in refused(artifact, "--out", tmp_path / "y.onnx")


def test_data_of_other_classes_are_refused(refused, tmp_path):
    model = normattn.host("resnet20", 2, in_chans=1)
    saved = normattn.save(model, tmp_path / "x", classes=["a", "b"])
    out = tmp_path / "x.onnx"
    assert "export: expected the 2 classes" in refused(
        saved, "--data", "digits", "--int8", "--out", out
    )
    assert not out.exists()
