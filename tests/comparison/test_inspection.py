"""What an inspection says is what the model does, and what it cannot show it says."""

import io
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from normattn import graft, host, save
from normattn.attention import Mechanism
from normattn.comparison import inspection as module
from normattn.comparison._inspection_images import Look
from normattn.comparison._inspection_look import look_at
from normattn.comparison._inspection_maps import grad_cam, last_layer
from normattn.comparison._inspection_page import Asked, inspection_page
from normattn.comparison._inspection_pictures import channel_grid, pixels, span, stretched
from normattn.comparison._inspection_records import Channels
from normattn.comparison._inspection_shown import Room
from normattn.comparison.inspection import Inspection, inspections
from normattn.comparison.page import Picture, render_page
from normattn.comparison.protocol import Protocol, trial_folder
from normattn.data import open_data
from normattn.errors import ConfigError, DataError, RunError, UnsupportedModel
from normattn.model.gates import Gates
from normattn.training import recipe

HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "../x",
    "🐈",
    "n" * 300,
    "אבג",
    "$x^2",
    "a",
    "b",
    "c",
    "d",
)


def build(mechanism="nam-channel", seed=0):
    torch.manual_seed(seed)
    model = host("resnet20", 10, in_chans=1)
    if mechanism != "none":
        graft(model, Mechanism.parse(mechanism), input_size=8)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and tensor.ndim == 1 and "var" not in name:
            tensor.normal_(0.5, 0.5)
    return model.eval()


def write(place, model, data, classes=None):
    about = {"input_size": [1, 8, 8], "mean": list(data.mean), "std": list(data.std)}
    return save(model, place, classes=classes or data.classes, preprocessing=about)


@pytest.fixture(scope="module")
def data():
    return open_data("digits")


@pytest.fixture(scope="module")
def look(data):
    return Look(data, "cpu", 40, 3, lambda event: None)


@pytest.fixture(scope="module")
def found(look):
    return look_at(build(), "digits", look, pictures=True)


def page_of(*models, missing=()):
    asked = Asked(Path("m"), "digits", Path("p.html"), 3, 40, "stop", "cpu")
    return inspection_page(models, missing, asked)


def text_of(page):
    return " ".join(re.sub(r"<script.*?</script>|<[^>]*>", " ", page, flags=re.DOTALL).split())


# What is said of a model


def test_mistakes_are_the_wrong_predictions_of_highest_probability(look, found, data):
    batch = next(look.batches(look.chosen()))
    with torch.no_grad():
        probabilities = build()(look.inputs(batch.images, nn.Conv2d(1, 1, 1))).softmax(1)
    best = probabilities.max(1)
    wrong = [
        (float(p), int(place), data.classes[guess])
        for p, guess, label, place in zip(
            best.values, best.indices, batch.labels, batch.indices, strict=True
        )
        if guess != label
    ]
    expected = sorted(wrong, reverse=True)[:3]
    assert [(m.place, m.predicted) for m in found.mistakes] == [e[1:] for e in expected]
    assert [m.probability for m in found.mistakes] == pytest.approx([e[0] for e in expected])
    first = found.mistakes[0]
    assert first.truth == data.classes[int(data.val.labels[first.place])] != first.predicted
    assert torch.equal(first.pixels, data.val.images[first.place])
    assert found.held.images == 40
    assert found.held.right == 40 - len(wrong)


def test_a_gate_that_is_constant_already_loses_nothing_when_held(look):
    held = look_at(build("half"), "half", look, pictures=False).held
    assert (held.changed, held.held_right) == (0, held.right)


