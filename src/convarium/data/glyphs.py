"""``glyphs``: letters in many typefaces on busy grounds, drawn on the fly; the test split has typefaces of its own.

Twenty-six classes, a letter's small and capital form in one. Training and validation images are drawn from sixteen
faces (DejaVu Sans, Sans Mono and Serif; Computer Modern Roman, Bold, Italic and Math Italic), test images from six
others (the four of STIX General; Computer Modern Sans and Typewriter), all of which come with matplotlib. Capitals are
0.45 to 0.85 of the side high; letters are turned by up to 20 degrees, sheared and shifted, on a coloured texture, among
scraps of lines and rings, under noise.
"""

from __future__ import annotations

import string
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from convarium.errors import UsageError, nearest

if TYPE_CHECKING:
    from PIL import Image

TRAIN_FACES = (
    *(
        f"DejaVu{family}{style}"
        for family in ("Sans", "SansMono")
        for style in ("", "-Bold", "-Oblique", "-BoldOblique")
    ),
    *(f"DejaVuSerif{style}" for style in ("", "-Bold", "-Italic", "-BoldItalic")),
    *("cmr10", "cmb10", "cmti10", "cmmi10"),
)
TEST_FACES = ("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta", "cmss10", "cmtt10")
LETTERS = string.ascii_lowercase
SPLITS = ("train", "val", "test")

ROTATION = 20.0  # degrees to either side
HEIGHT = (0.45, 0.85)  # of the type, in parts of the image's side
SHEAR = 0.2
SHIFT = 0.12  # of the side
CONTRAST = 60.0  # least difference of luminance between letter and ground, of 255
TEXTURE = 30.0  # standard deviation of the ground's texture, of 255
NOISE = 8.0  # largest standard deviation of each pixel's noise, of 255
CLUTTER = 2  # lines and rings, at most
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R 601


@dataclass(frozen=True)
class GlyphSettings:
    """What may be chosen: the image's ``side`` in pixels, how many images each split has, and ``seed``."""

    side: int = 32
    train: int = 10_000
    val: int = 1_040
    test: int = 5_200
    seed: int = 0


LIMITS = {"side": (28, 299), "train": (26, 10**7), "val": (26, 10**7), "test": (26, 10**7), "seed": (0, 2**32 - 1)}


def is_glyphs(data: str) -> bool:
    """Whether ``data`` names this data set: ``glyphs``, or ``glyphs:side=64,train=20000``."""
    return data.partition(":")[0] == "glyphs"


def parse_settings(data: str) -> GlyphSettings:
    """The settings in ``glyphs:side=64,train=20000``; what is not named keeps its default.

    Raises:
        UsageError: a setting that does not exist, or a value out of its range.
    """
    known = [f.name for f in fields(GlyphSettings)]
    given = {}
    for part in filter(None, data.partition(":")[2].split(",")):
        name, _, value = part.partition("=")
        if name not in known:
            raise UsageError(f"glyphs has no setting {name!r}; {nearest(name, known)} (glyphs:side=64,train=20000)")
        low, high = LIMITS[name]
        if not value.isdecimal() or not low <= int(value) <= high:
            raise UsageError(f"glyphs: {name} must be a whole number from {low} to {high:,}; got {value!r}")
        given[name] = int(value)
    return GlyphSettings(**given)


class Glyphs:
    """The images of all splits, one behind the other; each is drawn when it is asked for.

    Image i of a split depends on the seed, the split, i and the side alone: more images leave the first ones as they
    are.
    """

    def __init__(self, settings: GlyphSettings) -> None:
        self.settings = settings
        counts = [getattr(settings, split) for split in SPLITS]
        self.starts = np.cumsum([0, *counts])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def place(self, position: int) -> tuple[str, int]:
        """Split, and index in it."""
        split = int(np.searchsorted(self.starts, position, side="right")) - 1
        return SPLITS[split], position - int(self.starts[split])

    def positions(self, split: str) -> np.ndarray:
        start = SPLITS.index(split)
        return np.arange(self.starts[start], self.starts[start + 1])

    def labels(self) -> np.ndarray:
        """``(n,)`` int64: every class in turn."""
        return np.concatenate([np.arange(count) % len(LETTERS) for count in np.diff(self.starts)])

    def __getitem__(self, position: int) -> np.ndarray:
        """One image, ``(side, side, 3)`` uint8."""
        split, index = self.place(position)
        return draw(split, index, self.settings.side, self.settings.seed)


