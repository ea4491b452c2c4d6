"""Jobs: paired initial weights, idempotent folders, and processes killed for real."""

import dataclasses
import json
import os
import signal

import pytest
import torch

import normattn
from normattn import _files
from normattn.attention import Gate
from normattn.errors import ConfigError, Fault, RunError
from normattn.kernels import cpu
from normattn.training import (
    Interrupted,
    Job,
    build,
    checkpoint,
    evaluate,
    recipe,
    run,
    run_job,
)

PLAIN = {"name": "plain", "blocks": 0, "mechanisms": 0, "share": 0}


@pytest.fixture
def job():
    """Return resnet20 with SE on 64 digits: two epochs of four steps."""
    quick = recipe("quick", epochs=2, batch_size=16)
    return Job(data="digits", host="resnet20", mechanism="se", recipe=quick, seed=1, train_limit=64)


def with_recipe(job, **changes):
    return dataclasses.replace(job, recipe=dataclasses.replace(job.recipe, **changes))


def host_weights(model):
    """Return the weights outside the attention, by their names in the state dict."""
    inside = {id(p) for m in model.modules() if isinstance(m, Gate) for p in m.parameters()}
    weights = model.state_dict(keep_vars=True)
    return {name: p for name, p in weights.items() if p.requires_grad and id(p) not in inside}


def test_a_job_that_would_need_a_teacher_is_refused_before_anything_runs(job):
    with pytest.raises(ConfigError, match="a job has no teacher"):
        with_recipe(job, distill=0.5)


@pytest.mark.parametrize("initialisation", ["default", "kaiming-uniform"])
def test_one_seed_gives_every_mechanism_the_same_host(job, data, initialisation):
    job = with_recipe(job, initialisation=initialisation)
    plain = host_weights(build(dataclasses.replace(job, mechanism="none"), data))
    for mechanism in normattn.available():
        found = host_weights(build(dataclasses.replace(job, mechanism=mechanism), data))
        assert list(found) == list(plain)
        assert all(torch.equal(found[name], plain[name]) for name in plain), mechanism


