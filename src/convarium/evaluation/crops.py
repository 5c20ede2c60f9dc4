"""The papers' test protocols: which boxes of a resized image a network sees, as plain data, and how they are cut.

A protocol's pixels are those of its paper, whose crop has 224; for a run of another size all of them are in
proportion, rounded. The short side becomes what the protocol says and the long side its proportion, rounded down: a
smaller image is enlarged. Where a margin is odd, the middle is half of it with halves to the even number.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, cast, get_args

from convarium.data.preprocess import Preprocessing, centre_start
from convarium.errors import UsageError, check_choice

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from convarium.data.resize import Preprocess

Crops = Literal["1", "10", "12", "144", "dense"]
PAPER_CROP = 224
PAPER_SHORT = 256  # the short side that AlexNet's crops are cut from
PAPER_SHORTS = (256, 288, 320, 352)  # GoogLeNet, Section 7

Square = tuple[int, int, int]  # top, left, side


@dataclass(frozen=True)
class View:
    """A box of the resized image, as a network sees it. All in pixels, a size as height and width.

    Attributes:
        resized: of the whole image.
        top, left: where the box begins in it.
        box: its size.
        size: what the box is resized to once more; its own where it is only cut.
        mirrored: left and right are exchanged.
    """

    resized: tuple[int, int]
    top: int
    left: int
    box: tuple[int, int]
    size: tuple[int, int]
    mirrored: bool = False


@dataclass(frozen=True)
class Protocol:
    """How an image is shown to a network; its answers to all views are averaged.

    ``crops`` is ``"1"``, the preprocessing's own centre crop; ``"10"``, ``"12"``, ``"144"``; or ``"dense"``, with the
    short sides ``scales`` (empty: the paper's 256 in proportion).
    """

    crops: Crops = "1"
    scales: tuple[int, ...] = ()

    def views(self, height: int, width: int, preprocessing: Preprocessing) -> list[View]:
        """All views of an image, in the paper's order; some of a square image are the same."""
        size = preprocessing.size
        if self.crops == "1":
            return [_single(preprocessing, height, width)]
        if self.crops == "10":
            return ten_crops(size, height, width)
        if self.crops == "12":
            return twelve_crops(size, height, width)
        if self.crops == "144":
            return crops_144(size, height, width)
        return dense_views(self.shorts(size), height, width)

    def shorts(self, size: int) -> tuple[int, ...]:
        """Short sides of the resized images, for a run of ``size`` pixels.

        Raises:
            UsageError: a scale smaller than the run's size.
        """
        for scale in self.scales:
            if scale < size:
                raise UsageError(f"--scales {scale} is smaller than the {size} pixels that the run takes: give larger")
        if self.scales:
            return self.scales
        return tuple(in_proportion(short, size) for short in (PAPER_SHORTS if self.crops == "144" else (PAPER_SHORT,)))

    def __str__(self) -> str:
        return " ".join([self.crops, ",".join(map(str, self.scales))]).strip()

    def says(self, preprocessing: Preprocessing) -> str:
        """The protocol in words, with the pixels of a run."""
        size = preprocessing.size
        shorts = ", ".join(map(str, self.shorts(size)))
        return {
            "1": f"1 crop: the centre {size} of {preprocessing.resize_size} pixels",
            "10": f"10 crops (AlexNet): corners and centre, {size} of {shorts} pixels; and mirrored",
            "12": f"12 crops (Inception-v4): corners, centre and whole, {size} of {shorts} pixels; and mirrored",
            "144": f"144 crops (GoogLeNet): as 12, {size} of {shorts} pixels; three squares of each; and mirrored",
            "dense": f"dense (VGG): the whole image, its short side {shorts} pixels; and mirrored",
        }[self.crops]


SINGLE = Protocol()


def read_protocol(crops: str, scales: str | None) -> Protocol:
    """The protocol of ``--crops`` and ``--scales`` ("256,384").

    Raises:
        UsageError: no such protocol, scales that are not whole numbers, or scales of one that is not dense.
    """
    check_choice("--crops", crops, get_args(Crops))
    if scales is None:
        return Protocol(cast(Crops, crops))
    if crops != "dense":
        raise UsageError(f"--scales are of dense evaluation: add --crops dense (--crops {crops} has its own)")
    try:
        chosen = tuple(int(scale) for scale in scales.split(","))
    except ValueError:
        raise UsageError(f"--scales must be short sides in pixels, such as 256,384; got {scales!r}") from None
    if repeated := [scale for scale in chosen if chosen.count(scale) > 1]:
        raise UsageError(f"--scales has {repeated[0]} twice; got {scales!r}")
    return Protocol("dense", chosen)


def in_proportion(pixels: int, size: int) -> int:
    """The paper's ``pixels`` for a crop of ``size`` instead of 224, rounded."""
    return (2 * pixels * size + PAPER_CROP) // (2 * PAPER_CROP)


def ten_crops(size: int, height: int, width: int) -> list[View]:
    """A. Krizhevsky, I. Sutskever, G. Hinton, NIPS 2012, Sections 2 and 4.1: of the central 256x256, the corners (top
    left, top right, bottom left, bottom right) and the centre; then their mirror images in the same order."""
    short = in_proportion(PAPER_SHORT, size)
    resized = _isotropic(short, height, width)
    return _and_mirrored(_corners_and_centre(resized, _centre_square(resized, short), size))


def twelve_crops(size: int, height: int, width: int) -> list[View]:
    """C. Szegedy et al., AAAI 2017, Table 3, which does not say how they lie. Taken here as the twelfth part of
    GoogLeNet's 144: its smallest scale and centre square. (A public reproduction squeezes the whole image into the
    square instead.)"""
    short = in_proportion(PAPER_SHORT, size)
    resized = _isotropic(short, height, width)
    return _and_mirrored(_six(resized, _centre_square(resized, short), size))


def crops_144(size: int, height: int, width: int) -> list[View]:
    """C. Szegedy et al., CVPR 2015, Section 7: 4 scales x 3 squares (left, centre, right; top, centre, bottom of a
    portrait) x (4 corners, centre, the square itself resized) x 2 mirrorings, in this order."""
    views = []
    for paper_short in PAPER_SHORTS:
        short = in_proportion(paper_short, size)
        resized = _isotropic(short, height, width)
        margin = max(resized) - short
        for start in (0, centre_start(max(resized), short), margin):
            square = (start, 0, short) if height > width else (0, start, short)
            views += _and_mirrored(_six(resized, square, size))
    return views


def dense_views(shorts: Sequence[int], height: int, width: int) -> list[View]:
    """K. Simonyan, A. Zisserman, ICLR 2015, Section 3.2: the whole image at each scale, and its mirror image."""
    wholes = [_isotropic(short, height, width) for short in shorts]
    return _and_mirrored([View(resized, 0, 0, resized, resized) for resized in wholes])


def _single(preprocessing: Preprocessing, height: int, width: int) -> View:
    size = preprocessing.size
    resized = _isotropic(preprocessing.resize_size, height, width)
    top, left, _ = _centre_square(resized, size)
    return View(resized, top, left, (size, size), (size, size))


def _isotropic(short: int, height: int, width: int) -> tuple[int, int]:
    return short * height // min(height, width), short * width // min(height, width)


def _centre_square(resized: tuple[int, int], side: int) -> Square:
    return centre_start(resized[0], side), centre_start(resized[1], side), side


def _corners_and_centre(resized: tuple[int, int], square: Square, size: int) -> list[View]:
    top, left, side = square
    margin, middle = side - size, centre_start(side, size)
    starts = [(0, 0), (0, margin), (margin, 0), (margin, margin), (middle, middle)]
    return [View(resized, top + down, left + right, (size, size), (size, size)) for down, right in starts]


def _six(resized: tuple[int, int], square: Square, size: int) -> list[View]:
    top, left, side = square
    whole = View(resized, top, left, (side, side), (size, size))
    return [*_corners_and_centre(resized, square, size), whole]


def _and_mirrored(views: list[View]) -> list[View]:
    return views + [replace(view, mirrored=True) for view in views]


def cut(image: np.ndarray, views: Iterable[View], preprocess: Preprocess) -> dict[View, Tensor]:
    """What a network takes of one image ``(H, W, C)`` uint8: ``(C, h, w)`` float32 of every view, **not yet mirrored**.

    The image is resized once to each size, and only where a view lies; views that are only cut share its memory.
    """
    import torch

    from convarium.data.resize import resize_part

    pixels = torch.from_numpy(image)[None]
    interpolation = preprocess.preprocessing.interpolation
    by_resized: dict[tuple[int, int], list[View]] = defaultdict(list)
    for view in dict.fromkeys(replace(view, mirrored=False) for view in views):
        by_resized[view.resized].append(view)
    found: dict[View, Tensor] = {}
    for resized, inside in by_resized.items():
        top, left = min(view.top for view in inside), min(view.left for view in inside)
        bottom = max(view.top + view.box[0] for view in inside)
        right = max(view.left + view.box[1] for view in inside)
        part = resize_part(pixels, (resized[0], top, bottom - top), (resized[1], left, right - left), interpolation)
        normalised = preprocess.normalise(part)
        for view in inside:
            down = slice(view.top - top, view.top - top + view.box[0])
            across = slice(view.left - left, view.left - left + view.box[1])
            x = normalised[:, :, down, across]
            if view.size != view.box:
                height, width = view.size
                box = part[:, :, down, across].permute(0, 2, 3, 1)
                x = preprocess.normalise(resize_part(box, (height, 0, height), (width, 0, width), interpolation))
            found[view] = x[0]
    return found
