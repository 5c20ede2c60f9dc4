"""Reading image files."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from convarium.errors import DataError

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # sniffed from the content, not from the name


def read_image(path: str | Path, channels: int = 3) -> np.ndarray:
    """Decode an image, turned upright by its EXIF orientation; the first frame of several.

    Args:
        path: the file.
        channels: 3 for RGB, 1 for grey.

    Returns:
        ``(height, width, channels)``, uint8.

    Raises:
        DataError: no such file, or one that cannot be decoded whole; the message names it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as opened:
                opened.load()
                image = ImageOps.exif_transpose(opened)
    except FileNotFoundError:
        raise DataError(f"no image {path}") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder; an image file is wanted") from None
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError, Warning) as error:
        raise DataError(f"cannot read the image {path}: {str(error).splitlines()[0]}: mend or remove it") from None
    return as_channels(_eight_bits(image), channels)


def _eight_bits(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I") or image.mode == "F":  # 16 bits a pixel, which Pillow would clip
        return np.clip(np.asarray(image, dtype=np.float64) / 257, 0, 255).round().astype(np.uint8)[:, :, None]
    pixels = np.array(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def as_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """``(H, W, 1 or 3)`` uint8 to ``(H, W, channels)``: grey is repeated, RGB becomes luma (ITU-R 601)."""
    if pixels.shape[2] == channels:
        return pixels
    if pixels.shape[2] == 1:
        return np.repeat(pixels, channels, axis=2)
    if channels == 1:
        return np.array(Image.fromarray(pixels).convert("L"))[:, :, None]
    raise DataError(f"images have 1 or 3 channels; the network takes {channels}")
