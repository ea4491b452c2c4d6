"""The engine: a process a trial, what is done when one dies, and how all of it is stopped.

Most trials here are a stub that starts in milliseconds; the last tests train for real.
"""

import json
import os
import signal
import subprocess
import sys

import pytest

from normattn import _files
from normattn.comparison import child, costs, engine, trial
from normattn.comparison.engine import compare, trial_command
from normattn.comparison.protocol import Protocol, read_protocol, trial_folder, write_protocol
from normattn.comparison.records import read_run
from normattn.comparison.statistics import summarise
from normattn.errors import Fault, InputError, RunError
from normattn.training import Interrupted, recipe

# A trial that does what its mechanism's entry in `behaviours` says; `first` is its first attempt.
STUB = """
import json, os, pathlib, signal, sys, time
place, behaviour = pathlib.Path(sys.argv[1]), sys.argv[2]
first = not (place / "attempts.jsonl").exists()
def say(**event): print(json.dumps(event), flush=True)
def save(signum, frame):
    (place / "saved").write_text(str(signum)); sys.exit(128 + signum)
for number in (signal.SIGINT, signal.SIGTERM): signal.signal(number, save)
say(event="begin")
if behaviour == "deaf":
    for number in (signal.SIGINT, signal.SIGTERM): signal.signal(number, signal.SIG_IGN)
if behaviour in ("wait", "deaf"):
    say(event="ready"); time.sleep(10_000)
if behaviour == "chatter":
    print("not an event", flush=True); print("[1]", flush=True)
if behaviour == "killed" or (behaviour == "killed once" and first):
    os.kill(os.getpid(), signal.SIGKILL)
if behaviour == "fault":
    sys.exit("Traceback...\\nValueError: no luck")
if behaviour == "bad input":
    print("data: expected images, got none.", file=sys.stderr); sys.exit(2)
if behaviour != "silent":
    metrics = {"top1_error": 5.0, "top5_error": None, "loss": 0.5}
    (place / "trial.json").write_text(json.dumps({"status": "done", "metrics": metrics}))
"""


class Stub:
    """Counts the processes it is asked for; the behaviour goes by mechanism."""

    def __init__(self, **behaviours: str) -> None:
        self.behaviours = behaviours
        self.started: list[tuple[str, int]] = []

    def __call__(self, run, job, device):
        self.started.append((job.mechanism, job.seed))
        place = trial_folder(run, job.mechanism, job.seed)
        return [sys.executable, "-c", STUB, str(place), self.behaviours.get(job.mechanism, "")]


@pytest.fixture(autouse=True)
def no_models(request, monkeypatch):
    """Leave out what is built before and measured after the trials, except in real runs."""
    if "real" not in request.fixturenames:
        monkeypatch.setattr(engine, "check", lambda protocol, device: None)
        monkeypatch.setattr(engine, "measure", lambda protocol, device: {"notes": []})


@pytest.fixture
def real():
    """Ask for the real checks and measurements."""


def protocol(**changes) -> Protocol:
    settings = {
        "data": "digits",
        "host": "resnet20",
        "stem": "cifar",
        "mechanisms": ("none", "se"),
        "seeds": (0, 1),
        "recipe": recipe("quick", epochs=1),
    }
    return Protocol(**settings | changes)


def statuses(records) -> list[str]:
    return [trial.status for trial in records.trials]


def test_every_trial_runs_seed_by_seed_and_a_second_call_runs_none(tmp_path):
    stub = Stub()
    records = compare(protocol(), tmp_path, command=stub)
    assert stub.started == [("none", 0), ("se", 0), ("none", 1), ("se", 1)]
    assert statuses(records) == ["done"] * 4
    events = []
    again = compare(protocol(), tmp_path, command=stub, progress=events.append)
    assert len(stub.started) == 4
    assert [event["event"] for event in events] == ["skipped"] * 4
    assert again.trials == records.trials


def test_events_carry_the_identity_of_their_trial(tmp_path):
    events = []
    compare(protocol(seeds=(7,)), tmp_path, command=Stub(), progress=events.append)
    assert events[:2] == [
        {"event": "trial", "mechanism": "none", "seed": 7, "trial": 1, "trials": 2},
        {"event": "begin", "mechanism": "none", "seed": 7, "trial": 1, "trials": 2},
    ]