def test_a_gate_that_decides_the_class_is_missed_when_held(look, data):
    class Bright(nn.Module):
        """Puts bright images into class 0 by its gate alone, others into class 1."""

        def __init__(self):
            super().__init__()
            self.attn = Decides(2)

        def forward(self, x):
            pair = torch.ones(len(x), 2, 8, 8) * x.mean((1, 2, 3), keepdim=True).sign().abs()
            gated = self.attn(pair + x.expand(-1, 2, -1, -1) * 0)
            few = gated.mean((2, 3))
            return torch.cat([few, torch.full((len(x), 8), -9.0)], 1)

    from normattn.attention import Gate

    class Decides(Gate):
        def gate(self, x):
            turn = torch.arange(len(x)).view(-1, 1, 1, 1) % 2
            return torch.cat([turn, 1 - turn], 1).float().expand_as(x) * 0.9 + 0.05

    model = Bright()
    model.attn.eps = nn.Parameter(torch.zeros(1))
    held = look_at(model, "m", look, pictures=False).held
    assert held.changed == 20  # every second image had the class that a constant does not give


def test_maps_are_the_gates_mean_over_channels_of_the_last_site_of_each_size(look, found):
    model = build()
    seen = {}
    attention = {name: m.attn for name, m in model.named_modules() if hasattr(m, "attn")}
    for name, gate in attention.items():
        gate.register_forward_hook(
            lambda gate, args, _, name=name: seen.update({name: gate.gate(args[0]).mean(1)})
        )
    sample = found.samples[1]
    with torch.no_grad():
        model(look.inputs(sample.guess.pixels[None], model))
    assert list(sample.maps) == ["layer1.2.bn2", "layer2.2.bn2", "layer3.2.bn2"]
    for site, values in sample.maps.items():
        np.testing.assert_allclose(values, seen[site][0].numpy(), rtol=1e-4, atol=1e-6)


def test_sample_images_are_of_different_classes(found):
    assert len({sample.guess.truth for sample in found.samples}) == 3


def test_channels_are_ranked_by_the_mechanisms_own_importance_where_it_has_one(look, found):
    channels = found.channels[0]
    importance = build().layer1[2].bn2.attn.importance().detach()
    order = importance.argsort(descending=True).tolist()
    assert channels.chosen == (*order[:4], *order[-4:])
    assert list(channels.salience) == pytest.approx(importance[list(channels.chosen)].tolist())
    assert channels.activations.shape == (3, 8, 8, 8)
    other = look_at(build("se(reduction=4)"), "se", look, pictures=True).channels[0]
    assert other.by == "the mean of |x · gate|"
    assert list(other.salience) == sorted(other.salience, reverse=True)


def test_grad_cam_is_that_of_the_formula_at_the_last_map():
    model = build()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    maps, notes = grad_cam(model, x, torch.tensor([3, 5]))
    assert (notes, last_layer(model, x)) == ((), model.layer3)
    model.layer3.register_forward_hook(lambda *a: kept.append(a[2].requires_grad_()) or a[2])
    kept = []
    logits = model(x.requires_grad_())
    slopes = torch.autograd.grad(logits[0, 3] + logits[1, 5], kept[0])[0]
    expected = (slopes.mean((2, 3), keepdim=True) * kept[0]).sum(1).relu()
    np.testing.assert_allclose(np.stack(maps), expected.detach().numpy(), rtol=1e-4, atol=1e-6)


def test_without_captum_the_maps_stay_and_the_line_to_install_it_is_said(look, monkeypatch):
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    found = look_at(build(), "m", look, pictures=True)
    assert all(sample.cam is None and sample.maps for sample in found.samples)
    assert found.notes == (
        "Grad-CAM is missing: it needs captum (pip install 'normattn[inspect]').",
    )


# Pictures


def test_a_map_is_stretched_from_its_lowest_to_its_highest_and_a_flat_one_is_flat():
    values = np.array([[0.498, 0.5], [0.501, 0.502]], np.float32)
    assert stretched(values).min() == 0
    assert stretched(values).max() == pytest.approx(1)
    assert set(stretched(np.full((2, 2), 0.5, np.float32)).flat) == {0.5}
    assert span(values) == "0.498–0.502"
    assert span(np.full((2, 2), 0.25, np.float32)) == "0.25 everywhere"