def draw(split: str, index: int, side: int, seed: int) -> np.ndarray:
    """Image ``index`` of a split, ``(side, side, 3)`` uint8; its class is letter ``index % 26``."""
    generator = np.random.default_rng([seed, SPLITS.index(split), index])
    faces = TEST_FACES if split == "test" else TRAIN_FACES
    letter = LETTERS[index % len(LETTERS)]
    letter = letter.upper() if generator.random() < 0.5 else letter
    ground, ink = _colours(generator)
    layers = [(_letter(generator, faces[generator.integers(len(faces))], letter, side), ink)]
    for _ in range(generator.integers(CLUTTER + 1)):
        scrap = (_scrap(generator, side), generator.uniform(0, 255, 3))
        layers.insert(generator.integers(len(layers) + 1), scrap)  # behind the letter or over it
    pixels = ground + _texture(generator, side)
    for mask, colour in layers:
        pixels += mask[..., None] * (colour - pixels)
    pixels += generator.normal(0, generator.uniform(0, NOISE), pixels.shape)
    return pixels.clip(0, 255).round().astype(np.uint8)


def _colours(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """RGB of the ground and of the letter, far enough apart in luminance."""
    ground = ink = generator.uniform(0, 255, 3)
    while abs((ink - ground) @ LUMA) < CONTRAST:
        ink = generator.uniform(0, 255, 3)
    return ground, ink


def _texture(generator: np.random.Generator, side: int) -> np.ndarray:
    """``(side, side, 3)``: normal values on a coarse lattice, linear in between."""
    cells = generator.integers(2, 9)
    lattice = generator.normal(0, TEXTURE, (3, cells, cells))
    weights = _interpolation(int(cells), side)
    return (weights @ lattice @ weights.T).transpose(1, 2, 0)


@lru_cache
def _interpolation(cells: int, side: int) -> np.ndarray:
    places = np.linspace(0, cells - 1, side)
    return np.maximum(0, 1 - np.abs(places[:, None] - np.arange(cells)))


def _letter(generator: np.random.Generator, face: str, letter: str, side: int) -> np.ndarray:
    """``(side, side)`` in 0..1: how much of each pixel the letter covers."""
    from PIL import Image

    fine = _fineness(side)
    drawn = _type(face, letter, side * fine)
    angle, shear = np.deg2rad(generator.uniform(-ROTATION, ROTATION)), generator.uniform(-SHEAR, SHEAR)
    scale = generator.uniform(*HEIGHT) / HEIGHT[1]
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    back = np.linalg.inv(scale * turn @ np.array([[1, shear], [0, 1]]))
    centre = side * fine / 2 + side * fine * generator.uniform(-SHIFT, SHIFT, 2)
    start = np.array(drawn.size) / 2 - back @ centre
    moved = drawn.transform(
        (side * fine, side * fine),
        Image.Transform.AFFINE,
        (back[0, 0], back[0, 1], start[0], back[1, 0], back[1, 1], start[1]),
        Image.Resampling.BILINEAR,
    )
    return np.asarray(moved.reduce(fine), dtype=np.float64) / 255


def _scrap(generator: np.random.Generator, side: int) -> np.ndarray:
    """``(side, side)`` in 0..1: a piece of a line or of a ring."""
    from PIL import Image, ImageDraw

    fine = _fineness(side)
    canvas = Image.new("L", (side * fine, side * fine))
    pen = ImageDraw.Draw(canvas)
    ends = generator.uniform(0, side * fine, 4)
    width = max(1, round(generator.uniform(0.02, 0.06) * side * fine))
    if generator.random() < 0.5:
        pen.line(ends.tolist(), fill=255, width=width)
    else:
        radius = generator.uniform(0.1, 0.4) * side * fine
        box = [ends[0] - radius, ends[1] - radius, ends[0] + radius, ends[1] + radius]
        first = generator.uniform(0, 360)
        pen.arc(box, first, first + generator.uniform(60, 300), fill=255, width=width)
    return np.asarray(canvas.reduce(fine), dtype=np.float64) / 255


def _fineness(side: int) -> int:
    """How many times finer than its pixels a shape is drawn, before it is averaged down."""
    return max(2, round(128 / side))


@lru_cache(4096)
def _type(face: str, letter: str, side: int) -> Image.Image:
    """The letter upright in a box of its own, as large as it gets: capitals are ``HEIGHT[1]`` of the side high."""
    from PIL import Image, ImageDraw, ImageFont

    path = str(_font_folder() / f"{face}.ttf")
    _, top, _, bottom = ImageFont.truetype(path, 1000).getbbox("H")
    font = ImageFont.truetype(path, round(1000 * HEIGHT[1] * side / (bottom - top)))
    left, top, right, bottom = font.getbbox(letter)
    drawn = Image.new("L", (round(right - left) + 4, round(bottom - top) + 4))
    ImageDraw.Draw(drawn).text((2 - left, 2 - top), letter, fill=255, font=font)
    return drawn


@lru_cache
def _font_folder() -> Path:
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf"
