"""Error on the held-out digits over five seeds, for the networks and settings of the demo.

python benchmarks/digits.py > benchmarks/digits.md
"""

import contextlib
import io
import json
import statistics
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from convarium.demo import NETWORKS

SEEDS = range(5)


def train_once(name: str, seed: int) -> tuple[float, float]:
    """Held-out top-1 error in per cent, and seconds of training arithmetic."""
    from convarium.cli import main

    with tempfile.TemporaryDirectory() as folder:
        command = ["train", "digits", "--model", name, "--output", f"{folder}/run", "--seed", str(seed)]
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            if main([*command, "--threads", "1", *NETWORKS[name]]):
                sys.exit(f"training {name} with seed {seed} failed")
        rows = [json.loads(line) for line in Path(folder, "run", "metrics.jsonl").read_text().splitlines()]
    return rows[-1]["val_top1_error_percent"], sum(row["seconds"] for row in rows)


def main() -> None:
    jobs = [(name, seed) for name in NETWORKS for seed in SEEDS]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        results = dict(zip(jobs, pool.map(train_once, *zip(*jobs, strict=True)), strict=True))
    print("# Held-out error on digits, per cent\n")
    print("`python benchmarks/digits.py`: the demo's settings, seeds 0 to 4, one thread each, two at a time.\n")
    print("| network | options | " + " | ".join(f"seed {seed}" for seed in SEEDS) + " | median | seconds each |")
    print("|---|---|" + "---:|" * (len(SEEDS) + 2))
    for name, options in NETWORKS.items():
        errors = [results[name, seed][0] for seed in SEEDS]
        seconds = statistics.median(results[name, seed][1] for seed in SEEDS)
        shown = " | ".join(f"{error:.2f}" for error in errors)
        print(f"| {name} | {' '.join(options)} | {shown} | {statistics.median(errors):.2f} | {seconds:.1f} |")


if __name__ == "__main__":
    main()
