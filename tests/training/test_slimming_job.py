"""What a slimming may be asked, and the interim targets on the way there."""

import json

import pytest

from normattn.errors import ConfigError
from normattn.training._slimming_targets import interim, missing
from normattn.training.slimming import SlimJob, fine_tuning


def job(target=None, **options):
    return SlimJob("a model", "digits", {"speedup": 2} if target is None else target, **options)


def test_a_job_survives_json():
    asked = job(max_drop=0.5, skip=("layer4.*",), recipe=fine_tuning(epochs=3, lr=0.01))
    assert SlimJob.from_json(json.loads(json.dumps(asked.to_json()))) == asked


def test_a_job_from_before_there_was_a_runtime_is_of_torch():
    content = job().to_json()
    assert content.pop("runtime") == "torch"
    assert SlimJob.from_json(content) == job()


def test_an_unknown_key_names_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'steps'"):
        SlimJob.from_json({**job().to_json(), "step": 3})


def test_fine_tuning_distils_unless_told_otherwise():
    assert job().recipe.distill > 0
    assert fine_tuning(distill=0.0).distill == 0
    with pytest.raises(ConfigError, match="Did you mean 'epochs'"):
        fine_tuning(epoch=3)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ({}, "expected one target, got none"),
        ({"speedup": 2, "params": 0.5}, "got speedup 2 and params 0.5"),
        ({"speedups": 2}, "Did you mean 'speedup'"),
        ({"speedup": 1}, "number > 1, got 1"),
        ({"speedup": float("inf")}, "number > 1, got inf"),
        ({"speedup": float("nan")}, "number > 1, got nan"),
        ({"flops": 0}, "between 0 and 1, got 0"),
        ({"params": 1.5}, "between 0 and 1, got 1.5"),
        ({"channels": -0.5}, "between 0 and 1, got -0.5"),
        ({"latency_ms": 0}, "number > 0, got 0"),
        ({"channels": True}, "between 0 and 1, got True"),
    ],
)
def test_a_target_that_makes_no_sense_is_refused(target, words):
    with pytest.raises(ConfigError, match=words):
        job(target)


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 0},
        {"steps": 1.5},
        {"batch": 0},
        {"round_to": 0},
        {"seed": -1},
        {"max_drop": -0.1},
        {"max_drop": float("nan")},
        {"across": "layer"},
        {"fuse": 1},
        {"runtime": "onnx"},
    ],
)
def test_a_senseless_job_is_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        job(**options)


@pytest.mark.parametrize(
    ("target", "start", "expected"),
    [
        ({"speedup": 8}, 1, [2, 4, 8]),
        ({"flops": 0.125}, 1, [0.5, 0.25, 0.125]),
        ({"params": 0.125}, 1, [0.5, 0.25, 0.125]),
        ({"channels": 0.875}, 1, [0.5, 0.75, 0.875]),
        ({"latency_ms": 5}, 40, [20, 10, 5]),
    ],
)
def test_interim_targets_are_spaced_geometrically(target, start, expected):
    asked = job(target, steps=3)
    found = [interim(asked, number, start) for number in (1, 2, 3)]
    assert [set(each) for each in found] == [set(target)] * 3
    assert [next(iter(each.values())) for each in found] == pytest.approx(expected)
    assert found[-1] == target


def test_a_round_makes_up_for_what_the_last_one_gave_too_little_or_too_much():
    assert missing({"speedup": 2}, left=0.8) == pytest.approx({"speedup": 1.6})
    assert missing({"flops": 0.5}, left=0.8) == pytest.approx({"flops": 0.625})
    assert missing({"params": 0.5}, left=0.625) == pytest.approx({"params": 0.8})
    assert missing({"channels": 0.5}, left=0.8) == pytest.approx({"channels": 0.375})
    assert missing({"channels": 0.25}, left=0.75) is None
    assert missing({"speedup": 1.2}, left=0.5) is None
    assert missing({"latency_ms": 7}, left=1) == {"latency_ms": 7}
