"""Data for a saved model: read as `predict` reads them, or refused."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

import normattn
from normattn.data import eval_batches, to_float
from normattn.errors import ArtifactError, ConfigError
from normattn.training.saved import open_for

SAID = {"input_size": [3, 32, 32], "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes of two images a split, of several sizes."""
    root = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    for split in ("train", "val"):
        for label in ("ant", "bee"):
            place = root / split / label
            place.mkdir(parents=True)
            for k in range(2):
                pixels = generator.integers(0, 256, (80 + 9 * k, 100, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{k}.png")
    return root


def saved(place, classes=("ant", "bee"), **said):
    torch.manual_seed(0)
    model = normattn.host("resnet20", len(classes), in_chans=said["input_size"][0] if said else 3)
    return normattn.save(model, place / "x", classes=classes, preprocessing=said or None)


@pytest.mark.parametrize("side", [24, 72], ids=["decoded once", "decoded when needed"])
@pytest.mark.parametrize(
    "more",
    [{}, {"crop_pct": 0.6}, {"crop_pct": 1.0, "interpolation": "bicubic"}],
    ids=["by our rule", "cropped", "bicubic"],
)
def test_images_are_those_that_predict_hands_to_the_model(tmp_path, folder, side, more):
    path = saved(tmp_path, **{**SAID, "input_size": [3, side, side], **more})
    data = open_for("evaluate", path, f"folder:{folder}")
    (batch,) = eval_batches(data.val, batch_size=4, workers=0)
    model = normattn.load(path).eval()
    with torch.no_grad():
        found = model(to_float(batch.images, data.mean, data.std)).softmax(1)
    files = sorted((folder / "val").rglob("*.png"))
    expected = torch.stack([answer.probabilities for answer in model.predict(files)])
    assert_close(found, expected)


def test_a_model_that_says_nothing_of_its_images_takes_data_as_they_are(tmp_path, folder):
    data = open_for("evaluate", saved(tmp_path), f"folder:{folder}")
    assert data.size == (224, 224)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"input_size": [3, 48, 32]}, "images of 48×32, as .* got 224×224 of"),
        ({"input_size": [1, 32, 32], "mean": [0.5], "std": [0.2]}, "images of 1 channels"),
    ],
)
def test_images_of_another_kind_are_refused(tmp_path, folder, said, message):
    path = saved(tmp_path, **{**SAID, **said})
    with pytest.raises(ConfigError, match=f"^salience: expected {message}"):
        open_for("salience", path, f"folder:{folder}")


def test_small_images_that_would_have_to_be_cropped_to_no_square_are_refused(tmp_path):
    for split in ("train", "val"):
        (tmp_path / split / "ant").mkdir(parents=True)
        Image.new("RGB", (32, 48)).save(tmp_path / split / "ant" / "0.png")
    said = {**SAID, "input_size": [3, 48, 32]}
    whole = saved(tmp_path / "whole", ("ant",), **said)
    assert open_for("export", whole, f"folder:{tmp_path}").size == (48, 32)
    part = saved(tmp_path / "part", ("ant",), **said, crop_pct=0.5)
    with pytest.raises(ConfigError, match="48×32, the centre 50 % of larger ones, as"):
        open_for("export", part, f"folder:{tmp_path}")


def test_other_classes_are_refused_by_whoever_asked(tmp_path, folder):
    path = saved(tmp_path, ("ant", "bug"), **SAID)
    with pytest.raises(ConfigError, match=r"^export: expected the 2 classes that .* folder:"):
        open_for("export", path, f"folder:{folder}")


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(ArtifactError):
        open_for("export", tmp_path / "none", "digits")
