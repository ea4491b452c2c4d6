"""Records of epochs, and what they say about scales."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from normattn.attention import EAN, NAMChannel
from normattn.training import EpochRecord, History
from normattn.training.history import scale_histograms, scale_statistics


def record(epoch, error):
    numbers = dict.fromkeys(
        ("step", "lr", "train_loss", "train_top1_error", "penalty", "loss", "images_per_second"), 1
    )
    times = dict.fromkeys(("seconds", "seconds_compute", "seconds_evaluation"), 1.0)
    return EpochRecord(
        epoch=epoch, top1_error=error, top5_error=None, scales={}, **numbers, **times
    )


def test_the_last_is_reported_and_the_best_kept():
    history = History((record(1, 30.0), record(2, 20.0), record(3, 20.0), record(4, 25.0)))
    assert history.last.epoch == 4
    assert history.best.epoch == 2


def test_a_line_of_json_an_epoch():
    lines = History((record(1, 30.0), record(2, 20.0))).to_lines().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]
    assert EpochRecord(**json.loads(lines[0])) == record(1, 30.0)


def test_scales_are_described_as_by_hand():
    model = nn.Sequential(nn.BatchNorm2d(2), nn.GroupNorm(1, 2), NAMChannel(4))
    model[0].weight.data = torch.tensor([1.0, -3.0])
    model[1].weight.data = torch.tensor([0.0, 0.0005])
    model[2].scales()[0].data = torch.tensor([1.0, 1.0, 1.0, 1.0])
    found = scale_statistics(model)
    assert found["norms"] == pytest.approx(
        {
            "mean": 4.0005 / 4,
            "min": 0.0,
            "max": 3.0,
            "cv": (1 / 2 + 1) / 2,  # deviation 1 of mean 2, and deviation = mean
            "below_1e-3": 0.5,
        }
    )
    assert found["attention"] == {"mean": 1, "min": 1, "max": 1, "cv": 0, "below_1e-3": 0}


def test_scales_that_are_all_zero_have_finite_figures():
    model = nn.Sequential(EAN(8, groups=4))
    nn.init.zeros_(model[0].scales()[0])
    assert scale_statistics(model)["attention"]["cv"] == 0


def test_no_scales_are_none():
    assert scale_statistics(nn.Linear(2, 2)) == {"attention": None, "norms": None}


def test_histograms_count_as_by_hand():
    model = nn.Sequential(nn.BatchNorm2d(4), nn.GroupNorm(1, 5), NAMChannel(4))
    model[0].weight.data = torch.tensor([1.0, -0.9, 0.0, -0.0])
    model[1].weight.data = torch.tensor([1e-9, 0.0, 20.0, 0.011, -0.011])
    found = scale_histograms(model, closing=("1.weight",))
    edges = found.pop("edges")
    edges = np.geomspace(edges["first"], edges["last"], edges["count"])
    bins = [0, *edges, math.inf]
    assert (edges[1] / edges[0]) ** 4 == pytest.approx(10)
    for name, values, zeros in [
        ("norms", [1.0, 0.9], 2),
        ("closing", [1e-9, 20.0, 0.011, 0.011], 1),
        ("attention", [1.0] * 4, 0),
    ]:
        counts = np.histogram(np.array(values) * (1 + 1e-9), bins)[0].tolist()
        scales = len(values) + zeros
        assert found[name] == {"scales": scales, "zeros": zeros, "counts": counts}


def test_bins_are_the_same_each_epoch_and_none_is_for_no_scales():
    found = scale_histograms(nn.Linear(2, 2))
    assert found.pop("edges") == scale_histograms(nn.BatchNorm2d(3))["edges"]
    assert found == {"attention": None, "norms": None, "closing": None}


def test_records_from_before_histograms_are_read():
    old = record(1, 30.0).to_json()
    del old["histograms"], old["sparsity"]
    assert EpochRecord(**old) == record(1, 30.0)
