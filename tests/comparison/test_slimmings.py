"""Several slimmings of one model: who is compared with whom, and what the chart shows."""

import xml.etree.ElementTree as ElementTree

import pytest

from normattn import _files
from normattn.comparison._chart_files import as_file
from normattn.comparison._slimmings_picture import slimmed_tradeoff, tradeoff_rows
from normattn.comparison.slimmed_page import write_slimmed
from normattn.comparison.slimmings import read_slimmings, write_slimmings
from normattn.errors import RunError


def slimming(folder, criterion, error, *, ratio=0.5, sha="one", status="done", fewer=2):
    """Write a slimming of a model with 90 % of accuracy and 1000 parameters."""
    folder.mkdir(parents=True)
    cost = {"parameters": 1000, "paper_macs": 6000}
    less = {name: value / fewer for name, value in cost.items()}
    record = {
        "status": status, "sha256": sha, "data": {"spec": "digits", "fingerprint": "f"},
        "job": {"criterion": criterion, "target": {"flops": 1 / fewer}, "batch": 32},
        "original": {"metrics": {"top1_error": 10.0}, "cost": cost},
        "result": {"metrics": {"top1_error": error}, "cost": less},
    }  # fmt: skip
    _files.write_json(folder / "slim.json", record)
    times = {"before": {"median": 0.004}, "after": {"median": 0.004 * ratio, "ratio": ratio}}
    profile = {"name": "a CPU", "threads": 2, "latency": {"32": times}}
    _files.write_json(folder / "profile.json", profile)


@pytest.fixture
def run(tmp_path):
    """Return a folder of four slimmings: the control, two of nam, and one of another model."""
    slimming(tmp_path / "random-2", "random", 30.0)
    slimming(tmp_path / "nam-2", "nam", 20.0)
    slimming(tmp_path / "nam-4", "nam", 40.0, ratio=0.25, fewer=4)
    slimming(tmp_path / "other", "nam", 1.0, sha="two")
    return tmp_path


def test_slimmings_of_one_model_are_compared_and_the_control_is_last(run):
    found = read_slimmings(run)
    keys = ("name", "accuracy", "drop", "speedup", "latency", "parameters")
    shown = [tuple(getattr(outcome, key) for key in keys) for outcome in found.outcomes]
    assert shown == [
        ("nam-2", 80.0, 10.0, 2.0, 2.0, 2.0),
        ("nam-4", 60.0, 30.0, 4.0, 1.0, 4.0),
        ("random-2", 70.0, 20.0, 2.0, 2.0, 2.0),
    ]
    assert found.criteria == ("nam", "random")
    assert found.missing == ("Left out: 1 of another model or other data than nam-2.",)


def test_the_chart_has_a_point_a_slimming_and_each_line_begins_at_the_original(run):
    found = read_slimmings(run)
    rows = [(r["criterion"], r["speedup"], r["accuracy"]) for r in tradeoff_rows(found)]
    assert rows == [
        ("nam", 1.0, 90.0), ("nam", 2.0, 80.0), ("nam", 4.0, 60.0),
        ("random", 1.0, 90.0), ("random", 2.0, 70.0),
    ]  # fmt: skip
    chart = slimmed_tradeoff(found)
    marks = list(ElementTree.fromstring(as_file(chart.chart, "svg")).iter())
    points = [e for e in marks if e.get("aria-roledescription") == "point"]
    assert len(points) == len(rows)
    assert "nam, flops 0.25: 4.00 times as fast, 60.00 %" in chart.text


def test_latencies_of_the_exported_files_come_before_those_in_pytorch(run):
    latency = [
        {"provider": f"{name}.float", "batch": 32, "ratio": ratio, "median_ms": 8 * ratio}
        for name, ratio in (("original", 1.0), ("nam-2", 0.8), ("random-2", 0.1))
    ]
    _files.write_json(run / "runtime.json", {"device": "a CPU", "threads": 2, "latency": latency})
    found = read_slimmings(run)
    assert found.latency == 8.0
    assert {o.name: o.speedup for o in found.outcomes} == {
        "nam-2": 1.25, "nam-4": None, "random-2": 10.0,
    }  # fmt: skip
    assert "ONNX Runtime" in found.timed
    assert len(tradeoff_rows(found)) == 4  # what was not timed there has no point


def test_what_is_not_shown_is_named(run):
    slimming(run / "begun", "nam", 20.0, status="running")
    (run / "taylor-9").mkdir()
    _files.write_json(run / "taylor-9" / "refused.json", {"reason": "out of reach <b>"})
    (run / "torn").mkdir()
    (run / "torn" / "slim.json").write_text("{")
    missing = read_slimmings(run).missing
    assert "begun is not finished." in missing
    assert "torn is not finished." in missing
    assert "taylor-9 was refused: out of reach <b>" in missing


def test_a_page_of_several_slimmings_and_none_where_nothing_is_finished(run, tmp_path):
    page = write_slimmings(run).read_text()
    assert "Of 2 criteria" in page
    assert "nam-4" in page
    with pytest.raises(RunError, match="finished slimmings"):
        write_slimmings(run / "nam-2")
    with pytest.raises(RunError, match="finished slimmings"):
        read_slimmings(tmp_path / "nowhere")


def test_the_page_of_one_shows_what_lies_beside_it(run):
    write_slimmed(run / "nam-2")
    words = (run / "nam-2" / "slim.md").read_text()
    assert "| random-2 | random | flops 0.5 | 70.00 | −20.00 | 2.00 | 2.00 | 2.00 | 2.00 |" in words
    assert "| other |" not in words
    write_slimmed(run / "other")
    assert "No other finished slimming" in (run / "other" / "slim.md").read_text()
