import os
import signal
from pathlib import Path

import pytest

# pytest-xdist already fills the cores with one process each; threads of several processes that wait
# for each other on the same cores slow each other down without bound.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell that starts this in the background makes it, and so every process that a test starts,
# deaf to Ctrl-C, which some tests send.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser):
    """Add the switch that writes golden files anew."""
    parser.addoption("--overwrite", action="store_true", help="write golden files, not test them")


@pytest.fixture
def golden(request):
    """Compare text with a golden file, or write the file where pytest has ``--overwrite``."""

    def check(path: Path, text: str) -> None:
        if request.config.getoption("--overwrite"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.is_file(), f"no {path.name}: look at what pytest --overwrite writes"
        assert text == path.read_text(encoding="utf-8"), "if it is meant: pytest --overwrite"

    return check


@pytest.fixture
def reference_runs(monkeypatch):
    """Make the ops of kernels take every map, by their reference: the same on every machine."""
    from normattn import kernels
    from normattn.kernels import cpu

    monkeypatch.setattr(cpu, "supports", lambda x: False)
    monkeypatch.setattr(kernels, "runs_on", lambda x: x.is_floating_point() and not x.is_meta)
    for name in ("GATE_ELEMENTS", "NCHW_ELEMENTS", "CHANNELS_LAST_ELEMENTS"):
        monkeypatch.setattr(cpu, name, 0)
    monkeypatch.setattr(kernels, "status", lambda: {"cpu": "reference", "cuda": "none: no device"})


@pytest.fixture
def no_kernels(monkeypatch):
    """Make this a machine where the package was installed without a compiler."""
    from normattn import kernels

    monkeypatch.setattr(kernels, "runs_on", lambda x: False)
    monkeypatch.setattr(kernels, "status", lambda: {"cpu": "none: no compiler", "cuda": "none: -"})
