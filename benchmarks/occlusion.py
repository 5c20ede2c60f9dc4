"""An occlusion map against a loop of single predictions of the same copies, in turns on this machine.

python benchmarks/occlusion.py > benchmarks/occlusion.md
"""

import statistics
from functools import partial

import torch
from torch import Tensor

from convarium import create_model
from convarium.evaluation.latency import in_turns, on_threads
from convarium.evaluation.machine import this_machine
from convarium.explanation import occlusion
from convarium.explanation.occlusion import occluded_logits, places
from convarium.explanation.windows import share
from convarium.network import Network
from convarium.speed.modes import spread

NETWORKS = ["resnet18", "vgg11_bn", "googlenet", "mobilenet_v1_025"]
SIDE, STRIDE = 224, 8
FEWER = 32  # pixels from one place to the next of the networks after the first, whose loop takes long enough
ROUNDS = 3


def loop(model: Network, image: Tensor, stride: int) -> Tensor:
    """Logits of every copy, one prediction after the other."""
    patch, starts = places(SIDE, None, stride)
    logits = []
    with torch.inference_mode():
        for row in starts:
            for column in starts:
                copy = image.clone()
                copy[..., row : row + patch, column : column + patch] = 0
                logits.append(model(copy))
    return torch.cat(logits)


def batched(model: Network, image: Tensor, stride: int) -> Tensor:
    """The same copies in batches, with nothing shared."""
    patch, starts = places(SIDE, None, stride)
    at = [(row, column) for row in starts for column in starts]
    logits = []
    with torch.inference_mode():
        for first in range(0, len(at), BATCH):
            copies = image.repeat(len(at[first : first + BATCH]), 1, 1, 1)
            for copy, (row, column) in zip(copies, at[first : first + BATCH], strict=True):
                copy[:, row : row + patch, column : column + patch] = 0
            logits.append(model(copies))
    return torch.cat(logits)


BATCH = occlusion.PIXELS_AT_ONCE // SIDE**2


def main() -> None:
    print("# Occlusion maps: time\n")
    print("Written by `python benchmarks/occlusion.py`.\n")
    with on_threads(1):
        rows = [measure(name, STRIDE if name == NETWORKS[0] else FEWER) for name in NETWORKS]
    machine = this_machine(torch.device("cpu"))
    print(
        f"{machine.device}, 1 thread of {machine.cores} cores, torch {machine.torch_version}; an image of {SIDE} "
        f"pixels, a square of {places(SIDE)[0]}. In each of {ROUNDS} rounds the loop, the plain batches of {BATCH} and "
        "`occluded_logits` were timed once, one after the other. Ratios of times within a round: the median, and what "
        "eight rounds in ten lie between. Untrained weights; the time does not depend on them.\n"
    )
    print("| network | places of the square | loop, s | loop / plain batches | loop / ours | eight in ten | windows |")
    print("|---|---:|---:|---:|---:|---:|---|")
    print("\n".join(rows))
    print(
        "\nWindows are the stages that run around the square only, of all stages. The logits are those of the loop to "
        "rounding, which the tests hold for one network of each file."
    )


def measure(name: str, stride: int) -> str:
    """A row of the table."""
    torch.manual_seed(0)
    model, image = create_model(name).eval(), torch.randn(1, 3, SIDE, SIDE)
    works = {
        "loop": partial(loop, model, image, stride),
        "batched": partial(batched, model, image, stride),
        "ours": partial(occluded_logits, model, image, stride=stride),
    }
    patch, starts = places(SIDE, None, stride)
    times = in_turns(works, rounds=ROUNDS, seconds=1e9, shortest_s=0.0)
    with torch.no_grad():
        local = len(share(model, image, patch).local)
    plain = statistics.median(a / b for a, b in zip(times["loop"], times["batched"], strict=True))
    ours = spread([a / b for a, b in zip(times["loop"], times["ours"], strict=True)])
    return (
        f"| {name} | {len(starts) ** 2} | {statistics.median(times['loop']):.2f} | {plain:.2f} | **{ours.median:.2f}** "
        f"| {ours.p10:.2f} to {ours.p90:.2f} | {local} of {len(model.stages)} |"
    )


if __name__ == "__main__":
    main()
