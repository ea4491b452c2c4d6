import json

import numpy as np
import pytest
import torch
from PIL import Image
from written_data import picture, write_folder, write_shard

from normattn.data import open_data
from normattn.data.source import class_rounds
from normattn.errors import ConfigError, DataError


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("digit", r"expected a known data source, got 'digit'\. Did you mean 'digits'"),
        ("parquets:x", "Did you mean 'parquet'"),
        ("parquet:", "expected digits, parquet:DIR, folder:DIR or timm:NAME, got 'parquet:'"),
        ("digits:8", "expected digits, parquet:DIR"),
        ("parquet:x?labels=y", r"expected a known option, got 'labels'\. Did you mean 'label'"),
        ("folder:x?root=y", "expected a known option, got 'root'"),
    ],
)
def test_a_spec_that_is_none_is_refused_with_what_is_known(spec, message):
    with pytest.raises(ConfigError, match=message):
        open_data(spec)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_bad_image": "skp"}, "Did you mean 'skip'"),
        ({"train_limit": 0}, "expected train_limit of 1 or more, got 0"),
        ({"image_size": -1}, "expected image_size of 1 or more, got -1"),
        ({"crop": 0}, "expected crop above 0, at most 1, got 0"),
        ({"crop": 1.5}, "expected crop above 0, at most 1, got 1.5"),
    ],
)
def test_an_option_out_of_range_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        open_data("digits", **options)


def test_the_description_is_json_and_complete():
    facts = json.loads(json.dumps(open_data("digits", train_limit=100).describe()))
    assert facts["spec"] == "digits"
    assert (facts["train"], facts["val"], facts["train_limit"]) == (100, 359, 100)
    assert facts["train_per_class"] == [10, 10]
    assert (facts["channels"], facts["size"]) == (1, [8, 8])
    assert len(facts["mean"]) == len(facts["std"]) == 1
    assert len(facts["fingerprint"]) == 64
    assert facts["classes"] == list("0123456789")


def test_a_limit_is_class_balanced_fixed_and_part_of_a_larger_one():
    small, large = (open_data("digits", train_limit=limit) for limit in (55, 300))
    counts = small.train.labels.bincount()
    assert len(small.train) == 55
    assert (counts.min(), counts.max()) == (5, 6)
    kept = {image.numpy().tobytes() for image in large.train.images}
    assert all(image.numpy().tobytes() in kept for image in small.train.images)
    assert small.fingerprint == open_data("digits", train_limit=55).fingerprint
    assert torch.equal(small.val.images, large.val.images)


def test_a_class_that_runs_out_leaves_its_share_to_the_others():
    labels = np.array([0] * 2 + [1] * 20 + [2] * 20)
    order = class_rounds(labels, "test")
    assert sorted(order) == list(range(42))
    assert np.bincount(labels[order[:12]]).tolist() == [2, 5, 5]
    assert np.bincount(labels[order[:3]]).tolist() == [1, 1, 1]
    assert not np.array_equal(order, class_rounds(labels, "other"))


def test_a_limit_above_what_there_is_is_refused():
    with pytest.raises(DataError, match="at most the 1438 training images, got 2000"):
        open_data("digits", train_limit=2000)


def test_a_limit_counts_whole_images_when_bad_ones_are_left_out(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "train" / "ant" / "0.png").write_bytes(b"")
    data = open_data(f"folder:{tmp_path}", on_bad_image="skip", train_limit=6)
    assert data.train.labels.tolist() == [0] * 3 + [1] * 3


def test_mean_and_std_are_those_of_the_training_pixels():
    data = open_data("digits")
    pixels = data.train.images.double() / 255
    assert data.mean[0] == pytest.approx(pixels.mean().item(), abs=1e-12)
    assert data.std[0] == pytest.approx(pixels.std(correction=0).item(), abs=1e-12)


def test_mean_and_std_are_per_channel(tmp_path):
    for split in ("train", "val"):
        (tmp_path / split / "a").mkdir(parents=True)
        for k, colour in enumerate([(0, 51, 102), (0, 153, 102)]):
            Image.new("RGB", (8, 8), colour).save(tmp_path / split / "a" / f"{k}.png")
    data = open_data(f"folder:{tmp_path}")
    assert data.mean == pytest.approx((0, 0.4, 0.4))
    # a constant channel is given one grey level, so that dividing by it stays finite
    assert data.std == pytest.approx((1 / 255, 0.2, 1 / 255))


def test_mean_and_std_of_large_images_come_from_a_fixed_sample_and_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr("normattn.data.imagedata._SAMPLE", 4)
    write_folder(tmp_path, size=(80, 70))
    first, second = (open_data(f"folder:{tmp_path}", image_size=72) for _ in range(2))
    assert first.mean == second.mean
    assert first.mean == pytest.approx((0.5,) * 3, abs=0.05)
    assert "mean and std: estimated from 4 of 8 training images" in first.describe()["notes"]


def test_small_images_of_several_sizes_are_named_and_can_be_resized(tmp_path):
    write_folder(tmp_path)
    picture(0, (30, 40)).save(tmp_path / "val" / "bee" / "odd.png")
    with pytest.raises(DataError, match=r"got 32×32 and 30×40 at .*odd\.png\. Pass image_size"):
        open_data(f"folder:{tmp_path}")
    assert open_data(f"folder:{tmp_path}", image_size=32).val.images.shape == (9, 3, 32, 32)


def test_one_large_image_among_small_ones_makes_the_source_large(tmp_path):
    write_folder(tmp_path)
    picture(0, (65, 20)).save(tmp_path / "val" / "bee" / "wide.png")
    assert open_data(f"folder:{tmp_path}").size == (224, 224)


def test_images_need_not_be_square(tmp_path):
    assert open_data(f"folder:{write_folder(tmp_path, size=(48, 24))}").size == (24, 48)


def test_a_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_shard(tmp_path / "d" / "train.parquet", [0, 1])
    write_shard(tmp_path / "d" / "test.parquet", [0, 1])
    assert len(open_data("parquet:~/d").train) == 2
