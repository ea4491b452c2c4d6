"""The loop: a training that is cut anywhere ends with the bits of one that is not."""

import copy
import json
import os
import signal

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.testing import assert_close

from normattn.data import to_float, train_batches
from normattn.errors import ConfigError, Fault, RunError
from normattn.training import Interrupted, evaluate, fit, loop
from normattn.training.checkpoint import STATE


class Cut(Exception):
    """Stands for a kill: nothing is saved on the way out."""


def cut_after(step):
    """Return a progress that kills the training after this step."""

    def progress(event):
        if event["event"] == "step" and event["step"] == step:
            raise Cut

    return progress


RECIPES = {
    "plain": {},
    "averaged": {"ema": 0.9},
    "in parts": {"accumulate": 2},
    "half precision": {"precision": "bfloat16", "channels_last": True},
    "adamw": {"optimizer": "adamw", "lr": 1e-3, "clip_norm": 0.5, "label_smoothing": 0.1},
    "sparse": {"sparsity": 1e-3, "sparsity_on": "all", "schedule": "step", "milestones": (0.5,)},
    "proximal": {
        "sparsity": 0.3,
        "sparsity_on": "all",
        "sparsity_by": "proximal",
        "sparsity_warmup_epochs": 1.5,
        "optimizer": "adamw",
    },
}


@pytest.mark.parametrize("changes", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize("save_every", [0, 1000], ids=["each step", "each epoch"])
@pytest.mark.parametrize("step", [3, 4, 5, 8])
def test_a_cut_training_resumes_to_the_same_bit(
    tiny, data, short, tmp_path, assert_same_bits, untimed, changes, save_every, step
):
    whole, resumed = tiny(), tiny()
    expected = fit(whole, data, short(**changes), seed=3, folder=tmp_path / "whole")
    with pytest.raises(Cut):
        fit(
            tiny(),
            data,
            short(**changes),
            seed=3,
            folder=tmp_path / "cut",
            progress=cut_after(step),
            save_every=save_every,
        )
    found = fit(resumed, data, short(**changes), seed=3, folder=tmp_path / "cut")
    assert_same_bits(resumed, whole)
    assert untimed(found) == untimed(expected)
    states = [torch.load(tmp_path / n / STATE, weights_only=True) for n in ("whole", "cut")]
    for name in ("model", "ema", "optimizer"):
        assert_close(states[0][name], states[1][name], rtol=0, atol=0)


def test_a_folder_changes_nothing_about_the_training(
    tiny, data, short, tmp_path, assert_same_bits, untimed
):
    saved, plain = tiny(), tiny()
    with_folder = fit(saved, data, short(), seed=3, folder=tmp_path, save_every=0)
    without = fit(plain, data, short(), seed=3)
    assert_same_bits(saved, plain)
    assert untimed(with_folder) == untimed(without)


def test_seeds_differ(tiny, data, short):
    assert (
        fit(tiny(), data, short(), seed=3).last.loss != fit(tiny(), data, short(), seed=4).last.loss
    )


def test_a_finished_training_is_not_trained_again(tiny, data, short, tmp_path, assert_same_bits):
    first, second, steps = tiny(), tiny(), []
    fit(first, data, short(ema=0.9), seed=3, folder=tmp_path)
    fit(second, data, short(ema=0.9), seed=3, folder=tmp_path, progress=steps.append)
    assert_same_bits(first, second)
    assert [event["event"] for event in steps] == ["note"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("when", ["step", "evaluate", "epoch"])
def test_a_signal_saves_first_and_the_rest_is_bit_equal(
    tiny, data, short, tmp_path, assert_same_bits, number, when
):
    whole, resumed, sent = tiny(), tiny(), []

    def interrupt(event):
        if event["event"] == when and not sent:
            sent.append(number)
            os.kill(os.getpid(), number)

    fit(whole, data, short(), seed=3)
    with pytest.raises(Interrupted) as caught:
        fit(tiny(), data, short(), seed=3, folder=tmp_path, progress=interrupt)
    assert caught.value.signal == number
    place = torch.load(tmp_path / STATE, weights_only=True)["place"]
    assert (place["epoch"], place["batch"]) == {
        "step": (0, 1),
        "evaluate": (0, 4),
        "epoch": (1, 0),
    }[when]
    fit(resumed, data, short(), seed=3, folder=tmp_path)
    assert_same_bits(resumed, whole)


def test_a_damaged_state_costs_a_generation_and_is_said(
    tiny, data, short, tmp_path, assert_same_bits
):
    whole, resumed, events = tiny(), tiny(), []
    fit(whole, data, short(), seed=3)
    with pytest.raises(Cut):
        fit(tiny(), data, short(), seed=3, folder=tmp_path, progress=cut_after(7), save_every=0)
    (tmp_path / STATE).write_bytes(b"not a state")
    fit(resumed, data, short(), seed=3, folder=tmp_path, progress=events.append)
    assert "damaged" in events[0]["text"]
    assert "1 of 2 epochs and 1 batches" in events[1]["text"]
    assert_same_bits(resumed, whole)


@pytest.mark.parametrize(
    ("again", "difference"),
    [
        ({"recipe": {"lr": 0.01}}, r"recipe\.lr: 0\.05 → 0\.01"),
        ({"seed": 4}, "seed: 3 → 4"),
        ({"outputs": 12}, r"weights\.6\.bias: 10 → 12"),
    ],
)
def test_another_training_is_refused_with_the_difference(
    tiny, data, short, tmp_path, again, difference
):
    fit(tiny(), data, short(epochs=1), seed=3, folder=tmp_path)
    changed = short(epochs=1, **again.get("recipe", {}))
    model = tiny(again.get("outputs", 10))
    with pytest.raises(RunError, match=difference):
        fit(model, data, changed, seed=again.get("seed", 3), folder=tmp_path)


def poison(model, data, step, seed=3):
    """Make the loss NaN at a step of the first epoch: the images there are known beforehand."""
    batches = train_batches(data.train, batch_size=16, seed=seed, epoch=0, augment="pad-crop")
    indices = [batch.indices.tolist() for batch in batches][step - 1]
    seen = []

    def hook(module, args, output):
        if module.training:
            seen.append(output)
        return output * torch.nan if len(seen) == step and module.training else output

    model.register_forward_hook(hook)
    return indices


def test_a_loss_that_is_no_number_stops_before_the_step(tiny, data, short, tmp_path):
    model, before = tiny(), {}
    indices = poison(model, data, step=3)

    def watch(event):
        if event["event"] == "step":
            before.update(copy.deepcopy(dict(model.named_parameters())))

    with pytest.raises(Fault) as caught:
        fit(model, data, short(), seed=3, folder=tmp_path, progress=watch, save_every=0)
    assert "got nan at epoch 1, batch 3 (step 3," in str(caught.value)
    assert f"images {', '.join(map(str, indices))}." in str(caught.value)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]), name
    assert torch.load(tmp_path / STATE, weights_only=True)["place"]["step"] == 2


