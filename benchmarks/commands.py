"""Seconds and peak memory of the commands that answer before any training, each in a process of its own.

python benchmarks/commands.py > benchmarks/commands.md
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time

ROUNDS = 5
FOLDER = tempfile.TemporaryDirectory()  # for what the commands write
IMPORT_TORCH = [sys.executable, "-c", "import torch"]
COMMANDS = [
    "list",
    "tree",
    "compare",
    "describe lenet5",
    "describe resnet50",
    "describe inception_resnet_v2_slim",
    "describe senet154",
    "describe preact_resnet1001_cifar",
    "describe resnet1202_cifar",
    "describe resnet50 --svg network.svg",
    "describe inception_resnet_v2_slim --svg network.svg",
    "diff resnet50 se_resnet50",
    "claims",
]


def measure(command: list[str]) -> tuple[float, float]:
    """Seconds, and MiB at the peak."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=FOLDER.name)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed with status {status}")
    return time.perf_counter() - began, usage.ru_maxrss / 1024


def main() -> None:
    programs = {"importing torch alone": IMPORT_TORCH}
    programs |= {f"convarium {line}": [sys.executable, "-m", "convarium", *line.split()] for line in COMMANDS}
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}
    for _ in range(ROUNDS):
        for name, command in programs.items():
            results[name].append(measure(command))
    torch = statistics.median(seconds for seconds, _ in results["importing torch alone"])
    print("# What the commands cost\n")
    print(f"`python benchmarks/commands.py`: median of {ROUNDS} runs in turn, two cores.\n")
    print("| command | seconds | beyond importing torch | MiB at the peak |")
    print("|---|---:|---:|---:|")
    for name, runs in results.items():
        seconds, memory = statistics.median(s for s, _ in runs), max(m for _, m in runs)
        print(f"| `{name}` | {seconds:.2f} | {max(0.0, seconds - torch):.2f} | {memory:.0f} |")


if __name__ == "__main__":
    main()
