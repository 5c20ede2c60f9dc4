"""Shared fixtures: a small folder of images, and a run trained on it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

torch.set_num_threads(1)


def draw_folder(root: Path, classes: dict[str, int], size: int = 24, seed: int = 0) -> Path:
    """``root/<class>/<n>.png``: each class has its own colour and stripe direction, under noise."""
    generator = np.random.default_rng(seed)
    for label, (name, count) in enumerate(classes.items()):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            rows, columns = np.mgrid[:size, :size]
            stripes = 60 * np.sin((rows if label % 2 else columns) * (0.6 + 0.3 * label))
            pixels = 120 + stripes[..., None] * np.eye(3)[label % 3] + generator.normal(0, 12, (size, size, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / name / f"{i:03d}.png")
    return root


@pytest.fixture(name="draw_folder", scope="session")
def _draw_folder():
    return draw_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three classes of twelve images."""
    return draw_folder(tmp_path / "images", {"ant": 12, "bee": 12, "cat": 12})


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, shared: tests must not change it."""
    return draw_folder(tmp_path_factory.mktemp("shared") / "images", {"ant": 12, "bee": 12, "cat": 12})


@pytest.fixture(scope="session")
def run(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ResNet-20 trained for four epochs on ``images`` at 16 pixels; tests must not change it."""
    from convarium import train

    output = tmp_path_factory.mktemp("runs") / "resnet20"
    train(
        str(images), model="resnet20_cifar", output=output, image_size=16, epochs=4, batch_size=8, threads=1, flip=False
    )
    return output
