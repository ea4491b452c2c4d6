"""Small data sets on disk, written by the tests that need them."""

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

SHARED_CIFAR = Path(__file__).parents[3] / "shared" / "data" / "cifar100"


def picture(seed: int, size: tuple[int, int] = (32, 32)) -> Image.Image:
    """Return noise, width × height as PIL counts."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def encode(image: Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def write_shard(
    path: Path,
    labels: Sequence[int | str | None],
    *,
    names: Sequence[str] | None = ("cat", "dog"),
    first: int = 0,
    size: tuple[int, int] = (32, 32),
    **columns: Sequence[object],
) -> None:
    """Write a shard in the Hugging Face layout; image k is ``picture(first + k)``."""
    content = [
        {"bytes": encode(picture(first + k, size)), "path": f"{k}.png"} for k in range(len(labels))
    ]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"img": pa.array(content, kind), "label": list(labels), **columns})
    if names is not None:
        features = {"img": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": [*names]}}
        text = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": text})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def write_folder(
    root: Path, *, size: tuple[int, int] = (32, 32), per_class: int = 4, kind: str = "png"
) -> Path:
    """Write train/ and val/ with the classes ant and bee."""
    for number, split in enumerate(("train", "val")):
        for label, name in enumerate(("ant", "bee")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for k in range(per_class):
                picture(100 * number + 10 * label + k, size).save(folder / f"{k}.{kind}")
    return root
