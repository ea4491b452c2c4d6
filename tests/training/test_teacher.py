"""A teacher: Hinton's loss by hand, a teacher that stays as it was, and what is refused."""

import copy
import re

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.testing import assert_close

from normattn.data import to_float, train_batches
from normattn.errors import ConfigError, Fault, RunError
from normattn.training import fit
from normattn.training.checkpoint import STATE
from normattn.training.distributed import Ranks, choose_device
from normattn.training.teacher import distillation, teaching, weights_checksum


class Cut(Exception):
    """Stands for a kill."""


def cut(event):
    if event["event"] == "step" and event["step"] == 6:
        raise Cut


def linear(seed=0, outputs=10):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, outputs))


def test_the_loss_is_hintons():
    torch.manual_seed(0)
    student, teacher = torch.randn(3, 5, requires_grad=True), torch.randn(3, 5)
    p, q = (torch.softmax(logits / 2.5, 1) for logits in (teacher, student.detach()))
    expected = 2.5**2 * (p * (p.log() - q.log())).sum(1).mean()
    loss = distillation(student, teacher, 2.5)
    assert_close(loss.detach(), expected)
    loss.backward()
    assert_close(student.grad, 2.5 * (q - p) / 3)  # the paper's gradient times T²


@pytest.mark.parametrize("parts", [1, 2])
def test_it_is_mixed_with_the_labels_on_the_same_augmented_images(data, short, parts):
    model, teacher = linear(), linear(seed=1)
    still = short(
        batch_size=64, lr=1e-12, distill=0.7, temperature=3, label_smoothing=0.2, accumulate=parts
    )
    record = fit(model, data, still, seed=3, teacher=teacher).epochs[0]
    chosen = {"batch_size": 64, "seed": 3, "epoch": 0, "augment": "pad-crop"}
    (batch,) = train_batches(data.train, **chosen)
    images = to_float(batch.images, data.mean, data.std)
    ours, theirs = model(images).detach(), teacher(images).detach()
    hard = functional.cross_entropy(ours, batch.labels, label_smoothing=0.2)
    assert record.train_loss == pytest.approx(
        0.3 * float(hard) + 0.7 * float(distillation(ours, theirs, 3)), rel=1e-5
    )


def test_with_all_the_weight_on_the_teacher_the_labels_say_nothing(data, short):
    """Towards a teacher that knows nothing of the labels, and with the loss going to zero."""
    recipe = short(epochs=15, distill=1.0, temperature=2, weight_decay=0.0, lr=0.3)
    history = fit(linear(), data, recipe, seed=3, teacher=linear(seed=1))
    assert history.last.train_loss < 0.05 * history.epochs[0].train_loss


def test_the_teacher_stays_as_it_was(tiny, data, short):
    teacher = tiny(seed=1)
    teacher[1].eval()  # a frozen norm in a model that is in training mode
    before = copy.deepcopy(teacher)
    seen = []
    teacher.register_forward_hook(
        lambda m, args, out: seen.append((m.training, out.requires_grad, torch.is_grad_enabled()))
    )
    fit(tiny(), data, short(distill=0.5), seed=3, teacher=teacher)
    assert seen == [(False, False, False)] * 8
    assert_close(teacher.state_dict(), before.state_dict(), rtol=0, atol=0)
    assert [m.training for m in teacher.modules()] == [m.training for m in before.modules()]
    assert all(p.grad is None and p.requires_grad for p in teacher.parameters())


def test_it_has_the_students_precision_and_layout(tiny, data, short):
    teacher, seen = nn.Sequential(tiny(seed=1)[0], nn.Conv2d(8, 8, 3, padding=1), *tiny()[3:]), []
    teacher[0].register_forward_hook(lambda module, args, output: seen.append((args[0], output)))
    recipe = short(epochs=1, distill=0.5, precision="bfloat16", channels_last=True)
    fit(tiny(), data, recipe, seed=3, teacher=teacher)
    assert {output.dtype for _, output in seen} == {torch.bfloat16}
    assert all(output.is_contiguous(memory_format=torch.channels_last) for _, output in seen)
    assert teacher[1].weight.is_contiguous(memory_format=torch.channels_last)


