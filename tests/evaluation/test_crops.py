"""The papers' crops, to the pixel: against their words carried out on arrays of coordinates."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from convarium.data.preprocess import Preprocessing
from convarium.data.resize import Preprocess
from convarium.errors import UsageError
from convarium.evaluation.crops import SINGLE, Protocol, View, cut, read_protocol

SETTINGS = Preprocessing(224, 3, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3), 0.875)
sides = st.integers(224, 1000)
# Odd shapes, portraits, squares, a margin of one pixel.
SHAPES = [(224, 1000), (1000, 225), (512, 512), (257, 256), (375, 500), (501, 333), (999, 998)]


def canvas(height, width, short):
    """The resized image as its own coordinates: pixel (i, j) holds 10,000 i + j."""
    scale = short / min(height, width)
    rows, columns = (short if side == min(height, width) else int(side * scale + 1e-9) for side in (height, width))
    return np.arange(rows)[:, None] * 10_000 + np.arange(columns)


def middle(pixels, size):
    """torchvision's centre crop."""
    top, left = (int(round((side - size) / 2.0)) for side in pixels.shape)  # noqa: RUF046 as torchvision has it
    return pixels[top : top + size, left : left + size]


def corners_and_middle(pixels, size):
    return [
        pixels[:size, :size], pixels[:size, -size:], pixels[-size:, :size], pixels[-size:, -size:], middle(pixels, size)
    ]  # fmt: skip


def with_mirrors(crops):
    return [*crops, *(crop[:, ::-1] for crop in crops)]


def alexnet(height, width):
    return with_mirrors(corners_and_middle(middle(canvas(height, width, 256), 256), 224))


def inception(height, width):
    square = middle(canvas(height, width, 256), 256)
    return with_mirrors([*corners_and_middle(square, 224), square])


def googlenet(height, width):
    crops = []
    for short in (256, 288, 320, 352):
        pixels = canvas(height, width, short)
        if height > width:
            squares = [pixels[:short], middle(pixels, short), pixels[-short:]]
        else:
            squares = [pixels[:, :short], middle(pixels, short), pixels[:, -short:]]
        for square in squares:
            crops += with_mirrors([*corners_and_middle(square, 224), square])
    return crops


def seen(view: View):
    """The coordinates that a view shows."""
    rows, columns = (
        np.arange(start, start + side) for start, side in zip((view.top, view.left), view.box, strict=True)
    )
    assert min(rows[0], columns[0]) >= 0 and rows[-1] < view.resized[0] and columns[-1] < view.resized[1]
    box = rows[:, None] * 10_000 + columns
    return box[:, ::-1] if view.mirrored else box


@settings(deadline=None, max_examples=30)
@given(height=sides, width=sides)
@pytest.mark.parametrize(("crops", "reference"), [("10", alexnet), ("12", inception), ("144", googlenet)])
def test_the_boxes_are_the_papers_to_the_pixel(crops, reference, height, width):
    views = Protocol(crops).views(height, width, SETTINGS)
    expected = reference(height, width)
    assert len(views) == len(expected) == int(crops)
    for view, box in zip(views, expected, strict=True):
        assert np.array_equal(seen(view), box) and view.size == (224, 224)


@given(height=sides, width=sides)
def test_resized_images_keep_their_shape_and_have_the_papers_short_side(height, width):
    views = Protocol("144").views(height, width, SETTINGS)
    assert [min(view.resized) for view in views[::36]] == [256, 288, 320, 352]
    for view in views:
        long, short = max(view.resized), min(view.resized)
        assert long <= short * max(height, width) / min(height, width) < long + 1


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 375), (333, 500), (224, 1000), (1000, 225)])
def test_144_views_are_distinct(height, width):
    assert len(set(Protocol("144").views(height, width, SETTINGS))) == 144


@settings(deadline=None, max_examples=30)
@given(height=sides, width=sides)
@example(height=300, width=300)
def test_views_are_the_same_only_where_they_show_the_same(height, width):
    """At some shapes the right corners of one square are the left ones of the next; in a square image all three are."""
    shorts = np.repeat([256, 288, 320, 352], 36)
    boxes = {(s, box[0, 0], box[-1, -1]) for s, box in zip(shorts, googlenet(height, width), strict=True)}
    assert len(set(Protocol("144").views(height, width, SETTINGS))) == len(boxes)
    if height == width:
        assert len(boxes) == 48


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_dense_views_are_whole_images(height, width):
    views = Protocol("dense", (256, 384)).views(height, width, SETTINGS)
    assert [min(view.resized) for view in views] == [256, 384] * 2
    assert all(view.box == view.size == view.resized and view.top == view.left == 0 for view in views)
    assert [view.mirrored for view in views] == [False, False, True, True]
    assert {min(view.resized) for view in Protocol("dense").views(height, width, SETTINGS)} == {256}