def test_what_a_library_prints_becomes_a_note(tmp_path):
    events = []
    compare(protocol(), tmp_path, command=Stub(none="chatter"), progress=events.append)
    notes = [event["text"] for event in events if event["event"] == "note"]
    assert notes == ["not an event", "[1]"] * 2


def test_a_process_that_dies_is_started_once_more_and_that_is_on_record(tmp_path):
    stub, events = Stub(se="killed once"), []
    records = compare(protocol(seeds=(0,)), tmp_path, command=stub, progress=events.append)
    assert stub.started == [("none", 0), ("se", 0), ("se", 0)]
    assert (records.of("se")[0].status, records.of("se")[0].attempts) == ("done", 1)
    assert any("SIGKILL" in event["reason"] for event in events if event["event"] == "retry")
    assert any("se, seed 0" in line for line in summarise(records).unequal)


@pytest.mark.parametrize(
    ("behaviour", "reason", "attempts"),
    [
        ("killed", "SIGKILL", 2),
        ("fault", "ValueError: no luck", 2),
        ("silent", "without a result", 2),
        ("bad input", "expected images, got none", 1),
    ],
)
def test_a_trial_that_fails_is_recorded_and_the_others_go_on(tmp_path, behaviour, reason, attempts):
    stub, events = Stub(none=behaviour), []
    records = compare(protocol(seeds=(0,)), tmp_path, command=stub, progress=events.append)
    failed, done = records.trials
    assert (failed.status, done.status, failed.attempts) == ("failed", "done", attempts)
    assert reason in failed.reason
    assert failed.job["mechanism"] == "none"
    assert stub.started.count(("none", 0)) == attempts
    assert [event["event"] for event in events].count("failed") == 1


def test_a_failed_trial_is_tried_again_by_the_next_call(tmp_path):
    compare(protocol(), tmp_path, command=Stub(se="fault"))
    stub = Stub()
    records = compare(protocol(), tmp_path, command=stub)
    assert stub.started == [("se", 0), ("se", 1)]
    assert statuses(records) == ["done"] * 4


def test_another_protocol_is_refused_with_the_difference_before_any_work(tmp_path, monkeypatch):
    compare(protocol(), tmp_path, command=Stub())
    checked: list[Protocol] = []
    monkeypatch.setattr(engine, "check", lambda protocol, device: checked.append(protocol))
    stub = Stub()
    with pytest.raises(RunError, match=r"recipe\.epochs: 1 → 2"):
        compare(protocol(seeds=(2,), recipe=recipe("quick", epochs=2)), tmp_path, command=stub)
    assert (stub.started, checked) == ([], [])
    assert read_protocol(tmp_path) == protocol()


def test_a_folder_in_use_is_refused(tmp_path):
    with _files.folder_lock(tmp_path), pytest.raises(RunError, match=f"pid {os.getpid()}"):
        compare(protocol(), tmp_path, command=Stub())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_the_trial_which_saves_and_the_run_stops(tmp_path, number):
    before = signal.getsignal(number)

    def interrupt(event):
        if event["event"] == "ready":
            os.kill(os.getpid(), number)

    stub = Stub(none="wait")
    with pytest.raises(Interrupted) as raised:
        compare(protocol(), tmp_path, command=stub, progress=interrupt)
    assert raised.value.signal == number
    assert (trial_folder(tmp_path, "none", 0) / "saved").read_text() == str(int(number))
    assert stub.started == [("none", 0)]
    assert signal.getsignal(number) is before
    assert statuses(read_run(tmp_path))[0] == "partial"
    assert not (trial_folder(tmp_path, "none", 0) / "attempts.jsonl").exists()


def test_a_second_signal_ends_a_trial_that_does_not_listen(tmp_path):
    def interrupt(event):
        if event["event"] == "ready":
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        compare(protocol(), tmp_path, command=Stub(none="deaf"), progress=interrupt)


def test_a_progress_that_fails_takes_the_trial_down_with_it(tmp_path):
    def fail(event):
        if event["event"] == "ready":
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        compare(protocol(), tmp_path, command=Stub(none="wait"), progress=fail)
    saved = trial_folder(tmp_path, "none", 0) / "saved"
    assert saved.read_text() == str(int(signal.SIGTERM))


