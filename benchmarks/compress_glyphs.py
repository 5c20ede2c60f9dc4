"""``compress`` on ``glyphs``: a quarter of the multiply-adds and int8, for the runs of ``benchmarks/glyphs.py``.

python benchmarks/compress_glyphs.py FOLDER [--network NAME] [--epochs 6] [--further] > benchmarks/compress_glyphs.md

FOLDER holds the dense runs; what is made of them goes into FOLDER/compressed, and what is there already is kept, so
that it can be stopped and called again (a quarter of an hour on one core). Beside it, with the same recipe for as many
epochs: Torch-Pruning as one would use it by hand and, with ``--further``, the dense network.
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
from convarium.compression.measure import measure_times, open_source
from convarium.compression.search_plan import PLAN, read_plan
from convarium.data.datasets import open_dataset
from convarium.deploy.runtimes import cores, open_quickest
from convarium.evaluation.predictions import predictions
from convarium.runs import CONFIG, REPORT, Run, load_run, save_run
from convarium.surgery import write_plan
from convarium.training.train import train

PART = 0.25  # of the dense network's multiply-adds is left
CUT = "step-1"
ANY_DROP = 100.0  # points: the step is kept and quantised, whatever it costs


def compressed(dense: Path, data: str, folder: Path, epochs: int) -> dict[str, Any]:
    """The result of ``compress`` as it is written, made if it is not there."""
    result = folder / "compress.json"
    if not result.is_file():
        options: dict[str, Any] = {"resume": True} if (folder / PLAN).is_file() else {
            "target": "latency", "max_drop": ANY_DROP, "steps": str(PART), "epochs": epochs,
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


def compress_cells(dense: Path, data: str, folder: Path, epochs: int) -> dict[str, float]:
    """What the table says of one dense run and what ``compress`` makes of it."""
    found = compressed(dense, data, folder / dense.name, epochs)
    points = {(each["name"], each["form"]): each for each in found["points"]}
    plain, pruned, int8 = points["dense", "torch"], points[CUT, "float"], points[CUT, "int8"]
    return {
        "dense": plain["error_percent"],
        "fewer": plain["macs"] / pruned["macs"],
        "pruned": pruned["error_percent"],
        "int8": int8["error_percent"],
    }


def time_cells(dense: Path, data: str, folder: Path, epochs: int) -> dict[str, float]:
    """How many times as quick the cut network in int8 is. All have one thread or all, whichever is quicker: files as
    ``Predictor`` measures it, torch by trying both."""
    found = compressed(dense, data, folder / dense.name, epochs)
    files = {(each["name"], each["form"]): Path(each["file"]) for each in found["points"]}
    networks = {
        "torch": open_source("torch", dense),
        "float": open_quickest(files["dense", "float"], found["runtime"], None).logits,
        "int8": open_quickest(files[CUT, "int8"], found["runtime"], None).logits,
    }
    size = load_run(dense).preprocessing.size
    images = np.zeros((found["batch"], size, size, load_run(dense).preprocessing.channels), np.uint8)
    ratios = []
    for threads in (1, cores()):
        torch.set_num_threads(threads)
        times = measure_times(networks, images)
        ratios.append({
            "torch ratio": times["torch"].p50_ms / times["int8"].p50_ms,
            "float ratio": times["float"].p50_ms / times["int8"].p50_ms,
            "batch ratio": times["int8"].images_per_second / times["float"].images_per_second,
        })  # fmt: skip
    return min(ratios, key=lambda each: each["torch ratio"])


def hand_cells(dense: Path, data: str, folder: Path, epochs: int) -> dict[str, float]:
    """The same of Torch-Pruning, with no more multiply-adds than ``compress`` left."""
    macs = {path: cost_of(load_run(path), "macs") for path in (dense, folder / dense.name / CUT)}
    cut = by_hand(dense, folder / f"{dense.name}-by-hand-cut", macs[folder / dense.name / CUT])
    hand = trained_on(cut, data, folder / f"{dense.name}-by-hand", epochs, fine_tuning(dense, folder))
    fewer = macs[dense] / cost_of(load_run(hand), "macs")
    return {"hand fewer": fewer, "hand": test_error_percent(hand, data)}


def further_cells(dense: Path, data: str, folder: Path, epochs: int) -> dict[str, float]:
    further = trained_on(dense, data, folder / f"{dense.name}-further", epochs, fine_tuning(dense, folder))
    return {"further": test_error_percent(further, data)}


def fine_tuning(dense: Path, folder: Path) -> dict[str, Any]:
    """The recipe of ``compress`` without its teacher."""
    recipe = read_plan(folder / dense.name).recipe
    return {name: value for name, value in recipe.items() if name != "distill_weight"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--network", default="resnet20_cifar")
    parser.add_argument("--data", default="glyphs:side=32", help="fewer images, to try it out")
    parser.add_argument("--epochs", type=int, default=6, help="of training after the cut")
    parser.add_argument("--further", action="store_true", help="train the dense networks further too")
    parser.add_argument("--output", type=Path, help="FOLDER/compressed when not given")
    given = parser.parse_args()
    output = given.output or given.folder / "compressed"
    output.mkdir(parents=True, exist_ok=True)
    parts = [compress_cells, hand_cells, *([further_cells] if given.further else []), time_cells]
    dense = [test.parent for test in sorted(given.folder.glob(f"{given.network}-*/test.json"))]
    rows: dict[str, dict[str, float]] = {path.name.rpartition("-")[2]: {} for path in dense}
    for part in parts:
        for own, path in zip(rows.values(), dense, strict=True):
            own |= part(path, given.data, output, given.epochs)
    further = " --further" * given.further
    print(HEADING.format(network=given.network, epochs=given.epochs, further=further, cores=cores()))
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
    "torch ratio": "int8, times as quick as dense in torch",
    "float ratio": "as dense float in its runtime",
    "batch ratio": "the same in batches of 32",
}

HEADING = """# compress on glyphs: {network}

`python benchmarks/compress_glyphs.py FOLDER --network {network} --epochs {epochs}{further}`, on the runs of
`benchmarks/glyphs.py`. Top-1 error in per cent of 5,200 test images. compress cuts once by the L1 norm, alike in all
layers, with {epochs} epochs of the dense run's recipe after it under the dense run as teacher; Torch-Pruning cuts once
by the L1 norm, alike in the layers that it can follow, with as many epochs of the same recipe, without a teacher. Times
are medians, all in turns on {cores} cores, with one thread or all, whichever is quicker.
"""


if __name__ == "__main__":
    main()