def test_nothing_of_it_is_saved_and_dropout_falls_where_it_did(tiny, data, short, tmp_path):
    """With next to no weight the teacher changes nothing: no random number is spent on it."""
    with_one, alone = tiny(), tiny()
    fit(with_one, data, short(distill=1e-30), seed=3, teacher=tiny(seed=1), folder=tmp_path)
    fit(alone, data, short(), seed=3)
    assert_close(with_one.state_dict(), alone.state_dict(), rtol=0, atol=0)
    state = torch.load(tmp_path / STATE, weights_only=True)
    assert list(state["model"]) == list(alone.state_dict())
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", state["identity"]["teacher"])


@pytest.mark.parametrize("changes", [{}, {"accumulate": 2, "precision": "bfloat16"}])
def test_a_cut_distillation_resumes_to_the_same_bit(
    tiny, data, short, tmp_path, assert_same_bits, untimed, changes
):
    whole, resumed, recipe = tiny(), tiny(), short(distill=0.6, **changes)
    expected = fit(whole, data, recipe, seed=3, teacher=tiny(seed=1))
    with pytest.raises(Cut):
        fit(
            tiny(),
            data,
            recipe,
            seed=3,
            folder=tmp_path,
            progress=cut,
            save_every=0,
            teacher=tiny(seed=1),
        )
    found = fit(resumed, data, recipe, seed=3, folder=tmp_path, teacher=tiny(seed=1))
    assert_same_bits(resumed, whole)
    assert untimed(found) == untimed(expected)


def test_another_teacher_is_another_training(tiny, data, short, tmp_path):
    recipe = short(epochs=1, distill=0.5)
    fit(tiny(), data, recipe, seed=3, folder=tmp_path, teacher=tiny(seed=1))
    with pytest.raises(RunError, match=r"teacher: sha256:\w+ → sha256:"):
        fit(tiny(), data, recipe, seed=3, folder=tmp_path, teacher=tiny(seed=2))


def test_a_checksum_is_of_values_not_of_layout(tiny):
    model = tiny()
    expected = weights_checksum(model)
    assert weights_checksum(model.to(memory_format=torch.channels_last)) == expected
    assert weights_checksum(model.double()) != expected
    model = tiny()
    with torch.no_grad():
        model[6].bias[3] += 1e-6
    assert weights_checksum(model) != expected


def test_weight_and_teacher_come_together(tiny, data, short):
    with pytest.raises(ConfigError, match=r"expected a teacher for distill=0\.5, got none"):
        fit(tiny(), data, short(distill=0.5), seed=3)
    with pytest.raises(ConfigError, match="expected distill > 0 for a teacher"):
        fit(tiny(), data, short(), seed=3, teacher=tiny())


def test_other_outputs_are_refused_before_a_step(data, short):
    student = linear()
    before = copy.deepcopy(student.state_dict())
    with pytest.raises(ConfigError, match=r"teacher: .* 10 classes, .*\(16, 12\) from Sequential"):
        fit(student, data, short(distill=0.5), seed=3, teacher=linear(outputs=12))
    assert_close(student.state_dict(), before, rtol=0, atol=0)


def test_a_teacher_without_finite_outputs_is_named(data, short):
    teacher = linear(seed=1)
    nn.init.constant_(teacher[1].bias, torch.nan)
    with pytest.raises(Fault, match="No step was taken; the teacher's outputs are not finite"):
        fit(linear(), data, short(distill=0.5), seed=3, teacher=teacher)


def test_what_is_no_other_model_is_refused(tiny, data, short):
    recipe, student = short(distill=0.5), tiny()
    with pytest.raises(ConfigError, match=r"got str\. Load an artifact"):
        fit(student, data, recipe, seed=3, teacher="runs/best")
    with pytest.raises(ConfigError, match=r"shares \d+ tensors.*deepcopy"):
        fit(student, data, recipe, seed=3, teacher=student)
    half = nn.Sequential(student[0], *tiny(seed=1)[1:])
    with pytest.raises(ConfigError, match=r"shares 2 tensors .*'0\.weight'"):
        fit(student, data, recipe, seed=3, teacher=half)


def test_processes_with_different_teachers_are_refused(tiny, short):
    class Two(Ranks):
        def largest(self, *values):
            return [max(value, -5) for value in values]  # the other process has checksum 5

    ranks = Two(choose_device("cpu"))
    with (
        pytest.raises(ConfigError, match="same teacher in all processes"),
        teaching(tiny(), tiny(), short(distill=0.5), ranks),
    ):
        pass