def test_weights_that_are_no_numbers_are_never_saved(tiny, data, short, tmp_path):
    model = tiny()

    def spoil(event):
        if event["event"] == "step" and event["step"] == 2:
            nn.init.constant_(model[0].bias, torch.inf)

    with pytest.raises(Fault, match=r"got others in 0\.bias"):
        fit(model, data, short(), seed=3, folder=tmp_path, progress=spoil, save_every=0)
    assert torch.load(tmp_path / STATE, weights_only=True)["place"]["step"] == 1


def test_parts_of_a_batch_add_up_to_it(data, short):
    """Without norms and dropout, cutting a batch into parts changes rounding alone."""

    def train(**changes):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        return fit(model, data, short(**changes), seed=3), model

    (whole, one), (parts, other) = train(), train(accumulate=4)
    assert_close(one.state_dict(), other.state_dict())
    assert parts.last.train_loss == pytest.approx(whole.last.train_loss)
    assert parts.last.train_top1_error == whole.last.train_top1_error


def test_the_averaged_weights_are_evaluated_and_stay_in_the_model(tiny, data, short, tmp_path):
    model = tiny()
    history = fit(model, data, short(ema=0.9), seed=3, folder=tmp_path)
    state = torch.load(tmp_path / STATE, weights_only=True)
    assert_close(dict(model.state_dict()), dict(state["ema"]), rtol=0, atol=0)
    assert not torch.equal(state["ema"]["0.weight"], state["model"]["0.weight"])
    assert evaluate(model, data).loss == pytest.approx(history.last.loss)


