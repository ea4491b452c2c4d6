"""``digits``: the 1,797 handwritten digits, 8×8 scans, that come with scikit-learn."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .source import Rows, Source, class_rounds

_VAL_FRACTION = 5  # one in five


@dataclass(frozen=True, eq=False)
class _Scans:
    pixels: NDArray[np.uint8]

    def name(self, position: int) -> str:
        return f"digits[{position}]"

    def open(self, position: int) -> Image.Image:
        return Image.fromarray(self.pixels[position])

    def stamp(self, position: int) -> str:
        return f"{position}"


def open_digits() -> Source:
    """Return the digits with a fixed split: in each class every fifth scan, shuffled, is for val.

    The scans count ink from 0 to 16; here 0 to 255. One channel. A mirrored digit is no digit, so
    these images are never flipped by default.

    Reference: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998.
    """
    from sklearn.datasets import load_digits  # deferred: scikit-learn takes a second to import

    loaded = load_digits()
    scans = _Scans(np.rint(loaded.images * (255 / 16)).astype(np.uint8))
    labels = loaded.target.astype(np.int64)
    rounds = class_rounds(labels, "digits", "split")
    val = np.sort(rounds[: len(labels) // _VAL_FRACTION])
    train = np.setdiff1d(np.arange(len(labels)), val)
    return Source(
        train=Rows(scans, train, labels[train]),
        val=Rows(scans, val, labels[val]),
        classes=tuple(str(name) for name in loaded.target_names),
        channels=1,
        natural=False,
        notes=("digits: fixed stratified split, one scan in five for validation",),
    )
