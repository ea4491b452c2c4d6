"""Slimming in rounds: what its folder holds, where it stops, and that a kill costs no bit."""

import dataclasses
import json
import os
import shutil
import signal

import pytest
import torch

import normattn
from normattn import _files
from normattn.data import open_data
from normattn.errors import ArtifactError, ConfigError, Fault, RunError
from normattn.model import _runtimes, _slim_cost
from normattn.model._slim_cost import Costs
from normattn.model._slim_plan import SlimPlan
from normattn.model.artifact import read_info
from normattn.model.profile import Latency
from normattn.training import (
    Interrupted,
    Job,
    _slimming_plans,
    _slimming_round,
    _slimming_start,
    evaluate,
    recipe,
    run_job,
    slimming,
)
from normattn.training._slimming_round import Setting
from normattn.training._slimming_start import widths
from normattn.training.slimming import SlimJob, fine_tuning, recorded_threads, run_slim

WEIGHTS = "model.safetensors"


class Killed(BaseException):
    """Stands for kill -9: nothing catches it, and nothing is tidied up."""


@pytest.fixture(scope="module", autouse=True)
def no_clock():
    """Have plans measure nothing: that takes seconds, and no target here is a latency."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Costs, "measure", lambda self, removed, final=False: (2.0, 1.0))
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return the folder of resnet20 with NAM, trained on 64 digits."""
    folder = tmp_path_factory.mktemp("trained")
    quick = recipe("quick", epochs=2, batch_size=16)
    job = Job("digits", "resnet20", "nam-channel", quick, seed=1, train_limit=64)
    run_job(job, folder, device="cpu")
    return folder


@pytest.fixture
def job(trained):
    """Return a slimming in two rounds of an epoch of four steps."""
    return SlimJob(
        artifact=str(trained),
        data="digits",
        target={"params": 0.4},
        recipe=fine_tuning(epochs=1, batch_size=16, precision="float32"),
        steps=2,
        train_limit=64,
    )


@pytest.fixture
def run():
    """Return a function that runs a job on the CPU."""

    def start(job, folder, progress=None):
        return run_slim(job, folder, device="cpu", progress=progress)

    return start


@pytest.fixture(scope="module")
def whole(trained, tmp_path_factory):
    """Return the folder of a slimming that nothing cut, with its record and its events."""
    folder, events = tmp_path_factory.mktemp("whole"), []
    asked = SlimJob(
        artifact=str(trained),
        data="digits",
        target={"params": 0.4},
        recipe=fine_tuning(epochs=1, batch_size=16, precision="float32"),
        steps=2,
        train_limit=64,
    )
    return folder, run_slim(asked, folder, device="cpu", progress=events.append), events


@pytest.fixture
def errors(monkeypatch):
    """Make the models be judged with these errors: the original, then each round's two."""

    def judge(*values):
        left = iter(values)

        def metrics(self, model, tell=None):
            return {"top1_error": next(left), "top5_error": None, "loss": 1.0, "images": 100}

        monkeypatch.setattr(Setting, "metrics", metrics)

    return judge


def without_times(record):
    """Return a record without what no two runs have alike."""
    if isinstance(record, dict):
        # A commit that somebody makes meanwhile is none of the slimming's.
        timed = ("started", "finished", "resumed", "seconds", "notes", "commit")
        return {k: without_times(v) for k, v in record.items() if k not in timed}
    return [without_times(each) for each in record] if isinstance(record, list) else record


