import subprocess
import sys

import pytest
import torch

from normattn.training import processor


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def cores(monkeypatch, threads):
    """Return a function that says how busy four cores are meanwhile, as shares of the time."""

    def busy(*shares):
        looks = iter(
            [
                dict.fromkeys("abcd", 100.0),
                {c: 100.0 + s * processor._LOOK for c, s in zip("abcd", shares, strict=True)},
            ]
        )
        monkeypatch.setattr(processor, "_busy_seconds", lambda: next(looks))

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(processor, "_LOOK", 0.001)
    return busy


@pytest.mark.parametrize(
    ("shares", "expected"),
    [((0, 0, 0, 0), 4), ((1, 0.9, 0, 0), 2), ((0.1, 0, 0.2, 0), 4), ((1, 1, 1, 1), 1)],
)
def test_a_thread_for_every_core_that_nobody_else_keeps_busy(cores, shares, expected):
    cores(*shares)
    assert processor.set_threads() == expected
    assert torch.get_num_threads() == expected


def test_the_environment_has_the_last_word(cores, monkeypatch):
    cores(1, 1, 1, 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert processor.set_threads() == 4


def test_a_job_that_goes_on_keeps_its_threads_however_busy_it_is(cores, monkeypatch):
    cores(1, 1, 1, 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert processor.set_threads(recorded=3) == 3


def _folder_of_a_job(tmp_path, record):
    (tmp_path / "trial.json").write_text(record)
    (tmp_path / "state.pt").touch()
    return tmp_path


def test_a_folder_with_a_saved_state_says_how_many_threads(cores, tmp_path):
    cores(0, 0, 0, 0)
    folder = _folder_of_a_job(tmp_path, '{"machine": {"threads": 2}}')
    assert processor.prepare(folder) == 2


@pytest.mark.parametrize("record", ["{}", "cut sh", '{"machine": {"threads": "2"}}', "[]"])
def test_a_folder_that_does_not_say_so_is_left_to_whoever_opens_the_job(cores, tmp_path, record):
    cores(0, 0, 0, 1)
    assert processor.prepare(_folder_of_a_job(tmp_path, record)) == 3


def test_a_job_without_a_saved_state_begins_anew(cores, tmp_path):
    cores(0, 0, 0, 1)
    folder = _folder_of_a_job(tmp_path, '{"machine": {"threads": 2}}')
    (folder / "state.pt").unlink()
    assert processor.prepare(folder) == 3


def test_it_sees_a_core_that_works():
    before = processor._busy_seconds()
    if before is None:
        pytest.skip("no /proc/stat here")
    sum(i * i for i in range(3_000_000))
    after = processor._busy_seconds()
    assert sum(after.values()) > sum(before.values())


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's setting")
def test_memory_that_was_freed_is_used_again():
    """Without it, a tensor of 64 MB is mapped, and its pages are cleared, every time anew."""
    code = """
import resource, torch
from normattn.training.processor import keep_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.ones(1 << 24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
plain = faults()
took = keep_memory()
faults()
print(took, faults() < plain / 4)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]
