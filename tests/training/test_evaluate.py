"""Evaluation: counted by hand, and what it refuses."""

import dataclasses
import json

import pytest
import torch
from torch import nn

from normattn.data import to_float
from normattn.errors import ConfigError
from normattn.training import evaluate


def logits_by_hand(model, data):
    """Run all images as one batch."""
    with torch.no_grad():
        return model.eval()(to_float(data.val.images, data.mean, data.std))


def test_errors_and_loss_are_those_counted_by_hand(tiny, data):
    logits, labels = logits_by_hand(tiny(), data), data.val.labels
    ranks = (logits > logits.gather(1, labels[:, None])).sum(1)
    picked = logits.log_softmax(1)[torch.arange(len(labels)), labels]
    metrics = evaluate(tiny(), data, batch_size=50)
    assert metrics.images == len(labels)
    assert metrics.top1_error == pytest.approx(100 * float((ranks > 0).double().mean()), abs=1e-3)
    assert metrics.top5_error == pytest.approx(100 * float((ranks > 4).double().mean()), abs=1e-3)
    assert metrics.loss == pytest.approx(-float(picked.mean()), rel=1e-5)


def test_five_classes_have_no_top5_error(tiny, data):
    few = dataclasses.replace(
        data,
        classes=data.classes[:5],
        val=dataclasses.replace(data.val, labels=data.val.labels % 5),
    )
    assert evaluate(tiny(outputs=5), few).top5_error is None


def test_metrics_are_json(tiny, data):
    assert json.loads(json.dumps(evaluate(tiny(), data).to_json()))["images"] == len(data.val)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_keeps_its_mode_and_its_statistics(tiny, data, training):
    model = tiny().train(training)
    model[1].train(not training)  # a frozen norm, for instance
    before = model[1].running_mean.clone()
    evaluate(model, data)
    assert model.training is training
    assert model[1].training is not training
    assert torch.equal(model[1].running_mean, before)


def test_the_training_images_can_be_evaluated(tiny, data):
    assert evaluate(tiny(), data, split="train").images == 64


def test_bfloat16_and_channels_last_hardly_change_the_figures(tiny, data):
    wide = evaluate(tiny(), data)
    narrow = evaluate(tiny(), data, precision="bfloat16", channels_last=True)
    assert narrow.loss != wide.loss
    assert narrow.loss == pytest.approx(wide.loss, rel=0.02)


def test_a_loss_that_is_no_number_is_none(tiny, data):
    model = tiny()
    nn.init.constant_(model[-1].bias, torch.nan)
    assert evaluate(model, data).loss is None


def test_progress_is_told_of_each_batch(tiny, data):
    events = []
    evaluate(tiny(), data, batch_size=100, progress=events.append)
    assert events[-1] == {"event": "evaluate", "batch": 4, "batches": 4}
    assert len(events) == 4


def test_another_number_of_outputs_is_refused_with_both_numbers(tiny, data):
    with pytest.raises(ConfigError, match=r"10 classes.*7\)"):
        evaluate(tiny(outputs=7), data)


def test_an_unknown_split_is_refused(tiny, data):
    with pytest.raises(ConfigError, match="'test'"):
        evaluate(tiny(), data, split="test")


@pytest.mark.parametrize("device", ["cuda:99", "gpu"])
def test_a_device_that_is_not_there_is_refused(tiny, data, device):
    with pytest.raises(ConfigError, match=device):
        evaluate(tiny(), data, device=device)
