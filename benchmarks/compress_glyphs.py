"""``compress`` on ``glyphs``: a quarter of the multiply-adds and int8, for the runs of ``benchmarks/glyphs.py``.

python benchmarks/compress_glyphs.py FOLDER [--network resnet20_cifar] [--epochs 3] > benchmarks/compress_glyphs.md

FOLDER holds the dense runs; what is made of them goes into FOLDER/compressed, and what is there already is kept, so
that it can be stopped and called again (some hours on two cores). Beside it, with the same recipe for as many epochs:
Torch-Pruning as one would use it by hand, and the dense network trained further.
"""

import argparse
import copy
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convarium.compression.compress import compress
from convarium.compression.cutting import cost_of
from convarium.compression.search_plan import PLAN, read_plan
from convarium.data.datasets import open_dataset
from convarium.evaluation.predictions import predictions
from convarium.runs import CONFIG, REPORT, Run, load_run, save_run
from convarium.surgery import write_plan
from convarium.training.train import train

STEPS = (0.6, 0.36, 0.24)  # of the dense network's multiply-adds, after each step
LAST = f"step-{len(STEPS)}"
ANY_DROP = 100.0  # points: every step is to be made, whatever it costs


def compressed(dense: Path, data: str, folder: Path, epochs: int) -> dict[str, Any]:
    """The result of ``compress`` as it is written, made if it is not there."""
    result = folder / "compress.json"
    if not result.is_file():
        options: dict[str, Any] = {"resume": True} if (folder / PLAN).is_file() else {
            "target": "latency", "max_drop": ANY_DROP, "steps": ",".join(map(str, STEPS)), "epochs": epochs,
            "overwrite": folder.is_dir(),
        }  # fmt: skip
        compress(dense, data=data, output=folder, **options)
    return json.loads(result.read_text())


def by_hand(dense: Path, folder: Path, macs: int) -> Path:
    """Torch-Pruning's uniform L1 in one shot: the least ratio with no more than ``macs`` left.

    It cannot follow the shortcut of option A, which slices and pads, and is told to leave alone what makes the residual
    stream: the first layer, and the last of every branch.
    """
    if (folder / CONFIG).is_file():
        return folder
    run = load_run(dense)
    low, high = 0.0, 0.95
    for _ in range(12):
        ratio = (low + high) / 2
        low, high = (low, ratio) if cost_of(shrunk(run, ratio), "macs") <= macs else (ratio, high)
    folder.mkdir(parents=True, exist_ok=True)
    smaller = shrunk(run, high)
    print(f"by hand: {high:.3f} of the inner channels, {cost_of(smaller, 'macs'):,} of {macs:,} MACs", file=sys.stderr)
    save_run(folder, smaller.model, run.preprocessing, run.class_names, data=run.own["data"])
    return folder


def shrunk(run: Run, ratio: float) -> Run:
    import torch_pruning

    model = copy.deepcopy(run.model)
    convolutions = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, torch.nn.Conv2d)]
    stream = [layer for name, layer in convolutions if ".branch.0." not in name]
    image = torch.zeros(1, run.preprocessing.channels, run.preprocessing.size, run.preprocessing.size)
    torch_pruning.pruner.BasePruner(
        model,
        image,
        importance=torch_pruning.importance.MagnitudeImportance(p=1),
        pruning_ratio=ratio,
        ignored_layers=[*stream, model.head.classifier],
    ).step()
    write_plan(model)
    return Run(run.path, model, run.preprocessing, run.class_names, run.config)


def trained_on(weights: Path, data: str, folder: Path, epochs: int, recipe: dict[str, Any]) -> Path:
    if not (folder / REPORT).is_file():
        resume = (folder / "recipe.toml").is_file()
        options = {"resume": True} if resume else {"epochs": epochs, **recipe}
        train(data, weights=str(weights), output=folder, **options)
    return folder


