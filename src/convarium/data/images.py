"""Reading image files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from convarium.errors import DataError

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
PIXEL_LIMIT = 89_478_485  # Pillow's own, at which it only warns
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
    if not Path(path).is_file():
        found = "is not an image file" if Path(path).exists() else "does not exist"
        raise DataError(f"no image: {str(path)!r} {found}")
    try:
        with Image.open(path, formats=FORMATS) as opened:
            if opened.width * opened.height > PIXEL_LIMIT:
                raise ValueError(f"{opened.width}x{opened.height} is more than {PIXEL_LIMIT:,} pixels")
            opened.load()
            image = ImageOps.exif_transpose(opened)
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(f"cannot read the image {path}: {str(error).splitlines()[0]}: mend or remove it") from None
    if image.mode == "F":
        raise DataError(
            f"cannot read the image {path}: its pixels are fractions without a known white; save 8 or 16 bits"
        )
    return as_channels(_eight_bits(image), channels)


def image_files(folder: Path) -> tuple[list[Path], int]:
    """Image files below a folder by their names, sorted, and how many visible entries are something else."""
    entries = sorted((entry for entry in folder.rglob("*") if not entry.is_dir()), key=lambda entry: entry.as_posix())
    visible = [e for e in entries if not any(part.startswith(".") for part in e.relative_to(folder).parts)]
    images = [entry for entry in visible if entry.is_file() and entry.suffix.lower() in SUFFIXES]
    return images, len(visible) - len(images)


def list_images(paths: list[Path]) -> list[Path]:
    """The files among ``paths``, and the images below the folders among them.

    Raises:
        DataError: a folder without images.
    """
    files = []
    for path in paths:
        if path.is_dir():
            inside, _ = image_files(path)
            if not inside:
                raise DataError(f"{path} holds no images")
            files += inside
        else:
            files.append(path)
    return files


def _eight_bits(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I"):  # 16 bits a pixel, which Pillow would clip
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
