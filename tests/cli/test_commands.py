"""The commands from outside: what they print, how they refuse, and with which exit code."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from normattn.errors import InputError

COMMANDS = (
    *("demo", "compare", "train", "evaluate", "profile", "report", "salience", "slim", "export"),
    *("predict", "push", "doctor", "list"),
)
TINY = ("--data", "digits", "--host", "resnet20", "--epochs", "1", "--train-limit", "128")


def json_lines(result):
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a tiny training."""
    folder = tmp_path_factory.mktemp("trained") / "nam"
    command = ["train", *TINY, "--attention", "nam", "--out", str(folder)]
    done = subprocess.run([sys.executable, "-c", PROGRAM, *command], check=False)
    assert done.returncode == 0
    return folder


PROGRAM = "from normattn.cli import main; main()"


def test_help_names_every_command(cli):
    result = cli("--help")
    assert result.exit_code == 0
    for command in COMMANDS:
        assert command in result.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_each_command_has_a_sentence_and_its_options(cli, command):
    result = cli(command, "--help")
    assert result.exit_code == 0
    assert f"normattn {command}" in " ".join(result.stdout.split())
    assert "--json" in result.stdout


def test_no_command_shows_the_help(cli):
    assert "compare" in cli().output


def test_help_and_bad_options_do_not_wait_for_torch():
    code = """
import sys
from typer.testing import CliRunner
from normattn.cli import app
for arguments in (["--help"], ["compare", "--help"], ["compare"], ["--version"], ["list", "data"]):
    CliRunner().invoke(app, arguments)
heavy = {"torch", "timm", "numpy", "matplotlib", "sklearn"} & set(sys.modules)
sys.exit(f"imported {heavy}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_version_is_that_of_the_package(cli):
    from importlib.metadata import version

    assert cli("--version").stdout == f"normattn {version('normattn')}\n"


def test_completion_can_be_installed(cli):
    assert "--install-completion" in cli("--help").stdout


def test_list_shows_every_mechanism_and_recipe(cli):
    from normattn.attention import MECHANISMS
    from normattn.training import RECIPES

    result = cli("list")
    assert result.exit_code == 0
    for name in (*MECHANISMS, *RECIPES, "resnet20", "parquet:DIR"):
        assert name in result.stdout


def test_list_hosts_as_json_has_timm_and_ours(cli):
    names = {entry["name"] for entry in json_lines(cli("list", "hosts", "--json"))}
    assert {"resnet20", "resnet50", "mobilenetv2_100"} <= names


def test_an_unknown_kind_of_list_names_the_nearest(refused):
    assert "Did you mean 'mechanisms'" in refused("list", "mecanisms")


@pytest.mark.parametrize(
    ("options", "nearest"),
    [
        (("--host", "resnt20"), "'resnet20'"),
        (("--attention", "none,nam-chanel"), "'nam-channel'"),
        (("--attention", "ean(group=8)"), "'groups'"),
        (("--recipe", "quik"), "'quick'"),
        (("--set", "momentun=0.9"), "'momentum'"),
        (("--stem", "cifr"), "'cifar'"),
        (("--data", "digit"), "'digits'"),
        (("--on-bad-image", "skp"), "'skip'"),
        (("--start", "presrve"), "'preserve'"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(refused, tmp_path, options, nearest):
    usual = {"--data": "digits", "--host": "resnet20", "--attention": "none,nam"}
    usual |= dict([options])
    arguments = [part for pair in usual.items() for part in pair]
    out = tmp_path / "run"
    sentence = refused("compare", *arguments, "--out", out)
    assert f"Did you mean {nearest}" in sentence
    assert not (out / "trials").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--data", "folder:nowhere"), "nowhere"),
        (("--set", "lr=-1"), "lr"),
        (("--set", "epochs=many"), "epochs"),
        (("--sites", "nothing.*"), "nothing.*"),
        (("--attention", "ean(groups=7)"), "groups"),
        (("--seeds", "none"), "--seeds"),
        (("--device", "abacus"), "abacus"),
    ],
)
def test_bad_values_are_refused_with_what_was_wrong(refused, tmp_path, options, words):
    usual = {"--data": "digits", "--host": "resnet20", "--attention": "none,nam"}
    usual |= dict([options])
    arguments = [part for pair in usual.items() for part in pair]
    assert words in refused("compare", *arguments, "--out", tmp_path / "run")


def test_a_missing_option_is_the_users_input(cli):
    result = cli("compare", "--data", "digits")
    assert result.exit_code == 2
    assert "--host" in result.stderr


def test_a_report_of_no_run_is_refused(refused, tmp_path):
    assert "protocol.json" in refused("report", tmp_path)


def test_an_evaluation_of_nothing_is_refused(refused, tmp_path):
    assert "model.json" in refused("evaluate", tmp_path, "--data", "digits")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_refused(refused, tmp_path):
    tmp_path.chmod(0o500)
    assert "can be written" in refused("train", *TINY, "--out", tmp_path / "run")


def test_an_output_that_is_a_file_is_refused(refused, tmp_path):
    (tmp_path / "file").write_text("")
    assert "can be written" in refused("train", *TINY, "--out", tmp_path / "file" / "run")


@pytest.fixture
def failing(cli, monkeypatch, tmp_path):
    """Run a training that raises this error."""
    from normattn import training

    def run(error):
        def fail(*args, **kwargs):
            raise error

        monkeypatch.setattr(training, "run_job", fail)
        return cli("train", *TINY, "--out", tmp_path / "x")

    return run


def test_a_fault_that_was_foreseen_leaves_with_its_sentence(failing):
    from normattn.errors import Fault

    result = failing(Fault("training: expected a finite loss, got nan."))
    assert result.exit_code == 1
    assert result.stderr == "training: expected a finite loss, got nan.\n"


def test_any_other_fault_leaves_with_its_traceback(failing):
    result = failing(RuntimeError("a bug"))
    assert result.exit_code == 1
    assert isinstance(result.exception, RuntimeError)


def test_train_says_what_it_reached_and_repeats_it_without_training(cli, trained):
    again = ("train", *TINY, "--attention", "nam", "--out", trained)
    result = cli(*again)
    assert result.exit_code == 0
    assert "nothing was trained" in result.stdout
    assert "Top-1 error" in result.stdout
    assert str(trained) in result.stdout
    last = json_lines(cli(*again, "--json"))[-1]
    assert (last["event"], last["status"]) == ("result", "done")


@pytest.mark.parametrize(("option", "fuse"), [((), True), (("--no-fuse",), False)])
def test_train_and_compare_fuse_unless_told_otherwise(cli, tmp_path, monkeypatch, option, fuse):
    from normattn import comparison, training

    asked = []

    def stop(job, *args, **kwargs):
        asked.append(job.fuse)
        raise InputError("That is enough.")

    monkeypatch.setattr(training, "run_job", stop)
    monkeypatch.setattr(comparison, "compare", stop)
    for command in ("train", "compare"):
        result = cli(command, *TINY, "--attention", "none", *option, "--out", tmp_path / "x")
        assert result.stderr == "That is enough.\n"
    assert asked == [fuse, fuse]


def test_another_job_in_the_same_folder_is_refused_with_the_difference(refused, trained):
    sentence = refused("train", *TINY, "--attention", "se", "--out", trained)
    assert "mechanism" in sentence
    assert "nam" in sentence


def test_evaluate_gives_the_error_of_the_training(cli, trained):
    (result,) = (
        line
        for line in json_lines(cli("evaluate", trained, "--data", "digits", "--json"))
        if line["event"] == "result"
    )
    expected = json.loads((trained / "trial.json").read_text())["metrics"]["top1_error"]
    assert result["top1_error"] == pytest.approx(expected, abs=1.0)  # bfloat16 there, float32 here
    assert "Top-1 error" in cli("evaluate", trained, "--data", "digits").stdout


def test_an_unknown_split_is_refused(refused, trained):
    assert "'val'" in refused("evaluate", trained, "--data", "digits", "--split", "test")


@pytest.mark.parametrize(
    "change", [{"input_size": "x"}, {"input_size": [8, 8]}, {"mean": [None]}, {"std": 1.0}]
)
def test_preprocessing_that_makes_no_sense_is_refused(refused, trained, tmp_path, change):
    for name in ("model.json", "model.safetensors"):
        shutil.copy(trained / name, tmp_path)
    info = json.loads((tmp_path / "model.json").read_text())
    info["preprocessing"] |= change
    (tmp_path / "model.json").write_text(json.dumps(info))
    assert f"preprocessing with {next(iter(change))}: " in refused(
        "evaluate", tmp_path, "--data", "digits"
    )


@pytest.fixture
def ten_colours(tmp_path):
    """A folder of ten classes with an image each, and one file that is none."""
    from PIL import Image

    for split in ("train", "val"):
        for name in map(str, range(10)):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            Image.new("RGB", (8, 8), (int(name), 0, 0)).save(folder / "0.png")
    (tmp_path / "images" / "val" / "3" / "1.png").touch()
    return "--data", f"folder:{tmp_path / 'images'}", "--on-bad-image", "skip"


def test_images_left_out_are_told(cli, ten_colours, tmp_path):
    small = ("--host", "resnet20", "--epochs", "1", "--set", "batch_size=10")
    result = cli("train", *ten_colours, *small, "--out", tmp_path / "run")
    assert "left out: 1" in result.output
    result = cli("evaluate", tmp_path / "run", *ten_colours)
    assert result.exit_code == 0, result.output
    assert "left out: 1" in result.stderr


def test_colour_for_a_model_of_gray_images_is_refused(cli, trained, ten_colours):
    result = cli("evaluate", trained, *ten_colours)
    assert result.exit_code == 2
    assert "expected images of 1 channels" in result.stderr


def test_profile_counts_each_mechanism(cli):
    options = ("--host", "resnet20", "--classes", "10", "--attention", "none,nam-channel")
    none, nam = json_lines(cli("profile", *options, "--json"))
    assert (none["mechanism"], nam["mechanism"]) == ("none", "nam-channel")
    assert nam["parameters"] - none["parameters"] == 2 * 3 * (16 + 32 + 64)
    assert none["input_size"] == [3, 32, 32]
    shown = cli("profile", *options).stdout
    assert f"{none['parameters']:,}" in shown
    assert "Latency" not in shown


def test_profile_times_when_asked(cli):
    options = ("--host", "resnet20", "--classes", "10", "--attention", "none,half")
    for line in json_lines(cli("profile", *options, "--input-size", "8", "--latency", "--json")):
        assert line["latency"]["median"] > 0


def test_profile_leaves_out_of_all_what_does_not_fit_and_says_so(cli, refused):
    options = ("--host", "mobilenetv2_035", "--classes", "10", "--input-size", "32")
    result = cli("profile", *options, "--attention", "all", "--json")
    shown = {line["mechanism"] for line in json_lines(result)}
    assert {"none", "nam-channel"} <= shown
    assert "ean" not in shown  # blocks of 8 channels make no 16 groups
    assert "ean is left out: " in result.stderr
    assert "groups" in refused("profile", *options, "--attention", "none,ean")


def test_a_small_comparison_ends_in_a_table_and_a_report(cli, tmp_path, monkeypatch):
    from normattn.comparison import costs

    monkeypatch.setattr(costs, "_SECONDS", 1e9)  # however busy the machine is
    monkeypatch.setattr(costs, "_ROUNDS", (1, 2))
    run = tmp_path / "run"
    command = ("compare", *TINY, "--attention", "none,half", "--seeds", "1", "--out", run)
    result = cli(*command)
    assert result.exit_code == 0, result.output
    assert "[2/2] half, seed 0: epoch 1 of 1" in result.stdout
    assert str(run / "report.html") in result.stdout
    assert (run / "report.html").exists()

    again = json_lines(cli(*command, "--json"))
    assert [line["event"] for line in again] == ["skipped", "skipped", "result"]
    assert [row["mechanism"] for row in again[-1]["rows"]] == ["none", "half"]

    other = cli(*command, "--set", "lr=0.01")
    assert other.exit_code == 2
    assert "recipe.lr" in other.stderr

    assert "half" in cli("report", run).stdout
    evaluated = json_lines(cli("evaluate", run, "--data", "digits", "--json"))
    models = [line["model"] for line in evaluated if line["event"] == "result"]
    assert models == ["none, seed 0", "half, seed 0"]


def test_small_images_under_imagenets_stem_are_pointed_out(cli, tmp_path):
    arguments = ("--data", "digits", "--host", "resnet10t", "--sites", "nothing.*")
    result = cli("compare", *arguments, "--attention", "se", "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert "--stem cifar" in result.stderr
