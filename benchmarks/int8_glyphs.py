"""Int8 on ``glyphs``: what it costs in error and gains in time, for the runs of ``benchmarks/glyphs.py``.

python benchmarks/int8_glyphs.py FOLDER > benchmarks/int8_glyphs.md

FOLDER holds the runs; each is quantised for both runtimes, and judged on the test images in float and in int8 by the
same runtime. Times are those of the first run of each network, all four files in turns.
"""

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from glyphs import NETWORKS, data_name  # beside this file

from convarium.compression.quantise import quantise
from convarium.compression.quantised import OverBudget, Quantised
from convarium.compression.trials import BACKENDS
from convarium.data.datasets import open_dataset
from convarium.deploy.export import export
from convarium.evaluation.latency import in_turns
from convarium.runs import load_run

BUDGET = 0.5  # points of error
BATCHES = (1, 32)


def quantised(run: Path, side: int, backend: str, folder: Path) -> Quantised:
    """Within the budget, or the nearest to it."""
    output = folder / f"int8-{backend}{BACKENDS[backend].suffix}"
    print(f"{run.name}, {backend}", file=sys.stderr, flush=True)
    try:
        return quantise(load_run(run), open_dataset(data_name(side)), output=output, backend=backend, max_drop=BUDGET)
    except OverBudget as over:
        return over.result


def error_row(run: Path, found: Quantised) -> str:
    difference, (low, high) = found.best.difference, found.best.difference.interval_percent
    cells = [
        *(run.name.rpartition("-")[0], run.name.rpartition("-")[2], found.backend),
        *(f"{found.float_error_percent:.2f}", f"{found.int8_error_percent:.2f}"),
        f"{difference.difference_percent:+.2f} ({low:+.2f} to {high:+.2f})",
        ", ".join(found.best.in_float) or "none",
        *(f"{found.float_bytes / 2**10:,.0f}", f"{found.best.bytes / 2**10:,.0f}"),
    ]
    return "| " + " | ".join(cells) + " |" + ("" if found.path else " **over**")


def time_rows(run: Path, side: int, folder: Path) -> list[str]:
    """Median milliseconds of every file there is, one batch at a time."""
    export(run, output=folder / "float.onnx")
    networks = {}
    for backend, runtime in BACKENDS.items():
        for kind, file in (("float", "float.onnx"), ("int8", f"int8-{backend}{runtime.suffix}")):
            if (folder / file).exists():
                networks[backend, kind] = runtime.open(folder / file)
    channels = load_run(run).preprocessing.channels
    rows = []
    for batch in BATCHES:
        images = np.random.default_rng(0).integers(0, 256, (batch, side, side, channels), dtype=np.uint8)
        works = {key: work(network, images) for key, network in networks.items()}
        times = in_turns(works, rounds=40, seconds=20.0, shortest_s=0.02)
        cells = [run.name.rpartition("-")[0], str(batch)]
        for backend in BACKENDS:
            cells += [f"{1000 * statistics.median(times.get((backend, k), [np.nan])):.2f}" for k in ("float", "int8")]
            both = zip(times[backend, "float"], times.get((backend, "int8"), []), strict=False)
            cells.append(f"**{statistics.median([slow / quick for slow, quick in both] or [np.nan]):.2f}**")
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def work(network: Callable[[np.ndarray], np.ndarray], images: np.ndarray) -> Callable[[], object]:
    return lambda: network(images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    given = parser.parse_args()
    errors, times = [], []
    for name in given.networks:
        for i, run in enumerate(sorted(path.parent for path in given.folder.glob(f"{name}-*/test.json"))):
            with TemporaryDirectory() as folder:
                for backend in BACKENDS:
                    errors.append(error_row(run, quantised(run, NETWORKS[name], backend, Path(folder))))
                if i == 0:
                    times += time_rows(run, NETWORKS[name], Path(folder))
    print(HEADING)
    print("| network | seed | runtime | float | int8 | difference | layers in float | float KiB | int8 KiB |")
    print("|---|---:|---|---:|---:|---:|---|---:|---:|")
    print("\n".join(errors))
    print(TIMES)
    print(
        "| network | batch | OpenVINO float | int8 | times as fast | onnxruntime float | int8 | times as fast |\n"
        "|---|" + "---:|" * 7
    )
    print("\n".join(times))


HEADING = f"""# Int8 on glyphs

`python benchmarks/int8_glyphs.py FOLDER`, network by network with `--networks`, on the runs of `benchmarks/glyphs.py`.
Static int8 with the ranges of 300 training images, weights per channel, at most {BUDGET} points of error allowed.

## Error, per cent

Of 5,200 test images, by the same runtime in float and in int8; the difference in points, with its 95 % interval by
paired bootstrap.
"""

TIMES = """
## Milliseconds per batch

Medians on two cores of a busy machine, the four files in turns; ratios are medians of those within a round.
Preprocessing is part of all of them. Float is float32.
"""


if __name__ == "__main__":
    main()
