"""``glyphs``: always the same images, whatever their number and size; typefaces kept apart; what may be asked for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ImageFont

from convarium import evaluate, train
from convarium.data import glyphs
from convarium.data.datasets import open_dataset
from convarium.errors import DataError, UsageError


def test_an_image_depends_on_seed_split_index_and_side_alone():
    few, many = open_dataset("glyphs:train=26,val=26,test=26"), open_dataset("glyphs:train=520,val=26,test=52")
    for split in glyphs.SPLITS:
        for i in range(0, 26, 5):
            one, same = few.images[few.splits[split][i]], many.images[many.splits[split][i]]
            assert np.array_equal(one, same)
            assert np.array_equal(one, glyphs.draw(split, i, 32, 0))
    images = [glyphs.draw(split, i, 32, seed).tobytes() for split in glyphs.SPLITS for i in (0, 26) for seed in (0, 1)]
    assert len(set(images)) == len(images)


def test_every_class_comes_equally_often_in_every_split():
    dataset = open_dataset("glyphs:train=104,val=26,test=52")
    assert dataset.class_names == [*"ABCDEFGHIJKLMNOPQRSTUVWXYZ"]
    for split, count in (("train", 4), ("val", 1), ("test", 2)):
        assert np.bincount(dataset.labels[dataset.splits[split]], minlength=26).tolist() == [count] * 26
    assert dataset.held_out == "test" and dataset.brings_splits
    assert dataset.ids[0] == "train/000000" and dataset.ids[-1] == "test/000051" and len(dataset.ids) == 182


def test_test_typefaces_are_of_other_families_than_the_training_ones():
    def families(faces):
        path = glyphs._font_folder()
        return {ImageFont.truetype(str(path / f"{face}.ttf"), 20).getname()[0] for face in faces}

    assert len({*glyphs.TRAIN_FACES}) == 16 and len({*glyphs.TEST_FACES}) == 6
    assert not families(glyphs.TRAIN_FACES) & families(glyphs.TEST_FACES)


@pytest.mark.parametrize("face", [*glyphs.TRAIN_FACES, *glyphs.TEST_FACES])
def test_every_typeface_draws_every_letter(face):
    """None is blank, none is the box for a missing character, and capitals reach the height that is asked for."""
    missing = np.asarray(glyphs._type(face, "\U000f0000", 128))
    drawn = {letter: np.asarray(glyphs._type(face, letter, 128)) for letter in glyphs.LETTERS + glyphs.LETTERS.upper()}
    for letter, pixels in drawn.items():
        assert pixels.max() == 255, letter
        assert pixels.shape != missing.shape or not np.array_equal(pixels, missing), letter
    rows = np.flatnonzero(drawn["H"].max(axis=1) > 127)
    assert rows[-1] - rows[0] + 1 == pytest.approx(glyphs.HEIGHT[1] * 128, abs=2)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31))
def test_letter_and_ground_differ_in_luminance(seed):
    ground, ink = glyphs._colours(np.random.default_rng(seed))
    assert abs(sum(w * (a - b) for w, a, b in zip((0.299, 0.587, 0.114), ground, ink, strict=True))) >= 60


@pytest.mark.parametrize("index", [0, 7, 29])
def test_other_sizes_show_the_same_picture(index):
    """An image of twice the side, averaged down, differs from the small one by noise and sampling only."""
    small = glyphs.draw("train", index, 48, 3).astype(float)
    large = glyphs.draw("train", index, 96, 3).astype(float)
    averaged = large.reshape(48, 2, 48, 2, 3).mean((1, 3))
    other = glyphs.draw("train", index + 1, 48, 3).astype(float)
    assert np.abs(small - averaged).mean() < 10 < np.abs(small - other).mean()


@pytest.mark.parametrize("side", [28, 33, 224, 299])
def test_any_side(side):
    image = glyphs.draw("test", 5, side, 0)
    assert image.shape == (side, side, 3) and image.dtype == np.uint8


def test_a_letter_lies_within_the_image():
    """Turned, sheared and shifted as far as it goes, it keeps most of its ink."""
    for i in range(40):
        covered = glyphs._letter(np.random.default_rng(i), "DejaVuSans-Bold", "E", 64)
        ink = np.asarray(glyphs._type("DejaVuSans-Bold", "E", 128)).sum() / 255 / 4
        largest, smallest = ink, ink * (glyphs.HEIGHT[0] / glyphs.HEIGHT[1]) ** 2
        assert 0.75 * smallest <= covered.sum() <= 1.02 * largest


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("glyphs:sid=64", "no setting 'sid'; nearest: side"),
        ("glyphs:side=big", "side must be a whole number from 28 to 299; got 'big'"),
        ("glyphs:side=500", "side must be a whole number from 28 to 299; got '500'"),
        ("glyphs:train=5", "train must be a whole number from 26"),
        ("glyphs:64", "no setting '64'"),
    ],
)
def test_settings_that_cannot_be(data, message):
    with pytest.raises(UsageError, match=message):
        open_dataset(data)


def test_a_typing_slip_is_told():
    with pytest.raises(DataError, match="nearest: glyphs"):
        open_dataset("glyfs")


def test_fingerprints_tell_data_apart():
    prints = [
        open_dataset(f"glyphs{s}").fingerprint for s in ("", ":seed=0,side=32", ":side=48", ":seed=1", ":test=52")
    ]
    assert prints[0] == prints[1] and len({*prints}) == 4


def test_from_glyphs_to_an_evaluated_run(tmp_path):
    data = "glyphs:train=104,val=26,test=52"
    trained = train(data, model="lenet5_modern", output=tmp_path / "run", epochs=1, image_size=32, threads=1)
    assert not trained.recipe.flip  # a mirrored letter is another one
    assert (trained.evaluation.split, trained.evaluation.images) == ("val", 26)
    judged = evaluate(tmp_path / "run", data=data)
    assert (judged.split, judged.images) == ("test", 52)
    assert "<img" in (tmp_path / "run" / "report.html").read_text()