@pytest.mark.parametrize(
    ("size", "shorts"),
    [(224, (256, 288, 320, 352)), (32, (37, 41, 46, 50)), (299, (342, 384, 427, 470)), (1, (1, 1, 1, 2))],
)
def test_the_pixels_of_another_size_are_in_proportion(size, shorts):
    smaller = Preprocessing(size, 1, (0.0,), (1.0,))
    assert Protocol("144").shorts(size) == shorts
    for view in Protocol("144").views(8, 8, smaller):
        assert view.size == (size, size) and min(view.resized) in shorts


@settings(deadline=None, max_examples=20)
@given(height=st.integers(1, 90), width=st.integers(1, 90), size=st.integers(1, 40))
@pytest.mark.parametrize("crops", ["1", "10", "12", "144", "dense"])
def test_smaller_images_are_enlarged(crops, height, width, size):
    preprocess = Preprocess(Preprocessing(size, 1, (0.0,), (1.0,), 0.9))
    views = Protocol(crops).views(height, width, preprocess.preprocessing)
    for view, pixels in cut(np.full((height, width, 1), 51, np.uint8), views, preprocess).items():
        assert pixels.shape == (1, *view.size)
        assert torch.allclose(pixels, torch.tensor(0.2), atol=1e-5)


def pillow_resize(pixels, shape, interpolation):
    """(H, W, C) float32, each channel by Pillow, without rounding."""
    filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    planes = [Image.fromarray(np.ascontiguousarray(plane)) for plane in pixels.transpose(2, 0, 1).astype(np.float32)]
    resized = [np.asarray(plane.resize(shape[::-1], filters[interpolation])) for plane in planes]
    return np.stack(resized, axis=2).clip(0, 255)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("crops", ["10", "12", "144", "dense"])
@pytest.mark.parametrize(("height", "width"), [(50, 37), (31, 64), (20, 20)])
def test_the_pixels_are_pillows(height, width, crops, interpolation):
    """Resized, cut, resized once more where the paper does, normalised: from an image of noise."""
    chosen = Preprocessing(28, 3, SETTINGS.mean, SETTINGS.std, 1.0, interpolation)
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    views = Protocol(crops).views(height, width, chosen)
    found = cut(image, views, Preprocess(chosen))
    assert set(found) == {view for view in views if not view.mirrored}
    for view, pixels in found.items():
        resized = pillow_resize(image, view.resized, interpolation)
        box = resized[view.top : view.top + view.box[0], view.left : view.left + view.box[1]]
        expected = box if view.box == view.size else pillow_resize(box, view.size, interpolation)
        expected = (expected / 255 - np.array(chosen.mean)) / np.array(chosen.std)
        assert np.abs(pixels.numpy() - expected.transpose(2, 0, 1)).max() < 1e-4


@pytest.mark.parametrize(("height", "width"), [*SHAPES, (8, 8), (30, 200)])
def test_the_single_crop_is_the_preprocessings_own_to_the_bit(height, width):
    preprocess = Preprocess(SETTINGS)
    image = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    (found,) = cut(image, SINGLE.views(height, width, SETTINGS), preprocess).values()
    assert torch.equal(found, preprocess(torch.from_numpy(image)[None])[0])


@pytest.mark.parametrize(
    ("crops", "scales", "message"),
    [
        ("11", None, "--crops must be one of 1, 10, 12, 144, dense; got '11'"),
        ("10", "256", "--scales are of dense evaluation: add --crops dense"),
        ("dense", "256,large", "--scales must be short sides in pixels, such as 256,384; got '256,large'"),
        ("dense", "", "--scales must be short sides"),
        ("dense", "256,256", "--scales has 256 twice"),
    ],
)
def test_refuses_what_is_no_protocol(crops, scales, message):
    with pytest.raises(UsageError, match=message):
        read_protocol(crops, scales)


@pytest.mark.parametrize("scale", ["223", "0", "-5"])
def test_refuses_a_scale_below_the_crop(scale):
    with pytest.raises(UsageError, match=rf"--scales {scale} is smaller than the 224 pixels that the run takes"):
        read_protocol("dense", scale).views(300, 300, SETTINGS)