def test_seeds_and_only_seeds_change_the_weights(job, data):
    first, again, other = (
        build(dataclasses.replace(job, seed=seed), data).state_dict() for seed in (1, 1, 2)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    weights = [name for name in first if "conv" in name or ("attn" in name and "weight" in name)]
    assert weights
    assert not any(torch.equal(first[name], other[name]) for name in weights)


def test_kaiming_uniform_is_within_its_bound_and_fills_it(job, data):
    model = build(with_recipe(job, initialisation="kaiming-uniform"), data)
    weight = model.get_submodule("layer3.0.conv2").weight
    bound = (6 / (64 * 9)) ** 0.5  # √(6 / fan-in), for ReLU
    assert 0.99 * bound < float(weight.detach().abs().max()) <= bound


def test_building_leaves_the_callers_random_numbers_alone(job, data):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    build(job, data)
    assert torch.equal(torch.rand(3), expected)


def test_a_job_survives_json(job):
    job = dataclasses.replace(job, sites=("layer1.*", "layer2.*"), host_options={"a": [1]})
    assert Job.from_json(json.loads(json.dumps(job.to_json()))) == job


def test_a_job_from_before_there_were_kernels_is_plain(job):
    content = job.to_json()
    assert content.pop("fuse") is True
    assert Job.from_json(content) == dataclasses.replace(job, fuse=False)


@pytest.mark.parametrize("fuse", [True, False])
def test_a_job_builds_a_fused_model_unless_told_otherwise(job, data, fuse):
    model = build(dataclasses.replace(job, fuse=fuse), data)
    assert (type(model.layer1[0]).__name__ == "FusedCifarBasicBlock") is fuse


def test_a_label_becomes_canonical(job):
    assert dataclasses.replace(job, mechanism="ean( groups = 8 )").mechanism == "ean(groups=8)"


@pytest.mark.parametrize("change", [{"mechanism": "sea"}, {"seed": -1}, {"seed": 1.0}, {"fuse": 1}])
def test_a_senseless_job_is_refused(job, change):
    with pytest.raises(ConfigError):
        dataclasses.replace(job, **change)


def test_an_unknown_key_names_the_nearest(job):
    with pytest.raises(ConfigError, match="Did you mean 'seed'"):
        Job.from_json({**job.to_json(), "seeds": 3})


def test_a_job_fills_its_folder(job, tmp_path):
    events = []
    record = run_job(job, tmp_path, progress=events.append)
    assert record == _files.read_json(tmp_path / "trial.json")
    assert record["status"] == "done"
    assert record["job"] == job.to_json()
    assert record["resumed"] == 0
    assert len(record["sites"]) == 9
    assert record["data"]["train"] == 64
    assert record["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert record["machine"]["device"] in ("cpu", "cuda")
    assert events[-1] == {"event": "done", "metrics": record["metrics"]}
    lines = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert record["metrics"]["top1_error"] == lines[-1]["top1_error"]
    assert record["metrics"]["best_top1_error"] == min(line["top1_error"] for line in lines)
    files = ["history.jsonl", "model.json", "model.safetensors", "state.pt", "trial.json"]
    assert sorted(p.name for p in tmp_path.iterdir() if p.name[0] != ".") == files


def test_what_a_job_saved_gives_the_figures_it_reported(job, data, tmp_path):
    metrics = run_job(job, tmp_path)["metrics"]
    model = normattn.load(tmp_path)
    again = evaluate(model, data, precision="bfloat16", channels_last=True)
    assert again.top1_error == pytest.approx(metrics["top1_error"])
    assert again.loss == pytest.approx(metrics["loss"], rel=1e-3)


def test_a_finished_job_is_returned_and_not_trained(job, tmp_path, monkeypatch):
    first = run_job(job, tmp_path)
    monkeypatch.setattr(run, "fit", None)
    events = []
    assert run_job(job, tmp_path, progress=events.append) == first
    assert [event["event"] for event in events] == ["note"]


def test_a_record_says_which_kernels_computed(job, tmp_path, reference_runs):
    record = run_job(dataclasses.replace(job, mechanism="nam"), tmp_path / "fused")
    ran = {"name": "reference", "blocks": 9, "mechanisms": 9}
    # Of a block with NAM the last norm runs before it, as before; the first norm and NAM do not.
    assert record["kernels"] == {**ran, "share": 0.667}
    record = run_job(dataclasses.replace(job, fuse=False), tmp_path / "plain")
    assert record["kernels"] == PLAIN
    assert not any("kernel" in note for note in record["notes"])


def test_kernels_that_no_map_was_worth_are_not_in_the_record(
    job, tmp_path, reference_runs, monkeypatch
):
    monkeypatch.setattr(cpu, "NCHW_ELEMENTS", 1 << 30)
    monkeypatch.setattr(cpu, "CHANNELS_LAST_ELEMENTS", 1 << 30)
    record = run_job(dataclasses.replace(job, mechanism="nam-channel"), tmp_path / "gates alone")
    share = record["kernels"].pop("share")
    assert record["kernels"] == {"name": "reference", "blocks": 9, "mechanisms": 9}
    assert share == pytest.approx(2 / 3, abs=0.001)  # the tail counts for the block and its gate
    monkeypatch.setattr(cpu, "GATE_ELEMENTS", 1 << 30)
    record = run_job(dataclasses.replace(job, mechanism="nam-channel"), tmp_path / "none")
    assert record["kernels"] == PLAIN


def test_a_record_of_kernels_survives_an_end_that_runs_nothing(job, tmp_path, reference_runs):
    first = run_job(job, tmp_path)
    _files.write_json(tmp_path / "trial.json", {**first, "status": "running"})
    again = run_job(job, tmp_path)
    assert again["resumed"] == 1
    assert again["kernels"] == first["kernels"]


def test_a_machine_without_kernels_trains_the_plain_form_and_says_so(job, tmp_path, no_kernels):
    record = run_job(job, tmp_path / "fused")
    assert record["kernels"] == PLAIN
    assert record["notes"] == [
        "No kernel computes in this model (kernels for cpu: none: no compiler): it trains in its "
        "plain form. See `normattn doctor`."
    ]
    plain = run_job(dataclasses.replace(job, fuse=False), tmp_path / "plain")
    timed = "images_per_second"
    assert {**record["metrics"], timed: 0} == {**plain["metrics"], timed: 0}


@pytest.mark.parametrize("known", [True, False], ids=["recorded", "from before kernels"])
def test_other_kernels_are_no_other_job_but_other_bits(job, tmp_path, reference_runs, known):
    plain = dataclasses.replace(job, fuse=False)

    def interrupt(event):
        if event["event"] == "epoch":
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        run_job(plain, tmp_path, progress=interrupt)
    if not known:
        record = _files.read_json(tmp_path / "trial.json")
        del record["job"]["fuse"], record["kernels"]
        _files.write_json(tmp_path / "trial.json", record)
        state = checkpoint.read_state(tmp_path, note=None)
        assert state.pop("kernels") == "plain"
        checkpoint.write_state(tmp_path, state)
    record = run_job(job, tmp_path)
    assert record["notes"][-1] == (
        "Resumed with kernels 'reference' after 'plain': the same batches, but where they "
        "compute not the same bits, since each rounds in its own way."
    )
    assert record["kernels"]["name"] == "reference"
    assert run_job(plain, tmp_path) == record  # done is done


def test_another_job_in_the_folder_is_refused_with_the_difference(job, tmp_path):
    run_job(job, tmp_path)
    with pytest.raises(RunError, match=r"recipe\.lr: 0\.2 → 0\.05; seed: 1 → 2"):
        run_job(dataclasses.replace(with_recipe(job, lr=0.05), seed=2), tmp_path)


def test_a_job_refused_for_a_mistake_leaves_its_folder_to_the_corrected_one(job, tmp_path):
    with pytest.raises(ConfigError, match="got 'resnet21'"):
        run_job(dataclasses.replace(job, host="resnet21"), tmp_path)
    with pytest.raises(ConfigError, match="batch size"):
        run_job(with_recipe(job, batch_size=4096), tmp_path)
    record = run_job(job, tmp_path)
    assert (record["status"], record["resumed"]) == ("done", 0)


def test_a_failed_job_that_has_trained_keeps_its_folder(job, tmp_path):
    (tmp_path / "trial.json").write_text(json.dumps({"status": "failed", "job": job.to_json()}))
    (tmp_path / "state.previous.pt").write_bytes(b"what there is to lose")
    with pytest.raises(RunError, match="seed: 1 → 2"):
        run_job(dataclasses.replace(job, seed=2), tmp_path)


def test_a_folder_in_use_is_refused(job, tmp_path):
    with _files.folder_lock(tmp_path), pytest.raises(RunError, match=f"pid {os.getpid()}"):
        run_job(job, tmp_path)


def test_a_foreign_record_is_not_written_over(job, tmp_path):
    (tmp_path / "trial.json").write_text("[]")
    with pytest.raises(RunError, match="expected the record of a job"):
        run_job(job, tmp_path)
    assert (tmp_path / "trial.json").read_text() == "[]"


def test_a_failure_is_recorded_and_can_be_tried_again(job, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise Fault("no luck")

    with monkeypatch.context() as patch:
        patch.setattr(run, "fit", fail)
        with pytest.raises(Fault, match="no luck"):
            run_job(job, tmp_path)
    record = _files.read_json(tmp_path / "trial.json")
    assert (record["status"], record["reason"]) == ("failed", "no luck")
    record = run_job(job, tmp_path)
    assert (record["status"], record["resumed"]) == ("done", 1)
    assert "reason" not in record


def test_notes_are_kept_once_over_all_attempts(job, tmp_path):
    job = dataclasses.replace(job, train_limit=65, fuse=False)

    def interrupt(event):
        if event["event"] == "epoch":
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        run_job(job, tmp_path, progress=interrupt)
    assert _files.read_json(tmp_path / "trial.json")["status"] == "running"
    notes = run_job(job, tmp_path)["notes"]
    assert [note.split(",")[0] for note in notes] == [
        "1 of 65 training images",
        "Resumed after 1 of 2 epochs and 0 batches.",
    ]


# A process that runs the job of its arguments and treats itself badly at a step.
PROCESS = """
import functools, json, os, sys
from normattn.training import Interrupted, Job, run
job = Job.from_json(json.loads(sys.argv[1]))
run.fit = functools.partial(run.fit, save_every=0)
def progress(event):
    if event["event"] == "step" and event["step"] == 6:
        os.kill(os.getpid(), int(sys.argv[3]))
try:
    run.run_job(job, sys.argv[2], progress=progress)
except Interrupted as interrupted:
    sys.exit(128 + interrupted.signal)
"""


@pytest.mark.parametrize(
    ("number", "code", "saved"), [(signal.SIGKILL, -9, 1), (signal.SIGTERM, 143, 2)]
)
def test_a_killed_process_loses_no_bit(job, tmp_path, exit_code, number, code, saved):
    job = with_recipe(job, ema=0.9)
    arguments = [json.dumps(job.to_json()), str(tmp_path / "killed"), str(int(number))]
    assert exit_code(PROCESS, *arguments) == code
    place = torch.load(tmp_path / "killed" / "state.pt", weights_only=True)["place"]
    assert (place["epoch"], place["batch"]) == (1, saved)
    resumed = run_job(job, tmp_path / "killed")
    whole = run_job(job, tmp_path / "whole")
    assert resumed["resumed"] == 1
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("killed", "whole")]
    assert weights[0] == weights[1]
    timed = "images_per_second"
    assert {**resumed["metrics"], timed: 0} == {**whole["metrics"], timed: 0}
