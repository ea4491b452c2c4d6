"""Latencies of a slimming in the runtime that it was for, beside PyTorch's."""

import pytest

from normattn import _files
from normattn.comparison import slimmed
from normattn.comparison.slimmed import lines, measure
from normattn.model import _runtimes
from normattn.model._runtimes import version_of
from normattn.model.profile import Latency

SIDE = {"metrics": {"top1_error": 10.0}, "cost": {"parameters": 10, "paper_macs": 10}, "bytes": 9}


@pytest.fixture
def record():
    """Return the record of a slimming for ONNX Runtime."""
    return {
        "status": "done",
        "job": {"batch": 4, "runtime": "onnxruntime"},
        "data": {"channels": 1, "size": [8, 8]},
        "original": SIDE,
        "result": SIDE,
        "drop": 0.0,
        "machine": {"device": "cpu", "threads": 2},
    }


@pytest.fixture
def folder(record, tmp_path, monkeypatch):
    """Return a function that writes the record of a slimming and measures its models."""
    monkeypatch.setattr(slimmed, "load", str)

    def measured():
        _files.write_json(tmp_path / "slim.json", record)
        return measure(tmp_path, "original")

    return measured


@pytest.fixture
def timed(monkeypatch):
    """Let every pass in PyTorch take 4 ms before and 2 ms after, and in a runtime half of that."""
    calls = []

    def load(model, size, runtime, *, threads):
        calls.append((size, runtime, threads))
        return runtime

    def latency(models, size, *, batch, rounds, device, threads):
        calls.append((batch, device, threads))
        times = {"before": 0.004, "after": 0.002}
        if "onnxruntime" in models.values():
            times = {side: seconds / 2 for side, seconds in times.items()}
        return {k: Latency(t, t, t, t / times["before"]) for k, t in times.items()}

    monkeypatch.setattr(slimmed, "in_runtime", load)
    monkeypatch.setattr(slimmed, "latency", latency)
    return calls


def test_both_models_are_timed_there_at_every_batch(folder, timed, record):
    found = folder()
    there = found["runtime"]
    assert (there["name"], there["version"]) == ("onnxruntime", version_of("onnxruntime"))
    assert set(found["latency"]) == set(there["latency"]) == {"1", "4", "32"}
    assert timed.count(((1, 8, 8), "onnxruntime", 2)) == 2
    assert {call[1:] for call in timed if call[0] in (1, 4, 32)} == {("cpu", 2)}
    assert not found["notes"]
    shown = {line.name: (line.before, line.after, line.ratio) for line in lines(record, found)}
    where = f"Latency in ONNX Runtime {version_of('onnxruntime')}"
    for batch in (1, 4, 32):
        assert shown[f"Latency, batch {batch} (ms)"] == ("4.00", "2.00", "2.00×")
        assert shown[f"{where}, batch {batch} (ms)"] == ("2.00", "1.00", "2.00×")


def test_a_runtime_that_is_gone_is_noted_and_pytorch_is_timed(folder, timed, record, monkeypatch):
    monkeypatch.setattr(_runtimes, "_installed", lambda name: False)
    found = folder()
    assert set(found["latency"]) == {"1", "4", "32"}
    assert found["runtime"]["latency"] == {}
    (note,) = found["notes"]
    assert note.startswith("Latency in ONNX Runtime could not be timed (slim: expected onnx")
    assert "pip install 'normattn[export]'" in note
    shown = {line.name: line.before for line in lines(record, found)}
    assert shown["Latency in ONNX Runtime, batch 32 (ms)"] == "–"


def test_records_from_before_there_was_a_runtime_have_pytorch_alone(folder, timed, record):
    del record["job"]["runtime"]
    found = folder()
    assert "runtime" not in found
    assert sum("Latency" in line.name for line in lines(record, found)) == 3
