import shutil

import numpy as np
import pytest
from written_data import encode, picture, write_folder

from normattn.data import open_data
from normattn.errors import DataError


def test_folders_become_classes_and_files_images_in_sorted_order(tmp_path):
    data = open_data(f"folder:{write_folder(tmp_path)}")
    assert data.classes == ("ant", "bee")
    assert data.train.labels.tolist() == [0] * 4 + [1] * 4
    assert np.array_equal(data.train.images[5].numpy(), np.asarray(picture(11)).transpose(2, 0, 1))
    assert np.array_equal(data.val.images[0].numpy(), np.asarray(picture(100)).transpose(2, 0, 1))
    assert data.default_augment == "pad-crop-flip"


@pytest.mark.parametrize("name", ["valid", "validation", "test"])
def test_the_evaluation_folder_has_several_names_and_the_record_says_which(tmp_path, name):
    (write_folder(tmp_path) / "val").rename(tmp_path / name)
    assert f"val: the folder {name}" in open_data(f"folder:{tmp_path}").describe()["notes"]


def test_folders_below_a_class_belong_to_it_and_hidden_files_are_passed_over(tmp_path):
    write_folder(tmp_path)
    deeper = tmp_path / "train" / "ant" / "more"
    deeper.mkdir()
    picture(7).save(deeper / "x.png")
    (tmp_path / "train" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "train" / "ant" / ".hidden.png").write_bytes(b"x")
    assert open_data(f"folder:{tmp_path}").train.labels.tolist() == [0] * 5 + [1] * 4


def test_a_missing_or_empty_folder_is_refused_with_what_was_expected(tmp_path):
    with pytest.raises(DataError, match=r"nowhere: expected a folder .*got nothing there"):
        open_data(f"folder:{tmp_path / 'nowhere'}")
    with pytest.raises(DataError, match=r"expected the folders train and val .*got no val or"):
        open_data(f"folder:{tmp_path}")
    (tmp_path / "val").mkdir()
    with pytest.raises(DataError, match=r"got no .*/train\. Check the path"):
        open_data(f"folder:{tmp_path}")
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match=r"/train: expected a folder for each class, got none"):
        open_data(f"folder:{tmp_path}")


def test_an_empty_class_folder_is_refused_by_name(tmp_path):
    (write_folder(tmp_path) / "train" / "cow").mkdir()
    with pytest.raises(DataError, match=r"train/cow: expected images of the class 'cow'"):
        open_data(f"folder:{tmp_path}")


def test_classes_that_differ_between_the_splits_are_refused_by_name(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "val" / "bee").rename(tmp_path / "val" / "wasp")
    message = r"same classes in both splits, got 'bee' only in train and 'wasp' only in val"
    with pytest.raises(DataError, match=message):
        open_data(f"folder:{tmp_path}")


def test_an_image_outside_the_class_folders_is_refused_by_name(tmp_path):
    picture(0).save(write_folder(tmp_path) / "train" / "stray.png")
    with pytest.raises(DataError, match=r"stray\.png: expected images in class folders only"):
        open_data(f"folder:{tmp_path}")


def break_files(folder):
    """Put five kinds of broken image beside the four good ones of a class; return their names."""
    whole = encode(picture(5), "JPEG")
    broken = {
        "empty.jpg": b"",
        "half.jpg": whole[: len(whole) // 2],
        "half.png": encode(picture(5))[:1500],
        "page.jpg": b"<html>not found</html>",
        "notes.txt": b"remember the milk",
    }
    for name, content in broken.items():
        (folder / name).write_bytes(content)
    return sorted(broken)


@pytest.mark.parametrize("size", [(32, 32), (80, 70)], ids=["small", "large"])
def test_bad_images_are_left_out_and_named_when_asked_for(tmp_path, size):
    write_folder(tmp_path, size=size)
    names = break_files(tmp_path / "train" / "bee")
    (tmp_path / "val" / "ant" / "empty.png").touch()
    data = open_data(f"folder:{tmp_path}", on_bad_image="skip")
    expected = [str(tmp_path / "train" / "bee" / name) for name in names]
    assert list(data.skipped) == [*expected, str(tmp_path / "val" / "ant" / "empty.png")]
    assert data.train.labels.tolist() == [0] * 4 + [1] * 4
    assert len(data.val) == 8
    assert data.describe()["skipped"] == list(data.skipped)


@pytest.mark.parametrize("name", ["empty.jpg", "half.jpg", "half.png", "page.jpg", "notes.txt"])
def test_a_bad_image_stops_by_name(tmp_path, name):
    write_folder(tmp_path)
    folder = tmp_path / "train" / "bee"
    for other in set(break_files(folder)) - {name}:
        (folder / other).unlink()
    with pytest.raises(DataError, match=rf"train/bee/{name}: expected"):
        open_data(f"folder:{tmp_path}")


def test_a_split_of_nothing_but_bad_images_is_refused(tmp_path):
    write_folder(tmp_path, per_class=1)
    for file in (tmp_path / "val").rglob("*.png"):
        file.write_bytes(b"")
    with pytest.raises(DataError, match="at least one whole image in its split, got none"):
        open_data(f"folder:{tmp_path}", on_bad_image="skip")


def test_a_moved_folder_keeps_its_fingerprint_and_a_changed_one_does_not(tmp_path):
    first = write_folder(tmp_path / "a", size=(80, 70))
    before = open_data(f"folder:{first}").fingerprint
    second = shutil.move(first, tmp_path / "b")
    assert open_data(f"folder:{second}").fingerprint == before
    picture(1, (90, 70)).save(second / "train" / "ant" / "0.png")
    assert open_data(f"folder:{second}").fingerprint != before


def test_class_names_are_kept_as_they_are(tmp_path):
    write_folder(tmp_path)
    for split in ("train", "val"):
        (tmp_path / split / "ant").rename(tmp_path / split / "<img onerror=x> ü")
    assert open_data(f"folder:{tmp_path}").classes == ("<img onerror=x> ü", "bee")