def test_losses_are_those_computed_by_hand(data, short):
    """Keyed batches, augmentation, normalisation and label smoothing, each where it belongs."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    still = short(batch_size=64, label_smoothing=0.3, lr=1e-12)
    for epoch, record in enumerate(fit(model, data, still, seed=3).epochs):
        chosen = {"batch_size": 64, "seed": 3, "epoch": epoch, "augment": "pad-crop"}
        (batch,) = train_batches(data.train, **chosen)
        logits = model(to_float(batch.images, data.mean, data.std)).detach()
        expected = functional.cross_entropy(logits, batch.labels, label_smoothing=0.3)
        wrong = (logits.argmax(1) != batch.labels).double().mean()
        assert record.train_loss == pytest.approx(float(expected))
        assert record.train_top1_error == pytest.approx(100 * float(wrong))


def test_the_learning_rate_follows_the_schedule(tiny, data, short):
    rates = []

    def watch(event):
        if event["event"] == "step":
            rates.append(event["lr"])

    step = {"schedule": "step", "milestones": (0.5,), "gamma": 0.1, "lr": 0.1}
    history = fit(tiny(), data, short(**step), seed=3, progress=watch)
    assert rates == pytest.approx([0.05, 0.075, 0.1, 0.1, 0.01, 0.01, 0.01, 0.01])
    assert [record.lr for record in history.epochs] == pytest.approx([0.1, 0.01])


def test_precision_and_layout_reach_the_model(tiny, data, short):
    seen, model = [], tiny()
    model[0].register_forward_hook(lambda module, args, output: seen.append((args[0], output)))
    fit(model, data, short(epochs=1, precision="bfloat16", channels_last=True), seed=3)
    assert {output.dtype for _, output in seen} == {torch.bfloat16}
    assert all(output.is_contiguous(memory_format=torch.channels_last) for _, output in seen)
    assert model[0].weight.dtype == torch.float32


def test_the_gradient_is_clipped_when_asked(data, short):
    """One step of plain gradient descent moves the weights by at most lr · clip_norm."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    before = nn.utils.parameters_to_vector(model.parameters()).detach()
    changes = {"momentum": 0, "weight_decay": 0, "schedule": "constant", "warmup_epochs": 0}
    once = short(epochs=1, batch_size=64, clip_norm=0.01, lr=1, **changes)
    fit(model, data, once, seed=3)
    moved = nn.utils.parameters_to_vector(model.parameters()) - before
    assert float(moved.detach().norm()) == pytest.approx(0.01, rel=1e-3)


def test_the_penalty_pulls_scales_down_and_is_recorded(tiny, data, short):
    free, pulled = tiny(), tiny()
    without = fit(free, data, short(), seed=3).last
    record = fit(pulled, data, short(sparsity=0.1), seed=3).last
    total = float(pulled[2].scales()[0].detach().abs().sum())
    assert total < float(free[2].scales()[0].detach().abs().sum())
    assert without.penalty == 0
    assert record.penalty == pytest.approx(0.1 * total)
    assert record.scales["attention"]["mean"] == pytest.approx(total / 8)


def test_a_model_without_scales_has_no_penalty_and_says_so(data, short):
    events = []
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    record = fit(model, data, short(sparsity=0.1), seed=3, progress=events.append).last
    assert record.penalty == 0
    assert any("No sparsity penalty" in event.get("text", "") for event in events)


def test_events_are_plain_and_in_order(tiny, data, short):
    events = []
    fit(tiny(), data, short(batch_size=24), seed=3, progress=events.append)
    assert json.loads(json.dumps(events)) == events
    assert [event["event"] for event in events] == [
        "note",
        *["step", "step", "evaluate", "evaluate", "epoch"] * 2,
    ]
    assert events[0]["text"].startswith("16 of 64 training images, others each epoch, are left out")
    step = events[2]
    assert (step["epoch"], step["epochs"], step["batch"], step["batches"]) == (1, 2, 2, 2)
    assert events[5]["top1_error"] >= 0


def test_a_record_tells_computing_from_the_rest(tiny, data, short):
    for record in fit(tiny(), data, short(), seed=3).epochs:
        assert 0 < record.seconds_compute < record.seconds
        assert record.images_per_second == pytest.approx(64 / record.seconds)


def test_the_callers_random_numbers_go_on_as_if_nothing_was(tiny, data, short):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(tiny(), data, short(epochs=1), seed=3)
    assert torch.equal(torch.rand(3), expected)


def test_lost_attention_is_a_fault(tiny, data, short, monkeypatch):
    """As a conversion or a copy might lose it, after the identity was taken."""
    monkeypatch.setattr(loop, "describe", lambda *a: {"grafts": ["layer1"]})
    with pytest.raises(Fault, match=r"expected attention at \['layer1'\], got \[\]"):
        fit(tiny(), data, short(), seed=3)


def test_more_outputs_than_classes_are_refused_before_a_step(tiny, data, short):
    with pytest.raises(ConfigError, match=r"10 classes.*12\)"):
        fit(tiny(outputs=12), data, short(), seed=3)


def test_a_batch_larger_than_the_data_is_refused(tiny, data, short):
    with pytest.raises(ConfigError, match="batch size"):
        fit(tiny(), data, short(batch_size=128), seed=3)


def test_an_unknown_augmentation_is_refused(tiny, data, short):
    with pytest.raises(ConfigError, match="'flip-pad'"):
        fit(tiny(), data, short(augment="flip-pad"), seed=3)


def test_a_folder_that_is_a_file_is_refused(tiny, data, short, tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(RunError, match="expected a place that can be written"):
        fit(tiny(), data, short(), seed=3, folder=tmp_path / "run")
