"""``export``: a run as a file that other runtimes open, with its preprocessing inside."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np

from convarium.atomic import replacing
from convarium.deploy.inputs import Input, image_batches, image_input, tensor_batches, tensor_input
from convarium.deploy.metadata import TAKES, TENSORS, to_properties
from convarium.deploy.parity import Logits, largest_difference, torch_reference
from convarium.deploy.seal import seal
from convarium.errors import ConvariumError, DataError, UsageError, check_choice, require

if TYPE_CHECKING:
    from rich.console import RenderableType
    from torch import nn

    from convarium.runs import Run

REAL_IMAGES = 16

FormatName = Literal["onnx", "openvino", "torch"]
Writer = Callable[["nn.Module", Input, Path, dict[str, str]], None]


class Format(NamedTuple):
    """How a kind of file is written and opened, how what lies beside it and it itself end, what to install (module to
    extra), and what it is called."""

    write: Writer
    open: Callable[[Path], Logits]
    suffixes: tuple[str, ...]
    needs: dict[str, str]
    title: str


@dataclass(frozen=True)
class Exported:
    """The file, and how far it is from torch. ``size_mib`` counts the weights beside it."""

    path: str
    format: FormatName
    raw: bool
    size_mib: float
    opset: int | None
    parity_images: int
    largest_relative_difference: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def render(self) -> RenderableType:
        title = FORMATS[self.format].title + (f" opset {self.opset}" if self.opset else "")
        takes = "prepared tensors, float32 (batch, channels, side, side)"
        if not self.raw:
            takes = "images of any size, uint8 (batch, height, width, channels)"
        if self.format == "torch":
            use = f"in python, torch.export.load({self.path!r}).module()"
        elif self.raw:
            use = "prepare images as the file's metadata says: input_size, crop_pct, interpolation, mean, std"
        else:
            use = f"convarium predict {self.path} IMAGE..."
        return (
            f"{self.path}: {self.size_mib:.2f} MiB, {title}; takes {takes}\n"
            f"agrees with torch on {self.parity_images} images to {self.largest_relative_difference:.1e}\n"
            f"next: {use}"
        )


def export(run: Path, /, *, format: FormatName = "onnx", raw: bool = False, output: Path | None = None) -> Exported:
    """Write a run as a file that needs nothing of this project: uint8 images of any size in, logits out.

    Resizing, cropping and normalising are part of the graph; class names and the preprocessing are in its metadata. The
    file appears only when it agrees with torch.

    Args:
        run: a run folder.
        format: onnx, one file for most runtimes; openvino, an .xml and its weights in a .bin; torch, torch.export's
            .pt2.
        raw: leave the preprocessing out, for programs that have their own: float32 tensors (batch, channels, size,
            size) in. The metadata says how they are to be prepared. convarium predict takes no such file.
        output: the file; RUN/model.onnx, .xml or .pt2 when not given, RUN/raw.onnx and so on with raw.

    Raises:
        UsageError: a file of another kind, or a package that is missing.
        DataError: a run that cannot be read.
        GateError: the file would not agree with torch; none is written.
    """
    from convarium.console import stderr
    from convarium.runs import load_run

    check_choice("--format", format, get_args(FormatName))
    kind = FORMATS[format]
    for module, extra in kind.needs.items():
        require(module, extra)
    loaded = load_run(run)
    suffix = kind.suffixes[-1]
    path = Path(output) if output else loaded.path / f"{'raw' if raw else 'model'}{suffix}"
    if path.suffix != suffix or (path.exists() and not path.is_file()):
        raise UsageError(f"--output must be a file that ends in {suffix}; got {str(path)!r}")
    with stderr().status("exporting, and comparing with torch"):
        return _export(loaded, format, raw, path)


def _export(run: Run, format: FormatName, raw: bool, path: Path) -> Exported:
    """Write and compare in a folder beside ``path``, then put in place."""
    from torch import nn

    from convarium.data.resize import Preprocess
    from convarium.deploy.onnx import OPSET

    kind, settings = FORMATS[format], run.preprocessing
    graph = run.model if raw else nn.Sequential(Preprocess(settings), run.model)
    takes = tensor_input(settings) if raw else image_input(settings)
    batches = (tensor_batches if raw else image_batches)(settings, _real_images(run))
    reference = torch_reference(graph.eval(), batches)
    try:
        with TemporaryDirectory(prefix=f".{path.name}.", suffix=".part", dir=path.parent) as folder:
            made = Path(folder) / path.name
            kind.write(graph, takes, made, _properties(run, raw))
            difference = largest_difference(kind.open(made), reference)
            size = sum(made.with_suffix(suffix).stat().st_size for suffix in kind.suffixes)
            with ExitStack() as places:
                for suffix in kind.suffixes:
                    os.replace(made.with_suffix(suffix), places.enter_context(replacing(path.with_suffix(suffix))))
    except OSError as error:
        raise ConvariumError(f"cannot write {path}: {error.strerror or error}") from error
    opset = OPSET if format == "onnx" else None
    return Exported(str(path), format, raw, size / 2**20, opset, reference.images, difference)


def _properties(run: Run, raw: bool) -> dict[str, str]:
    from convarium import __version__

    own = {"architecture": run.model.name, "class_hash": run.own["class_hash"], "convarium": __version__}
    return own | to_properties(run.preprocessing, run.class_names) | ({TAKES: TENSORS} if raw else {})


def _write_onnx(graph: nn.Module, takes: Input, path: Path, properties: dict[str, str]) -> None:
    from convarium.deploy.onnx import write_onnx

    write_onnx(graph, takes, path, properties)
    seal(path)


def _write_openvino(graph: nn.Module, takes: Input, path: Path, properties: dict[str, str]) -> None:
    from convarium.deploy.onnx import write_onnx
    from convarium.deploy.openvino import write_ir

    between = path.with_suffix(".onnx")
    write_onnx(graph, takes, between, properties)
    write_ir(between, path)
    seal(path)


def _write_torch(graph: nn.Module, takes: Input, path: Path, properties: dict[str, str]) -> None:
    from convarium.deploy.program import write_program

    write_program(graph, takes, path, properties)


def _open_onnx(path: Path) -> Logits:
    from convarium.deploy.onnx import open_onnx

    return open_onnx(path)


def _open_openvino(path: Path) -> Logits:
    from convarium.deploy.openvino import open_openvino

    return open_openvino(path)


def _open_torch(path: Path) -> Logits:
    from convarium.deploy.program import load_program

    return load_program(path)


ONNX = {"onnx": "onnx", "onnxscript": "onnx"}
FORMATS = {
    "onnx": Format(
        _write_onnx, _open_onnx, (".onnx",),
        {**ONNX, "onnxruntime": "onnx"}, "ONNX",
    ),
    "openvino": Format(
        _write_openvino, _open_openvino, (".bin", ".xml"),
        {**ONNX, "openvino": "openvino"}, "OpenVINO IR",
    ),
    "torch": Format(_write_torch, _open_torch, (".pt2",), {}, "torch.export"),
}  # fmt: skip


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
