"""``parquet:DIR``: shards in the Hugging Face layout, encoded images with their labels."""

# pyarrow has no types of its own, and mypy cannot follow its compiled modules.
# mypy: disable-error-code="attr-defined, name-defined, no-untyped-call"

import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from ..errors import ConfigError, DataError
from .source import Rows, Source

_IMAGE_NAMES = ("img", "image")
_LABEL_NAMES = ("label", "fine_label")  # CIFAR-100 has a coarse label too; papers use the fine one
_EVALUATION = ("validation", "valid", "val", "test")


@dataclass(frozen=True, eq=False)
class Encoded:
    """The encoded images of some shards, held in memory and shared with forked workers."""

    content: pa.ChunkedArray
    shards: tuple[str, ...]
    starts: NDArray[np.int64]

    def name(self, position: int) -> str:
        """Return the shard and the row in it."""
        shard = int(np.searchsorted(self.starts, position, side="right")) - 1
        return f"{self.shards[shard]} row {position - int(self.starts[shard])}"

    def open(self, position: int) -> Image.Image:
        """Read the header."""
        return Image.open(io.BytesIO(self.content[position].as_py()))

    def stamp(self, position: int) -> str:
        """Return the position and the length in bytes."""
        return f"{position}:{len(self.content[position].as_py())}"


@dataclass(frozen=True)
class _Columns:
    image: str
    label: str
    classes: tuple[str, ...] | None  # None where the schema does not name them


def open_parquet(folder: Path, *, image: str | None = None, label: str | None = None) -> Source:
    """Read ``train*.parquet`` and the first of ``validation*``, ``valid*``, ``val*``, ``test*``.

    The shards lie in ``folder`` or in ``folder/data``. A part of the shards is a part of the data,
    and the notes say so. The encoded images are held in memory.

    Args:
        folder: where the shards are.
        image: the image column; by default the one that the schema shows to be it.
        label: the label column; by default the only one, or ``label``, or ``fine_label``.

    Raises:
        DataError: shards or columns are missing, unreadable, or disagree.
        ConfigError: more than one column could be meant.
    """
    shards = {split: _find_shards(folder, split) for split in ("train", *_EVALUATION)}
    evaluation = next((split for split in _EVALUATION if shards[split]), None)
    if not shards["train"] or evaluation is None:
        missing = "train" if not shards["train"] else "validation or test"
        raise DataError(
            f"parquet:{folder}: expected train-*.parquet and validation-*.parquet or "
            f"test-*.parquet, got no {missing} shard. Check the folder."
        )
    columns = _choose_columns(shards["train"][0], image, label)
    train, names = _read_split(shards["train"], columns, None)
    val, names = _read_split(shards[evaluation], columns, names)
    notes = (_shard_note("train", shards["train"]), _shard_note(evaluation, shards[evaluation]))
    return Source(train, val, names, notes=notes)


def _find_shards(folder: Path, split: str) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"parquet:{folder}: expected a folder, got none there. Check the path.")
    pattern = re.compile(rf"{split}([-_.].*)?\.parquet")
    for place in (folder, folder / "data"):
        found = sorted(path for path in place.glob("*.parquet") if pattern.fullmatch(path.name))
        if found:
            return found
    return []


def _shard_note(split: str, shards: list[Path]) -> str:
    total = re.search(r"-of-(\d+)\.parquet$", shards[0].name)
    return f"{split}: {len(shards)} of {int(total[1]) if total else len(shards)} shards"


def _choose_columns(shard: Path, image: str | None, label: str | None) -> _Columns:
    schema = _open_shard(shard).schema_arrow
    features = _features(schema, shard)
    images = [field.name for field in schema if _holds_images(field.type)]
    image = _choose(shard, "image", images, image, _IMAGE_NAMES)
    named = [name for name, feature in features.items() if feature.get("_type") == "ClassLabel"]
    plain = [field.name for field in schema if _holds_labels(field.type)]
    label = _choose(
        shard, "label", named if named and label is None else plain, label, _LABEL_NAMES
    )
    names = features.get(label, {}).get("names")
    return _Columns(image, label, tuple(map(str, names)) if names else None)


