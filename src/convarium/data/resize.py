"""Preprocessing in torch: one code for the training cache, for evaluation, and inside exported files."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from convarium.data.preprocess import Preprocessing
from convarium.errors import UsageError


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
        x = resize_and_crop(images, self.preprocessing, self.preprocessing.size)
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

    The short side becomes ``resize_size``, the long side its proportion rounded down. As two matrix products this
    means the same in every runtime, while a resize node's antialias attribute is ignored by OpenVINO.
    """
    _, height, width, channels = images.shape
    short = torch.sym_min(height, width)

    def weights(side: int) -> Tensor:
        resized = preprocessing.resize_size * side // short
        return resize_weights(side, resized, size, preprocessing.interpolation, images.device)

    rows, columns = weights(height), weights(width)
    x = rows @ images.float().flatten(2)  # (N, size, W * C): the large image is read once, as it lies in memory
    x = x.unflatten(2, (width, channels)).permute(0, 3, 1, 2) @ columns.T
    return x.clamp(0, 255)  # a cubic overshoots


def resize_weights(
    length: int, resized: int, size: int, interpolation: str, device: torch.device | None = None
) -> Tensor:
    """``(size, length)``: the centre ``size`` of ``resized`` pixels, each as a weighted mean of ``length`` pixels."""
    margin = resized - size
    start = (margin + margin // 2 % 2) // 2  # round(margin / 2), halves to the even number as in torchvision
    # Centres of pixels, in half pixels from the middle of the image: whole numbers, so that runtimes which calculate
    # in float16 or bfloat16 (OpenVINO's default on some machines) cannot round them, and small where it matters.
    ours = torch.arange(1 - size, size, 2, device=device) + (2 * start - margin)
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
