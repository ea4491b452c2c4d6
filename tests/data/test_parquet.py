import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from written_data import SHARED_CIFAR, picture, write_shard

from normattn.data import open_data
from normattn.errors import ConfigError, DataError


def test_shards_are_read_in_order_with_the_class_names_of_the_schema(shards):
    data = open_data(f"parquet:{shards}")
    assert data.classes == ("cat", "dog")
    assert data.train.labels.tolist() == [0, 1, 0, 1, 0, 1, 1, 0, 1, 0]
    assert (data.channels, data.size) == (3, (32, 32))
    for place in (0, 5, 6, 9):
        expected = torch.from_numpy(np.asarray(picture(place)).transpose(2, 0, 1).copy())
        assert torch.equal(data.train.images[place], expected)
    assert data.describe()["notes"] == ["train: 2 of 2 shards", "test: 1 of 1 shards"]


def test_a_part_of_the_shards_opens_and_is_recorded(shards):
    (shards / "train-00001-of-00002.parquet").unlink()
    facts = open_data(f"parquet:{shards}").describe()
    assert facts["train"] == 6
    assert "train: 1 of 2 shards" in facts["notes"]


def test_shards_may_lie_in_a_folder_called_data(shards, tmp_path):
    moved = tmp_path / "moved" / "data"
    moved.mkdir(parents=True)
    for shard in shards.glob("*.parquet"):
        shard.rename(moved / shard.name)
    assert len(open_data(f"parquet:{tmp_path / 'moved'}").train) == 10


def test_validation_goes_before_test(shards):
    write_shard(shards / "validation-00000-of-00001.parquet", [1, 0])
    data = open_data(f"parquet:{shards}")
    assert len(data.val) == 2
    assert "validation: 1 of 1 shards" in data.describe()["notes"]


def test_fine_labels_are_the_default_and_coarse_ones_can_be_asked_for(tmp_path):
    for split in ("train", "test"):
        path = tmp_path / f"{split}-00000-of-00001.parquet"
        write_shard(path, [0, 1, 1], names=None, coarse_label=[2, 0, 0])
        table = pq.read_table(path).rename_columns(["img", "fine_label", "coarse_label"])
        pq.write_table(table, path)
    data = open_data(f"parquet:{tmp_path}")
    assert (data.train.labels.tolist(), data.classes) == ([0, 1, 1], ("0", "1"))
    data = open_data(f"parquet:{tmp_path}?label=coarse_label")
    assert (data.train.labels.tolist(), data.classes) == ([2, 0, 0], ("0", "1", "2"))


def test_two_possible_label_columns_are_refused_by_name(tmp_path):
    for split in ("train", "test"):
        path = tmp_path / f"{split}.parquet"
        write_shard(path, [0, 1], names=None, colour=[0, 1])
        pq.write_table(pq.read_table(path).rename_columns(["img", "shape", "colour"]), path)
    with pytest.raises(
        ConfigError, match=r"one label column, got shape, colour\. Choose .*\?label"
    ):
        open_data(f"parquet:{tmp_path}")
    assert len(open_data(f"parquet:{tmp_path}?label=colour").train) == 2


def test_a_column_that_is_not_there_is_refused(shards):
    with pytest.raises(ConfigError, match="label column among label, got 'labels'"):
        open_data(f"parquet:{shards}?label=labels")


def test_labels_that_are_words_become_sorted_classes(tmp_path):
    write_shard(tmp_path / "train.parquet", ["dog", "ape", "dog"], names=None)
    write_shard(tmp_path / "test.parquet", ["ape"], names=None)
    data = open_data(f"parquet:{tmp_path}")
    assert data.classes == ("ape", "dog")
    assert data.train.labels.tolist() == [1, 0, 1]
    write_shard(tmp_path / "test.parquet", ["ape", "bat"], names=None)
    with pytest.raises(DataError, match=r"test\.parquet row 1: expected one of the 2 .*got 'bat'"):
        open_data(f"parquet:{tmp_path}")


@pytest.mark.parametrize("label", [2, -1])
def test_a_label_out_of_range_is_refused_by_shard_and_row(shards, label):
    shard = shards / "train-00001-of-00002.parquet"
    write_shard(shard, [1, label])
    with pytest.raises(
        DataError, match=rf"{shard.name} row 1: expected one of the 2 .*got {label}"
    ):
        open_data(f"parquet:{shards}")


def test_a_missing_label_or_image_is_refused_by_shard_and_row(shards):
    shard = shards / "train-00001-of-00002.parquet"
    write_shard(shard, [1, 0, None])
    with pytest.raises(
        DataError, match=rf"{shard.name}: .*'label' in every row, got none at row 2"
    ):
        open_data(f"parquet:{shards}")
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array([{"bytes": None, "path": "x.png"}], kind)
    pq.write_table(pa.table({"img": images, "label": [0]}), shard)
    with pytest.raises(DataError, match=rf"{shard.name}: .*'img' in every row, got none at row 0"):
        open_data(f"parquet:{shards}")


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_a_truncated_shard_is_refused_by_name(shards, share):
    shard = shards / "train-00001-of-00002.parquet"
    content = shard.read_bytes()
    shard.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError, match=rf"{shard.name}: expected a parquet shard, got a damaged"):
        open_data(f"parquet:{shards}")


