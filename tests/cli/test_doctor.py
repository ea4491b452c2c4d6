"""`normattn doctor`: what is there, what is missing, and what to do about it."""

import importlib
import json
import os

import pytest
import torch

from normattn import kernels

CPU = "none: the package was installed without a compiler. Install one, then reinstall normattn."
TRITON = "none: Triton cannot be imported: no module"


@pytest.fixture
def examine(cli):
    def run():
        result = cli("doctor", "--json")
        assert result.exit_code == 0, result.output
        (line,) = result.stdout.splitlines()
        return json.loads(line)

    return run


@pytest.fixture
def cgroups(monkeypatch, tmp_path):
    """Return the folder that stands for the control groups of a machine with 8 cores."""
    module = importlib.import_module("normattn.cli.doctor")
    monkeypatch.setattr(module, "_CGROUPS", tmp_path / "groups")
    monkeypatch.setattr(module, "_OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    return tmp_path


@pytest.fixture
def quiet(monkeypatch):
    """Make this a machine with nothing to mend."""
    monkeypatch.setattr(kernels, "status", lambda: {"cpu": "c++ avx2", "cuda": "none: no device"})
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)


def test_what_is_there_is_shown(cli, examine, quiet):
    record = examine()
    assert record["event"] == "doctor"
    assert record["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert record["machine"]["threads"] == 1
    assert record["machine"]["usable_cores"] >= 1
    assert record["machine"]["instructions"] == torch.backends.cpu.get_cpu_capability()
    assert record["kernels"] == {"cpu": "c++ avx2", "cuda": "none: no device"}
    assert record["advice"] == []
    result = cli("doctor")
    assert result.exit_code == 0
    assert "Not seen: other busy processes" in result.stdout
    for words in ("torchvision", "usable cores", "OMP_NUM_THREADS", "c++ avx2", "Nothing to mend."):
        assert words in result.stdout


def test_missing_kernels_come_with_what_to_do(cli, examine, quiet, monkeypatch):
    monkeypatch.setattr(kernels, "status", lambda: {"cpu": CPU, "cuda": "none: no device"})
    (advice,) = examine()["advice"]
    assert advice == (
        "No kernels for cpu (the package was installed without a compiler). "
        "Install one, then reinstall normattn."
    )
    assert advice in cli("doctor").stdout


def test_kernels_for_a_gpu_are_missed_where_there_is_one(examine, quiet, monkeypatch):
    monkeypatch.setattr(kernels, "status", lambda: {"cpu": "c++ avx2", "cuda": TRITON})
    assert examine()["advice"] == []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "A GPU")
    record = examine()
    assert record["machine"]["cuda"] == ["A GPU"]
    assert record["advice"] == ["No kernels for cuda (Triton cannot be imported: no module)."]


def test_more_threads_than_cores_are_pointed_out(examine, quiet, cgroups, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1}, raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert examine()["advice"] == []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    (advice,) = examine()["advice"]
    assert advice.endswith("Set OMP_NUM_THREADS=2.")


QUOTAS = {
    "version 2": ("0::/a/b\n", {"a/b/cpu.max": "250000 100000\n"}, 2),
    "version 2, the group above": (
        "0::/a/b\n",
        {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "300000 100000\n"},
        3,
    ),
    "version 2, seen from inside": ("0::/a/b\n", {"cpu.max": "50000 100000\n"}, 1),
    "version 2, none": ("0::/a\n", {"a/cpu.max": "max 100000\n"}, 8),
    "version 2, more than there is": ("0::/a\n", {"a/cpu.max": "9900000 100000\n"}, 8),
    "version 1": (
        "4:memory:/m\n3:cpu,cpuacct:/a\n",
        {"cpu/a/cpu.cfs_quota_us": "400000\n", "cpu/a/cpu.cfs_period_us": "100000\n"},
        4,
    ),
    "version 1, none": (
        "1:cpu:/a\n0::/\n",
        {"cpu/a/cpu.cfs_quota_us": "-1\n", "cpu/a/cpu.cfs_period_us": "100000\n"},
        8,
    ),
    "nonsense": ("0::/a\nwhat\n", {"a/cpu.max": "a lot\n"}, 8),
}


@pytest.mark.parametrize("name", QUOTAS)
def test_a_quota_of_time_counts_as_so_many_cores(name, examine, quiet, cgroups):
    own, files, cores = QUOTAS[name]
    (cgroups / "own").write_text(own)
    for path, text in files.items():
        place = cgroups / "groups" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    assert examine()["machine"]["usable_cores"] == cores


def test_without_control_groups_the_cores_are_those_to_run_on(examine, quiet, cgroups):
    assert examine()["machine"]["usable_cores"] == 8
