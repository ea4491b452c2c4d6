"""A run is read back whole, partial or damaged, and nothing is left out silently."""

import json
from pathlib import Path

import pytest

from normattn.comparison.protocol import Protocol, trial_folder, write_protocol
from normattn.comparison.records import read_run
from normattn.comparison.report import write_report
from normattn.comparison.statistics import summarise
from normattn.errors import RunError
from normattn.training import recipe

DONE = {"status": "done", "metrics": {"top1_error": 4.5, "top5_error": None, "loss": 0.2}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    protocol = Protocol(
        data="digits",
        host="resnet20",
        mechanisms=("none", "se"),
        seeds=(0, 1),
        recipe=recipe("quick"),
    )
    write_protocol(protocol, tmp_path)
    return tmp_path


def write(folder: Path, mechanism: str, seed: int, trial: object, **files: str) -> None:
    place = trial_folder(folder, mechanism, seed)
    place.mkdir(parents=True)
    text = trial if isinstance(trial, str) else json.dumps(trial)
    (place / "trial.json").write_text(text)
    for name, content in files.items():
        (place / f"{name}.jsonl").write_text(content)


def test_a_run_that_has_not_begun_lists_every_trial_as_missing(folder):
    records = read_run(folder)
    assert [(t.mechanism, t.seed, t.status) for t in records.trials] == [
        ("none", 0, "missing"),
        ("none", 1, "missing"),
        ("se", 0, "missing"),
        ("se", 1, "missing"),
    ]
    assert records.profile is None


def test_a_finished_trial_gives_its_metrics_and_history(folder):
    write(folder, "none", 1, DONE | {"parameters": 7}, history='{"epoch": 1}\n{"epoch": 2}\n')
    trial = read_run(folder).of("none")[1]
    assert (trial.status, trial.metrics["top1_error"]) == ("done", 4.5)
    assert [row["epoch"] for row in trial.history] == [1, 2]
    assert trial.details["parameters"] == 7


def test_a_trial_that_was_cut_is_partial_and_has_no_metrics(folder):
    write(folder, "se", 0, {"status": "running", "metrics": {"top1_error": 1.0}})
    trial = read_run(folder).of("se")[0]
    assert (trial.status, dict(trial.metrics)) == ("partial", {})


def test_a_failed_trial_gives_its_reason_and_how_often_it_was_tried(folder):
    write(folder, "se", 0, {"status": "failed", "reason": "no memory"}, attempts="{}\n{}\n")
    trial = read_run(folder).of("se")[0]
    assert (trial.status, trial.reason, trial.attempts) == ("failed", "no memory", 2)


def test_a_torn_last_line_of_the_history_is_dropped_with_a_note(folder):
    write(folder, "none", 0, DONE, history='{"epoch": 1}\n{"epoch": 2, "lo')
    records = read_run(folder)
    assert [row["epoch"] for row in records.of("none")[0].history] == [1]
    assert any("none, seed 0: line 2 of history.jsonl" in note for note in records.notes)


@pytest.mark.parametrize("content", ["{", "[]", "", "\x00\x00"])
def test_an_unreadable_trial_is_partial_with_a_note(folder, content):
    write(folder, "none", 0, content)
    records = read_run(folder)
    assert records.of("none")[0].status == "partial"
    assert any("none, seed 0: trial.json" in note for note in records.notes)


def test_a_done_trial_without_usable_metrics_is_damaged_with_a_note(folder):
    write(folder, "none", 0, {"status": "done", "metrics": {"top1_error": "low"}})
    write(folder, "se", 0, {"status": "done", "metrics": [1]})
    records = read_run(folder)
    assert [records.of(name)[0].status for name in ("none", "se")] == ["partial", "partial"]
    assert sum("metrics" in note for note in records.notes) == 2


def test_a_damaged_profile_is_left_out_with_a_note(folder):
    (folder / "profile.json").write_text("{")
    records = read_run(folder)
    assert records.profile is None
    assert any("profile.json" in note for note in records.notes)


@pytest.mark.parametrize(
    "content",
    [
        {"mechanisms": [1]},
        {"mechanisms": {"none": 3}},
        {"mechanisms": {"none": {"parameters": "many"}}},
        {"latency": {"1": {"none": 0.1}}},
        {"latency": {"1": {"none": {"mean": 0.1}}}},
        {"latency": {"one": {"none": {"median": 0.1}}}},
        {"latency": [1]},
        {"notes": 5},
    ],
)
def test_a_profile_of_another_shape_is_left_out_with_a_note(folder, content):
    (folder / "profile.json").write_text(json.dumps(content))
    records = read_run(folder)
    assert records.profile is None
    assert any("profile.json" in note for note in records.notes)
    assert all(row.latency == {} for row in summarise(records).rows)


@pytest.mark.parametrize(
    "change",
    [
        {"parameters": "many"},
        {"data": [1]},
        {"data": {"skipped": 5}},
        {"versions": "2.15"},
        {"machine": 7},
        {"kernels": "c++"},
        {"notes": "one"},
        {"job": "se"},
    ],
)
def test_a_trial_with_values_of_another_kind_is_left_out_with_a_note(folder, change):
    write(folder, "none", 0, DONE | change)
    records = read_run(folder)
    assert records.of("none")[0].status == "partial"
    assert any("none, seed 0: trial.json" in note for note in records.notes)
    write_report(folder)


def test_what_could_not_be_measured_is_among_the_notes(folder):
    (folder / "profile.json").write_text(json.dumps({"notes": ["Latency: no."]}))
    assert "Latency: no." in read_run(folder).notes


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunError, match="expected a run folder"):
        read_run(tmp_path / "nowhere")
