"""Preprocessing: Pillow and torch as oracles, laws of the resize, refusals."""

import json
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional as F

from convarium.data.preprocess import Preprocessing, centre_start
from convarium.data.resize import Preprocess, resize_and_crop, resize_to, resize_weights
from convarium.errors import UsageError

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
# Equal, one pixel off, smaller, much larger, long and thin, odd margins, a single pixel.
SIZES = [(32, 32), (36, 36), (33, 32), (8, 8), (600, 400), (20, 1000), (1000, 20), (37, 61), (61, 38), (1, 1)]

interpolations = st.sampled_from(sorted(FILTERS))
sides = st.integers(1, 90)


def plain(size=32, channels=3, **settings):
    """Neither mean nor standard deviation changes anything."""
    return Preprocessing(size, channels, (0.0,) * channels, (1.0,) * channels, **settings)


def noise(*shape, low=0, high=256):
    return np.random.default_rng(0).integers(low, high, shape, dtype=np.uint8)


def resized_shape(height, width, preprocessing):
    """torchvision's rule for the short and the long side."""
    short = min(height, width)
    return tuple(int(preprocessing.resize_size * side / short) for side in (height, width))


def centre(pixels, size):
    """torchvision's centre crop of (..., H, W)."""
    top, left = (int(round((side - size) / 2.0)) for side in pixels.shape[-2:])  # noqa: RUF046 as torchvision has it
    return pixels[..., top : top + size, left : left + size]


def ours(image, preprocessing):
    """(C, size, size) on the scale 0..255, before rounding and normalising."""
    return resize_and_crop(torch.from_numpy(image)[None], preprocessing, preprocessing.size)[0].numpy()


def pillow(image, preprocessing, dtype):
    """Pillow's resize of each channel, (C, size, size): with dtype float32 nothing is rounded."""
    rows, columns = resized_shape(*image.shape[:2], preprocessing)
    planes = [Image.fromarray(plane) for plane in image.transpose(2, 0, 1).astype(dtype)]
    resized = [np.asarray(plane.resize((columns, rows), FILTERS[preprocessing.interpolation])) for plane in planes]
    return centre(np.stack(resized).astype(np.float64), preprocessing.size).clip(0, 255)


@pytest.mark.parametrize("crop_pct", [1.0, 0.875])
@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_agrees_with_pillow(height, width, interpolation, crop_pct):
    preprocessing = plain(crop_pct=crop_pct, interpolation=interpolation)
    image = noise(height, width, 3, low=64, high=192)  # a cubic cannot leave 0..255 from here: Pillow would cut it off
    result = ours(image, preprocessing)
    assert np.abs(result - pillow(image, preprocessing, np.float32)).max() < 1e-3
    # Pillow rounds after either direction; a cubic, with its negative weights, makes the first half up to 1.25 larger.
    assert np.abs(result - pillow(image, preprocessing, np.uint8)).max() <= 0.5 * 1.25 + 0.5


@settings(deadline=None)
@given(height=sides, width=sides, size=st.integers(1, 40), crop_pct=st.floats(0.5, 1.0), interpolation=interpolations)
def test_agrees_with_pillow_at_any_size(height, width, size, crop_pct, interpolation):
    preprocessing = plain(size, crop_pct=crop_pct, interpolation=interpolation)
    image = noise(height, width, 3)
    assert np.abs(ours(image, preprocessing) - pillow(image, preprocessing, np.float32)).max() < 1e-3


@settings(deadline=None)
@given(height=sides, width=sides, size=st.integers(2, 40), crop_pct=st.floats(0.5, 1.0), interpolation=interpolations)
def test_agrees_with_torch_at_any_size(height, width, size, crop_pct, interpolation):
    # From 2 pixels up: to a width of 1, torch 2.13 repeats the first row. Its positions are float32, off by up to 0.01
    # of 255, where ours are whole numbers.
    preprocessing = plain(size, crop_pct=crop_pct, interpolation=interpolation)
    image = noise(height, width, 3)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    shape = resized_shape(height, width, preprocessing)
    expected = F.interpolate(pixels, shape, mode=interpolation, antialias=True)[0].clamp(0, 255)
    assert np.abs(ours(image, preprocessing) - centre(expected, size).numpy()).max() < 0.02


@settings(deadline=None)
@given(height=sides, width=sides, value=st.integers(0, 255), interpolation=interpolations)
def test_a_constant_image_stays_constant(height, width, value, interpolation):
    image = np.full((height, width, 1), value, dtype=np.uint8)
    result = ours(image, plain(11, 1, crop_pct=0.9, interpolation=interpolation))
    assert np.abs(result - value).max() < 1e-3


