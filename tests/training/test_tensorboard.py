"""Event files: the histories' figures, each once, whatever was cut."""

import json
import os
import sys

import pytest

from normattn.errors import ConfigError
from normattn.training._tensorboard import EventFiles

pytest.importorskip("tensorboard", reason="event files need the extra `tensorboard`")
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

EDGES = {"first": 1e-8, "last": 10.0, "count": 37}
DONE = {"event": "done"}


def epoch(number, loss=0.5):
    counts = [0] * 38
    counts[33], counts[34], counts[37] = 4, 2, 1  # from 1 on, from 10^0.25 on, from 10 on
    return {
        "epoch": number,
        "lr": 0.1 / number,
        "train_loss": loss,
        "loss": None,
        "train_top1_error": 50.0,
        "top1_error": 40.0 - number,
        "top5_error": None,
        "penalty": 0.25,
        "images_per_second": 1000.0,
        "seconds": 60.0,
        "seconds_evaluation": 30.0,
        "scales": {"attention": {"mean": 1.5, "max": 12.5}, "norms": None},
        "sparsity": 1e-4,
        "histograms": {
            "edges": EDGES,
            "attention": {"scales": 10, "zeros": 3, "counts": counts},
            "norms": None,
        },
    }


def write(folder, epochs):
    """Replace a history, as a training does: a new file each time."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "new").write_text("".join(json.dumps(each) + "\n" for each in epochs))
    (folder / "new").replace(folder / "history.jsonl")


def points(folder, tag="loss/train"):
    """Return (step, value) of every point in a folder's event files."""
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "histograms": 0})
    found.Reload()
    if tag not in found.Tags()["scalars"]:
        return []
    return [(point.step, pytest.approx(point.value)) for point in found.Scalars(tag)]


@pytest.fixture
def follow():
    """Let a folder be followed through several states; return what was told."""

    def run(folder, *states):
        told = []
        with EventFiles(folder, told.append) as heard:
            for epochs in states:
                write(folder, epochs)
                heard({"event": "epoch"})
            heard(DONE)
        return [event for event in told if event["event"] == "note"]

    return run


def test_every_figure_of_an_epoch_is_a_point_and_what_is_unknown_is_none(tmp_path, follow):
    assert follow(tmp_path, [epoch(1)], [epoch(1), epoch(2, 0.25)]) == []
    assert points(tmp_path) == [(1, 0.5), (2, 0.25)]
    assert points(tmp_path, "lr") == [(1, 0.1), (2, 0.05)]
    assert points(tmp_path, "top1_error/validation") == [(1, 39.0), (2, 38.0)]
    assert points(tmp_path, "images_per_second") == [(1, 1000.0), (2, 1000.0)]
    assert points(tmp_path, "scales_attention/mean") == [(1, 1.5), (2, 1.5)]
    assert points(tmp_path, "loss/validation") == []


def test_histograms_have_the_bins_of_the_records(tmp_path, follow):
    follow(tmp_path, [epoch(1)])
    found = EventAccumulator(str(tmp_path), size_guidance={"histograms": 0})
    found.Reload()
    assert found.Tags()["histograms"] == ["scale_factors/attention"]
    (event,) = found.Histograms("scale_factors/attention")
    histogram = event.histogram_value
    counted = {
        round(limit, 3): count
        for limit, count in zip(histogram.bucket_limit, histogram.bucket, strict=True)
        if count
    }
    assert counted == {0.0: 3, 1.778: 4, 3.162: 2, 12.5: 1}
    assert (histogram.min, histogram.max, histogram.num) == (0.0, 12.5, 10)


def test_a_training_taken_up_again_has_each_point_once(tmp_path, follow):
    follow(tmp_path, [epoch(1)], [epoch(1), epoch(2)])
    follow(tmp_path, [epoch(1), epoch(2)], [epoch(1), epoch(2), epoch(3)])
    assert [step for step, _ in points(tmp_path)] == [1, 2, 3]
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 1


def test_epochs_that_were_written_while_nobody_looked_are_not_lost(tmp_path, follow):
    follow(tmp_path / "run" / "seed-0", [epoch(1), epoch(2)])
    write(tmp_path / "run" / "seed-1", [epoch(1)])
    with EventFiles(tmp_path / "run", lambda event: None) as heard:
        heard({"event": "skipped"})
    assert [len(points(tmp_path / "run" / f"seed-{seed}")) for seed in (0, 1)] == [2, 1]


def test_a_training_that_went_back_to_an_earlier_state_shows_the_new_epochs(tmp_path, follow):
    follow(tmp_path, [epoch(1), epoch(2, 9.0)], [epoch(1)], [epoch(1), epoch(2, 0.25)])
    assert points(tmp_path) == [(1, 0.5), (2, 0.25)]


def test_time_goes_as_in_the_training_whenever_the_file_is_written(tmp_path, follow):
    write(tmp_path, [epoch(1), epoch(2)])
    with EventFiles(tmp_path, lambda event: None) as heard:
        os.utime(tmp_path / "history.jsonl", (10_000, 10_000))
        heard(DONE)
    found = EventAccumulator(str(tmp_path))
    found.Reload()
    assert [point.wall_time for point in found.Scalars("lr")] == [9_910, 10_000]


def test_steps_and_a_folder_without_histories_leave_nothing(tmp_path):
    told = []
    with EventFiles(tmp_path, told.append) as heard:
        heard({"event": "note", "text": "hello"})
        write(tmp_path, [epoch(1)])
        heard({"event": "step"})
        heard({"event": "evaluate"})
    assert [event["event"] for event in told] == ["note", "step", "evaluate"]
    assert not list(tmp_path.glob("events.*"))


def test_more_trials_than_writers_each_have_their_points(tmp_path):
    with EventFiles(tmp_path, lambda event: None) as heard:
        for number in (1, 2):
            for seed in range(10):
                write(tmp_path / f"seed-{seed}", [epoch(n) for n in range(1, number + 1)])
                heard({"event": "epoch"})
    for seed in range(10):
        assert [step for step, _ in points(tmp_path / f"seed-{seed}")] == [1, 2]


def test_a_damaged_line_is_left_out_and_said(tmp_path):
    write(tmp_path, [epoch(1)])
    with (tmp_path / "history.jsonl").open("a") as file:
        file.write('{"epoch": 2, "tr')
    told = []
    with EventFiles(tmp_path, told.append) as heard:
        heard(DONE)
    assert "line 2 of" in told[0]["text"]
    assert points(tmp_path) == [(1, 0.5)]


def test_what_cannot_be_written_is_said_once_and_the_training_goes_on(tmp_path, monkeypatch):
    import torch.utils.tensorboard

    def full(*args, **kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr(torch.utils.tensorboard, "SummaryWriter", full)
    write(tmp_path, [epoch(1)])
    told = []
    with EventFiles(tmp_path, told.append) as heard:
        heard({"event": "epoch"})
        heard(DONE)
    note, *others = told
    assert "No space left on device" in note["text"]
    assert [event["event"] for event in others] == ["epoch", "done"]


def test_without_the_package_one_sentence_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    with pytest.raises(ConfigError, match=r"pip install 'normattn\[tensorboard\]'"):
        EventFiles(tmp_path, lambda event: None)
