"""``load(path).predict``: the evaluation's rule, for whatever image somebody hands in."""

import copy
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.testing import assert_close

import normattn
from normattn.data import eval_batches, open_data, to_float
from normattn.errors import ArtifactError, ConfigError, DataError, Fault
from normattn.model.artifact import load, save

NAMES = ["ant", "bee", "crane", "crane"]  # ImageNet has two cranes as well
SAID = {"input_size": [3, 32, 32], "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]}


def noise(seed, *shape):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def artifact(folder, host="resnet20", said=SAID, names=NAMES, **options):
    torch.manual_seed(0)
    model = normattn.host(host, 4, in_chans=said["input_size"][0] if said else 3, **options)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(std=0.1)
    return load(save(model, folder / "model.safetensors", classes=names, preprocessing=said))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return artifact(tmp_path_factory.mktemp("predict"))


@pytest.fixture(scope="module")
def gray(tmp_path_factory):
    said = {"input_size": [1, 16, 16], "mean": [0.5], "std": [0.25]}
    return artifact(tmp_path_factory.mktemp("gray"), said=said)


def by_hand(model, pixels):
    """Return the probabilities for an image (H, W, C) that has the model's size."""
    x = torch.from_numpy(np.array(pixels)).permute(2, 0, 1).double() / 255
    said = model.predict.given
    mean, std = (torch.tensor(said[name], dtype=torch.float64) for name in ("mean", "std"))
    x = (x - mean[:, None, None]) / std[:, None, None]
    with torch.no_grad():
        return model(x[None].float()).softmax(1)[0]


def test_probabilities_are_those_of_the_normalised_image(model):
    pixels = noise(0, 32, 32, 3)
    found = model.predict(Image.fromarray(pixels))
    assert_close(found.probabilities, by_hand(model, pixels))
    assert found.classes == tuple(NAMES)
    best = int(found.probabilities.argmax())
    assert found.label == NAMES[best]
    assert found.probability == pytest.approx(float(found.probabilities[best]))
    assert abs(float(found.probabilities.sum()) - 1) < 1e-6
    assert str(found) == f"{NAMES[best]} {100 * found.probability:.1f} %"


def test_the_best_classes_come_first_and_equal_names_stay_apart(model):
    found = model.predict(Image.fromarray(noise(0, 32, 32, 3)))
    top = found.top(9)
    assert sorted(name for name, _ in top) == sorted(NAMES)
    assert [p for _, p in top] == sorted(found.probabilities.tolist(), reverse=True)
    assert found.to_json(2) == [{"class": n, "probability": p} for n, p in top[:2]]


@pytest.mark.parametrize("side", [32, 96])
def test_images_are_seen_as_the_evaluation_sees_them(tmp_path, side):
    """Small images resized whole, larger ones without their margin: by `data`, not by hand."""
    for number, split in enumerate(("train", "val")):
        for label in ("ant", "bee"):
            place = tmp_path / "data" / split / label
            place.mkdir(parents=True)
            for k in range(2):
                pixels = noise(10 * number + k, 70 + 9 * k, 90, 3)
                Image.fromarray(pixels).save(place / f"{k}.png")
    data = open_data(f"folder:{tmp_path / 'data'}", image_size=side)
    said = {"input_size": [3, side, side], "mean": list(data.mean), "std": list(data.std)}
    model = artifact(tmp_path, said=said)
    (batch,) = eval_batches(data.val, batch_size=4, workers=0)
    with torch.no_grad():
        expected = model(to_float(batch.images, data.mean, data.std)).softmax(1)
    paths = sorted((tmp_path / "data" / "val").rglob("*.png"))
    found = torch.stack([answer.probabilities for answer in model.predict(paths)])
    assert_close(found, expected)
    assert not torch.allclose(found[0], found[1], atol=1e-4)


def test_timms_data_configuration_is_understood(tmp_path):
    from timm.data import create_transform, resolve_data_config

    config = resolve_data_config(model=normattn.host("resnet18", 4))
    config = {**config, "input_size": (3, 64, 64), "crop_pct": 0.8, "interpolation": "bicubic"}
    model = artifact(tmp_path, said=config)
    rough = Image.fromarray(noise(1, 160, 160, 3))
    kept = (16, 16, 144, 144)
    expected = rough.resize((64, 64), Image.Resampling.BICUBIC, box=kept)
    assert_close(model.predict(rough).probabilities, by_hand(model, np.asarray(expected)))
    smooth = Image.fromarray(noise(1, 9, 9, 3)).resize((160, 160), Image.Resampling.BICUBIC)
    with torch.no_grad():
        timms = model(create_transform(**config)(smooth)[None]).softmax(1)[0]
    # timm resizes, then crops; ours does both at once, which differs by a grey level
    assert_close(model.predict(smooth).probabilities, timms, atol=0.003, rtol=0)


def test_sizes_need_not_be_square(tmp_path):
    model = artifact(tmp_path, said={**SAID, "input_size": [3, 24, 40]})
    pixels = noise(2, 24, 40, 3)
    assert_close(model.predict(pixels).probabilities, by_hand(model, pixels))


def test_every_way_to_hand_in_an_image_gives_the_same(tmp_path, model):
    pixels = noise(3, 32, 32, 3)
    image = Image.fromarray(pixels)
    image.save(tmp_path / "x.png")
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    expected = model.predict(image).probabilities
    one = [image, pixels, tensor, tmp_path / "x.png", str(tmp_path / "x.png")]
    for given in one:
        assert_close(model.predict(given).probabilities, expected, rtol=0, atol=0)
    several = [
        one,
        tuple(one),
        (given for given in one),
        np.stack([pixels] * 2),
        torch.stack([tensor] * 2),
        tmp_path.glob("*.png"),
    ]
    for given in several:
        found = model.predict(given, batch_size=2)
        assert isinstance(found, list)
        for answer in found:
            assert_close(answer.probabilities, expected, rtol=0, atol=1e-6)
    assert len(model.predict(one, batch_size=2)) == 5
    assert model.predict([]) == []


def test_answers_stand_in_the_order_of_the_images(model):
    images = [noise(k, 20 + k, 31, 3) for k in range(5)]
    together = model.predict(images, batch_size=2)
    for image, answer in zip(images, together, strict=True):
        assert_close(answer.probabilities, model.predict(image).probabilities)


def test_gray_alpha_and_palettes_are_read_as_rgb(model):
    image = Image.fromarray(noise(4, 32, 32, 3))
    for mode in ("L", "LA", "RGBA", "P", "CMYK", "1"):
        converted = image.convert(mode)
        expected = by_hand(model, np.asarray(converted.convert("RGB")))
        assert_close(model.predict(converted).probabilities, expected)
    four = np.concatenate([noise(4, 32, 32, 3), noise(5, 32, 32, 1)], 2)
    assert_close(model.predict(four).probabilities, by_hand(model, four[..., :3]))


def test_a_model_of_gray_images_takes_coloured_and_gray_ones(gray):
    values = noise(6, 16, 16)
    expected = by_hand(gray, values[..., None])
    for given in (values, torch.from_numpy(values), values[..., None], Image.fromarray(values)):
        assert_close(gray.predict(given).probabilities, expected)
    rgb = noise(7, 16, 16, 3)
    luma = np.asarray(Image.fromarray(rgb).convert("L"))[..., None]
    assert_close(gray.predict(rgb).probabilities, by_hand(gray, luma))


@pytest.mark.parametrize("kind", ["array", "png", "tiff", "pil"])
def test_sixteen_bits_are_scaled_and_not_saturated(tmp_path, gray, kind):
    values = noise(8, 16, 16)
    deep = values.astype(np.uint16) * 257
    image = Image.fromarray(deep)
    given = {"array": deep, "pil": image}.get(kind)
    if given is None:
        given = tmp_path / f"x.{kind}"
        image.save(given)
    assert_close(gray.predict(given).probabilities, by_hand(gray, values[..., None]))


@pytest.mark.parametrize("kind", ["jpeg", "tiff", "png"])
@pytest.mark.parametrize("opened", [False, True])
def test_the_orientation_is_applied_to_files_and_to_opened_images(tmp_path, model, kind, opened):
    upright = Image.new("RGB", (32, 32))
    upright.paste((255, 255, 255), (0, 0, 32, 16))
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = upright.rotate(90)
    options = {"quality": 100, "subsampling": 0} if kind == "jpeg" else {}
    lying.save(tmp_path / f"x.{kind}", exif=exif, **options)
    expected = model.predict(upright).probabilities
    assert not torch.allclose(model.predict(lying).probabilities, expected, atol=1e-3)
    given = Image.open(tmp_path / f"x.{kind}") if opened else tmp_path / f"x.{kind}"
    assert_close(model.predict(given).probabilities, expected, atol=1e-4, rtol=1e-4)


def test_an_image_that_was_handed_in_is_left_as_it_was(tmp_path, model):
    frames = [Image.fromarray(noise(k, 32, 32, 3)) for k in range(2)]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    with Image.open(tmp_path / "x.gif") as image:
        first = model.predict(image).probabilities
        image.seek(1)  # a closed file would fail here
        assert not torch.equal(model.predict(image).probabilities, first)


def test_a_damaged_image_is_named_or_skipped_in_its_place(tmp_path, model):
    good, bad, gone = (tmp_path / name for name in ("good.png", "bad.png", "gone.png"))
    Image.fromarray(noise(9, 32, 32, 3)).save(good)
    bad.write_bytes(good.read_bytes()[:500])
    for path, words in ((bad, "damaged"), (gone, "nothing there"), (tmp_path, "a folder")):
        with pytest.raises(DataError, match=words) as caught:
            model.predict([good, path])
        assert str(path) in str(caught.value)
        assert model.predict(path, on_bad_image="skip") is None
    found = model.predict([bad, good, gone], on_bad_image="skip", batch_size=1)
    assert [answer is None for answer in found] == [True, False, True]


def test_an_image_of_too_many_pixels_is_refused_from_its_header(tmp_path, model, monkeypatch):
    from normattn.data import decode

    monkeypatch.setattr(decode, "PIXEL_LIMIT", 1000)
    Image.fromarray(noise(9, 32, 32, 3)).save(tmp_path / "x.png")
    with pytest.raises(DataError, match="at most 1,000 pixels"):
        model.predict(tmp_path / "x.png")


WRONG = {
    "float tensor": torch.zeros(3, 32, 32),
    "float array": np.zeros((32, 32, 3)),
    "channels first array": noise(0, 3, 32, 32)[0][None].repeat(2, 0),
    "channels last tensor": torch.zeros(32, 32, 3, dtype=torch.uint8),
    "sixteen bits of colour": np.zeros((8, 8, 3), np.uint16),
    "five dimensions": torch.zeros(1, 1, 3, 8, 8, dtype=torch.uint8),
    "one dimension": np.zeros(8, np.uint8),
    "no pixels": np.zeros((0, 8, 3), np.uint8),
    "bytes": b"\x89PNG",
    "number": 3,
    "none": None,
    "mapping": {"a": 1},
    "list of numbers": [1, 2],
    "list of batches": [torch.zeros(2, 3, 8, 8, dtype=torch.uint8)],
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_image_is_refused_with_what_would_be(model, kind):
    with pytest.raises(ConfigError, match=r"expected a path, a PIL image, a uint8 tensor"):
        model.predict(WRONG[kind], on_bad_image="skip")


@pytest.mark.parametrize(
    "options", [{"batch_size": 0}, {"batch_size": 1.5}, {"on_bad_image": "ignore"}], ids=str
)
def test_wrong_options_are_refused(model, options):
    with pytest.raises(ConfigError, match="predict: expected"):
        model.predict(noise(0, 32, 32, 3), **options)


@pytest.mark.parametrize(
    ("lacking", "words"),
    [({"names": None}, "without classes"), ({"said": None}, "without preprocessing")],
)
def test_a_model_saved_without_them_says_what_is_missing(tmp_path, lacking, words):
    with pytest.raises(ArtifactError, match=f"{words}.*classes=..., preprocessing=..."):
        artifact(tmp_path, **lacking).predict(noise(0, 32, 32, 3))


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"input_size": [2, 32, 32]}, "input_size: 1 or 3 channels"),
        ({"input_size": [32, 32]}, "input_size"),
        ({"input_size": [3, 0, 32]}, "input_size"),
        ({"input_size": None}, "input_size"),
        ({"mean": [0.5]}, "mean: a number for each of 3 channels"),
        ({"mean": ["a", "b", "c"]}, "mean"),
        ({"std": [0.1, 0.0, 0.1]}, "std: numbers above 0"),
        ({"crop_pct": 0}, "crop_pct"),
        ({"crop_pct": "all"}, "crop_pct"),
        ({"interpolation": "magic"}, "interpolation: one of"),
        ({"interpolation": [1]}, "interpolation: one of"),
        ({"crop_mode": "border"}, "crop_mode"),
        ({"resize": 256}, "nothing but input_size"),
    ],
    ids=str,
)
def test_preprocessing_that_means_nothing_is_refused_when_it_is_saved(tmp_path, change, rule):
    said = {**SAID, **change}
    with pytest.raises(ArtifactError, match=f"save: expected preprocessing with {rule}"):
        save(normattn.host("resnet20", 4), tmp_path / "x", preprocessing=said)
    assert not (tmp_path / "x").exists()