def test_a_slimming_fills_its_folder_and_reaches_its_target(whole, trained):
    folder, record, _ = whole
    assert record == _files.read_json(folder / "slim.json")
    assert (record["status"], record["outcome"], record["kept"]) == ("done", "target", 2)
    before, after = record["original"]["cost"], record["result"]["cost"]
    assert after["parameters"] <= 0.42 * before["parameters"]
    assert after["macs"] < before["macs"]
    assert record["result"]["bytes"] < record["original"]["bytes"]
    assert record["summary"].startswith("Reached the target, params 0.4, in 2 rounds: top-1 error")
    model = normattn.load(folder)
    assert sum(p.numel() for p in model.parameters()) == after["parameters"]
    assert record["widths"]["layer3.0.conv1"][0] == 64
    assert record["widths"]["layer3.0.conv1"][1] == model.layer3[0].conv1.out_channels < 64
    assert record["widths"]["fc"] == [10, 10]
    info = normattn.model.artifact.read_info(folder)
    assert info.classes == normattn.model.artifact.read_info(trained).classes
    assert info.preprocessing == normattn.model.artifact.read_info(trained).preprocessing
    assert info.slimming["target"] == {"params": 0.4}
    assert info.slimming["before"]["parameters"] == before["parameters"]


def test_each_round_says_what_it_removed_and_what_that_cost(whole):
    _, record, _ = whole
    first, second = record["rounds"]
    assert [first["round"], second["round"]] == [1, 2]
    assert first["target"]["params"] == pytest.approx(0.4**0.5)
    assert second["target"] == {"params": 0.4}
    assert first["left"] == 1
    assert second["left"] == pytest.approx(
        first["after"]["cost"]["parameters"] / record["original"]["cost"]["parameters"], rel=0.02
    )
    assert second["asked"]["params"] == pytest.approx(0.4 / second["left"])
    original = record["original"]["metrics"]["top1_error"]
    for each in record["rounds"]:
        assert each["before"]["cost"] == each["after"]["cost"]
        assert each["drop"] == each["after"]["metrics"]["top1_error"] - original
        assert each["after"]["epochs"] == 1
    assert record["drop"] == second["drop"]


def test_the_figures_are_those_of_the_saved_model(whole):
    folder, record, _ = whole
    metrics = evaluate(normattn.load(folder), open_data("digits", train_limit=64))
    assert metrics.top1_error == record["result"]["metrics"]["top1_error"]


def test_events_tell_the_round(whole):
    _, _, events = whole
    kinds = [e["event"] for e in events if e["event"] not in ("step", "evaluate", "note")]
    assert kinds == ["plan", "epoch", "round"] * 2 + ["done"]
    assert [e["round"] for e in events if e["event"] == "step"] == [1] * 4 + [2] * 4
    assert {e["rounds"] for e in events if e["event"] == "plan"} == {2}
    assert json.dumps(events)


def test_the_original_teaches_unless_told_otherwise(job, run, trained, tmp_path, monkeypatch):
    teachers = []

    def spy(model, *args, teacher=None, **kwargs):
        teachers.append(teacher)
        raise Fault("That is enough.")

    monkeypatch.setattr(_slimming_round, "fit", spy)
    silent = dataclasses.replace(job, recipe=dataclasses.replace(job.recipe, distill=0.0))
    for number, each in enumerate((job, silent)):
        with pytest.raises(Fault):
            run(each, tmp_path / str(number))
    original = normattn.load(trained).state_dict()
    assert all(torch.equal(t, original[name]) for name, t in teachers[0].state_dict().items())
    assert teachers[1] is None


def test_it_stops_before_the_allowed_drop_with_the_last_round_that_kept_within(
    job, run, errors, tmp_path
):
    errors(10.0, 30.0, 10.5, 40.0, 10.51)
    record = run(dataclasses.replace(job, max_drop=0.5), tmp_path)
    assert (record["outcome"], record["kept"]) == ("drop", 1)
    assert record["drop"] == pytest.approx(0.5)
    assert record["summary"] == (
        "Stopped before the allowed drop: round 2 of 2 lost 0.51 points of top-1 accuracy, and 0.5 "
        "are allowed. The result is that of round 1: top-1 error 10.00 → 10.50 %."
    )
    first = [(tmp_path / place / WEIGHTS).read_bytes() for place in (".", "round-1")]
    assert first[0] == first[1]
    assert record["result"]["cost"] == record["rounds"][0]["after"]["cost"]


