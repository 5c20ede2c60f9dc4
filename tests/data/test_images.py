"""Reading images: every mode to 8-bit grey or RGB, orientation, and files that are not whole."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from convarium.data.images import as_channels, read_image
from convarium.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode(mode, channels, tmp_path):
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    if mode == "I;16":
        Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257).save(path)
    else:
        Image.fromarray(PIXELS).convert(mode).save(path)
    image = read_image(path, channels)
    assert image.shape == (9, 14, channels) and image.dtype == np.uint8
    if mode == "I;16":
        assert np.array_equal(image[..., 0], PIXELS[..., 0])
    if mode == "RGB" and channels == 3:
        assert np.array_equal(image, PIXELS)


def test_exif_orientation_is_obeyed(tmp_path):
    upright = Image.fromarray(PIXELS)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter to the right
    upright.save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "turned.png"), np.rot90(PIXELS, -1))


@pytest.mark.parametrize("kept", [0, 0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_a_truncated_image_is_refused_by_name(kept, kind, tmp_path):
    path = tmp_path / f"half.{kind}"
    noise = np.random.default_rng(1).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(DataError, match=r"cannot read the image .*half\..*: mend or remove it") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)


def test_what_is_not_an_image_is_refused(tmp_path):
    (tmp_path / "page.jpg").write_text("<html>")
    with pytest.raises(DataError, match=r"cannot read the image .*page\.jpg"):
        read_image(tmp_path / "page.jpg")
    with pytest.raises(DataError, match="does not exist"):
        read_image(tmp_path / "none.png")
    with pytest.raises(DataError, match="is not an image file"):
        read_image(tmp_path)


def test_a_pipe_and_a_picture_of_fractions_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match=r"pipe\.png' is not an image file"):
        read_image(tmp_path / "pipe.png")
    Image.fromarray(np.random.rand(4, 4).astype(np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(DataError, match="fractions without a known white"):
        read_image(tmp_path / "f.tif")


def test_a_header_that_promises_too_many_pixels_is_refused_before_decoding(tmp_path):
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    with pytest.raises(DataError, match=r"cannot read the image .*bomb\.png"):
        read_image(tmp_path / "bomb.png")


@given(arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3]))))
def test_channels(pixels):
    grey, colour = as_channels(pixels, 1), as_channels(pixels, 3)
    assert grey.shape == (*pixels.shape[:2], 1) and colour.shape == (*pixels.shape[:2], 3)
    if pixels.shape[2] == 1:
        assert np.array_equal(as_channels(colour, 1), pixels)  # grey made colour and back is itself