def test_error_percent(path: Path, data: str) -> float:
    run, dataset = load_run(path), open_dataset(data)
    test = dataset.splits["test"]
    return 100 * float(np.mean(predictions(run, dataset, test).argmax(axis=1) != dataset.labels[test]))


def row(dense: Path, data: str, folder: Path, epochs: int) -> dict[str, float]:
    """What the table says of one dense run."""
    found = compressed(dense, data, folder / dense.name, epochs)
    points = {(each["name"], each["form"]): each for each in found["points"]}
    torch_, floats, pruned = points["dense", "torch"], points["dense", "float"], points[LAST, "float"]
    int8 = points.get((LAST, "int8"))
    recipe = read_plan(folder / dense.name).recipe
    hand = by_hand(dense, folder / f"{dense.name}-by-hand-cut", pruned["macs"])
    hand = trained_on(hand, data, folder / f"{dense.name}-by-hand", len(STEPS) * epochs, recipe)
    further = trained_on(dense, data, folder / f"{dense.name}-further", len(STEPS) * epochs, recipe)
    return {
        "dense": torch_["error_percent"],
        "further": test_error_percent(further, data),
        "fewer": torch_["macs"] / pruned["macs"],
        "pruned": pruned["error_percent"],
        "hand fewer": torch_["macs"] / cost_of(load_run(hand), "macs"),
        "hand": test_error_percent(hand, data),
        "int8": int8["error_percent"] if int8 else np.nan,
        "torch ratio": torch_["p50_ms"] / int8["p50_ms"] if int8 else np.nan,
        "float ratio": floats["p50_ms"] / int8["p50_ms"] if int8 else np.nan,
        "batch ratio": int8["images_per_second"] / floats["images_per_second"] if int8 else np.nan,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--network", default="resnet20_cifar")
    parser.add_argument("--data", default="glyphs:side=32", help="fewer images, to try it out")
    parser.add_argument("--epochs", type=int, default=3, help="of training after each step")
    parser.add_argument("--output", type=Path, help="FOLDER/compressed when not given")
    given = parser.parse_args()
    output = given.output or given.folder / "compressed"
    output.mkdir(parents=True, exist_ok=True)
    rows = {}
    for test in sorted(given.folder.glob(f"{given.network}-*/test.json")):
        rows[test.parent.name.rpartition("-")[2]] = row(test.parent, given.data, output, given.epochs)
    print(HEADING.format(network=given.network, epochs=given.epochs, total=len(STEPS) * given.epochs))
    columns = list(next(iter(rows.values())))
    print("| seed | " + " | ".join(TITLES[name] for name in columns) + " |\n|---" + "|---:" * len(columns) + "|")
    rows["**mean**"] = {name: statistics.fmean(each[name] for each in rows.values()) for name in columns}
    for seed, each in rows.items():
        print(f"| {seed} | " + " | ".join(f"{each[name]:.2f}" for name in columns) + " |")


TITLES = {
    "dense": "dense, error",
    "further": "dense trained further, error",
    "fewer": "compress, times fewer MACs",
    "pruned": "error",
    "hand fewer": "Torch-Pruning by hand, times fewer MACs",
    "hand": "error",
    "int8": "compress with int8, error",
    "torch ratio": "times as quick as dense in torch",
    "float ratio": "as dense float in its runtime",
    "batch ratio": "the same in batches of 32",
}

HEADING = """# compress on glyphs: {network}

`python benchmarks/compress_glyphs.py FOLDER --network {network} --epochs {epochs}`, on the runs of
`benchmarks/glyphs.py`. Top-1 error in per cent of 5,200 test images. compress cuts in three steps by the L1 norm, alike
in all layers, with {epochs} epochs after each under the dense run as teacher; Torch-Pruning cuts once by the L1 norm,
alike in the layers that it can follow, with {total} epochs of the same recipe after it, without a teacher; the dense
network trained further has them as well. Times are medians, all in turns, on two cores of a busy machine.
"""


if __name__ == "__main__":
    main()
