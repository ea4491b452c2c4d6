"""Progress: a bar or a view on a terminal, a line an epoch elsewhere."""

import contextlib
import io
import json
import sys

import pytest
from rich.console import Console
from rich.progress import Progress, TextColumn

from normattn.cli import _common
from normattn.cli._live import LiveComparison
from normattn.cli._progress import _Bar, _Lines, _Screen, describe, display

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


def test_on_a_terminal_control_characters_are_shown_and_elsewhere_kept():
    for terminal, words in ((True, "a�[2J[b]"), (False, "a\x1b[2J[b]")):
        screen = io.StringIO()
        lines = _Lines(Console(file=screen, force_terminal=terminal, color_system=None))
        lines({"event": "note", "text": "a\x1b[2J[b]\nsecond line"})
        assert screen.getvalue() == f"{words}\nsecond line\n"


@pytest.fixture
def bar():
    console = Console(file=io.StringIO(), force_terminal=True)
    with Progress(TextColumn("{task.fields[detail]}"), console=console) as progress:
        yield _Bar(progress, _Lines(console, silent=frozenset({"epoch"}))), progress


def test_the_bar_counts_the_steps_of_a_training(bar):
    show, progress = bar
    show(STEP)
    (work,) = progress.tasks
    assert (work.completed, work.total) == (15, 40)
    assert work.description == "images"
    show({"event": "evaluate", "epoch": 2, "batch": 1, "batches": 2})
    assert (work.completed, work.total) == (15, 40)
    assert work.fields["detail"] == "epoch 2, evaluating"


def test_the_bar_of_an_evaluation_counts_its_batches(bar):
    show, progress = bar
    show({"event": "evaluate", "batch": 1, "batches": 2})
    (work,) = progress.tasks
    assert (work.completed, work.total) == (1, 2)


def test_lines_above_the_bar_leave_out_epochs(bar):
    show, progress = bar
    show(EPOCH)
    show({"event": "failed", "reason": "nan"})
    shown = progress.console.file.getvalue()
    assert "failed: nan" in shown
    assert "train loss" not in shown


def shown(*events, run=None):
    """Return what of ours shows these events on a terminal, and all that it printed."""
    console = Console(file=io.StringIO(), force_terminal=True, width=100, height=40)
    with contextlib.ExitStack() as stack:
        screen = _Screen(console, stack, run)
        for event in events:
            screen(event)
        kind = type(screen._show)
    return kind, console.file.getvalue()


def test_a_comparison_has_a_view_and_a_training_a_bar(tmp_path):
    kind, text = shown({"event": "trial"} | TRIAL, EPOCH | TRIAL, {"event": "skipped"} | TRIAL)
    assert kind is LiveComparison
    assert "train loss" not in text
    assert "done before" not in text
    assert shown(STEP)[0] is _Bar
    assert shown({"event": "note", "text": "before the first trial"}, run=tmp_path)[0] is (
        LiveComparison
    )


def test_lines_above_the_view_name_their_trial():
    _, text = shown({"event": "failed", "reason": "[red]nan"} | TRIAL)
    assert "[3/21] ean(groups=8), seed 1: failed: [red]nan" in text


@pytest.mark.parametrize(("terminal", "term"), [(False, "xterm"), (True, "dumb")])
def test_where_nothing_can_be_drawn_in_place_there_are_lines(monkeypatch, tmp_path, terminal, term):
    screen = Console(file=io.StringIO(), force_terminal=terminal, _environ={"TERM": term})
    monkeypatch.setattr(_common, "out", lambda: screen)
    with display(False, run=tmp_path) as show:
        show(EPOCH | TRIAL)
    assert screen.file.getvalue() == f"{describe(EPOCH | TRIAL)}\n"


def test_event_files_stand_beside_the_histories_and_events_are_shown_as_before(tmp_path, capsys):
    pytest.importorskip("tensorboard", reason="event files need the extra `tensorboard`")
    record = {"epoch": 1, "train_loss": 0.5}
    (tmp_path / "history.jsonl").write_text(json.dumps(record) + "\n")
    with display(True, tensorboard=tmp_path) as show:
        show(EPOCH | TRIAL)
    assert json.loads(capsys.readouterr().out) == EPOCH | TRIAL
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 1


WORK = ("--data", "digits", "--host", "resnet20", "--stem", "cifar", "--attention", "none")


@pytest.mark.parametrize(
    "command",
    [
        ("train", *WORK),
        ("compare", *WORK),
        ("slim", "nothing", "--data", "digits", "--flops", "0.5"),
    ],
)
def test_without_tensorboard_it_is_refused_before_any_work(refused, tmp_path, monkeypatch, command):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    sentence = refused(*command, "--tensorboard", "--out", tmp_path / "out")
    assert "pip install 'normattn[tensorboard]'" in sentence
    assert not (tmp_path / "out").exists()


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


def test_the_bar_of_a_slimming_is_that_of_its_round(bar):
    show, progress = bar
    show(STEP | ROUND)
    (work,) = progress.tasks
    assert work.description == "round 2 of 3"
    assert (work.completed, work.total) == (15, 40)
