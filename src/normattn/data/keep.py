"""From images as found to splits that can be read: decode once if small, when needed if large."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import DataError
from .decode import read_size
from .source import Rows, Source, to_tensor
from .splits import EVAL_MARGIN, LazySplit, MemorySplit, Split, default_workers, fit, pixels

SMALL = 64  # pixels: up to this side, images are decoded once and kept
_LARGE = 224  # the side of larger images unless image_size says otherwise

_T = TypeVar("_T")


def keep(
    spec: str,
    source: Source,
    image_size: int | None,
    margin: float | None,
    method: Image.Resampling,
) -> tuple[Split, Split]:
    """Return the training and the evaluation split, by the rule that ``open_data`` states."""
    mode = "L" if source.channels == 1 else "RGB"
    splits = (source.train, source.val)
    decoded = None
    if image_size is None:
        decoded = _decode_as_found(splits, mode)
        if decoded is not None:
            _check_one_size(spec, splits, decoded)
    elif image_size <= SMALL:

        def fitted(image: Image.Image) -> Image.Image:
            return fit(image, image_size, margin or 0.0, method)

        decoded = [_decode_all(rows, mode, fitted) for rows in splits]
    if decoded is None:
        for rows in splits:
            _check_headers(rows)
        margin = EVAL_MARGIN if margin is None else margin
        side = image_size or _LARGE
        train, val = (LazySplit(rows, side, mode, margin, method) for rows in splits)
        return train, val
    small_train, small_val = (
        MemorySplit(torch.stack(images), to_tensor(rows.labels))
        for images, rows in zip(decoded, splits, strict=True)
    )
    return small_train, small_val


def _decode_as_found(splits: tuple[Rows, Rows], mode: str) -> list[list[Tensor]] | None:
    """Return all images at their own sizes, or None as soon as one is large."""
    rows = splits[0]
    if max(read_size(lambda: rows.open(0), rows.name(0))) > SMALL:
        return None
    decoded = []
    for rows in splits:
        images = _decode_all(rows, mode)
        if any(max(image.shape) > SMALL for image in images):
            return None
        decoded.append(images)
    return decoded


def _check_headers(rows: Rows) -> None:
    """Find now what would stop the training later: files that are empty, huge or no images."""

    def check(row: int) -> None:
        read_size(lambda: rows.open(row), rows.name(row))

    for _ in _map(check, len(rows)):
        pass


def _check_one_size(spec: str, splits: tuple[Rows, Rows], decoded: list[list[Tensor]]) -> None:
    expected = decoded[0][0].shape
    for rows, images in zip(splits, decoded, strict=True):
        for row, image in enumerate(images):
            if image.shape != expected:
                raise DataError(
                    f"{spec}: expected small images of one size, got {_text(expected)} and "
                    f"{_text(image.shape)} at {rows.name(row)}. Pass image_size to resize them."
                )


def _text(shape: torch.Size) -> str:
    return f"{shape[-1]}×{shape[-2]}"


def _decode_all(
    rows: Rows, mode: str, change: Callable[[Image.Image], Image.Image] = lambda image: image
) -> list[Tensor]:
    # so small that threads would only queue
    return [pixels(change(rows.decode(row, mode))) for row in range(len(rows))]


def _map(task: Callable[[int], _T], count: int) -> Iterator[_T]:
    """Yield ``task(0)``, ``task(1)``, ... made by threads; decoders release the interpreter."""

    def block(start: int) -> list[_T]:
        return [task(number) for number in range(start, min(start + 64, count))]

    with ThreadPoolExecutor(default_workers()) as pool:
        for results in pool.map(block, range(0, count, 64)):
            yield from results


def leave_out_bad(source: Source) -> tuple[Source, tuple[str, ...]]:
    """Decode every image once; return the source without the bad ones, and their names."""
    train, bad_train = _good_rows(source.train)
    val, bad_val = _good_rows(source.val)
    return replace(source, train=train, val=val), bad_train + bad_val


def _good_rows(rows: Rows) -> tuple[Rows, tuple[str, ...]]:
    def is_good(row: int) -> bool:
        try:
            rows.decode(row, "RGB")
        except DataError:
            return False
        return True

    good = np.fromiter(_map(is_good, len(rows)), dtype=bool, count=len(rows))
    bad = tuple(rows.name(int(row)) for row in np.flatnonzero(~good))
    if not good.any():
        raise DataError(f"{bad[0]}: expected at least one whole image in its split, got none.")
    return rows.select(np.flatnonzero(good)), bad
