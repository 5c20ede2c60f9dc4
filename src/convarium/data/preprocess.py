"""What is done to an image before a network sees it, as plain data (:mod:`convarium.data.resize` does it)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from convarium.errors import UsageError, nearest

INTERPOLATIONS = ("bilinear", "bicubic")


@dataclass(frozen=True)
class Preprocessing:
    """Resize the short side, cut a square from the centre, scale to 0..1, subtract ``mean``, divide by ``std``.

    Attributes:
        size: side of the square, in pixels.
        channels: 3 (RGB) or 1 (grey).
        mean, std: one number per channel, on a scale where white is 1.
        crop_pct: side of the square over the short side of the resized image; above 0, at most 1.
        interpolation: Pillow's filter, widened when shrinking: ``"bilinear"`` (triangle) or ``"bicubic"`` (a = -0.5).

    Raises:
        UsageError: a value outside these.
    """

    size: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_pct: float = 1.0
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UsageError(f"the image size must be 1 or more; got {self.size}")
        if self.channels not in (1, 3):
            raise UsageError(f"images have 1 or 3 channels; got {self.channels}")
        if not len(self.mean) == len(self.std) == self.channels:
            raise UsageError(f"{self.channels} channels need as many means and stds; got {self.mean} and {self.std}")
        if not all(std > 0 for std in self.std):
            raise UsageError(f"every std must be above 0; got {self.std}")
        if not 0 < self.crop_pct <= 1:
            raise UsageError(f"crop_pct must be above 0 and at most 1; got {self.crop_pct}")
        if self.interpolation not in INTERPOLATIONS:
            hint = nearest(self.interpolation, INTERPOLATIONS)
            raise UsageError(f"no interpolation named {self.interpolation!r}; {hint}")

    @property
    def resize_size(self) -> int:
        """Short side of the resized image, in pixels."""
        return math.floor(self.size / self.crop_pct)


def centre_start(whole: int, part: int) -> int:
    """Where the middle ``part`` of ``whole`` pixels begins: half the margin, halves to the even number as in
    torchvision."""
    margin = whole - part
    return (margin + margin // 2 % 2) // 2