@given(length=sides, resized=sides, data=st.data(), interpolation=interpolations)
def test_the_weights_of_a_pixel_sum_to_one(length, resized, data, interpolation):
    size = data.draw(st.integers(1, resized))
    weights = resize_weights(length, resized, centre_start(resized, size), size, interpolation)
    assert weights.shape == (size, length)
    assert torch.allclose(weights.sum(1), torch.ones(size), atol=1e-5)
    if (resized - size) % 2 == 0:  # the crop is in the very middle
        assert torch.allclose(weights, weights.flip(0, 1), atol=1e-6)


@given(height=st.integers(16, 40), width=st.integers(16, 40), interpolation=interpolations)
def test_a_short_side_of_the_right_size_is_only_cut(height, width, interpolation):
    side = min(height, width)
    image = noise(height, width, 3)
    result = ours(image, plain(side, interpolation=interpolation))
    assert np.array_equal(result, centre(image.transpose(2, 0, 1), side))


@settings(deadline=None)
@given(height=sides, width=sides, interpolation=interpolations)
def test_a_transposed_image_gives_the_transposed_result(height, width, interpolation):
    preprocessing = plain(9, crop_pct=0.8, interpolation=interpolation)
    image = noise(height, width, 3)
    transposed = ours(np.ascontiguousarray(image.transpose(1, 0, 2)), preprocessing)
    assert np.allclose(transposed.transpose(0, 2, 1), ours(image, preprocessing), atol=1e-3)


def test_huge_images_keep_their_positions():
    length, resized = 65_000, 8_125  # a panorama of 8:1
    weights = resize_weights(length, resized, centre_start(resized, 224), 224, "bilinear").double()
    centres = weights @ (torch.arange(length, dtype=torch.float64) + 0.5)
    expected = (torch.arange(224) + (resized - 224) // 2 + 0.5) * (length / resized)
    assert (centres - expected).abs().max() < 0.01


def test_normalises_every_channel_of_every_image():
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 2.0)
    preprocess = Preprocess(Preprocessing(32, 3, mean, std))
    images = torch.from_numpy(noise(4, 32, 32, 3))
    result = preprocess(images)
    expected = (images.permute(0, 3, 1, 2) / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    assert result.dtype == torch.float32
    assert torch.allclose(result, expected, atol=1e-6)
    assert torch.allclose(preprocess(images[2:3])[0], result[2], atol=1e-6)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_the_training_cache_holds_the_same_pixels_rounded(height, width):
    preprocessing = plain(crop_pct=0.875, interpolation="bicubic")
    image = torch.from_numpy(noise(height, width, 3))
    cropped, whole = resize_to(image, preprocessing), resize_to(image, preprocessing, size=36)
    assert (cropped.dtype, cropped.shape, whole.shape) == (torch.uint8, (3, 32, 32), (3, 36, 36))
    assert torch.equal(whole[:, 2:-2, 2:-2], cropped)
    exact = resize_and_crop(image[None], preprocessing, 32)[0]
    assert (cropped - exact).abs().max() <= 0.5


@pytest.mark.parametrize(("size", "crop_pct", "expected"), [(224, 0.875, 256), (32, 1.0, 32), (299, 0.897, 333)])
def test_the_resized_side(size, crop_pct, expected):
    assert plain(size, crop_pct=crop_pct).resize_size == expected


def test_survives_json():
    preprocessing = Preprocessing(28, 1, (0.1307,), (0.3081,), 0.875, "bicubic")
    back = json.loads(json.dumps(asdict(preprocessing)))
    assert Preprocessing(**{**back, "mean": tuple(back["mean"]), "std": tuple(back["std"])}) == preprocessing


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 0}, "image size must be 1 or more; got 0"),
        ({"channels": 4}, "1 or 3 channels; got 4"),
        ({"mean": (0.0,)}, "3 channels need as many means"),
        ({"std": (1.0, 0.0, 1.0)}, "std must be above 0"),
        ({"crop_pct": 1.1}, "crop_pct must be above 0 and at most 1"),
        ({"crop_pct": 0.0}, "crop_pct must be above 0 and at most 1"),
        ({"interpolation": "bilinaer"}, "no interpolation named 'bilinaer'; nearest: bilinear"),
    ],
)
def test_refuses_what_cannot_be(wrong, message):
    with pytest.raises(UsageError, match=message):
        Preprocessing(**{**asdict(plain()), **wrong})


@pytest.mark.parametrize(
    "images", [torch.zeros(1, 8, 8, 3), torch.zeros(1, 8, 8, 1).byte(), torch.zeros(8, 8, 3).byte()]
)
def test_refuses_images_of_another_kind(images):
    with pytest.raises(UsageError, match=r"images must be uint8 \(N, H, W, 3\); got"):
        Preprocess(plain())(images)


def test_refuses_a_crop_larger_than_the_resized_image():
    with pytest.raises(UsageError, match="a crop of 33 pixels does not fit into 32"):
        resize_to(torch.zeros(40, 40, 3, dtype=torch.uint8), plain(), size=33)


def test_the_record_needs_no_torch():
    code = "import sys, convarium.data.preprocess; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
