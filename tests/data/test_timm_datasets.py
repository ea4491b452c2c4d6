import numpy as np
import pytest
import torch
from PIL import Image
from written_data import picture, write_folder

from normattn.data import open_data
from normattn.data.splits import MemorySplit
from normattn.errors import ConfigError, DataError


@pytest.mark.parametrize("name", ["torch/image_folder", "folder"])
def test_a_local_folder_opens_through_timm_as_it_does_directly(tmp_path, name):
    write_folder(tmp_path)
    data = open_data(f"timm:{name}?root={tmp_path}")
    direct = open_data(f"folder:{tmp_path}")
    assert data.classes == ("ant", "bee")
    assert torch.equal(data.train.images, direct.train.images)
    assert torch.equal(data.val.labels, direct.val.labels)


def test_files_are_decoded_by_our_rules_and_not_by_timm_s(tmp_path):
    write_folder(tmp_path)
    for file in tmp_path.rglob("*.png"):
        Image.fromarray(np.full((32, 32), 32768, dtype=np.uint16)).save(file)
    data = open_data(f"timm:torch/image_folder?root={tmp_path}")
    assert data.train.images.unique().tolist() == [128]


def test_a_bad_file_is_named_and_never_replaced_by_its_neighbour(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "train" / "bee" / "2.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"train/bee/2\.png: expected"):
        open_data(f"timm:folder?root={tmp_path}")
    data = open_data(f"timm:folder?root={tmp_path}", on_bad_image="skip")
    assert data.skipped == (str(tmp_path / "train" / "bee" / "2.png"),)


def test_a_tar_file_cannot_be_both_splits(tmp_path):
    (tmp_path / "x.tar").touch()
    with pytest.raises(DataError, match=r"folder with both splits, got the file .*x\.tar"):
        open_data(f"timm:folder?root={tmp_path / 'x.tar'}")


class Arrays:
    """A data set in memory, as torchvision's CIFAR is one."""

    def __init__(self, first):
        self.first, self.targets = first, [0, 1, 1, 0]
        self.class_to_idx = {"cat": 0, "dog": 1}

    def __len__(self):
        return 4

    def __getitem__(self, position):
        return picture(self.first + position), self.targets[position]


class Stream(torch.utils.data.IterableDataset):
    """A data set that can only be read in its order, as webdataset's are."""

    def __init__(self, first, size=(32, 32)):
        self.first, self.size = first, size

    def __len__(self):
        return 6

    def __iter__(self):
        return iter([(picture(self.first + k, self.size), k % 3) for k in range(6)])


def open_fake(monkeypatch, name, train, val):
    asked = []

    def create_dataset(name, **options):
        asked.append((name, options))
        return train if options["split"] == "train" else val

    monkeypatch.setattr("timm.data.create_dataset", create_dataset)
    return open_data(f"timm:{name}"), asked


def test_a_data_set_in_memory_is_read_with_its_labels_and_class_names(monkeypatch):
    data, asked = open_fake(monkeypatch, "torch/cifar100?root=~/x", Arrays(0), Arrays(10))
    assert data.classes == ("cat", "dog")
    assert data.train.labels.tolist() == [0, 1, 1, 0]
    assert np.array_equal(data.val.images[1].numpy(), np.asarray(picture(11)).transpose(2, 0, 1))
    assert data.default_augment == "pad-crop-flip"
    name, options = asked[0]
    assert (name, options["download"]) == ("torch/cifar100", False)
    assert "~" not in options["root"]


def test_mnist_is_never_mirrored_by_default(monkeypatch):
    data, _ = open_fake(monkeypatch, "torch/mnist", Arrays(0), Arrays(10))
    assert data.default_augment == "pad-crop"


@pytest.mark.parametrize("size", [(32, 32), (80, 70)], ids=["small", "large"])
def test_a_stream_is_read_once_without_loss(monkeypatch, size):
    data, _ = open_fake(monkeypatch, "wds/x", Stream(0, size), Stream(10, size))
    assert data.classes == ("0", "1", "2")
    assert data.train.labels.tolist() == [0, 1, 2, 0, 1, 2]
    if isinstance(data.train, MemorySplit):
        expected = np.asarray(picture(4)).transpose(2, 0, 1)
        assert np.array_equal(data.train.images[4].numpy(), expected)
    else:
        expected = np.asarray(picture(4, size))
        assert np.array_equal(np.asarray(data.train.rows.decode(4, "RGB")), expected)


def test_a_stream_that_loses_images_is_refused(monkeypatch):
    monkeypatch.setattr(Stream, "__len__", lambda self: 7)
    with pytest.raises(DataError, match=r"expected the 7 images .*got 6"):
        open_fake(monkeypatch, "wds/x", Stream(0), Stream(10))


def test_one_folder_taken_for_both_splits_is_refused(tmp_path):
    picture(0).save(tmp_path / "x.png")
    (tmp_path / "ant").mkdir()
    picture(1).save(tmp_path / "ant" / "y.png")
    with pytest.raises(DataError, match="expected two splits, got the same files in both"):
        open_data(f"timm:torch/image_folder?root={tmp_path}")


def test_classes_that_differ_are_refused_by_name(tmp_path):
    (write_folder(tmp_path) / "val" / "bee").rename(tmp_path / "val" / "wasp")
    with pytest.raises(DataError, match="'bee' only in train and 'wasp' only in val"):
        open_data(f"timm:torch/image_folder?root={tmp_path}")


def test_a_label_without_a_class_is_refused(monkeypatch):
    val = Arrays(10)
    val.targets = [0, 2, 0, 0]
    with pytest.raises(DataError, match=r"labels from 0 to 1, got 2 at timm:x validation\[1\]"):
        open_fake(monkeypatch, "x", Arrays(0), val)


def test_what_timm_cannot_open_is_refused_with_its_reason(tmp_path):
    with pytest.raises(DataError, match=r"timm:torch/cifar1000 train: .*Unknown torchvision"):
        open_data(f"timm:torch/cifar1000?root={tmp_path}")
    with pytest.raises(DataError, match=r"not found or corrupted.*download=yes"):
        open_data(f"timm:torch/cifar100?root={tmp_path}")


def test_a_missing_package_comes_with_its_install_line(monkeypatch):
    def create_dataset(name, **options):
        raise ModuleNotFoundError("No module named 'webdataset'", name="webdataset")

    monkeypatch.setattr("timm.data.create_dataset", create_dataset)
    with pytest.raises(DataError, match="pip install webdataset"):
        open_data("timm:wds/x")


def test_download_is_yes_or_no():
    with pytest.raises(ConfigError, match="download of yes or no, got 'true'"):
        open_data("timm:torch/cifar100?download=true")
