"""Maps over images, activations and single images, as small PNG files.

Letters in a picture are few and grey, so that they can be read on white and on a dark page; what a
picture says is said beside it in words.
"""

import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ._inspection_records import Channels, Map, Pixels, Sample

SIDE = 112  # pixels of a panel's longer side; a page shows five of them at about two thirds
_TILE = 64  # of a channel's activation
_GAP, _APART, _LINE, _LETTERS, _SMALLEST = 6, 20, 18, 14, 8
_GREY = (124, 132, 141, 255)
_COLORS, _SHARE = 160, 0.55
EVERYWHERE = " everywhere"
_HEAT, _FLOW = "inferno", "viridis"

Panel = tuple[Image.Image | None, tuple[str, str]]  # and what stands above it


def sample_strip(sample: Sample, top: float) -> bytes:
    """Return the image and its maps side by side: each map on its own scale, below from 0 to top.

    Args:
        sample: the image and its maps.
        top: the end of the lower row's scale.
    """
    image = pixels(sample.guess.pixels)
    upper: list[Panel] = [(enlarged(image), ("image", ""))]
    lower: list[Panel] = [(None, ("", ""))]
    for values in sample.maps.values():
        size = f"{values.shape[0]}×{values.shape[1]}"
        upper.append(
            (
                blended(image, stretched(values), _HEAT),
                (size, span(values).removesuffix(EVERYWHERE)),
            )
        )
        lower.append((blended(image, values / top, _HEAT), (f"0 to {top:g}", "")))
    if sample.cam is not None:
        upper.append((blended(image, stretched(sample.cam, 0.0), _HEAT), ("Grad-CAM", "")))
    return _png(_grid([upper, lower]))


def channel_grid(channels: Channels, images: Sequence[Tensor]) -> bytes:
    """Return a row an image: the image, then |x · gate| of each channel, on one scale a row."""
    rows: list[list[Panel]] = []
    for number, image in enumerate(images):
        row: list[Panel] = [(enlarged(pixels(image), _TILE), ("", ""))]
        seen = channels.activations[number]
        shown = seen / (float(seen.max()) or 1.0)
        chosen = zip(channels.chosen, channels.salience, shown, strict=True)
        for channel, salience, values in chosen:
            words = ("", "") if number else (f"ch {channel}", f"{salience:.2g}")
            row.append((enlarged(colored(values, _FLOW), _TILE), words))
        rows.append(row)
    return _png(_grid(rows, apart=(1, 1 + channels.most)))


def single(image: Tensor) -> bytes:
    """Return one image, enlarged."""
    return _png(enlarged(pixels(image)))


def pixels(image: Tensor) -> Pixels:
    """Return an image (C, H, W) of one or three channels as (H, W, 3)."""
    found: Pixels = image.expand(3, -1, -1).permute(1, 2, 0).cpu().numpy()
    return found


def span(values: Map) -> str:
    """Return the range of a map with the digits that it takes to see one."""
    low, high = float(values.min()), float(values.max())
    digits = 2
    while digits < 6 and 0 < high - low < 2 * 10.0**-digits:
        digits += 1
    first, last = f"{low:.{digits}f}", f"{high:.{digits}f}"
    return f"{first}{EVERYWHERE}" if first == last else f"{first}–{last}"


def stretched(values: Map, low: float | None = None) -> Map:
    """Return a map from 0 to 1, from its lowest value (or this one) to its highest."""
    start = float(values.min()) if low is None else low
    width = float(values.max()) - start
    # Below the digits of float32 there is nothing but rounding to stretch.
    if width <= 4e-7 * max(1.0, abs(start)):
        return np.full_like(values, 0.5 if low is None else 0.0)
    found: Map = (values - start) / width
    return found


def colored(values: Map, colors: str) -> Pixels:
    """Return values from 0 to 1 as colours."""
    found: Pixels = matplotlib.colormaps[colors](np.clip(values, 0, 1), bytes=True)[..., :3]
    return found


def blended(image: Pixels, values: Map, colors: str) -> Image.Image:
    """Return a map in colours over the image in grey."""
    size = _size(image.shape[1], image.shape[0], SIDE)
    wide = Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    grey = enlarged(image).convert("L").convert("RGB")
    return Image.blend(grey, Image.fromarray(colored(np.asarray(wide), colors)), _SHARE)


def enlarged(image: Pixels, side: int = SIDE) -> Image.Image:
    """Return an image of this side: small ones in visible pixels, large ones smoothed."""
    height, width = image.shape[:2]
    larger = max(height, width) < side
    method = Image.Resampling.NEAREST if larger else Image.Resampling.LANCZOS
    return Image.fromarray(image).resize(_size(width, height, side), method)


def _size(width: int, height: int, side: int) -> tuple[int, int]:
    longer = max(width, height)
    return max(1, round(width * side / longer)), max(1, round(height * side / longer))


def _grid(rows: Sequence[Sequence[Panel]], apart: Sequence[int] = ()) -> Image.Image:
    """Put panels beside and below each other, each with up to two lines of letters above it.

    Args:
        rows: of panels.
        apart: columns with more room in front of them.
    """
    tiles = [tile for row in rows for tile, _ in row if tile is not None]
    width, height = (max(tile.size[axis] for tile in tiles) for axis in (0, 1))
    lines = [max(sum(map(bool, words)) for _, words in row) for row in rows]
    count = max(map(len, rows))
    lefts = [c * (width + _GAP) + _APART * sum(a <= c for a in apart) for c in range(count)]
    tall = sum(height + _GAP + _LINE * count for count in lines) - _GAP
    sheet = Image.new("RGBA", (lefts[-1] + width, tall), (0, 0, 0, 0))
    draw, top = ImageDraw.Draw(sheet), 0
    for row, count in zip(rows, lines, strict=True):
        for left, (tile, words) in zip(lefts, row, strict=False):
            for line, word in enumerate(filter(None, words)):
                font = _fitting(word, width)
                draw.text((left, top + line * _LINE), word, fill=_GREY, font=font)
            if tile is not None:
                sheet.paste(tile, (left, top + count * _LINE))
        top += height + _GAP + _LINE * count
    return sheet


def _fitting(word: str, width: int) -> ImageFont.FreeTypeFont:
    """Return letters small enough for a word to stand above its panel."""
    sizes = range(_LETTERS, _SMALLEST, -1)
    return next((f for f in map(_font, sizes) if f.getlength(word) <= width), _font(_SMALLEST))


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Return the letters that ship with matplotlib; Pillow's own lack × and –."""
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(path, size)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    method = Image.Quantize.FASTOCTREE if image.mode == "RGBA" else Image.Quantize.MEDIANCUT
    image.quantize(_COLORS, method).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