def _choose(
    shard: Path, noun: str, found: list[str], asked: str | None, usual: tuple[str, ...]
) -> str:
    if asked is not None:
        if asked in found:
            return asked
        raise ConfigError(
            f"{shard}: expected an {noun} column among {', '.join(found) or 'none'}, "
            f"got {asked!r}. Correct ?{noun}=."
        )
    likely = [name for name in usual if name in found]
    if len(found) == 1 or likely:
        return likely[0] if likely else found[0]
    if not found:
        raise DataError(f"{shard}: expected an {noun} column, got none. Check the schema.")
    raise ConfigError(
        f"{shard}: expected one {noun} column, got {', '.join(found)}. "
        f"Choose one with ?{noun}=NAME after the folder."
    )


def _read_split(
    shards: list[Path], columns: _Columns, classes: tuple[str, ...] | None
) -> tuple[Rows, tuple[str, ...]]:
    content: list[pa.Array] = []
    labels: list[NDArray[Any]] = []
    starts = [0]
    for shard in shards:
        encoded, found = _read_shard(shard, columns)
        content.extend(encoded.chunks)
        labels.append(found)
        starts.append(starts[-1] + len(found))
    if starts[-1] == 0:
        raise DataError(f"{shards[0]}: expected images, got a split with no rows.")
    values = np.concatenate(labels)
    classes = columns.classes or classes or _name_classes(values)
    pictures = Encoded(
        pa.chunked_array(content), tuple(map(str, shards)), np.asarray(starts[:-1], dtype=np.int64)
    )
    numbers = _to_numbers(values, classes, pictures)
    return Rows(pictures, np.arange(starts[-1]), numbers), classes


def _read_shard(shard: Path, columns: _Columns) -> tuple[pa.ChunkedArray, NDArray[Any]]:
    schema = _open_shard(shard).schema_arrow
    for name in (columns.image, columns.label):
        if name not in schema.names:
            raise DataError(
                f"{shard}: expected the column {name!r} of the other shards, got "
                f"{', '.join(schema.names)}. Replace the shard."
            )
    try:
        table = pq.read_table(shard, columns=[columns.image, columns.label], partitioning=None)
    except (pa.ArrowException, OSError) as error:
        raise DataError(_damaged(shard, error)) from error
    images, labels = table[columns.image], table[columns.label]
    if pa.types.is_struct(images.type):
        images = pc.struct_field(images, "bytes")
    for name, column in ((columns.image, images), (columns.label, labels)):
        if column.null_count:
            row = pc.index(pc.is_null(column), True).as_py()
            raise DataError(
                f"{shard}: expected a value of {name!r} in every row, got none at row {row}. "
                "Images must be embedded, and every one labelled."
            )
    return images, labels.to_numpy()


def _to_numbers(
    values: NDArray[Any], classes: tuple[str, ...], pictures: Encoded
) -> NDArray[np.int64]:
    if values.dtype.kind in "iu":
        numbers = values.astype(np.int64)
    else:
        table = {name: number for number, name in enumerate(classes)}
        numbers = np.array([table.get(str(value), -1) for value in values], dtype=np.int64)
    wrong = np.flatnonzero((numbers < 0) | (numbers >= len(classes)))
    if len(wrong):
        row, got = int(wrong[0]), values.tolist()[wrong[0]]
        raise DataError(
            f"{pictures.name(row)}: expected one of the {len(classes)} classes of the training "
            f"split, got {got!r}. Correct the label, or choose a column with ?label=NAME."
        )
    return numbers


def _name_classes(values: NDArray[Any]) -> tuple[str, ...]:
    if values.dtype.kind in "iu":
        return tuple(str(number) for number in range(int(values.max()) + 1))
    return tuple(sorted({str(value) for value in values}))


def _open_shard(shard: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(shard)
    except (pa.ArrowException, OSError) as error:
        raise DataError(_damaged(shard, error)) from error


def _features(schema: pa.Schema, shard: Path) -> dict[str, dict[str, Any]]:
    text = (schema.metadata or {}).get(b"huggingface")
    try:
        return dict(json.loads(text)["info"]["features"]) if text else {}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(_damaged(shard, error)) from error


def _holds_images(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return bool(kind.get_field_index("bytes") >= 0)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _holds_labels(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_string(kind))


def _damaged(shard: Path, error: Exception) -> str:
    return f"{shard}: expected a parquet shard, got a damaged file ({error}). Download it again."
