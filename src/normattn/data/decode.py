"""From a file's bytes to 8-bit pixels, by one rule for every source.

- The header's size is checked before a pixel is decoded: at most ``PIXEL_LIMIT``.
- The EXIF orientation is applied.
- 16-bit gray is scaled to 8 bits; Pillow alone would saturate it to white.
- CMYK, palette, gray and alpha become RGB (alpha is dropped), or all become gray.
- Whatever a decoder says of a damaged file becomes a DataError that names the file.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import DataError

PIXEL_LIMIT = 89_000_000
_DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N")


def read_size(open_image: Callable[[], Image.Image], name: str) -> tuple[int, int]:
    """Return (width, height) from the header of the image called ``name``; decode nothing.

    Raises DataError, with ``name``, for a file that is no image or has over PIXEL_LIMIT pixels.
    """
    with _open(open_image, name) as image:
        return image.size


def decode(open_image: Callable[[], Image.Image], name: str, mode: str = "RGB") -> Image.Image:
    """Return the image called ``name`` upright and in ``mode`` ("RGB" or "L"), 8 bits a channel.

    Raises DataError, with ``name``, for a file that is no image, is damaged, is too large, or holds
    numbers that have no 8-bit meaning.
    """
    with _open(open_image, name) as image:
        try:
            upright = ImageOps.exif_transpose(image)
        except MemoryError:
            raise
        except Exception as error:  # decoders raise nearly anything on damaged bytes
            raise DataError(_damaged(name, error)) from error
    if upright.mode in _DEEP or upright.mode == "F":
        upright = _to_eight_bits(upright, name)
    if upright.mode in ("P", "PA"):
        upright = upright.convert("RGBA")  # the one conversion that keeps a palette's alpha quietly
    try:
        return upright if upright.mode == mode else upright.convert(mode)
    except ValueError as error:
        raise DataError(_damaged(name, error)) from error


def _open(open_image: Callable[[], Image.Image], name: str) -> Image.Image:
    try:
        image = open_image()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(_too_large(name, f"more ({error})")) from error
    except UnidentifiedImageError as error:
        raise DataError(
            f"{name}: expected an image that Pillow can read, got something else. "
            "Replace the file, install the decoder of its format, or pass on_bad_image='skip'."
        ) from error
    except MemoryError:
        raise
    except Exception as error:
        raise DataError(_damaged(name, error)) from error
    width, height = image.size
    if width * height > PIXEL_LIMIT:
        image.close()
        raise DataError(_too_large(name, f"{width}×{height}"))
    return image


def _to_eight_bits(image: Image.Image, name: str) -> Image.Image:
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise DataError(
            f"{name}: expected 8 or 16 bits a channel, got {image.mode!r} values from "
            f"{values.min()} to {values.max()}. Convert the file to 8 bits."
        )
    return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))


def _damaged(name: str, error: Exception) -> str:
    reason = str(error) or type(error).__name__
    return (
        f"{name}: expected a whole image, got a damaged or unreadable one ({reason}). "
        "Replace the file, or pass on_bad_image='skip'."
    )


def _too_large(name: str, got: str) -> str:
    return (
        f"{name}: expected at most {PIXEL_LIMIT:,} pixels, got {got}. "
        "Make the image smaller, or pass on_bad_image='skip'."
    )