def test_the_original_is_the_result_where_the_first_round_lost_too_much(
    job, run, errors, trained, tmp_path
):
    errors(10.0, 30.0, 12.0)
    record = run(dataclasses.replace(job, max_drop=1), tmp_path)
    assert (record["outcome"], record["kept"], record["drop"]) == ("drop", 0, 0)
    assert len(record["rounds"]) == 1
    assert record["summary"] == (
        "Stopped before the allowed drop with nothing removed: round 1 of 2 lost 2.00 points of "
        "top-1 accuracy, and 1 are allowed."
    )
    assert (tmp_path / WEIGHTS).read_bytes() == (trained / WEIGHTS).read_bytes()
    assert record["result"]["cost"] == record["original"]["cost"]


def test_without_a_limit_the_target_is_reached_at_any_price(job, run, errors, tmp_path):
    errors(10.0, 90.0, 90.0, 90.0, 90.0)
    record = run(job, tmp_path)
    assert (record["outcome"], record["drop"]) == ("target", 80)


def test_a_round_without_anything_to_do_is_passed_over(job, run, tmp_path):
    """Two rounds to 0.98 of the parameters: with widths rounded to 8 the first takes more."""
    record = run(dataclasses.replace(job, target={"params": 0.98}), tmp_path)
    assert [each["skipped"] for each in record["rounds"]] == [False, True]
    assert record["rounds"][1]["asked"] is None
    assert (record["outcome"], record["kept"]) == ("target", 1)
    assert not (tmp_path / "round-2" / WEIGHTS).exists()


def test_a_speedup_is_asked_of_what_the_model_measures_now(job, run, tmp_path, monkeypatch):
    asked = []

    def measure(models, *args, **options):
        asked.append((list(models), options["batch"]))
        return {"now": Latency(1.0, 1.0, 1.0, ratio=0.8)}

    monkeypatch.setattr(_slimming_plans, "latency", measure)
    record = run(dataclasses.replace(job, target={"speedup": 2}, batch=4), tmp_path)
    first, second = record["rounds"]
    assert first["asked"] == pytest.approx({"speedup": 2**0.5})
    assert (second["left"], second["asked"]) == (0.8, {"speedup": pytest.approx(1.6)})
    assert asked == [(["original", "now"], 4)]
    assert record["outcome"] == "target"


def test_a_speedup_counts_in_the_runtime_on_the_cpu(job, run, tmp_path, monkeypatch):
    seen = []

    def load(model, size, runtime, *, threads):
        seen.append((sum(p.numel() for p in model.parameters()), tuple(size), runtime, threads))
        return model

    def measure(models, *args, device, **options):
        seen.append(str(device))
        return {"now": Latency(1.0, 1.0, 1.0, ratio=0.8)}

    monkeypatch.setattr(_slim_cost, "in_runtime", load)
    monkeypatch.setattr(_slim_cost.Costs, "_time", lambda *a: {"whole": Latency(1, 1, 1, 1)})
    monkeypatch.setattr(_slimming_plans, "in_runtime", load)
    monkeypatch.setattr(_slimming_plans, "latency", measure)
    asked = dataclasses.replace(job, target={"speedup": 2}, runtime="onnxruntime")
    record = run(asked, tmp_path)
    whole, now = record["original"]["cost"], record["rounds"][0]["after"]["cost"]
    threads = torch.get_num_threads()
    assert seen[-4:] == [
        *((c["parameters"], (1, 8, 8), "onnxruntime", threads) for c in (whole, now)),
        "cpu",
        (now["parameters"], (1, 8, 8), "onnxruntime", threads),  # what the second round plans on
    ]
    assert _files.read_json(tmp_path / "plan.json")["runtime"] == "onnxruntime"
    assert record["job"]["runtime"] == "onnxruntime"
    assert record["versions"]["onnxruntime"]


