"""``open_data``: from a spec such as ``parquet:DIR`` to two splits and their facts."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qsl

import numpy as np
from PIL import Image

from ..errors import ConfigError, DataError, unknown
from .batches import eval_batches
from .imagedata import ImageData, fingerprint, statistics
from .keep import keep, leave_out_bad
from .source import Rows, Source, class_rounds

OnBadImage = Literal["stop", "skip"]


def open_data(
    spec: str,
    *,
    train_limit: int | None = None,
    on_bad_image: OnBadImage = "stop",
    image_size: int | None = None,
    crop: float | None = None,
    method: Image.Resampling = Image.Resampling.BILINEAR,
) -> ImageData:
    """Open ``digits``, ``parquet:DIR``, ``folder:DIR`` or ``timm:NAME``.

    Images of one size up to 64 px are decoded once into one uint8 tensor. Larger ones are decoded
    when a batch needs them, at 224 px. ``image_size`` sets the side instead (and up to 64 px also
    decodes once): training images are cropped by the augmentation, others at the centre.

    Args:
        spec: the source, with options as in ``parquet:DIR?label=coarse_label`` or
            ``timm:torch/cifar100?root=DIR``.
        train_limit: keep only so many training images: a fixed, class-balanced part, the same for
            every seed, and part of every larger one.
        on_bad_image: "stop" raises at a file that cannot be decoded. "skip" leaves such files out
            and names them in ``skipped``; all are decoded once at opening to find them.
        image_size: the side of the square that models see.
        crop: the share of the height and width that is kept, at the centre, of images that are
            resized and not augmented: by default 0.875 above 64 px, as ImageNet models are
            evaluated, and everything up to there.
        method: how these are resized.

    Raises:
        ConfigError: the spec, or an option, is not one of those.
        DataError: the data are missing, empty, damaged or inconsistent; names the file.
    """
    if on_bad_image not in ("stop", "skip"):
        raise ConfigError(unknown("open_data", "on_bad_image", on_bad_image, ["stop", "skip"]))
    for name, number in (("train_limit", train_limit), ("image_size", image_size)):
        if number is not None and number < 1:
            raise ConfigError(f"open_data: expected {name} of 1 or more, got {number}.")
    if crop is not None and not 0 < crop <= 1:
        raise ConfigError(f"open_data: expected crop above 0, at most 1, got {crop}.")
    source = _open_source(spec)
    skipped: tuple[str, ...] = ()
    if on_bad_image == "skip":
        source, skipped = leave_out_bad(source)
    source = replace(source, train=_limit(source.train, train_limit, spec))
    margin = None if crop is None else (1 - crop) / 2
    train, val = keep(spec, source, image_size, margin, method)
    mean, std, notes = statistics(train)
    first = next(eval_batches(val, batch_size=1, workers=0)).images
    return ImageData(
        spec=spec,
        train=train,
        val=val,
        classes=source.classes,
        channels=first.shape[1],
        size=(first.shape[2], first.shape[3]),
        mean=mean,
        std=std,
        skipped=skipped,
        train_limit=train_limit,
        natural=source.natural,
        notes=source.notes + notes,
        fingerprint=fingerprint(train, val),
    )


def _open_source(spec: str) -> Source:
    kind, _, rest = spec.partition(":")
    place, _, query = rest.partition("?")
    if kind not in SOURCES:
        raise ConfigError(unknown("open_data", "data source", kind, SOURCES))
    if bool(place) == (kind == "digits"):
        raise ConfigError(
            f"open_data: expected digits, parquet:DIR, folder:DIR or timm:NAME, got {spec!r}."
        )
    options = dict(parse_qsl(query, keep_blank_values=True))
    if extra := [name for name in options if name not in SOURCE_OPTIONS[kind]]:
        raise ConfigError(unknown(f"open_data({kind})", "option", extra[0], SOURCE_OPTIONS[kind]))
    return SOURCES[kind](place, options)


def _digits(place: str, options: dict[str, str]) -> Source:
    from .digits import open_digits

    return open_digits()


def _parquet(place: str, options: dict[str, str]) -> Source:
    from .parquet import open_parquet

    return open_parquet(Path(place).expanduser(), **options)


def _folder(place: str, options: dict[str, str]) -> Source:
    from .folder import open_folder

    return open_folder(Path(place).expanduser())


def _timm(place: str, options: dict[str, str]) -> Source:
    from .timm_datasets import open_timm

    return open_timm(place, **options)


# Each source imports what it reads with, which can take a second, only when it is asked for.
SOURCES: dict[str, Callable[[str, dict[str, str]], Source]] = {
    "digits": _digits,
    "parquet": _parquet,
    "folder": _folder,
    "timm": _timm,
}
SOURCE_OPTIONS: dict[str, tuple[str, ...]] = {
    "digits": (),
    "parquet": ("image", "label"),
    "folder": (),
    "timm": ("root", "train", "val", "download"),
}


def _limit(rows: Rows, limit: int | None, spec: str) -> Rows:
    if limit is None:
        return rows
    if limit > len(rows):
        raise DataError(
            f"{spec}: expected a train_limit of at most the {len(rows)} training images, "
            f"got {limit}. Lower it, or leave it out."
        )
    return rows.select(np.sort(class_rounds(rows.labels, "train-limit")[:limit]))
