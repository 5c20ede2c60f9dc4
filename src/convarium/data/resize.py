"""Preprocessing in torch: one code for the training cache, for evaluation, and inside exported files."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from convarium.data.preprocess import Preprocessing, centre_start
from convarium.errors import UsageError

Span = tuple[int, int, int]  # of one direction: pixels of the resized image, the first that is cut, how many


class Preprocess(nn.Module):
    """``(N, H, W, C)`` uint8 of any height and width to ``(N, C, size, size)`` float32, as a network takes it.

    Raises:
        UsageError: images of another type or number of channels.
    """

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.preprocessing = preprocessing
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(preprocessing.std).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        channels = self.preprocessing.channels
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[3] != channels:
            raise UsageError(f"images must be uint8 (N, H, W, {channels}); got {images.dtype} {tuple(images.shape)}")
        return self.normalise(resize_and_crop(images, self.preprocessing, self.preprocessing.size))

    def normalise(self, x: Tensor) -> Tensor:
        """``(N, C, h, w)`` of 0..255 to what a network takes."""
        return (x / 255 - self.get_buffer("mean")) / self.get_buffer("std")


def resize_to(image: Tensor, preprocessing: Preprocessing, size: int | None = None) -> Tensor:
    """One image ``(H, W, C)`` uint8 to ``(C, size, size)`` uint8, resized and cropped but not normalised.

    ``size`` is ``preprocessing.size``, or another crop of the same resized image: at most ``resize_size``.

    Raises:
        UsageError: a larger ``size``.
    """
    size = size or preprocessing.size
    if size > preprocessing.resize_size:
        raise UsageError(f"a crop of {size} pixels does not fit into {preprocessing.resize_size}")
    return resize_and_crop(image[None], preprocessing, size)[0].round().clamp(0, 255).to(torch.uint8)


def resize_and_crop(images: Tensor, preprocessing: Preprocessing, size: int) -> Tensor:
    """``(N, H, W, C)`` of 0..255 to ``(N, C, size, size)`` float32 on the same scale.

    The short side becomes ``resize_size``, the long side its proportion rounded down.
    """
    short = torch.sym_min(images.shape[1], images.shape[2])
    spans = []
    for side in images.shape[1:3]:
        resized = preprocessing.resize_size * side // short
        spans.append((resized, centre_start(resized, size), size))
    return resize_part(images, spans[0], spans[1], preprocessing.interpolation)


def resize_part(images: Tensor, rows: Span, columns: Span, interpolation: str) -> Tensor:
    """A box of the resized images: ``(N, H, W, C)`` of 0..255 to ``(N, C, h, w)`` float32 on the same scale.

    As two matrix products this means the same in every runtime, while a resize node's antialias attribute is ignored by
    OpenVINO.
    """
    _, height, width, channels = images.shape
    down = resize_weights(height, *rows, interpolation, images.device)
    across = resize_weights(width, *columns, interpolation, images.device)
    x = down @ images.float().flatten(2)  # (N, h, W * C): the large image is read once, as it lies in memory
    x = x.unflatten(2, (width, channels)).permute(0, 3, 1, 2) @ across.T
    return x.clamp(0, 255)  # a cubic overshoots


def resize_weights(
    length: int, resized: int, start: int, size: int, interpolation: str, device: torch.device | None = None
) -> Tensor:
    """``(size, length)``: ``size`` of ``resized`` pixels from ``start`` on, each as a weighted mean of ``length``."""
    # Centres of pixels, in half pixels from the middle of the image: whole numbers, so that runtimes which calculate
    # in float16 or bfloat16 (OpenVINO's default on some machines) cannot round them, and small where it matters.
    ours = torch.arange(1 - size, size, 2, device=device) + (2 * start - (resized - size))
    theirs = 2 * torch.arange(length, device=device) + (1 - length)
    steps = (theirs * resized - ours[:, None] * length).abs()
    distance = steps.float() / (2 * torch.sym_max(length, resized))  # in pixels of the coarser grid
    weights = KERNELS[interpolation](distance)
    return weights / weights.sum(1, keepdim=True)


def triangle(distance: Tensor) -> Tensor:
    """1 at 0, falling to 0 at 1."""
    return (1 - distance).clamp(min=0)


def cubic(distance: Tensor) -> Tensor:
    """R. Keys, "Cubic Convolution Interpolation for Digital Image Processing", 1981, Eq. 15: a = -0.5, 0 beyond 2."""
    t = distance.clamp(max=2)
    return torch.where(t < 1, (1.5 * t - 2.5) * t * t + 1, ((-0.5 * t + 2.5) * t - 4) * t + 2)


KERNELS = {"bilinear": triangle, "bicubic": cubic}
