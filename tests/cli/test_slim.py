"""`normattn slim` from outside: what it prints, how it refuses, how it is stopped and goes on."""

import json
import signal
import subprocess
import sys

import pytest

from normattn.training import Job, recipe, run_job

TINY = ("--data", "digits", "--train-limit", "64", "--epochs", "1", "--set", "batch_size=16")
PROGRAM = "from normattn.cli import main; main()"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a tiny training."""
    folder = tmp_path_factory.mktemp("trained") / "a model"
    quick = recipe("quick", epochs=1, batch_size=16)
    run_job(Job("digits", "resnet20", "none", quick, seed=0, train_limit=64), folder, device="cpu")
    return folder


@pytest.fixture
def slim(cli, trained, tmp_path, monkeypatch):
    """Run `normattn slim` on the tiny model in few seconds, with further options."""
    from normattn.comparison import slimmed

    monkeypatch.setattr(slimmed, "_ROUNDS", (1, 1))

    def run(*options):
        steps = ("--steps", "1", "--device", "cpu", "--out", tmp_path / "out")
        return cli("slim", trained, *TINY, *steps, *options)

    return run


def test_it_ends_in_the_table_the_verdict_and_the_place(slim, tmp_path):
    result = slim("--params", "0.5")
    assert result.exit_code == 0, result.output
    assert "round 1 of 1: towards params 0.5: parameters " in result.stdout
    assert "points against the original" in result.stdout
    for words in ("Top-1 accuracy", "Latency, batch 32", "File (bytes)", "Reached the target"):
        assert words in result.stdout
    assert f"Model: {tmp_path / 'out'}" in result.stdout
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"slim.json", "slim.md", "slim.png", "slim.svg", "model.safetensors"} <= made

    again = slim("--params", "0.5")
    assert "nothing was trained" in again.stdout
    assert "Reached the target" in again.stdout

    last = json.loads(slim("--params", "0.5", "--json").stdout.splitlines()[-1])
    assert (last["event"], last["outcome"], last["folder"]) == (
        "result",
        "target",
        str(tmp_path / "out"),
    )

    other = slim("--params", "0.6")
    assert other.exit_code == 2
    assert "target.params: 0.5 → 0.6" in other.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "expected one target, got none"),
        (("--speedup", "2", "--latency-ms", "3"), "got speedup 2 and latency_ms 3"),
        (("--flops", "1.5"), "between 0 and 1, got 1.5"),
        (("--params", "0.001"), "The least that can be left"),
        (("--params", "0.5", "--criterion", "bn-scales"), "Did you mean 'bn-scale'"),
        (("--params", "0.5", "--across", "groups"), "Did you mean 'group'"),
        (("--params", "0.5", "--set", "epoch=3"), "Did you mean 'epochs'"),
        (("--params", "0.5", "--runtime", "onnx-runtime"), "Did you mean 'onnxruntime'"),
        (("--params", "0.5", "--max-drop", "-1"), "max_drop"),
        (("--params", "0.5", "--no-distill", "--set", "distill=0.5"), "--no-distill"),
        (("--params", "0.5", "--image-size", "16"), "images of 1×8×8"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(slim, options, words):
    result = slim(*options)
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("content", [b"<!doctype html>", b"\x80\x04pickled", b""])
def test_something_that_is_no_model_is_refused(refused, tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    refused("slim", path, "--data", "digits", "--speedup", "2", "--out", tmp_path / "out")


def test_a_refused_slimming_leaves_no_folder_but_one_that_was_there(slim, tmp_path):
    assert slim("--params", "0.001").exit_code == 2
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    assert slim("--params", "0.001").exit_code == 2
    assert (tmp_path / "out").is_dir()


def test_no_distill_reaches_the_job(slim, tmp_path):
    (tmp_path / "out").mkdir()
    slim("--params", "0.001", "--no-distill")  # refused once its job has been written
    record = json.loads((tmp_path / "out" / "slim.json").read_text())
    assert record["job"]["recipe"]["distill"] == 0
    slim("--params", "0.001")
    record = json.loads((tmp_path / "out" / "slim.json").read_text())
    assert record["job"]["recipe"]["distill"] > 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_with_its_code_and_the_resume_command(trained, tmp_path, number, code):
    arguments = ["slim", trained, *TINY, "--params", "0.5", "--json", "--out", tmp_path / "an out"]
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stdout:
        if json.loads(line)["event"] == "step":
            process.send_signal(number)
            break
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == code, stderr
    assert "Traceback" not in stderr
    assert f"normattn slim '{trained}' --data digits" in stderr
    assert f"--out '{tmp_path / 'an out'}'" in stderr
    assert list(tmp_path.rglob("state.pt"))
