"""``export``: a run as one file that other runtimes open, with its preprocessing inside."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from convarium.errors import DataError, UsageError, check_choice, require

if TYPE_CHECKING:
    from rich.console import RenderableType

    from convarium.runs import Run

REAL_IMAGES = 16


@dataclass(frozen=True)
class Exported:
    """The file, and how far it is from torch."""

    path: str
    size_mib: float
    opset: int
    parity_images: int
    largest_relative_difference: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def render(self) -> RenderableType:
        return (
            f"{self.path}: {self.size_mib:.2f} MiB, ONNX opset {self.opset}; takes uint8 images (batch, height, width, "
            f"channels) of any size\nagrees with torch on {self.parity_images} images to "
            f"{self.largest_relative_difference:.1e}\nnext: convarium predict {self.path} IMAGE..."
        )


def export(run: Path, /, *, format: Literal["onnx"] = "onnx", output: Path | None = None) -> Exported:
    """Write a run as one file that needs nothing of this project: uint8 images of any size in, logits out.

    Resizing, cropping and normalising are part of the graph; class names and the preprocessing are in its metadata. The
    file appears only when it agrees with torch.

    Args:
        run: a run folder.
        format: onnx.
        output: the file; RUN/model.onnx when not given.

    Raises:
        DataError: a run that cannot be read.
        GateError: the file would not agree with torch; none is written.
    """
    from convarium import __version__
    from convarium.console import stderr
    from convarium.deploy.onnx import export_onnx
    from convarium.runs import load_run

    for module in ("onnx", "onnxscript", "onnxruntime"):
        require(module, "onnx")
    check_choice("--format", format, ["onnx"])
    loaded = load_run(run)
    path = Path(output) if output else loaded.path / "model.onnx"
    if path.suffix != ".onnx" or (path.exists() and not path.is_file()):
        raise UsageError(f"--output must be a file that ends in .onnx; got {str(path)!r}")
    metadata = {
        "architecture": loaded.model.name,
        "class_hash": loaded.own["class_hash"],
        "convarium": __version__,
    }
    images = _real_images(loaded)
    with stderr().status("exporting, and comparing with torch"):
        parity = export_onnx(
            loaded.model, loaded.preprocessing, loaded.class_names, path, metadata=metadata, parity_images=images
        )
    return Exported(str(path), parity.bytes / 2**20, parity.opset, parity.images, parity.largest_difference)


def _real_images(run: Run) -> list[np.ndarray]:
    """Held-out images of the data the run was trained on, where it is still there."""
    from convarium.data.datasets import open_dataset

    data = run.own["data"]
    try:
        dataset = open_dataset(data["name"], data["seed"])
        positions = dataset.splits[dataset.held_out][:REAL_IMAGES]
        return [dataset.read(int(position), run.preprocessing.channels) for position in positions]
    except DataError:
        return []