def test_a_missing_runtime_is_refused_before_anything(job, run, tmp_path, monkeypatch):
    monkeypatch.setattr(_runtimes, "_installed", lambda name: False)
    asked = dataclasses.replace(job, runtime="openvino")
    with pytest.raises(ConfigError, match=r"slim: .* Run `pip install 'normattn\[openvino\]'`"):
        run(asked, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_record_from_before_there_was_a_runtime_goes_on(job, run, whole, tmp_path):
    shutil.copytree(whole[0], tmp_path / "old")
    record = _files.read_json(tmp_path / "old" / "slim.json")
    del record["job"]["runtime"]
    _files.write_json(tmp_path / "old" / "slim.json", record)
    assert run(job, tmp_path / "old") == record
    with pytest.raises(RunError, match="runtime: torch → openvino"):
        run(dataclasses.replace(job, runtime="openvino"), tmp_path / "old")


def test_latencies_on_the_way_begin_at_the_originals(job, run, tmp_path):
    """By `no_clock` the original takes 2 ms, and 1 ms without any channel."""
    record = run(dataclasses.replace(job, target={"latency_ms": 1.125}), tmp_path)
    assert [each["asked"]["latency_ms"] for each in record["rounds"]] == [1.5, 1.125]


def test_channels_are_counted_over_all_groups(job, run, tmp_path):
    record = run(dataclasses.replace(job, target={"channels": 0.5}), tmp_path)
    second = record["rounds"][1]
    groups = _files.read_json(tmp_path / "round-1" / "plan.json")["plan"]["groups"]
    left = sum(g["after"] for g in groups) / sum(g["before"] for g in groups)
    assert second["left"] == left < 1
    assert second["asked"]["channels"] == pytest.approx(1 - 0.5 / left)


def test_the_last_round_ends_where_one_plan_to_the_whole_target_does(
    job, run, whole, trained, tmp_path, monkeypatch
):
    """Layers of 16 go to 8 in the first round, and stay there: widths are rounded to 8."""

    def untrained(self):
        model = self.setting.load(self.folder / "start")
        self.setting.save(model, self.folder, {"top1_error": 0.0})
        return {"metrics": {"top1_error": 0.0}, "cost": self.setting.cost(model)}

    monkeypatch.setattr(_slimming_round.Round, "_tune", untrained)
    run(dataclasses.replace(job, target={"channels": 0.6}, steps=3), tmp_path)
    for folder in (whole[0], tmp_path):
        plan = SlimPlan.from_json(_files.read_json(folder / "plan.json"))
        record = _files.read_json(folder / "slim.json")
        assert record["outcome"] == "target"
        at_once = normattn.slim(normattn.load(trained), plan)
        assert record["widths"] == widths(normattn.load(trained), at_once)
        assert record["result"]["cost"]["parameters"] == plan.after.parameters


def test_a_target_out_of_reach_is_refused_with_the_best_before_anything_is_trained(
    job, run, tmp_path, monkeypatch
):
    monkeypatch.setattr(_slimming_round, "fit", None)
    with pytest.raises(
        ConfigError, match=r"expected a target that can be met, got params 0\.001\. The least"
    ):
        run(dataclasses.replace(job, target={"params": 0.001}), tmp_path)
    assert not (tmp_path / "round-1").exists()


def test_a_finished_slimming_is_returned_and_not_done_again(job, run, whole, monkeypatch):
    folder, record, _ = whole
    monkeypatch.setattr(_slimming_round, "fit", None)
    events = []
    assert run(job, folder, events.append) == record
    assert [event["event"] for event in events] == ["note"]


# Writes of files that a kill may come before, as (folder, file).
MOMENTS = [
    (".", "plan.json"),
    ("round-1/start", "model.json"),
    ("round-1", "removed.json"),
    ("round-2", "plan.json"),
    ("round-2", "state.pt"),
    ("round-2", "model.json"),
    (".", "model.json"),
]


@pytest.mark.parametrize(("place", "name"), MOMENTS)
def test_a_kill_before_any_file_loses_no_bit(job, run, whole, tmp_path, monkeypatch, place, name):
    write = _files.write_bytes

    def kill(path, content):
        if path == tmp_path / place / name:
            raise Killed
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(_files, "write_bytes", kill)
        with pytest.raises(Killed):
            run(job, tmp_path)
    record = run(job, tmp_path)
    folder, expected, _ = whole
    assert record["resumed"] == 1
    assert (tmp_path / WEIGHTS).read_bytes() == (folder / WEIGHTS).read_bytes()
    assert without_times(record) == without_times(expected)


def test_what_was_planned_once_is_never_planned_again(job, run, tmp_path, monkeypatch):
    """A plan may rest on a latency, which would come out otherwise."""
    planned, plan = [], Setting.plan

    def count(self, model, target, number, *more):
        planned.append(number)
        return plan(self, model, target, number, *more)

    def stop(event):
        if event["event"] == "step" and event["round"] == 2:
            raise Killed

    monkeypatch.setattr(Setting, "plan", count)
    with pytest.raises(Killed):
        run(job, tmp_path, stop)
    assert planned == [0, 1, 2]
    run(job, tmp_path)
    assert planned == [0, 1, 2]


# A process that slims and treats itself badly at a step of the second round.
PROCESS = """
import functools, json, os, sys
from normattn.training import Interrupted, _slimming_round
from normattn.training.slimming import SlimJob, run_slim
_slimming_round.fit = functools.partial(_slimming_round.fit, save_every=0)
def progress(event):
    if event["event"] == "step" and event["round"] == 2 and event["step"] == 2:
        os.kill(os.getpid(), int(sys.argv[3]))
try:
    job = SlimJob.from_json(json.loads(sys.argv[1]))
    run_slim(job, sys.argv[2], device="cpu", progress=progress)
except Interrupted as interrupted:
    sys.exit(128 + interrupted.signal)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143)])
def test_a_killed_process_goes_on_to_the_same_bit(
    job, run, whole, tmp_path, exit_code, number, code
):
    arguments = [json.dumps(job.to_json()), str(tmp_path), str(int(number))]
    assert exit_code(PROCESS, *arguments) == code
    assert _files.read_json(tmp_path / "slim.json")["status"] == "running"
    assert (tmp_path / "round-2" / "state.pt").exists()
    record = run(job, tmp_path)
    folder, expected, _ = whole
    assert any(note.startswith("Resumed after 0 of 1 epochs") for note in record["notes"])
    assert (tmp_path / WEIGHTS).read_bytes() == (folder / WEIGHTS).read_bytes()
    assert without_times(record) == without_times(expected)


def test_a_signal_while_training_saves_the_state(job, run, tmp_path):
    def interrupt(event):
        if event["event"] == "step":
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        run(job, tmp_path, interrupt)
    assert _files.read_json(tmp_path / "slim.json")["status"] == "running"
    assert recorded_threads(tmp_path) == torch.get_num_threads()


def test_a_failure_is_recorded_and_can_be_tried_again(job, run, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise Fault("no luck")

    with monkeypatch.context() as patch:
        patch.setattr(_slimming_round, "fit", fail)
        with pytest.raises(Fault, match="no luck"):
            run(job, tmp_path)
    record = _files.read_json(tmp_path / "slim.json")
    assert (record["status"], record["reason"]) == ("failed", "no luck")
    record = run(job, tmp_path)
    assert record["status"] == "done"
    assert "reason" not in record


def test_another_job_in_the_folder_is_refused_with_the_difference(job, run, whole):
    other = dataclasses.replace(job, criterion="random", target={"params": 0.5})
    with pytest.raises(
        RunError, match=r"criterion: bn-scale → random; target\.params: 0\.4 → 0\.5"
    ):
        run(other, whole[0])


def test_a_model_that_moved_is_the_same_and_another_one_is_not(job, run, whole, trained, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(trained, moved)
    asked = dataclasses.replace(job, artifact=str(moved))
    assert run(asked, whole[0]) == whole[1]
    model = normattn.load(moved)
    with torch.no_grad():
        model.fc.bias += 1
    normattn.save(model, moved)
    with pytest.raises(RunError, match="sha256"):
        run(asked, whole[0])


@pytest.mark.parametrize("name", ["trial.json", "model.json", "protocol.json"])
def test_a_folder_of_something_else_is_left_alone(job, run, tmp_path, name):
    (tmp_path / name).write_text("precious")
    with pytest.raises(RunError, match=f"got one with {name}"):
        run(job, tmp_path)
    assert (tmp_path / name).read_text() == "precious"


def test_a_record_of_something_else_is_left_alone(job, run, tmp_path):
    (tmp_path / "slim.json").write_text("[]")
    with pytest.raises(RunError, match="expected the record of a slimming"):
        run(job, tmp_path)


def test_a_job_refused_for_a_mistake_leaves_its_folder_to_the_corrected_one(job, run, tmp_path):
    with pytest.raises(ConfigError, match="images of 1×8×8"):
        run(dataclasses.replace(job, image_size=16), tmp_path)
    assert _files.read_json(tmp_path / "slim.json")["status"] == "failed"
    assert run(job, tmp_path)["status"] == "done"


def test_a_refused_job_leaves_no_folder_that_it_made(job, run, tmp_path):
    asked = dataclasses.replace(job, image_size=16)
    with pytest.raises(ConfigError, match="images of 1×8×8"):
        run(asked, tmp_path / "deep" / "out")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    for place in ("mine", "mine/out"):
        with pytest.raises(ConfigError, match="images of 1×8×8"):
            run(asked, tmp_path / place)
    assert (tmp_path / "mine").is_dir()
    assert not (tmp_path / "mine" / "out").exists()


def test_a_refused_job_leaves_what_somebody_else_put_into_its_folder(
    job, run, tmp_path, monkeypatch
):
    def refuse(*args):
        (tmp_path / "out" / "notes.txt").write_text("precious")
        raise ConfigError("no")

    monkeypatch.setattr(slimming, "open_for", refuse)
    with pytest.raises(ConfigError):
        run(job, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["notes.txt"]


def test_images_of_another_size_are_refused_with_what_to_do(job, run, tmp_path):
    with pytest.raises(ConfigError, match=r"got 1×16×16 of digits.*--image-size 8"):
        run(dataclasses.replace(job, image_size=16), tmp_path)


def test_images_that_are_resized_come_as_the_model_predicts_them(
    job, trained, tmp_path, monkeypatch
):
    said = {**read_info(trained).preprocessing, "crop_pct": 0.5, "interpolation": "bicubic"}
    other = normattn.save(normattn.load(trained), tmp_path / "other", preprocessing=said)
    given, opened = {}, _slimming_start.open_data

    def record(spec, **how):
        given.update(how)
        return opened(spec, **how)

    monkeypatch.setattr(_slimming_start, "open_data", record)
    asked = dataclasses.replace(job, artifact=str(other), image_size=8)
    _slimming_start.open_for(asked, read_info(other))
    assert (given["crop"], given["method"].name) == (0.5, "BICUBIC")


def test_other_classes_are_refused(job, run, trained, tmp_path):
    other = tmp_path / "other"
    names = [*"012345678", "nine"]
    normattn.save(normattn.load(trained), other, classes=names)
    with pytest.raises(ConfigError, match="there is no 'nine'"):
        run(dataclasses.replace(job, artifact=str(other)), tmp_path / "out")


def test_a_damaged_model_is_refused(job, run, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "bad")
    weights = tmp_path / "bad" / WEIGHTS
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ArtifactError, match="checksum"):
        run(dataclasses.replace(job, artifact=str(tmp_path / "bad")), tmp_path / "out")


def test_several_processes_are_refused(job, run, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="without torchrun"):
        run(job, tmp_path)


def test_no_threads_are_known_of_a_folder_without_a_slimming_under_way(whole, tmp_path):
    assert recorded_threads(tmp_path) is None
    assert recorded_threads(whole[0]) is None