def test_grey_images_become_three_channels_and_activations_share_a_scale_in_a_row():
    assert pixels(torch.zeros(1, 5, 7, dtype=torch.uint8)).shape == (5, 7, 3)
    activations = np.stack([np.full((2, 4, 4), 8.0), np.zeros((2, 4, 4))]).astype(np.float32)
    activations[0, 1] = 0
    channels = Channels("s", (4, 4), "", (0, 1), 1, (2.0, 1.0), activations)
    picture = channel_grid(channels, [torch.zeros(1, 5, 7, dtype=torch.uint8)] * 2)
    sheet = np.asarray(Image.open(io.BytesIO(picture)).convert("RGBA"))
    strong, weak = sheet[60, -140:-100].mean(0), sheet[60, -40:].mean(0)
    assert strong[0] > 200  # the bright end
    assert weak[0] < 90  # the dark one


def test_pictures_that_have_no_room_are_counted():
    room = Room(10)
    taken = [p for size in (6, 5, 4) for p in room.take(Picture("", b"x" * size, ""))]
    assert (len(taken), room.refused) == (1, 2)


# The page


def test_the_page_shows_every_gate_and_picture_and_stays_small(found):
    page = render_page(page_of(found))
    text = text_of(page)
    for site in found.gates.sites:
        assert site.site in text
    assert page.count("data:image/png") == len(found.samples) + 3 + len(found.mistakes)
    assert len(page) < 3_000_000
    assert "With every gate held at its mean" in text
    assert "normattn inspect m --data digits --out p.html --images 3 --limit 40" in text


def test_hostile_and_long_class_names_are_text(look, found):
    import dataclasses

    guesses = [dataclasses.replace(found.mistakes[0], truth=n, predicted=n[::-1]) for n in HOSTILE]
    page = render_page(page_of(dataclasses.replace(found, mistakes=tuple(guesses))))
    assert "<img src=x" not in page
    assert all(name in text_of(page).replace("&lt;", "<").replace("&gt;", ">") for name in HOSTILE)


def test_several_models_are_told_apart_and_what_is_missing_stands_above(found, look):
    other = look_at(build("ean(groups=8)"), "ean, seed 0", look, pictures=False)
    text = text_of(render_page(page_of(found, other, missing=("se, seed 0: not there",))))
    assert "In 0 of 2 models all gates are nearly constant." in text
    assert "se, seed 0: not there" in text
    assert "ean, seed 0: The gates in numbers" in text


# From folder to page


@pytest.fixture(scope="module")
def artifact(tmp_path_factory, data):
    return write(tmp_path_factory.mktemp("models") / "nam", build(), data)


def test_a_saved_model_gets_a_page_and_its_numbers_beside_it(artifact, tmp_path):
    done = inspections(artifact, tmp_path / "new" / "p.html", Inspection("digits", 1, 20))
    content = json.loads((tmp_path / "new" / "gates.json").read_text())
    assert Gates.from_json({k: v for k, v in content.items() if k != "model"}) == (
        done.models[0].gates
    )
    assert content["format"] == 1
    assert done.page.read_text().startswith("<!doctype html>")
    assert done.missing == ()


def test_of_a_run_every_finished_trial_is_measured_and_the_others_are_named(tmp_path, data):
    protocol = Protocol(
        data="digits", host="resnet20", stem="cifar", mechanisms=("none", "half", "nam-channel"),
        seeds=(0, 1), recipe=recipe("quick", epochs=1),
    )  # fmt: skip
    (tmp_path / "protocol.json").write_text(json.dumps(protocol.to_json()))
    for mechanism, seed in (("none", 0), ("half", 0), ("nam-channel", 0), ("nam-channel", 1)):
        place = trial_folder(tmp_path, mechanism, seed)
        write(place, build(mechanism, seed), data)
        trial = {"status": "done", "metrics": {"top1_error": 50.0}}
        (place / "trial.json").write_text(json.dumps(trial))
    (trial_folder(tmp_path, "half", 0) / "model.safetensors").write_bytes(b"torn")
    done = inspections(tmp_path, tmp_path / "p.html", Inspection("digits", 1, 20))
    assert [m.name for m in done.models] == ["nam-channel, seed 0", "nam-channel, seed 1"]
    assert [len(m.samples) for m in done.models] == [1, 0]
    said = " ".join(done.missing)
    assert "none, seed 0: no attention, so nothing to inspect." in said
    assert "half, seed 0: not inspected. " in said
    assert "none, seed 1: not inspected, its training is missing." in said
    places = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("gates.json"))
    assert places == [f"trials/nam-channel/seed-{seed}/gates.json" for seed in (0, 1)]


