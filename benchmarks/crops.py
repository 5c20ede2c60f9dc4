"""What the papers' protocols cost in time: 144 crops of an image against 144 single predictions.

python benchmarks/crops.py > benchmarks/crops.md
"""

import statistics
import sys
import time

import numpy as np
import torch

from convarium import create_model
from convarium.data.datasets import Dataset
from convarium.data.preprocess import Preprocessing
from convarium.evaluation.crops import SINGLE, Protocol
from convarium.evaluation.latency import in_turns, on_threads
from convarium.evaluation.machine import this_machine
from convarium.evaluation.predictions import BATCH, predict

NETWORKS = {"googlenet": (224, (375, 500)), "mobilenet_v1_025": (224, (375, 500)), "resnet20_cifar": (32, (54, 71))}
IMAGES = 1  # of 144 crops each
ROUNDS = 5
CLOCKS = {"by the clock": time.perf_counter, "of the processor, all threads": time.process_time}


def dataset(count: int, shape: tuple[int, int]) -> Dataset:
    """Noise in memory, so that no file is read."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, *shape, 3), dtype=np.uint8)
    names = [f"{i:03d}" for i in range(count)]
    return Dataset("noise", ["a", "b"], np.zeros(count, dtype=np.int64), names, pixels, {})


def works(name: str) -> dict[str, object]:
    """The three ways to make ``IMAGES * 144`` predictions."""
    size, shape = NETWORKS[name]
    network = create_model(name).eval()
    settings = Preprocessing(size, 3, network.mean, network.std, 0.875)
    few, many = dataset(IMAGES, shape), dataset(IMAGES * 144, shape)
    ready = torch.randn(IMAGES * 144, 3, size, size)

    def forward() -> None:
        with torch.inference_mode():
            for batch in ready.split(BATCH):
                network(batch)

    return {
        "forward": forward,
        "single": lambda: predict(network, settings, many, np.arange(len(many.labels)), SINGLE),
        "144": lambda: predict(network, settings, few, np.arange(IMAGES), Protocol("144")),
    }


def main() -> None:
    machine = this_machine(torch.device("cpu"))
    print("# What 144 crops cost in time\n")
    print(
        f"Written by `python benchmarks/crops.py` on {machine.device}, one thread of torch, torch "
        f"{machine.torch_version}. An image is shown in 144 crops (GoogLeNet's protocol), beside as many "
        "single predictions: the forward passes alone, of tensors that lie ready in batches, and whole predictions of "
        "as many images, each resized and cut for itself. One of each in turn; milliseconds of one view, medians of "
        f"{ROUNDS} rounds of the ratio within a round, and what eight rounds in ten lie between.\n"
    )
    columns = "network | image | time | forward | crop | crop / forward | eight in ten | crop / single prediction"
    print(f"| {columns} |")
    print("|---|---|---|---:|---:|---:|---:|---:|")
    worst = 0.0
    for name, (size, shape) in NETWORKS.items():
        made = works(name)
        for clock, read in CLOCKS.items():
            with on_threads(1):
                times = in_turns(made, rounds=ROUNDS, seconds=240, shortest_s=0.01, clock=read)
            ratios = [a / b for a, b in zip(times["144"], times["forward"], strict=True)]
            others = [a / b for a, b in zip(times["144"], times["single"], strict=True)]
            low, high = np.percentile(ratios, [10, 90])
            one, crop = (1000 * statistics.median(times[key]) / (IMAGES * 144) for key in ("forward", "144"))
            ratio = statistics.median(ratios)
            worst = max(worst, ratio)
            print(
                f"| {name}, {size} pixels | {shape[1]}x{shape[0]} | {clock} | {one:.2f} | {crop:.2f} | **{ratio:.2f}** "
                f"| {low:.2f} to {high:.2f} | {statistics.median(others):.2f} |",
                flush=True,
            )
    if worst > 1.15:
        sys.exit(f"144 crops took {worst:.2f} times as long as 144 forward passes: more than 1.15")


if __name__ == "__main__":
    main()
