import os
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from written_data import picture, write_folder

from normattn.data import eval_batches, open_data, train_batches
from normattn.data.source import Rows
from normattn.data.splits import LazySplit, fit
from normattn.errors import ConfigError, DataError, Fault


@pytest.fixture
def photos(tmp_path):
    """Sixteen images of 80×70: too large to be decoded once."""
    return write_folder(tmp_path, size=(80, 70))


def read(data, *, workers=0, epoch=0, augment="resized-crop-flip", **changes):
    settings = {"batch_size": 2, "seed": 0, "epoch": epoch, "augment": augment, **changes}
    return list(train_batches(data.train, workers=workers, **settings))


def by_index(batches):
    return {
        int(index): image
        for batch in batches
        for index, image in zip(batch.indices, batch.images, strict=True)
    }


def same_images(first, second):
    return all(torch.equal(first[index], second[index]) for index in first.keys() & second.keys())


def test_large_images_come_as_bytes_at_224_pixels_unless_told_otherwise(photos):
    data = open_data(f"folder:{photos}")
    assert isinstance(data.train, LazySplit)
    assert (data.size, data.channels) == ((224, 224), 3)
    assert data.default_augment == "resized-crop-flip"
    batch = next(eval_batches(data.val, batch_size=3, workers=0))
    assert batch.images.shape == (3, 3, 224, 224)
    assert batch.images.dtype == torch.uint8
    assert open_data(f"folder:{photos}", image_size=72).size == (72, 72)


def test_a_small_image_size_decodes_large_images_once(photos):
    data = open_data(f"folder:{photos}", image_size=40)
    assert data.train.images.shape == (8, 3, 40, 40)
    assert data.default_augment == "pad-crop-flip"


def test_one_two_or_no_workers_make_no_difference(photos):
    data = open_data(f"folder:{photos}", image_size=72)
    none, one, two = (by_index(read(data, workers=workers)) for workers in (0, 1, 2))
    assert none.keys() == one.keys() == two.keys()
    assert same_images(none, one)
    assert same_images(none, two)
    orders = [torch.cat([b.indices for b in read(data, workers=w)]).tolist() for w in (0, 2)]
    assert orders[0] == orders[1]


def test_a_crop_depends_on_seed_epoch_and_sample_alone(photos):
    data = open_data(f"folder:{photos}", image_size=72)
    reference = by_index(read(data))
    assert same_images(reference, by_index(read(data, batch_size=4)))
    assert same_images(reference, by_index(read(data, start=2)))
    assert same_images(reference, by_index(read(data, rank=1, world=2)))
    assert not same_images(reference, by_index(read(data, epoch=1)))
    assert not same_images(reference, by_index(read(data, seed=1)))
    torch.manual_seed(3)
    assert same_images(reference, by_index(read(data)))


def test_training_images_are_random_crops_and_mirror_images(photos):
    data = open_data(f"folder:{photos}", image_size=72)
    epochs = [by_index(read(data, epoch=epoch)) for epoch in range(4)]
    crops = {image.numpy().tobytes() for images in epochs for image in images.values()}
    assert len(crops) == 32
    plain = by_index(read(data, augment="none"))
    assert same_images(plain, by_index(read(data, augment="none", epoch=1)))


def test_equal_images_get_crops_and_directions_of_their_own(tmp_path):
    ramp = Image.fromarray(np.tile(np.arange(80, dtype=np.uint8) * 3, (80, 1)))
    for split in ("train", "val"):
        (tmp_path / split / "a").mkdir(parents=True)
        for k in range(8):
            ramp.save(tmp_path / split / "a" / f"{k}.png")
    images = list(by_index(read(open_data(f"folder:{tmp_path}", image_size=72))).values())
    assert len({image.numpy().tobytes() for image in images}) == 8
    rising = [bool(image[0, 0, -1] > image[0, 0, 0]) for image in images]
    assert set(rising) == {True, False}


def test_evaluation_takes_the_centre(tmp_path):
    image = Image.new("RGB", (200, 100))
    image.paste((255, 255, 255), (50, 0, 150, 100))
    for split in ("train", "val"):
        (tmp_path / split / "a").mkdir(parents=True)
        image.save(tmp_path / split / "a" / "x.png")
    data = open_data(f"folder:{tmp_path}", image_size=100)
    assert next(eval_batches(data.val, batch_size=1, workers=0)).images.min() == 255


@pytest.mark.parametrize("side", [40, 72], ids=["decoded once", "decoded when needed"])
def test_the_share_that_is_kept_and_how_it_is_resized_can_be_said(tmp_path, side):
    root = write_folder(tmp_path, size=(100, 100))
    method = Image.Resampling.BICUBIC
    data = open_data(f"folder:{root}", image_size=side, crop=0.5, method=method)
    with Image.open(root / "val" / "ant" / "0.png") as image:
        expected = image.resize((side, side), method, box=(25, 25, 75, 75))
    found = next(eval_batches(data.val, batch_size=1, workers=0)).images[0]
    assert np.array_equal(found.permute(1, 2, 0).numpy(), np.asarray(expected))


def test_fit_keeps_an_image_that_fits_and_resizes_others_at_the_centre():
    image = picture(0, (24, 24))
    assert fit(image, 24) is image
    wide = picture(0, (48, 24))
    assert np.array_equal(np.asarray(fit(wide, 24)), np.asarray(wide)[:, 12:36])


def test_augmentations_for_images_in_memory_are_refused(photos):
    data = open_data(f"folder:{photos}", image_size=72)
    with pytest.raises(ConfigError, match="for images decoded when needed"):
        read(data, augment="pad-crop-flip")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_breaks_later_is_named_in_one_sentence(photos, workers):
    data = open_data(f"folder:{photos}", image_size=72)
    broken = photos / "train" / "bee" / "2.png"
    broken.write_bytes(broken.read_bytes()[:3000])
    with pytest.raises(DataError) as caught:
        read(data, workers=workers)
    assert str(caught.value).startswith(f"{broken}: expected a whole image")
    assert "Traceback" not in str(caught.value)


def test_a_file_that_vanishes_later_is_named(photos):
    data = open_data(f"folder:{photos}", image_size=72)
    (photos / "train" / "bee" / "2.png").unlink()
    with pytest.raises(DataError, match=r"train/bee/2\.png: .*No such file"):
        read(data)


@pytest.mark.parametrize("content", [b"", b"text"])
def test_large_sources_are_checked_by_their_headers_at_opening(photos, content):
    (photos / "val" / "bee" / "3.png").write_bytes(content)
    with pytest.raises(DataError, match=r"val/bee/3\.png: expected"):
        open_data(f"folder:{photos}")


class Crashing:
    """Pictures whose third kills the process that decodes it, as a broken decoder would."""

    def name(self, position):
        return f"photo-{position}"

    def open(self, position):
        if position == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return picture(position)

    def stamp(self, position):
        return str(position)


def test_a_crash_of_the_decoder_names_the_image():
    split = LazySplit(Rows(Crashing(), np.arange(4), np.zeros(4, dtype=np.int64)), 32)
    with pytest.raises(Fault, match=r"worker processes to survive.* while reading photo-2\."):
        list(eval_batches(split, batch_size=4, workers=1))
