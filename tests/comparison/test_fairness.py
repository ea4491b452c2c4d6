"""Whatever was not equal is said in a sentence, and nothing is said that was."""

from pathlib import Path

import pytest

from normattn.comparison.fairness import inequalities
from normattn.comparison.protocol import Protocol
from normattn.comparison.records import RunRecords, TrialRecord
from normattn.training import recipe

LAST_EPOCH = "Errors are those of the last epoch."


def details(**changes) -> dict:
    same = {
        "parameters": 100,
        "commit": "abc",
        "machine": {"device": "cpu", "name": "A CPU", "threads": 2},
        "processes": 1,
        "kernels": {"name": "c++", "blocks": 9, "mechanisms": 0},
        "versions": {"torch": "2.15"},
        "resumed": 0,
        "data": {"skipped": [], "fingerprint": "f"},
    }
    return same | changes


def sentences(*trials: TrialRecord, mechanisms=("none", "se"), **options) -> list[str]:
    settings = {"data": "digits", "host": "resnet20", "recipe": recipe("quick"), "seeds": (0,)}
    protocol = Protocol(mechanisms=mechanisms, **settings | options)
    return list(inequalities(RunRecords(Path("run"), protocol, trials)))


def pair(**changes) -> tuple[TrialRecord, TrialRecord]:
    """Two finished trials, the second with other details."""
    none = TrialRecord("none", 0, "done", {"top1_error": 1.0}, details=details())
    return none, TrialRecord("se", 0, "done", {"top1_error": 1.0}, details=details(**changes))


def test_equal_trials_leave_only_the_choice_of_the_epoch_to_say():
    (only,) = sentences(*pair())
    assert only.startswith(LAST_EPOCH)


def test_the_same_kernels_in_more_places_are_no_difference():
    (only,) = sentences(*pair(kernels={"name": "c++", "blocks": 9, "mechanisms": 9}))
    assert only.startswith(LAST_EPOCH)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"parameters": 1234}, "Parameters differ: from 100 (none) to 1,234 (se)"),
        ({"commit": "abd"}, "different commits of normattn: abc for most, abd for se, seed 0"),
        ({"commit": None}, "unknown for se, seed 0"),
        ({"machine": {"name": "A GPU", "threads": 2}}, "different devices"),
        ({"machine": {"name": "A CPU", "threads": 8}}, "different numbers of threads"),
        ({"processes": 2}, "different numbers of processes"),
        ({"kernels": {"name": "plain"}}, "different kernels: c++ for most, plain for se, seed 0"),
        ({"kernels": None}, "different kernels: c++ for most, plain for se, seed 0"),
        ({"versions": {"torch": "2.14"}}, "different versions of torch"),
        ({"resumed": 1}, "Cut and resumed: se, seed 0"),
        ({"data": {"skipped": ["a.png", "b.png"], "fingerprint": "f"}}, "left out: 0 or 2"),
        ({"data": {"skipped": [], "fingerprint": "g"}}, "The data changed between trials"),
    ],
)
def test_what_differs_between_trials_is_said_with_both_values(changes, words):
    found = sentences(*pair(**changes))
    assert len(found) == 2
    assert words in found[0]


def test_a_trial_whose_process_died_is_named():
    none, se = pair()
    died = TrialRecord("se", 0, "done", se.metrics, attempts=1, details=se.details)
    assert any("se, seed 0" in line for line in sentences(none, died))


def test_unfinished_trials_are_named_by_what_became_of_them():
    found = sentences(
        TrialRecord("none", 0, "failed"),
        TrialRecord("none", 1, "partial"),
        TrialRecord("se", 0, "missing"),
    )
    assert [line.split(". ")[0] for line in found] == [
        "Failed: none, seed 0",
        "Begun but not finished: none, seed 1",
        "Not begun: se, seed 0",
    ]


def test_places_differ_only_when_each_mechanism_takes_its_own():
    mechanisms = ("none", "se", "bam")
    (line,) = sentences(mechanisms=mechanisms)
    assert "se at blocks; bam at stages" in line
    assert sentences(mechanisms=mechanisms, sites="blocks") == []
    assert sentences(mechanisms=("none", "se", "cbam")) == []


def test_a_penalty_that_reaches_only_some_mechanisms_is_said():
    mechanisms = ("none", "se", "nam-channel")
    (line,) = sentences(mechanisms=mechanisms, recipe=recipe("quick", sparsity=1e-4))
    assert "(p = 0.0001) acts on nam-channel only" in line
    on_norms = recipe("quick", sparsity=1e-4, sparsity_on="norms")
    assert sentences(mechanisms=mechanisms, recipe=on_norms) == []


def test_a_limit_on_the_training_images_is_said():
    (line,) = sentences(train_limit=10_000)
    assert line.startswith("Trained on 10,000 images only")