def test_a_shard_damaged_in_the_middle_is_refused_by_name(shards):
    shard = shards / "train-00001-of-00002.parquet"
    content = bytearray(shard.read_bytes())
    content[4:400] = bytes(396)
    shard.write_bytes(content)
    with pytest.raises(DataError, match=shard.name):
        open_data(f"parquet:{shards}")


def test_a_shard_without_the_others_columns_is_refused_by_name(shards):
    shard = shards / "train-00001-of-00002.parquet"
    pq.write_table(pa.table({"img": [b"x"], "other": [1]}), shard)
    with pytest.raises(DataError, match=rf"{shard.name}: expected the column 'label' .*img, other"):
        open_data(f"parquet:{shards}")


def test_a_schema_whose_notes_are_no_json_is_refused_by_name(shards):
    shard = shards / "train-00000-of-00002.parquet"
    table = pq.read_table(shard).replace_schema_metadata({"huggingface": "{"})
    pq.write_table(table, shard)
    with pytest.raises(DataError, match=shard.name):
        open_data(f"parquet:{shards}")


def test_a_folder_without_shards_or_without_a_split_is_refused(shards, tmp_path):
    with pytest.raises(DataError, match=r"nowhere: expected a folder, got none"):
        open_data(f"parquet:{tmp_path / 'nowhere'}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="got no train shard"):
        open_data(f"parquet:{tmp_path / 'empty'}")
    (shards / "test-00000-of-00001.parquet").unlink()
    with pytest.raises(DataError, match="got no validation or test shard"):
        open_data(f"parquet:{shards}")


def test_a_split_without_rows_is_refused(shards):
    write_shard(shards / "test-00000-of-00001.parquet", [])
    with pytest.raises(DataError, match=r"test-00000-of-00001\.parquet: expected images"):
        open_data(f"parquet:{shards}")


def test_a_bad_image_stops_or_is_left_out_and_named(shards):
    shard = shards / "train-00001-of-00002.parquet"
    table = pq.read_table(shard).to_pydict()
    table["img"][2]["bytes"] = table["img"][2]["bytes"][:200]
    changed = pa.table(table).replace_schema_metadata(pq.read_schema(shard).metadata)
    pq.write_table(changed, shard)
    with pytest.raises(DataError, match=rf"{shard.name} row 2: expected a whole image"):
        open_data(f"parquet:{shards}")
    data = open_data(f"parquet:{shards}", on_bad_image="skip")
    assert data.train.labels.tolist() == [0, 1, 0, 1, 0, 1, 1, 0, 0]
    assert data.skipped == (f"{shard} row 2",)
    assert json.loads(json.dumps(data.describe()))["skipped"] == [f"{shard} row 2"]


@pytest.mark.shared
def test_one_shard_of_cifar_100_is_read_as_published(tmp_path):
    if not SHARED_CIFAR.is_dir():
        pytest.skip("CIFAR-100 is not at ../shared/data/cifar100")
    for name in ("train-00000-of-00005.parquet", "test-00000-of-00001.parquet"):
        (tmp_path / name).symlink_to(SHARED_CIFAR / name)
    data = open_data(f"parquet:{tmp_path}", train_limit=2000)
    assert (len(data.train), len(data.val)) == (2000, 10_000)
    assert data.size == (32, 32)
    assert len(data.classes) == 100
    assert data.classes[:2] == ("apple", "aquarium_fish")
    assert data.train.labels.bincount().tolist() == [20] * 100
    assert data.val.labels.bincount().tolist() == [100] * 100
    # published for all 50,000: 0.5071 0.4865 0.4409 and 0.2673 0.2564 0.2762
    assert data.mean == pytest.approx((0.507, 0.487, 0.441), abs=0.01)
    assert data.std == pytest.approx((0.267, 0.256, 0.276), abs=0.01)
    assert "train: 1 of 5 shards" in data.describe()["notes"]


def test_the_same_shards_elsewhere_have_the_same_fingerprint(shards, tmp_path):
    moved = shutil.copytree(shards, tmp_path / "moved", ignore=lambda *_: ["moved"])
    first, second = open_data(f"parquet:{shards}"), open_data(f"parquet:{moved}")
    assert first.fingerprint == second.fingerprint
    write_shard(moved / "test-00000-of-00001.parquet", [0, 1, 1, 0], first=51)
    assert open_data(f"parquet:{moved}").fingerprint != first.fingerprint
