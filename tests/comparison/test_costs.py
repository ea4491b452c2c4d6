"""Costs: what can be measured is, and what cannot is said."""

import dataclasses

import pytest

from normattn import fused
from normattn.comparison import costs
from normattn.comparison.protocol import Protocol
from normattn.errors import Fault, UnsupportedModel
from normattn.kernels import cpu
from normattn.training import recipe


@pytest.fixture
def protocol() -> Protocol:
    return Protocol(
        data="digits",
        host="resnet20",
        stem="cifar",
        mechanisms=("none", "ean(groups=8)"),
        seeds=(3,),
        recipe=recipe("quick"),
    )


@pytest.fixture(autouse=True)
def a_few_rounds(monkeypatch):
    monkeypatch.setattr(costs, "_ROUNDS", (1, 2))
    monkeypatch.setattr(costs, "_SECONDS", 100.0)


def test_every_mechanism_is_counted_and_timed(protocol):
    found = costs.measure(protocol, "cpu")
    assert found["notes"] == []
    assert (found["input_size"], found["device"]) == ([1, 8, 8], "cpu")
    none, ean = found["mechanisms"].values()
    assert 0 < none["parameters"] < ean["parameters"]
    assert none["paper_macs"] > none["macs"] > 0
    assert set(found["latency"]) == {"1", "32"}
    for by_label in found["latency"].values():
        assert list(by_label) == ["none", "ean(groups=8)"]
        assert all(0 < each["p20"] <= each["median"] <= each["p80"] for each in by_label.values())


@pytest.mark.parametrize("fuse", [True, False])
def test_models_are_timed_as_the_protocol_has_them_and_that_is_said(
    protocol, monkeypatch, reference_runs, fuse
):
    timed = []

    def latency(models, *args, **kwargs):
        timed.extend(models.values())
        return real(models, *args, **kwargs)

    real = costs.latency
    monkeypatch.setattr(costs, "latency", latency)
    found = costs.measure(dataclasses.replace(protocol, fuse=fuse), "cpu")
    assert found["kernels"] == ("reference" if fuse else "plain")
    assert {bool(fused(model).blocks) for model in timed} == {fuse}
    plain = costs.measure(dataclasses.replace(protocol, fuse=False), "cpu")
    assert found["mechanisms"] == plain["mechanisms"]


def test_kernels_that_did_not_run_in_the_timing_are_not_named(
    protocol, monkeypatch, reference_runs
):
    monkeypatch.setattr(costs, "BATCHES", (1, 2))
    protocol = dataclasses.replace(protocol, fuse=True)
    # Of the first stage: 16 channels of 8×8, twice in the larger batch.
    limits = {"GATE_ELEMENTS": 1024, "NCHW_ELEMENTS": 1 << 30, "CHANNELS_LAST_ELEMENTS": 1 << 30}
    for limit, value in limits.items():
        monkeypatch.setattr(cpu, limit, value)
    assert costs.measure(protocol, "cpu")["kernels"] == "none: plain; ean(groups=8): reference"
    monkeypatch.setattr(cpu, "GATE_ELEMENTS", 2048)
    assert costs.measure(protocol, "cpu")["kernels"] == (
        "batch 1: plain; batch 2: none: plain; ean(groups=8): reference"
    )
    monkeypatch.setattr(cpu, "GATE_ELEMENTS", 4096)
    assert costs.measure(protocol, "cpu")["kernels"] == "plain"


def test_a_timing_that_would_take_too_long_is_left_out_and_said(protocol, monkeypatch):
    monkeypatch.setattr(costs, "_SECONDS", 0.0)
    found = costs.measure(protocol, "cpu")
    assert found["latency"] == {}
    assert [note.split(" was")[0] for note in found["notes"]] == [
        "Latency with batch 1",
        "Latency with batch 32",
    ]


@pytest.mark.parametrize("error", [UnsupportedModel("no such input"), RuntimeError("no memory")])
def test_what_cannot_be_measured_is_left_out_and_said(protocol, monkeypatch, error):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(costs, "profile", fail)
    monkeypatch.setattr(costs, "latency", fail)
    found = costs.measure(protocol, "cpu")
    assert (found["mechanisms"], found["latency"]) == ({}, {})
    assert len(found["notes"]) == 4
    assert all(str(error) in note for note in found["notes"])


def test_an_unknown_device_is_refused_before_anything_is_opened(protocol, monkeypatch):
    def never(job):
        raise Fault("opened")

    monkeypatch.setattr(costs, "open_job_data", never)
    with pytest.raises(ValueError, match="gpu"):
        costs.check(protocol, "gpu")
