"""``timm:NAME``: whatever timm's ``create_dataset`` opens, read by our rules.

timm and torchvision convert images on their own terms (16 bits saturate, EXIF is ignored, a bad
file is replaced by the next one); so where a data set shows its files we read these instead.
"""

# pyarrow has no types of its own, and mypy cannot follow its compiled modules.
# mypy: disable-error-code="attr-defined"

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from torch.utils.data import IterableDataset

from ..errors import ConfigError, DataError
from .folder import ImageFiles
from .parquet import Encoded
from .source import Pictures, Rows, Source, check_labels, check_same_classes

_UNMIRRORED = ("torch/mnist", "torch/kmnist", "torch/qmnist")


def open_timm(
    name: str,
    *,
    root: str | None = None,
    train: str = "train",
    val: str = "validation",
    download: str = "no",
) -> Source:
    """Open ``timm.data.create_dataset(name)`` twice, once a split.

    Streams (``wds/``, ``tfds/``, ``hfids/``) cannot be resumed exactly, so they are read once, in
    their order, and kept in memory, losslessly encoded.

    Args:
        name: ``torch/cifar100``, ``torch/image_folder``, ``hfds/...``, ``wds/...``, ...
        root: where the data are, or go.
        train: timm's name of the training split.
        val: timm's name of the evaluation split.
        download: "yes" lets timm fetch what ``root`` lacks.

    Raises:
        ConfigError: ``download`` is neither yes nor no.
        DataError: timm cannot open it, or its splits are one, or disagree on the classes.
    """
    if download not in ("yes", "no"):
        raise ConfigError(f"timm:{name}: expected download of yes or no, got {download!r}.")
    place = str(Path(root).expanduser()) if root else None
    if place and Path(place).is_file():
        raise DataError(
            f"timm:{name}: expected ?root= to be a folder with both splits, got the file {place}. "
            "Unpack it, and use folder:DIR."
        )
    first = _Opener(name, place, train, download == "yes")
    second = _Opener(name, place, val, download == "yes")
    train_rows, classes = _read_split(first)
    val_rows, val_classes = _read_split(second)
    if classes is None or val_classes is None:
        classes = val_classes = tuple(str(n) for n in range(int(train_rows.labels.max()) + 1))
    check_same_classes(first.who, classes, val_classes)
    for opener, rows in ((first, train_rows), (second, val_rows)):
        check_labels(opener.who, rows, len(classes))
    _check_two_splits(first.who, train_rows, val_rows)
    natural = name.lower() not in _UNMIRRORED
    notes = (f"splits: {train}, {val}",)
    return Source(train_rows, val_rows, classes, natural=natural, notes=notes)


@dataclass(frozen=True)
class _Opener:
    name: str
    root: str | None
    split: str
    download: bool

    @property
    def who(self) -> str:
        return f"timm:{self.name} {self.split}"

    def __call__(self) -> Any:
        from timm.data import create_dataset  # deferred: imports all of timm

        try:
            return create_dataset(
                self.name, root=self.root, split=self.split, download=self.download
            )
        except ImportError as error:
            raise DataError(
                f"{self.who}: expected the package {error.name!r} that timm reads this with, "
                f"got none. Run: pip install {error.name}"
            ) from error
        except Exception as error:  # timm asserts, torchvision and datasets raise as they like
            raise DataError(
                f"{self.who}: expected a data set that timm can open, got "
                f"{type(error).__name__}: {str(error).rstrip('.')}. "
                "Check the name, and ?root=DIR, &train=, &val= (names of splits), &download=yes."
            ) from error


@dataclass(frozen=True, eq=False)
class _Decoded:
    """Images that only the data set itself can read, such as torchvision's CIFAR arrays."""

    opener: _Opener
    dataset: Any

    def name(self, position: int) -> str:
        return f"{self.opener.who}[{position}]"

    def open(self, position: int) -> Image.Image:
        image: Image.Image = self.dataset[position][0]
        return image

    def stamp(self, position: int) -> str:
        return f"{position}"


