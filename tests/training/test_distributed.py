"""Several processes: the same batches, the same weights, and the same bits after a resume."""

import json
import os
import socket
import subprocess
import sys

import pytest
import torch
from torch import nn

from normattn.errors import ConfigError
from normattn.training import Recipe, fit
from normattn.training.distributed import Ranks, choose_device, joined

# Two of these train one model; the first prints what came out as JSON.
PROCESS = """
import json, os, signal, sys, torch
from torch import nn
from normattn.data import open_data
from normattn.training import Interrupted, Recipe, fit
from normattn.training.distributed import joined

folder = sys.argv[1]
data = open_data("digits", train_limit=64)
recipe = Recipe(name="r", epochs=2, batch_size=16, accumulate=2, sparsity=1e-2,
                sparsity_on="norms", ema=0.5)


def with_batch_norm():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.2), nn.Flatten(),
                         nn.Linear(144, 10))

def flat(model):
    return torch.cat([t.double().flatten() for t in model.state_dict().values()]).tolist()

with joined("cpu") as ranks:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.LayerNorm(64), nn.Linear(64, 10))
    record = fit(model, data, recipe, seed=3, device="cpu").last
    whole, resumed = with_batch_norm(), with_batch_norm()
    uncut = fit(whole, data, recipe, seed=3, device="cpu", folder=folder + "/whole").last
    def interrupt(event):  # the first process alone is told, both must stop
        if event["event"] == "step" and event["step"] == 6:
            os.kill(os.getpid(), signal.SIGTERM)
    try:
        fit(with_batch_norm(), data, recipe, seed=3, device="cpu", folder=folder + "/cut",
            progress=interrupt)
        stopped = False
    except Interrupted:
        stopped = True
    cut = fit(resumed, data, recipe, seed=3, device="cpu", folder=folder + "/cut").last
    ways, shared = {}, []
    for by in ("loss", "subgradient", "proximal"):
        pulled, teacher = with_batch_norm(), with_batch_norm()
        torch.nn.init.constant_(teacher[4].bias, 0.5)
        taught = Recipe(name="r", epochs=2, batch_size=16, accumulate=2, sparsity=6.0,
                        sparsity_on="norms", sparsity_by=by, momentum=0.0, distill=0.5)
        last = fit(pulled, data, taught, seed=3, device="cpu", teacher=teacher).last
        ways[by] = [flat(pulled), last.histograms["norms"]["zeros"]]
        both = [None, None]
        torch.distributed.all_gather_object(both, [p.tolist() for p in pulled.parameters()])
        shared.append(both[0] == both[1])
    everywhere = [None, None]
    torch.distributed.all_gather_object(everywhere, flat(resumed))
    if ranks.first:
        print(json.dumps({
            "world": ranks.world, "recipe": recipe.to_json(), "weights": flat(model),
            "train_loss": record.train_loss, "top1_error": record.top1_error,
            "ways": ways, "alike": shared, "stopped": stopped, "same": flat(whole) == flat(resumed),
            "shared": everywhere[0] == everywhere[1],
            "uncut": [uncut.train_loss, uncut.train_top1_error],
            "cut": [cut.train_loss, cut.train_top1_error]}))
"""


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """Train with two processes; return what the first printed."""
    folder = str(tmp_path_factory.mktemp("two"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", PROCESS, folder],
            env={**os.environ, **group, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=200)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert outputs[1] == ""
    return json.loads(outputs[0])


def test_two_processes_train_what_one_does(outcome, data):
    """Without batch statistics and dropout, sharing a batch changes rounding alone."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.LayerNorm(64), nn.Linear(64, 10))
    record = fit(model, data, Recipe(**outcome["recipe"]), seed=3, device="cpu").last
    weights = torch.cat([t.double().flatten() for t in model.state_dict().values()])
    assert outcome["world"] == 2
    assert outcome["weights"] == pytest.approx(weights.tolist(), rel=1e-3, abs=1e-5)
    assert outcome["train_loss"] == pytest.approx(record.train_loss, rel=1e-5)
    assert outcome["top1_error"] == pytest.approx(record.top1_error, abs=0.6)  # two images


def test_ways_to_penalise_agree_over_processes(outcome):
    """In parts, with a teacher: the subgradient is the loss to the bit, and zeros stay alike."""
    assert outcome["alike"] == [True] * 3
    assert outcome["ways"]["loss"] == outcome["ways"]["subgradient"]
    assert [outcome["ways"][by][1] for by in ("loss", "proximal")] == [0, 4]


def test_a_signal_to_one_process_stops_all_and_the_resume_is_exact(outcome):
    assert outcome["stopped"]
    assert outcome["same"]
    assert outcome["cut"] == pytest.approx(outcome["uncut"], rel=1e-12)


def test_every_process_ends_with_the_first_ones_statistics(outcome):
    assert outcome["shared"]


def test_alone_there_is_nothing_to_agree_on():
    ranks = Ranks(choose_device("cpu"))
    assert ranks.first
    assert ranks.largest(3, 1) == [3, 1]
    assert ranks.total(2.5) == [2.5]
    assert ranks.share(2.5, 3) == (2.5, 3)


def test_without_torchrun_no_group_is_made(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined("cpu") as ranks:
        assert (ranks.rank, ranks.world) == (0, 1)


def test_shares_add_up_to_the_whole():
    shares = [Ranks(choose_device("cpu"), rank, 4).share(2.0, 7) for rank in range(4)]
    assert shares == [(0.5, 2), (0.5, 2), (0.5, 2), (0.5, 1)]


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "cpu:x"])
def test_a_device_that_is_not_there_is_refused(name):
    with pytest.raises(ConfigError, match=rf"got '{name}'.*Use cpu, cuda or auto"):
        choose_device(name)