def test_a_trial_that_does_not_end_when_its_run_breaks_off_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(child, "_PATIENCE", 0.1)

    def fail(event):
        if event["event"] == "ready":
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        compare(protocol(), tmp_path, command=Stub(none="deaf"), progress=fail)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"host": "resnet21"}, "resnet20"),
        ({"mechanisms": ("none", "ean(groups=7)")}, "7"),
        ({"data": "digit"}, "digits"),
        ({"sites": "layer9.*"}, "layer9"),
        ({"train_limit": 10**9}, "train_limit"),
        ({"train_limit": 100}, "batch size"),
    ],
)
@pytest.mark.usefixtures("real")
def test_bad_input_is_refused_before_the_first_trial(tmp_path, changes, message):
    stub = Stub()
    with pytest.raises(InputError, match=message):
        compare(protocol(**changes), tmp_path, command=stub)
    assert stub.started == []
    assert not (tmp_path / "protocol.json").exists()


@pytest.mark.usefixtures("real")
def test_a_real_comparison_trains_pairs_profiles_and_summarises(tmp_path, monkeypatch):
    monkeypatch.setattr(costs, "_SECONDS", 1e9)  # however busy the machine is
    monkeypatch.setattr(costs, "_ROUNDS", (1, 2))
    events = []
    settings = protocol(mechanisms=("none", "ean(groups=8)"), train_limit=128)
    records = compare(settings, tmp_path, device="cpu", progress=events.append)
    assert statuses(records) == ["done"] * 4
    assert any(event["event"] == "epoch" for event in events)
    none, ean = summarise(records).rows
    assert (none.n, ean.n) == (2, 2)
    assert ean.parameters > none.parameters
    assert ean.macs >= none.macs > 0
    assert set(none.latency) == {1, 32}
    assert ean.differences["none"].n == 2
    assert any("128 images" in line for line in summarise(records).unequal)
    profile = json.loads((tmp_path / "profile.json").read_text())
    assert profile["notes"] == []


def test_damaged_costs_are_measured_again(tmp_path):
    compare(protocol(), tmp_path, command=Stub())
    whole = (tmp_path / "profile.json").read_text()
    (tmp_path / "profile.json").write_text('{"latency": [1]}')
    compare(protocol(), tmp_path, command=Stub())
    assert (tmp_path / "profile.json").read_text() == whole


def test_a_foreseen_fault_is_the_reason_in_its_own_words(tmp_path, monkeypatch, capsys):
    def fail(*args, **kwargs):
        raise Fault("training: expected a finite loss, got nan.")

    write_protocol(protocol(), tmp_path)
    monkeypatch.setattr(trial, "run_job", fail)
    assert trial.main([str(tmp_path), "se", "0"]) == 1
    assert capsys.readouterr().err == "training: expected a finite loss, got nan.\n"


@pytest.mark.usefixtures("real")
def test_a_trial_that_nobody_listens_to_any_more_saves_its_state_and_ends(tmp_path):
    settings = protocol(recipe=recipe("quick", epochs=1000))
    write_protocol(settings, tmp_path)
    job = settings.job("none", 0)
    with subprocess.Popen(trial_command(tmp_path, job, "cpu"), stdout=subprocess.PIPE) as process:
        assert process.stdout.readline()
        process.stdout.close()
        assert process.wait() == 128 + signal.SIGTERM
    place = trial_folder(tmp_path, "none", 0)
    assert json.loads((place / "trial.json").read_text())["status"] == "running"
    assert (place / "state.pt").exists()


def test_a_real_trial_goes_on_after_a_failure_was_recorded(tmp_path, capsys):
    settings = protocol(seeds=(0,), train_limit=128)
    assert statuses(compare(settings, tmp_path, command=Stub(se="killed"))) == ["done", "failed"]
    assert trial.main([str(tmp_path), "se", "0", "--device", "cpu"]) == 0
    assert read_run(tmp_path).of("se")[0].status == "done"
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert events[-1]["event"] == "done"


def test_a_trial_that_is_not_in_the_protocol_is_refused(tmp_path, capsys):
    write_protocol(protocol(), tmp_path)
    assert trial.main([str(tmp_path), "sse", "0"]) == 2
    assert "Did you mean 'se'" in capsys.readouterr().err