def test_a_run_without_a_finished_trial_is_refused(tmp_path):
    protocol = Protocol(
        data="digits", host="resnet20", stem="cifar", mechanisms=("none", "nam"), seeds=(0,),
        recipe=recipe("quick"),
    )  # fmt: skip
    (tmp_path / "protocol.json").write_text(json.dumps(protocol.to_json()))
    with pytest.raises(RunError, match="expected a run with a finished trial that has attention"):
        inspections(tmp_path, tmp_path / "p.html", Inspection("digits"))


def test_what_cannot_be_inspected_is_refused_in_one_sentence(artifact, tmp_path, data):
    out = tmp_path / "p.html"
    for wrong in ({"images": 0}, {"images": 65}, {"limit": 0}, {"limit": True}):
        with pytest.raises(ConfigError, match=r"inspect: expected (images|limit)"):
            Inspection("digits", **wrong)
    with pytest.raises(ConfigError, match=r"a name that ends in \.html"):
        inspections(artifact, tmp_path, Inspection("digits"))
    with pytest.raises(DataError, match="a limit of at most the 359 validation images"):
        inspections(artifact, out, Inspection("digits", limit=360))
    other = write(tmp_path / "other", build(), data, classes=HOSTILE)
    with pytest.raises(ConfigError, match="inspect: expected the 10 classes"):
        inspections(other, out, Inspection("digits"))
    plain = write(tmp_path / "plain", build("none"), data)
    with pytest.raises(UnsupportedModel, match="expected a model with attention"):
        inspections(plain, out, Inspection("digits", limit=5))
    assert not out.exists()


def test_images_of_mixed_size_and_mode_are_inspected_and_bad_ones_named(tmp_path):
    for split in ("train", "val"):
        for number, name in enumerate(("<b>cat</b>", "x" * 100)):
            place = tmp_path / "images" / split / name.replace("/", "∕")
            place.mkdir(parents=True)
            for mode, size in (("RGB", (20, 30)), ("L", (9, 9)), ("RGBA", (64, 16)), ("P", (8, 8))):
                Image.new(mode, size, 60 * number).save(place / f"{mode}.png")
            (place / "bad.png").write_bytes(b"no image")
    spec = f"folder:{tmp_path / 'images'}"
    data = open_data(spec, on_bad_image="skip", image_size=16)
    model = graft(host("resnet20", 2), "nam-channel").eval()
    about = {"input_size": [3, 16, 16], "mean": [0.5] * 3, "std": [0.5] * 3}
    save(model, tmp_path / "m", classes=data.classes, preprocessing=about)
    asked = Inspection(spec, images=2, on_bad_image="skip")
    done = inspections(tmp_path / "m", tmp_path / "p.html", asked)
    assert "bad images were left out" in done.missing[0]
    assert done.models[0].gates.images == 8
    assert "<b>cat" not in done.page.read_text()


def test_data_are_opened_once_for_models_that_take_them_alike(tmp_path, data, monkeypatch):
    protocol = Protocol(
        data="digits", host="resnet20", stem="cifar", mechanisms=("half", "se(reduction=4)"),
        seeds=(0,), recipe=recipe("quick"),
    )  # fmt: skip
    (tmp_path / "protocol.json").write_text(json.dumps(protocol.to_json()))
    for mechanism in protocol.mechanisms:
        place = trial_folder(tmp_path, mechanism, 0)
        write(place, build(mechanism), data)
        (place / "trial.json").write_text('{"status": "done", "metrics": {"top1_error": 1.0}}')
    calls = []
    real = module.open_for
    monkeypatch.setattr(module, "open_for", lambda *a, **k: calls.append(a) or real(*a, **k))
    inspections(tmp_path, tmp_path / "p.html", Inspection("digits", 1, 10))
    assert len(calls) == 1
