import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from written_data import encode, picture

from normattn.data import decode as decoding
from normattn.errors import DataError


def decode(content: bytes, mode: str = "RGB") -> np.ndarray:
    image = decoding.decode(lambda: Image.open(io.BytesIO(content)), "a/b.png", mode)
    assert image.mode == mode
    return np.asarray(image)


def test_an_rgb_image_comes_back_as_it_is():
    assert np.array_equal(decode(encode(picture(0))), np.asarray(picture(0)))


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "1"])
def test_gray_and_alpha_become_rgb_with_the_visible_channels_kept(mode):
    image = picture(1).convert(mode)
    assert np.array_equal(decode(encode(image)), np.asarray(image.convert("RGB")))


def test_a_palette_image_becomes_rgb_with_and_without_transparency():
    image = picture(2).quantize(16)
    expected = np.asarray(image.convert("RGB"))
    assert np.array_equal(decode(encode(image)), expected)
    file = io.BytesIO()
    image.save(file, "PNG", transparency=bytes(range(16)))
    assert np.array_equal(decode(file.getvalue()), expected)


def test_a_cmyk_jpeg_becomes_rgb():
    content = encode(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG")
    assert np.abs(decode(content).astype(int) - (255, 0, 0)).max() < 8


def test_sixteen_bits_are_scaled_and_not_saturated():
    values = np.array([[0, 128, 257, 32768, 65535]], dtype=np.uint16)
    decoded = decode(encode(Image.fromarray(values)), "L")
    assert decoded.tolist() == [[0, 0, 1, 128, 255]]


def test_sixteen_bit_rgb_is_scaled_and_not_saturated():
    assert np.array_equal(decode(png_rgb16([0, 32768, 65535])), [[[0, 128, 255]]])


@pytest.mark.parametrize(
    "values",
    [np.float32([[0.5, 2.0]]), np.int32([[-1, 5]]), np.int32([[0, 65536]])],
    ids=["fractions", "negative", "too-large"],
)
def test_numbers_without_an_eight_bit_meaning_are_refused(values):
    content = encode(Image.fromarray(values), "TIFF")
    with pytest.raises(DataError, match=r"a/b\.png: expected 8 or 16 bits a channel, got '[FI]'"):
        decode(content)


def test_the_exif_orientation_is_applied():
    image = Image.new("RGB", (16, 8))
    image.paste((255, 255, 255), (0, 0, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise
    file = io.BytesIO()
    image.save(file, "JPEG", exif=exif, quality=95)
    upright = decode(file.getvalue())
    assert upright.shape == (16, 8, 3)
    assert upright[:8].mean() > 250
    assert upright[8:].mean() < 5


@pytest.mark.parametrize(
    "content",
    [b"", b"not an image", b"<html>404</html>", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"],
    ids=["zero-byte", "text", "html", "png-signature", "jpeg-start"],
)
def test_what_is_no_image_is_refused_by_name(content):
    with pytest.raises(DataError, match=r"a/b\.png: expected"):
        decode(content)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "WEBP"])
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_a_truncated_image_is_refused_by_name(kind, share):
    content = encode(picture(3), kind)
    with pytest.raises(DataError, match=r"a/b\.png: expected"):
        decode(content[: int(len(content) * share)])


def test_a_png_whose_stream_ends_early_does_no_harm():
    # other decoders crash here; Pillow leaves the missing rows black and does not say so
    decoded = decode(png(64, 64, 8, 0, zlib.compress(b"\0" + b"\1" * 64)), "L")
    assert decoded.shape == (64, 64)
    assert decoded[0].tolist() == [1] * 64


@pytest.mark.parametrize("side", [9_500, 20_000])
def test_too_many_pixels_are_refused_from_the_header(side):
    with pytest.raises(DataError, match=r"a/b\.png: expected at most 89,000,000 pixels, got"):
        decode(png(side, side, 8, 0, b""))


def test_the_limit_is_ours_and_not_only_pillow_s(monkeypatch):
    monkeypatch.setattr(decoding, "PIXEL_LIMIT", 199)
    with pytest.raises(DataError, match="expected at most 199 pixels, got 20×10"):
        decode(png(20, 10, 8, 0, b""))


def test_a_size_is_read_without_decoding():
    broken = png(20, 10, 8, 0, b"")
    assert decoding.read_size(lambda: Image.open(io.BytesIO(broken)), "x") == (20, 10)


def png(width: int, height: int, depth: int, colour: int, data: bytes) -> bytes:
    """Return a PNG file with this header and compressed data, right or wrong."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def png_rgb16(pixel: list[int]) -> bytes:
    return png(1, 1, 16, 2, zlib.compress(b"\0" + struct.pack(">HHH", *pixel)))