@dataclass(frozen=True, eq=False)
class _FromReader:
    """Images by timm's reader, which hands out the file and leaves the decoding to us."""

    opener: _Opener
    reader: Any

    def name(self, position: int) -> str:
        return f"{self.opener.who}[{position}] {self.reader.filename(position) or ''}".rstrip()

    def open(self, position: int) -> Image.Image:
        file, *_ = self.reader[position]
        with file:
            return Image.open(io.BytesIO(file.read()))

    def stamp(self, position: int) -> str:
        return f"{position}:{self.reader.filename(position)}"


def _read_split(opener: _Opener) -> tuple[Rows, tuple[str, ...] | None]:
    dataset = opener()
    reader = getattr(dataset, "reader", None)
    classes = _class_names(dataset, reader)
    pictures: Pictures
    if isinstance(dataset, IterableDataset):
        pictures, labels = _read_stream(opener, dataset)
    elif samples := _file_samples(dataset, reader):
        root = Path(os.path.commonpath([path for path, _ in samples]))
        root = root.parent if root.is_file() else root
        paths = tuple(os.path.relpath(path, root) for path, _ in samples)
        pictures, labels = ImageFiles(root, paths), [label for _, label in samples]
    elif reader is not None:
        pictures, labels = _FromReader(opener, reader), _reader_labels(reader)
    else:
        pictures, labels = _Decoded(opener, dataset), _dataset_labels(dataset)
    if len(labels) == 0:
        raise DataError(f"{opener.who}: expected images, got none.")
    numbers = np.asarray(labels, dtype=np.int64)
    return Rows(pictures, np.arange(len(numbers)), numbers), classes


def _file_samples(dataset: Any, reader: Any) -> list[tuple[str, int]]:
    """Return (path, label) of a data set that is a list of files; else nothing."""
    samples = getattr(dataset, "samples", getattr(reader, "samples", None))
    if not isinstance(samples, list) or not samples or not Path(str(samples[0][0])).is_file():
        return []
    return [(str(path), int(label)) for path, label in samples]


def _reader_labels(reader: Any) -> list[int]:
    if hasattr(reader, "iter_targets"):
        return [int(label) for label in reader.iter_targets()]
    return [int(reader[position][1]) for position in range(len(reader))]


def _dataset_labels(dataset: Any) -> list[int]:
    for name in ("targets", "labels", "_labels"):
        labels = getattr(dataset, name, None)
        if labels is not None and len(labels) == len(dataset):
            return [int(label) for label in labels]
    return [int(dataset[position][1]) for position in range(len(dataset))]


def _class_names(dataset: Any, reader: Any) -> tuple[str, ...] | None:
    table = getattr(dataset, "class_to_idx", None) or getattr(reader, "class_to_idx", None)
    if table and sorted(table.values()) == list(range(len(table))):
        return tuple(str(name) for name in sorted(table, key=table.__getitem__))
    return None


def _read_stream(opener: _Opener, dataset: Any) -> tuple[Pictures, list[int]]:
    content: list[bytes] = []
    labels: list[int] = []
    for image, label, *_ in dataset:
        file = io.BytesIO()
        image.save(file, "PNG", compress_level=1)
        content.append(file.getvalue())
        labels.append(int(label))
    if len(labels) != len(dataset):  # readers of streams may leave out what they cannot decode
        raise DataError(
            f"{opener.who}: expected the {len(dataset)} images that the data set announces, got "
            f"{len(labels)}. Check its shards."
        )
    encoded = pa.chunked_array([pa.array(content, pa.large_binary())])
    return Encoded(encoded, (opener.who,), np.zeros(1, dtype=np.int64)), labels


def _check_two_splits(who: str, train: Rows, val: Rows) -> None:
    """Refuse one folder taken for both splits, as timm does where it finds no split's folder."""
    if len(train) == len(val) and isinstance(train.pictures, ImageFiles):
        names = [{rows.name(row) for row in range(len(rows))} for rows in (train, val)]
        if names[0] == names[1]:
            raise DataError(
                f"{who}: expected two splits, got the same files in both. Point ?root= at the "
                "folder that holds train and validation."
            )
