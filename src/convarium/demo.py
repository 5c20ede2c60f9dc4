"""``demo``: the whole life of a classifier on real handwritten digits, through the same commands a user types."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convarium.atomic import write_text
from convarium.data.datasets import Dataset, open_dataset
from convarium.errors import ConvariumError, UsageError, require
from convarium.runs import METRICS

if TYPE_CHECKING:
    from rich.console import RenderableType

MARK = ".made-by-convarium-demo"

# The networks, and how each is trained. Digits are 8x8 scans: the ResNets need no more than 16 pixels.
NETWORKS: dict[str, list[str]] = {
    "lenet5": [],
    "lenet5_modern": [],
    "resnet20_cifar": ["--image-size", "16", "--epochs", "8"],
    "se_resnet20_cifar": ["--image-size", "16", "--epochs", "8"],
}


@dataclass(frozen=True)
class Demo:
    """What the demo made, and what it found."""

    output: Path
    report: Path
    best: str
    exported: Path
    errors_percent: dict[str, float]
    predicted: str
    true: str
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def render(self) -> RenderableType:
        ranked = sorted(self.errors_percent.items(), key=lambda item: item[1])
        errors = ", ".join(f"{name} {error:.2f} %" for name, error in ranked)
        return (
            f"\nDone in {self.seconds:.0f} s. Held-out error on handwritten digits: {errors}.\n"
            f"The best, {self.best}, is exported to {self.exported} and read a {self.true} as {self.predicted}.\n\n"
            f"Look at     {self.report}\n"
            f"Next, with a folder of your own images (one folder per class):\n"
            f"            convarium train FOLDER --model resnet20_cifar --image-size 64"
        )


def demo(*, output: Path = Path("convarium-demo")) -> Demo:
    """Train four networks on handwritten digits, compare, explain, export and use them, and write a report.

    Args:
        output: the folder to make; one that an earlier demo made is replaced.

    Raises:
        UsageError: the folder exists and no demo made it, or a package is missing.
        ConvariumError: a training failed; the message ends with what it said.
    """
    for module, extra in (("sklearn", "digits"), ("onnx", "onnx"), ("onnxscript", "onnx"), ("onnxruntime", "onnx")):
        require(module, extra)
    began = time.monotonic()
    _claim(output)
    dataset = open_dataset("digits")
    trained, held_out = len(dataset.splits["train"]), len(dataset.splits["val"])
    _say(f"1/5  training four networks on {trained:,} handwritten digits; {held_out} are held out to judge them")
    _train_all(output)
    _say("2/5  comparing them")
    folders = [output / name for name in NETWORKS]
    best = min(folders, key=lambda folder: _error(folder))
    _say(f"3/5  explaining what {best.name} looks at")
    image, true = _example(dataset, output)
    explanation = _explain(best, image)
    _say(f"4/5  exporting {best.name} to ONNX, its preprocessing inside")
    from convarium.deploy.export import export
    from convarium.deploy.predict import predict

    exported = export(best)
    predicted = predict(Path(exported.path), [image]).rows[0]
    _say("5/5  writing the report")
    from convarium.report.page import write_report

    report = output / "report.html"
    runs = write_report(
        report,
        folders,
        title="Four networks on handwritten digits",
        explanation=explanation,
        notes=[
            "LeNet-5 as published in 1998, its textbook form, a ResNet of 2016 and one with squeeze-and-excitation, "
            "trained on the 1,797 scans that scikit-learn ships, and judged on a fifth that none of them saw.",
            f"{best.name} was exported to ONNX; the file read the {true} below as "
            f"{predicted.labels[0]} ({100 * predicted.probabilities[0]:.1f} %).",
        ],
    )
    return Demo(
        output=output,
        report=report,
        best=best.name,
        exported=Path(exported.path),
        errors_percent={run.recipe.model: run.error for run in runs},
        predicted=predicted.labels[0],
        true=true,
        seconds=time.monotonic() - began,
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _claim(output: Path) -> None:
    import shutil

    if output.exists():
        if not (output / MARK).is_file():
            raise UsageError(f"{output} exists and no demo made it: choose another --output, or move it away")
        shutil.rmtree(output)
    try:
        output.mkdir(parents=True)
    except OSError as error:
        raise UsageError(f"cannot make the folder {output}: {error.strerror}") from None
    write_text(output / MARK, "The demo may replace this folder.\n")


def _train_all(output: Path) -> None:
    """Every network in a process of its own on one thread, as many at a time as there are cores: small networks gain
    more from a core each than from sharing them."""
    from convarium.training.threads import available_cores

    cores = available_cores()
    waiting = sorted(NETWORKS, key=lambda name: "resnet" not in name)  # the longest first
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        with _bars() as show:
            while waiting or running:
                while waiting and len(running) < cores:
                    name = waiting.pop(0)
                    running[name] = _start(name, output)
                time.sleep(0.2)
                for name, process in list(running.items()):
                    finished = process.poll() is not None
                    if finished:
                        del running[name]
                        if process.returncode:
                            raise ConvariumError(f"training {name} failed: {_last_line(_log(output, name))}")
                    show(name, output / name / METRICS, finished)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()


def _start(name: str, output: Path) -> subprocess.Popen[bytes]:
    command = ["train", "digits", "--model", name, "--output", str(output / name), "--threads", "1", *NETWORKS[name]]
    with open(_log(output, name), "wb") as log:
        return subprocess.Popen([sys.executable, "-m", "convarium", *command], stdout=log, stderr=log)


def _log(output: Path, name: str) -> Path:
    return output / f"{name}.log"


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.removeprefix("error: ") for line in reversed(lines) if line.strip()), f"see {log}")


@contextmanager
def _bars() -> Iterator[Any]:
    """A bar per network on a terminal, a line per finished network elsewhere."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from convarium.console import stderr

    console = stderr()
    bars = Progress(
        TextColumn("     {task.description:<18}"), BarColumn(), TextColumn("{task.fields[said]}"), TimeElapsedColumn(),
        console=console, disable=not console.is_terminal,
    )  # fmt: skip
    tasks: dict[str, Any] = {}

    def show(name: str, metrics: Path, finished: bool) -> None:
        if name not in tasks:
            tasks[name] = bars.add_task(name, total=None, said="starting")
        rows = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
        if rows:
            said = f"epoch {rows[-1]['epoch']}  held-out error {rows[-1]['val_top1_error_percent']:.2f} %"
            total = _epochs(metrics.parent)
            bars.update(tasks[name], total=total, completed=len(rows), said=said)
            if finished and not console.is_terminal:
                console.print(f"     {name:<18} {said}")

    with bars:
        yield show


def _epochs(folder: Path) -> int:
    from convarium.recipe import read_recipe
    from convarium.runs import RECIPE

    return read_recipe(folder / RECIPE)[0].epochs


def _error(folder: Path) -> float:
    from convarium.runs import EVALUATION

    return json.loads((folder / EVALUATION).read_text(encoding="utf-8"))["top1_error_percent"]


def _example(dataset: Dataset, output: Path) -> tuple[Path, str]:
    """A held-out digit as a PNG file, and what it is."""
    from PIL import Image

    position = int(dataset.splits["val"][7])
    true = dataset.class_names[dataset.labels[position]]
    path = output / f"digit-{true}.png"
    Image.fromarray(dataset.read(position, 1)[..., 0]).save(path)
    return path, true


def _explain(run: Path, image: Path) -> str:
    """Inline SVG of the explained image; the picture itself and its page go into the run's folder."""
    from convarium.explanation.explain import explain
    from convarium.explanation.gradcam import find
    from convarium.explanation.subject import Subject, file_pictures
    from convarium.report.figures import to_svg
    from convarium.runs import load_run

    explain(run, [image])
    loaded = load_run(run)
    return to_svg(next(find(Subject(loaded, file_pictures(loaded, [image])))).figure)
