"""A training small enough to be run many times: 64 digits, a few hundred weights."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from normattn.attention import NAMChannel
from normattn.data import open_data
from normattn.training import Recipe


@pytest.fixture(scope="session")
def data():
    """Return the digits, 64 of them to train on: four batches of 16 an epoch."""
    return open_data("digits", train_limit=64)


@pytest.fixture
def tiny():
    """Return a function that builds a model with norms, attention and dropout, the same each time.

    The dropout makes every step depend on its random numbers.
    """

    def build(outputs=10, seed=0):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return nn.Sequential(
                nn.Conv2d(1, 8, 3, stride=2, padding=1),
                nn.BatchNorm2d(8),
                NAMChannel(8),
                nn.ReLU(),
                nn.Dropout(0.2),
                nn.Flatten(),
                nn.Linear(8 * 4 * 4, outputs),
            )

    return build


@pytest.fixture
def short():
    """Return a function that makes a recipe of two epochs of four steps."""

    def make(**changes):
        values = {"name": "short", "epochs": 2, "batch_size": 16, "warmup_epochs": 0.5, "lr": 0.05}
        return Recipe(**{**values, **changes})

    return make


@pytest.fixture
def exit_code():
    """Return a function that runs Python code in a process of its own and gives its exit code.

    For code that treats itself badly: below 0 is the signal that ended it.
    """

    def run(code, *arguments):
        command = [sys.executable, "-W", "error", "-c", code, *arguments]
        return subprocess.run(command, check=False, timeout=120).returncode

    return run


@pytest.fixture
def assert_same_bits():
    """Return a check that two models have bit-equal states."""

    def check(model, other):
        ours, theirs = model.state_dict(), other.state_dict()
        assert list(ours) == list(theirs)
        differing = [name for name, tensor in ours.items() if not torch.equal(tensor, theirs[name])]
        assert not differing

    return check


@pytest.fixture
def untimed():
    """Return a function that gives the records of a history without their times."""

    def strip(history):
        return [
            {name: value for name, value in record.to_json().items() if "second" not in name}
            for record in history.epochs
        ]

    return strip