def test_a_model_whose_outputs_are_not_its_classes_is_refused(tmp_path):
    model = artifact(tmp_path)
    model.fc = nn.Linear(64, 7)
    with pytest.raises(ArtifactError, match=r"the 4 classes.*got outputs of shape \(1, 7\)"):
        model.predict(noise(0, 32, 32, 3))


def test_outputs_that_are_no_numbers_are_a_fault(tmp_path):
    model = artifact(tmp_path)
    with torch.no_grad():
        model.fc.bias.fill_(float("nan"))
    with pytest.raises(Fault, match="finite outputs"):
        model.predict(noise(0, 32, 32, 3))


def test_a_model_in_training_is_asked_in_evaluation_and_stays_in_training(tmp_path, model):
    other = copy.deepcopy(model).train()
    other.layer1.eval()
    before = copy.deepcopy(other.state_dict())
    found = other.predict(noise(0, 32, 32, 3)).probabilities
    assert_close(found, model.predict(noise(0, 32, 32, 3)).probabilities)
    assert other.training
    assert other.layer2.training
    assert not other.layer1.training
    assert_close(dict(other.state_dict()), dict(before), rtol=0, atol=0)


def test_inputs_have_the_type_of_the_weights(model):
    half = copy.deepcopy(model).to(torch.bfloat16)
    expected = model.predict(noise(0, 32, 32, 3)).probabilities
    found = half.predict(noise(0, 32, 32, 3)).probabilities
    assert found.dtype == torch.float32
    assert_close(found, expected, atol=0.05, rtol=0.05)


def test_what_is_done_to_a_loaded_model_is_done_to_what_predicts(tmp_path):
    pixels = noise(0, 32, 32, 3)
    model = artifact(tmp_path)
    grafted = normattn.graft(model, "half")
    assert not torch.equal(
        grafted.predict(pixels).probabilities, artifact(tmp_path).predict(pixels).probabilities
    )
    expected = grafted.predict(pixels).probabilities
    assert_close(normattn.fuse(grafted).predict(pixels).probabilities, expected)
    again = pickle.loads(pickle.dumps(grafted))
    assert_close(again.predict(pixels).probabilities, expected)
    assert again.predict.model is again


def test_a_loaded_model_compiles_and_exports(model):
    x = torch.randn(2, 3, 32, 32)
    expected = model(x)
    compiled = torch.compile(copy.deepcopy(model), backend="eager", fullgraph=True)
    assert_close(compiled(x), expected)
    exported = torch.export.export(model, (x,))
    assert_close(exported.module()(x), expected)
    assert not [name for name in model.state_dict() if "predict" in name]
