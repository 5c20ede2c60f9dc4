"""Shared fixtures: a small folder of images, and a run trained on it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from convarium import list_models

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


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--table", type=Path, help="write what the tests recorded of each network to this file")


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    """A row per network of what its tests recorded; rows of networks that did not run stay as they are."""
    path = config.getoption("--table")
    if path is None:
        return
    rows: dict[str, str] = {}
    if path.exists():
        rows = {line.split("|")[1].strip(): line for line in path.read_text().splitlines() if line.startswith("| `")}
    columns: list[str] = []
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            recorded = {key: str(value) for key, value in report.user_properties}
            if "network" in recorded:
                name = recorded.pop("network")
                columns = max(columns, list(recorded), key=len)
                cells = [*recorded.values(), outcome] if outcome == "failed" else list(recorded.values())
                rows[f"`{name}`"] = f"| `{name}` | " + " | ".join(cells) + " |"
    header = f"| network | {' | '.join(columns)} |\n|---{'|---:' * len(columns)}|"
    order = [f"`{name}`" for name in list_models()]
    table = "\n".join(rows[name] for name in order if name in rows)
    path.write_text(f"{TABLE_HEADING}Torch {torch.__version__}, on a CPU.\n\n{header}\n{table}\n")


TABLE_HEADING = """# Every network, checked

Written by `make slow`. Every network learns eight images by heart without dropout, at its smallest input (16 pixels at
least): steps, of Adam where there is batch norm, of SGD elsewhere, until the loss is under 0.1 and every image has its
class. Then it goes through `torch.export`, and is exported to ONNX with its preprocessing inside; the differences are
those of the logits from torch's, relative to the largest.

Of the 1001 layers of preact_resnet1001_cifar, torch in float32 is itself 4e-4 from torch in float64, and 3e-4 from
another of torch's own libraries: no exported file can agree to the 1e-4 that is asked for.

"""


@pytest.fixture(autouse=True)
def _the_same_random_numbers():
    """In whatever order and company a test runs, so that one that fails fails again."""
    torch.manual_seed(0)


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
