"""Read stills with Pillow: one rule for every pixel format, one sentence for every failure."""

from __future__ import annotations

from typing import IO

import numpy as np
import PIL
from PIL import Image, ImageOps

from foresight.data.errors import one_sentence
from foresight.nouns import Frames

READER = f"pillow {PIL.__version__}"
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
Image.init()  # loads every format now: Pillow does it on first use, and two threads would meet half of it
MAX_PIXELS = 89_478_485
"""Pillow's limit for a decompression bomb: a quarter of a GiB of RGB, such as 20,000 x 4,473 pixels."""


class StillError(ValueError):
    """A still cannot be read; the message is the reason, without the file's name."""


def read_still(file: IO[bytes]) -> tuple[Frames, int]:
    """Return the picture as one RGB frame, and how many pictures the file holds.

    - The first picture of an animated or multi-page file is taken.
    - EXIF rotation is applied.
    - Transparent pixels are laid over white, as a page shows them.
    - Samples of 16 bits keep their upper 8; grey becomes three equal channels; palettes are looked up; CMYK
      and other colour spaces are converted by Pillow's formulas. Colour profiles are not applied.
    - 32-bit whole numbers and floating point have no agreed white, so they are refused.
    - More than `MAX_PIXELS` pixels are refused, whatever the file's size.

    Raises StillError.
    """
    try:
        with Image.open(file, formats=FORMATS) as image:
            height, width = image.height, image.width
            if height * width > MAX_PIXELS:
                raise StillError(_too_large(f"{width} x {height}"))
            pictures = int(getattr(image, "n_frames", 1))
            image.seek(0)
            image.load()
            upright = ImageOps.exif_transpose(image)
            pixels = _to_rgb(upright)
    except StillError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise StillError(_too_large("too many")) from None
    except PIL.UnidentifiedImageError:
        raise StillError(
            "its bytes are no JPEG, PNG, WebP, BMP, TIFF or GIF image, or a kind Pillow does not know"
        ) from None
    except MemoryError:
        raise StillError("there was not enough memory to decode it") from None
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, struct.error, IndexError, …
        raise StillError(f"Pillow cannot decode it: {one_sentence(error)}") from error
    return Frames(pixels=pixels[None], times_s=np.zeros(1), decoder=READER), pictures


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    elif image.mode == "I":
        values = np.asarray(image)
        # Pillow before 11 opens 16-bit grey PNG files in this mode
        if image.format != "PNG" and not _says_16_bit(image):
            raise StillError(
                "its pixels are 32-bit whole numbers, whose white is not agreed; save it as 8 or 16 bits"
            )
        image = Image.fromarray((values >> 8).clip(0, 255).astype(np.uint8))
    elif image.mode == "F":
        raise StillError("its pixels are floating point, whose white is not agreed; save it as 8 or 16 bits")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, rgba)
    return np.asarray(image.convert("RGB"))


def _says_16_bit(image: Image.Image) -> bool:
    bits = getattr(image, "tag_v2", {}).get(258, ())
    return tuple(bits) == (16,) if isinstance(bits, tuple) else bits == 16


def _too_large(size: str) -> str:
    return f"it has {size} pixels, more than the {MAX_PIXELS:,} that are opened; shrink it first"
