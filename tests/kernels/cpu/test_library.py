"""The compiled library: found, refused, shared by threads, survived by forks, and frugal."""

import _ctypes
import ctypes
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from normattn.kernels import cpu
from normattn.kernels.cpu import _library

needs_library = pytest.mark.skipif(cpu.LIBRARY is None, reason=cpu.status())
LAYOUTS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}


def test_its_tasks_have_the_fields_of_the_header_in_their_order():
    header = (_library.PATH.parent / "csrc" / "task.h").read_text()
    body = header.partition("struct Task {")[2].partition("};")[0]
    lines = [line.partition("//")[0].strip() for line in body.splitlines()]
    declared = [
        name.strip(" *;")
        for line in lines
        if line
        for name in line.replace("const ", "").partition(" ")[2].split(",")
    ]
    assert declared == [name for name, *_ in _library.Task._fields_]


def test_without_a_library_it_says_how_to_get_one(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # installed so on purpose: nothing to warn of
        library, status = _library.find(tmp_path / "libnormattn.so")
    assert library is None
    assert status.startswith("none: ")
    assert "no library was built" in status
    assert "reinstall" in status


def test_a_damaged_library_is_one_warning_and_the_plain_forms(tmp_path):
    damaged = tmp_path / "libnormattn.so"
    damaged.write_bytes(b"\x7fELF" + bytes(100))
    with pytest.warns(RuntimeWarning, match="is damaged") as said:
        library, status = _library.find(damaged)
    assert library is None
    assert status.startswith("none: ")
    assert len(said) == 1


def test_a_foreign_library_is_one_warning_and_the_plain_forms(tmp_path):
    foreign = tmp_path / "libnormattn.so"
    foreign.write_bytes(Path(_ctypes.__file__).read_bytes())  # a library, but not ours
    with pytest.warns(RuntimeWarning, match="cannot be loaded") as said:
        library, _ = _library.find(foreign)
    assert library is None
    assert len(said) == 1


@needs_library
def test_a_library_of_another_version_is_one_warning_and_the_plain_forms(monkeypatch):
    monkeypatch.setattr(_library, "VERSION", "99.0")
    with pytest.warns(RuntimeWarning, match="is of version .*, not 99.0") as said:
        library, status = _library.find()
    assert library is None
    assert "Reinstall" in status
    assert len(said) == 1


@needs_library
@pytest.mark.parametrize("name", ["task.h", "interface.cpp"])
def test_a_library_built_before_its_sources_changed_is_one_warning(tmp_path, name):
    """As in a checkout after a pull: the version is the same, the fields of a task are not."""
    shutil.copytree(_library.PATH.parent / "csrc", tmp_path / "csrc")
    path = Path(shutil.copy(_library.PATH, tmp_path))
    assert _library.find(path)[0] is not None
    with (tmp_path / "csrc" / name).open("a") as file:
        file.write("// changed")
    with pytest.warns(RuntimeWarning, match="built before its sources were changed") as said:
        library, status = _library.find(path)
    assert library is None
    assert "Reinstall" in status
    assert len(said) == 1


@needs_library
def test_a_library_with_tasks_of_another_size_is_one_warning(monkeypatch, tmp_path):
    """Installed, without sources beside it."""

    class Larger(_library.Task):
        _fields_ = (("more", ctypes.c_int64),)

    path = shutil.copy(_library.PATH, tmp_path)
    monkeypatch.setattr(_library, "Task", Larger)
    with pytest.warns(RuntimeWarning, match="built before its sources were changed"):
        assert _library.find(Path(path))[0] is None


@needs_library
def test_a_package_with_a_damaged_library_still_computes(tmp_path):
    """In a process of its own, with a copy of the package whose library is cut short."""
    shutil.copytree(
        _library.PATH.parents[2],
        tmp_path / "normattn",
        ignore=shutil.ignore_patterns("__pycache__", "csrc"),
    )
    copy = tmp_path / "normattn" / "kernels" / "cpu" / _library.PATH.name
    copy.write_bytes(copy.read_bytes()[:4096])
    code = (
        "import normattn, torch\n"
        "model = normattn.fuse(normattn.graft(normattn.host('resnet20', 10), 'nam-channel'))\n"
        "model(torch.randn(2, 3, 32, 32)).sum().backward()\n"
        "print(normattn.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(tmp_path))
    assert done.stderr.count("RuntimeWarning") == 1


@needs_library
@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_touches_each_element_as_seldom_as_the_derivation_says(layout, monkeypatch):
    monkeypatch.setattr(cpu.LIBRARY, "instructions", _library.INSTRUCTIONS.index("counted"))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)

    def accesses():
        return cpu.LIBRARY.accesses() / x.numel()

    x, dy, r = (torch.randn(8, 32, 16, 16).to(memory_format=LAYOUTS[layout]) for _ in range(3))
    v = torch.rand(32)
    gate = {"scale": v, "shift": v, "gate_eps": 1e-5}
    norm = {"weight": v, "bias": v}
    how = {"over": "channel", "eps": 1e-5}
    # A channel's first element, from which its mean is sought, is looked at once more.
    once = pytest.approx
    accesses()
    _, mean, var = cpu.forward(x, **how, **gate)
    assert accesses() == once(3, abs=0.001)
    nothing = {"weight": None, "bias": None}
    cpu.backward(
        dy, x, None, mean=mean, var=var, residual=False, relu=False, **how, **gate, **nothing
    )
    assert accesses() == 5
    cpu.forward_fixed(x, over="channel", center=mean, slope=v, offset=v)
    assert accesses() == 2
    out, mean, var = cpu.forward(x, residual=r, relu=True, **how, **gate, **norm)
    assert accesses() == once(4, abs=0.001)
    cpu.backward(dy, x, out, mean=mean, var=var, residual=True, relu=True, **how, **gate, **norm)
    assert accesses() == 7


@needs_library
def test_instruction_sets_agree(monkeypatch):
    x, v = torch.randn(3, 37, 5, 7), torch.rand(37)
    best = cpu.LIBRARY.instructions
    results = {}
    for number in {0, best, *range(best)}:
        monkeypatch.setattr(cpu.LIBRARY, "instructions", number)
        results[number] = cpu.forward(x, over="channel", eps=1e-5, scale=v, shift=v)[0]
    for result in results.values():
        torch.testing.assert_close(result, results[0], rtol=2e-6, atol=1e-7)
