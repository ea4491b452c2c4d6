"""Progress: bars on a terminal, a line an epoch elsewhere."""

import io

import pytest
from rich.console import Console
from rich.progress import Progress, TextColumn

from normattn.cli._progress import _Bars, _Lines, describe

TRIAL = {"mechanism": "ean(groups=8)", "seed": 1, "trial": 3, "trials": 21}
STEP = {"event": "step", "epoch": 2, "epochs": 4, "batch": 5, "batches": 10, "loss": 0.5}
EPOCH = {
    "event": "epoch",
    "epoch": 2,
    "epochs": 4,
    "train_loss": 0.5,
    "top1_error": 12.345,
    "top5_error": None,
    "images_per_second": 1234.5,
}


def test_an_epoch_is_a_line_with_its_trial():
    line = describe(EPOCH | TRIAL)
    assert line == (
        "[3/21] ean(groups=8), seed 1: epoch 2 of 4, train loss 0.500, top-1 error 12.35 %, "
        "1,234 images/s"
    )
    assert describe(EPOCH | {"top5_error": 3}).count("top-5 error 3.00 %") == 1


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ({"event": "note", "text": "see [here]"}, "see [here]"),
        ({"event": "retry", "reason": "killed"}, "starting it again: killed"),
        ({"event": "failed", "reason": "nan"}, "failed: nan"),
        ({"event": "skipped"}, "done before"),
        ({"event": "done", "metrics": {"top1_error": 5.0}}, "done, top-1 error 5.00 %"),
    ],
)
def test_other_events_say_what_happened(event, words):
    assert describe(event) == words
    assert describe(event | TRIAL) == f"[3/21] ean(groups=8), seed 1: {words}"


@pytest.mark.parametrize("kind", ["step", "evaluate", "trial", "an event of a later version"])
def test_small_and_unknown_events_have_no_line(kind):
    assert describe({"event": kind}) is None


def test_what_every_trial_notes_is_said_once():
    screen = io.StringIO()
    lines = _Lines(Console(file=screen))
    for trial in (1, 2):
        lines({"event": "note", "text": "30 images are left out"} | TRIAL | {"trial": trial})
        lines(EPOCH | TRIAL | {"trial": trial})
    assert screen.getvalue().count("30 images are left out") == 1
    assert screen.getvalue().count("epoch 2 of 4") == 2


@pytest.fixture
def bars():
    console = Console(file=io.StringIO(), force_terminal=True)
    with Progress(TextColumn("{task.fields[detail]}"), console=console) as progress:
        yield _Bars(progress), progress


def test_bars_count_the_trials_and_the_steps_of_the_one_that_runs(bars):
    show, progress = bars
    show({"event": "trial"} | TRIAL)
    show(STEP | TRIAL)
    trials, work = progress.tasks
    assert (trials.completed, trials.total) == (2, 21)
    assert (work.completed, work.total) == (15, 40)
    assert work.description == "[3/21] ean(groups=8), seed 1"
    show({"event": "evaluate", "epoch": 2, "batch": 1, "batches": 2} | TRIAL)
    assert (work.completed, work.total) == (15, 40)
    show({"event": "done", "metrics": {"top1_error": 5.0}} | TRIAL)
    assert trials.completed == 3


def test_bars_of_an_evaluation_count_its_batches(bars):
    show, progress = bars
    show({"event": "evaluate", "batch": 1, "batches": 2})
    (work,) = progress.tasks
    assert (work.completed, work.total) == (1, 2)


def test_lines_above_the_bars_leave_out_epochs(bars):
    show, progress = bars
    show(EPOCH | TRIAL)
    show({"event": "failed", "reason": "nan"} | TRIAL)
    shown = progress.console.file.getvalue()
    assert "failed: nan" in shown
    assert "train loss" not in shown


ROUND = {"round": 2, "rounds": 3}
PLAN = {
    "event": "plan",
    "target": {"speedup": 1.587},
    "before": {"parameters": 270610, "latency_ms": 7.5, "multiply_adds": None},
    "after": {"parameters": 118026, "latency_ms": 4.125, "multiply_adds": None},
    "note": "",
}


def test_a_round_of_a_slimming_says_what_goes_and_what_that_cost():
    assert describe(PLAN | ROUND) == (
        "round 2 of 3: towards speedup 1.59: parameters 270,610 → 118,026, latency ms 7.5 → 4.125"
    )
    nothing = {"before": None, "after": None, "note": "It is there already."}
    assert describe(PLAN | ROUND | nothing) == (
        "round 2 of 3: towards speedup 1.59: nothing to remove. It is there already."
    )
    assert describe(EPOCH | ROUND).startswith("round 2 of 3: epoch 2 of 4, train loss 0.500")
    errors = {side: {"metrics": {"top1_error": e}} for side, e in (("before", 50), ("after", 12))}
    done = {"event": "round", "skipped": False, "drop": -0.25} | ROUND | errors
    assert describe(done) == (
        "round 2 of 3: done, top-1 error 50.00 % after removal, 12.00 % after fine-tuning "
        "(-0.25 points against the original)"
    )
    assert describe(done | {"skipped": True}) == "round 2 of 3: done, nothing removed"


def test_the_bar_of_a_slimming_is_that_of_its_round(bars):
    show, progress = bars
    show(STEP | ROUND)
    (work,) = progress.tasks
    assert work.description == "round 2 of 3"
    assert (work.completed, work.total) == (15, 40)
