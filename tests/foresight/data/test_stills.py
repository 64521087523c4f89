"""One stated rule for every pixel format a still can have."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from foresight.data import stills
from foresight.data.stills import StillError, read_still

from .media import picture

RGB = picture(20, 30)


def saved(image: Image.Image, kind: str, **options: object) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return file


def pixels_of(file: io.BytesIO) -> np.ndarray:
    frames, _ = read_still(file)
    assert frames.times_s.tolist() == [0.0]
    return frames.pixels[0]


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_lossless_files_come_back_bit_for_bit(kind):
    np.testing.assert_array_equal(pixels_of(saved(Image.fromarray(RGB), kind)), RGB)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_files_come_back_close(kind):
    flat = np.full((20, 30, 3), (200, 60, 30), np.uint8)
    got = pixels_of(saved(Image.fromarray(flat), kind, quality=95))
    assert np.abs(got.astype(int) - flat).max() <= 4


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_rotation_is_applied(orientation, kind):
    upright = np.zeros((16, 24, 3), np.uint8)
    upright[:8, :8] = 255
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100} if kind in ("JPEG", "WEBP") else {}
    file = saved(Image.fromarray(np.ascontiguousarray(undo(upright))), kind, exif=exif, **options)
    got = pixels_of(file)
    assert got.shape == upright.shape
    assert np.abs(got.astype(int) - upright).mean() < 8


def test_grey_becomes_three_equal_channels():
    for image in (Image.fromarray(RGB[..., 0]), Image.fromarray(RGB[..., 0] > 127)):
        got = pixels_of(saved(image, "PNG"))
        np.testing.assert_array_equal(got, np.asarray(image.convert("L"))[..., None].repeat(3, 2))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_keeps_its_upper_byte(kind):
    values = np.arange(600, dtype=np.uint16).reshape(20, 30) * 109
    got = pixels_of(saved(Image.fromarray(values), kind))
    np.testing.assert_array_equal(got, (values >> 8).astype(np.uint8)[..., None].repeat(3, 2))


def png_of_16_bits(values: np.ndarray, colour_type: int) -> io.BytesIO:
    """Return a PNG written by hand, uint16 [row col channel]: Pillow writes 16 bits only in grey."""
    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    chunks = (
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in parts
    )
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


@pytest.mark.parametrize(("channels", "colour_type"), [(3, 2), (4, 6), (2, 4)])
def test_16_bit_colour_and_transparency_keep_their_upper_bytes(channels, colour_type):
    values = np.random.default_rng(0).integers(0, 1 << 16, (6, 5, channels), dtype=np.uint16)
    if channels in (2, 4):
        values[..., -1] = 0xFFFF
    got = pixels_of(png_of_16_bits(values, colour_type))
    colours = (values >> 8).astype(np.uint8)[..., : 3 if channels >= 3 else 1]
    np.testing.assert_array_equal(got, np.broadcast_to(colours, got.shape))


def test_palettes_are_looked_up():
    palette = Image.fromarray(RGB).quantize(256)
    np.testing.assert_array_equal(pixels_of(saved(palette, "PNG")), np.asarray(palette.convert("RGB")))


def test_transparent_pixels_lie_over_white():
    alpha = np.full((20, 30), 128, np.uint8)
    alpha[:10] = 0
    alpha[15:] = 255
    rgba = np.dstack([RGB, alpha])
    got = pixels_of(saved(Image.fromarray(rgba), "PNG"))
    assert (got[:10] == 255).all()
    np.testing.assert_array_equal(got[15:], RGB[15:])
    half = RGB[10:15] * (128 / 255) + 255 * (127 / 255)
    assert np.abs(got[10:15] - half).max() <= 1
    keyed = saved(Image.fromarray(RGB).quantize(8), "PNG", transparency=0)
    assert (pixels_of(keyed) == 255).all(axis=2).any()
    grey = saved(Image.fromarray(np.dstack([RGB[..., 0], alpha]), "LA"), "PNG")
    assert (pixels_of(grey)[:10] == 255).all()


def test_cmyk_is_converted():
    got = pixels_of(saved(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "TIFF"))
    assert (got == (255, 0, 0)).all()
    jpeg = pixels_of(saved(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95))
    assert np.abs(jpeg.astype(int) - (255, 0, 0)).max() <= 4


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_picture_is_taken_and_counted(kind):
    pages = [Image.new("RGB", (16, 16), colour) for colour in ("red", "green", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    frames, pictures = read_still(saved(pages[0], kind, save_all=True, append_images=pages[1:], **options))
    assert pictures == 3
    assert (frames.pixels == (255, 0, 0)).all()


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_without_an_agreed_white_are_refused(mode):
    with pytest.raises(StillError, match="white is not agreed"):
        read_still(saved(Image.new(mode, (8, 8), 70000), "TIFF"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_a_file_cut_short_is_refused(kind):
    whole = saved(Image.fromarray(picture(80, 120)), kind).getvalue()
    for share in (0.3, 0.6, 0.9):
        with pytest.raises(StillError):
            read_still(io.BytesIO(whole[: int(len(whole) * share)]))


def test_a_20000_pixel_image_is_read_up_to_the_stated_number_of_pixels():
    wide = saved(Image.new("L", (20_000, 40), 7), "PNG")
    assert read_still(wide)[0].pixels.shape == (1, 40, 20_000, 3)
    bomb = saved(Image.new("1", (20_000, 20_000)), "PNG")
    assert len(bomb.getvalue()) < 200_000
    with pytest.raises(StillError, match="more than the 89,478,485"):
        read_still(bomb)
    between = saved(Image.new("1", (10_000, 10_000)), "PNG")
    with pytest.raises(StillError, match="more than the 89,478,485"):
        read_still(between)


@pytest.mark.parametrize(
    "content", [b"", b"GIF89a", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"hello" * 50]
)
def test_what_is_no_image_is_refused_in_one_line(content):
    with pytest.raises(StillError) as caught:
        read_still(io.BytesIO(content))
    assert "\n" not in str(caught.value)


def test_an_unexpected_failure_inside_a_decoder_is_one_sentence(monkeypatch):
    def fail(image: Image.Image) -> np.ndarray:
        raise IndexError("first line\n  File 'inside.c', line 3")

    monkeypatch.setattr(stills, "_to_rgb", fail)
    with pytest.raises(StillError, match=r"^Pillow cannot decode it: first line$"):
        read_still(saved(Image.fromarray(RGB), "PNG"))
