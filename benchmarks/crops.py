"""What the papers' protocols cost in time: 144 crops of an image against 144 single predictions.

python benchmarks/crops.py > benchmarks/crops.md
"""

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from convarium import create_model
from convarium.data.datasets import Dataset
from convarium.data.preprocess import Preprocessing
from convarium.evaluation.crops import SINGLE, Protocol
from convarium.evaluation.latency import in_turns, on_threads
from convarium.evaluation.machine import this_machine
from convarium.evaluation.predictions import BATCH, predict

# Side of the crop in pixels, height and width of the images, how many of them are shown in 144 crops.
NETWORKS = {
    "googlenet": (224, (375, 500), 1),
    "mobilenet_v1_025": (224, (375, 500), 4),
    "resnet20_cifar": (32, (54, 71), 32),
}
ROUNDS = 5
MOST = 1.15


def dataset(count: int, shape: tuple[int, int]) -> Dataset:
    """Noise in memory, so that no file is read."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, *shape, 3), dtype=np.uint8)
    names = [f"{i:03d}" for i in range(count)]
    return Dataset("noise", ["a", "b"], np.zeros(count, dtype=np.int64), names, pixels, {})


def works(name: str) -> dict[str, Callable[[], object]]:
    """The three ways to make 144 predictions for every image."""
    size, shape, images = NETWORKS[name]
    network = create_model(name).eval()
    settings = Preprocessing(size, 3, network.mean, network.std, 0.875)
    few, many = dataset(images, shape), dataset(144 * images, shape)
    ready = torch.randn(144 * images, 3, size, size)

    def forward() -> None:
        with torch.inference_mode():
            for batch in ready.split(BATCH):
                network(batch)

    return {
        "forward": forward,
        "single": lambda: predict(network, settings, many, np.arange(144 * images), SINGLE),
        "crops": lambda: predict(network, settings, few, np.arange(images), Protocol("144")),
    }


def main() -> None:
    machine = this_machine(torch.device("cpu"))
    print("# What 144 crops cost in time\n")
    print(
        f"Written by `python benchmarks/crops.py` on {machine.device}, one thread of torch, torch "
        f"{machine.torch_version}. Images are shown in 144 crops each (GoogLeNet's protocol), beside as many single "
        "predictions: the forward passes alone, of tensors that lie ready in batches, and whole predictions of as many "
        "images, each resized and cut for itself. One of each in turn; milliseconds per view, of the processor and all "
        "threads, so that a busy machine does not count; medians of "
        f"{ROUNDS} rounds of the ratio within a round, and what eight rounds in ten lie between.\n"
    )
    columns = "network | images | forward, ms | crop, ms | crop / forward | eight in ten | crop / single prediction"
    print(f"| {columns} |")
    print("|---|---|---:|---:|---:|---:|---:|")
    worst = 0.0
    for name, (size, (height, width), images) in NETWORKS.items():
        with on_threads(1):
            times = in_turns(works(name), rounds=ROUNDS, seconds=600, shortest_s=0.01, clock=time.process_time)
        ratios = [crops / forward for crops, forward in zip(times["crops"], times["forward"], strict=True)]
        others = [crops / single for crops, single in zip(times["crops"], times["single"], strict=True)]
        low, high = np.percentile(ratios, [10, 90])
        forward, crop = (1000 * statistics.median(times[key]) / (144 * images) for key in ("forward", "crops"))
        worst = max(worst, statistics.median(others))
        print(
            f"| {name}, {size} pixels | {images} of {width}x{height} | {forward:.2f} | {crop:.2f} "
            f"| **{statistics.median(ratios):.2f}** | {low:.2f} to {high:.2f} | {statistics.median(others):.2f} |"
        )
    print(
        "\nThe forward passes of a small network spend much of their time on fresh memory, and how much differs from "
        "one process to the next; so does their ratio."
    )
    if worst > MOST:
        sys.exit(f"144 crops took {worst:.2f} times as long as 144 single predictions: more than {MOST}")


if __name__ == "__main__":
    main()
