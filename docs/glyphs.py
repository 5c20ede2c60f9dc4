"""The picture of the data set in the docs: python docs/glyphs.py docs/glyphs.jpg"""

import sys

import numpy as np
from matplotlib.figure import Figure

from convarium.data.glyphs import LETTERS, draw

SIDE, ROWS = 64, 3


def sheet(split: str) -> np.ndarray:
    """The first 78 images, class under class, white lines between."""
    images = [draw(split, i, SIDE, seed=0) for i in range(ROWS * len(LETTERS))]
    framed = [np.pad(image, ((2, 2), (2, 2), (0, 0)), constant_values=255) for image in images]
    return np.vstack([np.hstack(framed[row * 26 : row * 26 + 26]) for row in range(ROWS)])


figure = Figure(figsize=(13, 3.7), layout="constrained")
for axes, split, title in zip(
    figure.subplots(2, 1),
    ("train", "test"),
    ("training: 16 typefaces", "test: 6 typefaces of other families"),
    strict=True,
):
    axes.imshow(sheet(split))
    axes.set_axis_off()
    axes.set_title(title, loc="left", fontsize=11)
figure.savefig(sys.argv[1], dpi=110, pil_kwargs={"quality": 85})
