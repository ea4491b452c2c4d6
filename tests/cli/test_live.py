"""The live view of a comparison: what it counts, how long it says it takes, what it never does."""

import io
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from fcntl import ioctl

import pytest
from rich.console import Console

from normattn.cli._board import Board, Trial
from normattn.cli._live import LiveComparison, draw, plain, recorded
from normattn.comparison.protocol import Protocol, trial_folder, write_protocol
from normattn.training import recipe

HOSTILE = "[bold red]x[/bold red]\x1b[2J\n\u202e" + "very long " * 30


class Clock:
    """A clock that goes on when told to."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def grid(mechanisms, seeds):
    return [Trial(mechanism, seed) for seed in range(seeds) for mechanism in mechanisms]


class Play:
    """Plays trials of 2 epochs of 10 batches, a second a batch, 4 s to start a process."""

    def __init__(self, board, trials):
        self.board, self.trials, self.clock = board, trials, board.clock

    def tell(self, key, **event):
        place = {"mechanism": key[0], "seed": key[1], "trial": 1, "trials": self.trials}
        self.board.hear(event | place)

    def begin(self, *key):
        self.tell(key, event="trial")
        self.clock.now += 3

    def steps(self, *key, epoch, first=1, last=10, seconds=1.0):
        for batch in range(first, last + 1):
            self.clock.now += seconds
            place = {"epoch": epoch, "epochs": 2, "batch": batch, "batches": 10}
            self.tell(key, event="step", loss=1.5, images_per_second=1234.5, **place)

    def epoch(self, *key, error):
        self.tell(key, event="epoch", top1_error=error)

    def whole(self, *key, error, seconds=1.0):
        self.begin(*key)
        for number in (1, 2):
            self.steps(*key, epoch=number, seconds=seconds)
            self.epoch(*key, error=error + 2 - number)
        self.tell(key, event="done", metrics={"top1_error": error})


@pytest.fixture
def play(clock):
    """Four trials: two mechanisms with two seeds."""
    return Play(Board(grid(("none", "nam"), 2), clock), 4)


def text(board, width=80, height=40):
    console = Console(file=io.StringIO(), width=width, height=height)
    console.print(draw(board, width, height))
    return console.file.getvalue()


def test_the_view_says_what_is_done_runs_failed_and_waits(play):
    play.whole("none", 0, error=8.0)
    play.begin("nam", 0)
    play.tell(("nam", 0), event="failed", reason="nan")
    play.begin("none", 1)
    play.steps("none", 1, epoch=1, last=4)
    shown = text(play.board)
    assert "1 of 4 trials done, 1 running, 1 failed, 1 waiting" in shown
    assert ["none", "1", "1/2", "4/10", "1.500", "1,234"] in map(str.split, shown.splitlines())


def test_a_trial_says_when_it_starts_and_when_it_evaluates(play):
    play.begin("none", 0)
    assert "starting" in text(play.board)
    play.steps("none", 0, epoch=1)
    play.tell(("none", 0), event="evaluate", epoch=1, batch=1, batches=2)
    assert "evaluating" in text(play.board)
    play.epoch("none", 0, error=9.0)
    play.steps("none", 0, epoch=2, last=1)
    assert "evaluating" not in text(play.board)


def test_each_mechanism_has_the_mean_and_the_best_of_what_is_done(play):
    play.whole("none", 0, error=8.0)
    play.whole("nam", 0, error=7.0)
    play.whole("none", 1, error=9.0)
    play.begin("nam", 1)
    play.steps("nam", 1, epoch=1)
    play.epoch("nam", 1, error=20.0)
    rows = [line.split() for line in text(play.board).splitlines()]
    assert ["none", "2/2", "8.50", "8.00", "–"] in rows
    assert ["nam", "1/2", "7.00", "7.00", "20.00"] in rows


def test_the_time_left_is_not_known_before_an_epoch_is_done(play):
    play.begin("none", 0)
    play.steps("none", 0, epoch=1)
    assert play.board.left() is None
    assert "time left not known until an epoch is done" in text(play.board)
    play.epoch("none", 0, error=9.0)
    assert "time left not known" not in text(play.board)


def test_the_time_left_follows_from_what_each_mechanism_took(play):
    play.whole("none", 0, error=8.0)  # 4 s to its first step, then 19 s for 19 of 20 batches
    assert play.board.left() == pytest.approx(3 * (4 + 20))
    play.whole("nam", 0, error=8.0, seconds=3.0)  # 6 s, then 57 s
    start = (4 + 6) / 2
    assert play.board.left() == pytest.approx((start + 20) + (start + 60))
    play.begin("none", 1)
    play.steps("none", 1, epoch=1, last=5)
    start = (4 + 6 + 4) / 3
    assert play.board.left() == pytest.approx(0.75 * 20 + start + 60)


def test_what_is_resumed_in_the_middle_is_not_taken_for_faster(play):
    play.begin("none", 0)
    play.steps("none", 0, epoch=2, first=5)
    play.epoch("none", 0, error=9.0)
    play.tell(("none", 0), event="done", metrics={"top1_error": 9.0})
    assert play.board.left() == pytest.approx(3 * (4 + 20))


def test_a_trial_started_again_is_measured_anew(play):
    play.begin("none", 0)
    play.steps("none", 0, epoch=1)
    play.epoch("none", 0, error=9.0)
    play.clock.now += 1000
    play.tell(("none", 0), event="retry", reason="killed")
    assert play.board.left() is None
    assert "starting" in text(play.board)


def test_when_all_trials_ended_it_says_what_is_still_done(play):
    for key in play.board.trials:
        play.tell(key, event="skipped")
    assert "measuring what each mechanism costs" in text(play.board)
    assert "100 %" in text(play.board)


def test_trials_that_nobody_listed_are_counted(clock):
    play = Play(Board(clock=clock), 21)
    play.whole("none", 0, error=8.0)
    assert "1 of 21 trials done, 0 running, 0 failed, 20 waiting" in text(play.board)
    assert play.board.left() == pytest.approx(20 * (4 + 20))


@pytest.mark.parametrize("width", [20, 60, 200])
@pytest.mark.parametrize("height", [3, 8, 24, 100])
def test_forty_trials_stay_within_any_terminal(clock, width, height):
    names = [f"ean(groups={n}, gain='rms')" for n in range(40)]
    play = Play(Board(grid(names, 1), clock), 40)
    for number, name in enumerate(names[:30]):
        play.whole(name, 0, error=50.0 - number)
    for name in names[30:33]:
        play.begin(name, 0)
        play.steps(name, 0, epoch=1)
    lines = text(play.board, width, height).splitlines()
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    if height == 24 and width >= 60:
        found = "\n".join(lines)
        assert "ean(groups=29, " in found  # the one with the lowest error
        assert "ean(groups=32, " in found  # one that runs
        assert "ean(groups=0, " not in found
        assert "more mechanisms" in found


@pytest.mark.parametrize("width", [60, 200])
def test_names_are_text_however_they_look(clock, width):
    play = Play(Board(grid([HOSTILE], 2), clock), 2)
    play.whole(HOSTILE, 0, error=8.0)
    play.begin(HOSTILE, 1)
    shown = text(play.board, width)
    assert shown.count("[bold red]x[/bol") == 2
    assert shown.count("red]�[2J��very") == (2 if width > 60 else 0)
    assert "\x1b" not in shown
    assert max(map(len, shown.splitlines())) <= width


def test_control_characters_are_replaced_and_letters_of_all_scripts_stay():
    assert plain("naïve שלום 模型 🙂 a\x07\x9b\u202eb\udc80") == "naïve שלום 模型 🙂 a���b�"


def protocol(tmp_path, **changes):
    fields = {"data": "digits", "host": "resnet20", "mechanisms": ("none", "nam"), "seeds": (0,)}
    write_protocol(Protocol(**fields, recipe=recipe("quick", epochs=2)), tmp_path)


def test_what_a_run_already_holds_is_shown_with_its_errors(tmp_path):
    protocol(tmp_path)
    place = trial_folder(tmp_path, "none", 0)
    place.mkdir(parents=True)
    (place / "trial.json").write_text('{"status": "done", "metrics": {"top1_error": 7.25}}')
    line = '{"epoch": 1, "seconds": 20.0, "seconds_evaluation": 5.0}\n'
    (place / "history.jsonl").write_text(line * 2)
    board = Board(recorded(tmp_path))
    shown = text(board)
    assert "1 of 2 trials done, 0 running, 0 failed, 1 waiting" in shown
    assert "7.25" in shown
    assert board.left() == pytest.approx(50.0)
    assert recorded(tmp_path / "nothing") == []


def test_events_are_shown_in_place_and_what_stays_is_handed_on(tmp_path):
    protocol(tmp_path)
    console = Console(file=io.StringIO(), force_terminal=True, width=60, height=20)
    heard = []
    place = {"mechanism": "nam", "seed": 0, "trial": 2, "trials": 2}
    with LiveComparison(console, heard.append, tmp_path) as show:
        show({"event": "note", "text": "of no trial"})
        show({"event": "trial"} | place)
        console.print(show)
    assert [event["event"] for event in heard] == ["note", "trial"]
    shown = console.file.getvalue()
    assert "0 of 2 trials done" in shown
    assert "\x1b[?25h" in shown[-200:]


def test_nothing_is_drawn_any_more_while_costs_are_measured(tmp_path):
    protocol(tmp_path)
    console = Console(file=io.StringIO(), force_terminal=True, width=60, height=20)
    with LiveComparison(console, lambda event: None, tmp_path) as show:
        for number, mechanism in enumerate(("none", "nam"), start=1):
            assert show._drawer.is_alive()
            place = {"mechanism": mechanism, "seed": 0, "trial": number, "trials": 2}
            show({"event": "failed", "reason": "nan"} | place)
        assert not show._drawer.is_alive()
        assert "measuring what each mechanism costs" in console.file.getvalue()


def read_until(descriptor, words, seconds=120):
    """Return what a terminal got until ``words`` came, or its process ended."""
    found, end = b"", time.monotonic() + seconds
    while words not in found and time.monotonic() < end:
        if select.select([descriptor], [], [], 0.2)[0]:
            try:
                found += os.read(descriptor, 65536)
            except OSError:  # Linux says so when the other end is closed
                break
    return found


# A comparison whose trials tell of one step and then wait for a signal.
WAITING = '''
import sys
from normattn.cli import main
from normattn.comparison import engine

TRIAL = """
import json, signal, sys
signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
step = dict(event="step", epoch=1, epochs=50, batch=1, batches=2, loss=2.5, images_per_second=100.0)
print(json.dumps(step), flush=True)
signal.pause()
"""
engine.check = lambda protocol, device: None
engine.compare.__kwdefaults__["command"] = lambda *_: [sys.executable, "-c", TRIAL]
main()
'''


def test_ctrl_c_in_a_terminal_leaves_it_clean(tmp_path):
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    command = ["compare", "--data", "digits", "--host", "resnet20", "--stem", "cifar"]
    command += ["--attention", "none,half", "--out", str(tmp_path / "[red]run[x]")]
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING, *command],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: ioctl(0, termios.TIOCSCTTY, 0),
        env={**os.environ, "TERM": "xterm", "NO_COLOR": "1", "OMP_NUM_THREADS": "1"},
    )
    os.close(theirs)
    before = read_until(ours, b"1/50")
    os.write(ours, b"\x03")
    after = read_until(ours, b"never written")
    os.close(ours)
    assert process.wait(120) == 130, after
    assert "0 of 6 trials done, 1 running, 0 failed, 5 waiting" in plain_text(before)
    assert b"\x1b[?25l" in before  # the cursor is hidden,
    _, _, left = after.rpartition(b"\x1b[?25h")  # and back before the last words
    assert "nothing saved is lost" in plain_text(left)
    assert "[red]run[x]" in plain_text(left)
    assert "trials done" not in plain_text(left)


def plain_text(shown):
    """Return what a terminal got without its colours and cursor movements."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
