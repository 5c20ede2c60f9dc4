"""Images per second of networks as Convarium exports and quantises them, beside NNCF and OpenVINO called by hand and
timm's eager forward.

python benchmarks/throughput.py > benchmarks/throughput.md

Batches of 8 images in memory, all in turns in one process. "In the file": uint8 images of any size, which the file
itself resizes, crops and normalises. "Prepared before": float32 tensors, the network alone. By hand is measured in both
ways, from the same two ONNX files. timm is optional: without it, its rows are missing. Weights are random.
"""

import argparse
import contextlib
import importlib
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import nn

from convarium import export
from convarium.compression.cutting import cost_of
from convarium.compression.int8 import Settings, quantise_openvino
from convarium.deploy.openvino import open_openvino
from convarium.deploy.parity import Logits
from convarium.deploy.runtimes import cores
from convarium.evaluation.latency import in_turns
from convarium.evaluation.machine import INT8_PRODUCTS, quickest_product, this_machine
from convarium.runs import Run
from convarium.speed.variants import FLOAT32, INT8, choose_runtimes, find_variants

NETWORKS = {"resnet50_v1_5": "resnet50", "se_resnext50_32x4d": "seresnext50_32x4d", "inception_v3": "inception_v3"}
BATCH = 8
RANGES = 64
ROUNDS, SECONDS = 15, 240.0
# torchvision, which timm imports, looks for compiled operators that do not come with a CPU build of torch.
OPERATORS = torch.library.Library("torchvision", "DEF")
for schema in ("nms", "qnms"):
    OPERATORS.define(f"{schema}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
IN_FILE, PREPARED = "in the file", "prepared before"
TIMM = "timm, eager", FLOAT32, PREPARED
Works = dict[tuple[str, str, str], Callable[[], object]]


def timm_network(name: str) -> nn.Module | None:
    """timm's, or nothing where it is not installed."""
    try:
        return importlib.import_module("timm").create_model(name).eval()
    except ImportError as error:
        print(f"without timm: {error}", file=sys.stderr)
        return None


def by_hand(file: Path, samples: list[np.ndarray]) -> Logits:
    """Through ``openvino.convert_model`` and ``nncf.quantize``, with what both do by themselves. What is not in int8 is
    in float32, as in Convarium: in the bfloat16 that OpenVINO prefers, it refuses what NNCF makes of preprocessing."""
    import nncf
    import openvino

    with contextlib.redirect_stdout(sys.stderr):
        quantised = nncf.quantize(openvino.convert_model(file), nncf.Dataset(samples), subset_size=len(samples))
    settings = {"INFERENCE_NUM_THREADS": cores(), "INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.Core().compile_model(quantised, "CPU", settings).create_infer_request()
    return lambda batch: request.infer([batch])[0]


def alone(run: Run, samples: list[np.ndarray], folder: Path) -> tuple[Path, Logits]:
    """The network without its preprocessing as an ONNX file, and in int8 as ``compress`` would write it."""
    file, int8 = folder / "raw.onnx", folder / "raw-int8.xml"
    export(run.path, raw=True, output=file)
    quantise_openvino(file, int8, samples, Settings(seven_bits=False))
    return file, open_openvino(int8)


def measure(name: str, theirs: str, folder: Path) -> list[str]:
    """Rows of the table for one network."""
    variants = list(
        find_variants(name, choose_runtimes("all", True), int8=True, image_size=None, dataset=None, folder=folder)
    )
    assert variants[0].run
    side, macs = variants[0].size, cost_of(variants[0].run, "macs")
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (BATCH, side, side, 3), dtype=np.uint8)
    tensors = generator.normal(size=(BATCH, 3, side, side)).astype(np.float32)
    works: Works = {
        (f"Convarium, {each.runtime}", each.form, IN_FILE): partial(each.logits, images) for each in variants
    }
    file, network = alone(variants[0].run, [tensors[:1]] * RANGES, folder)
    works["Convarium, openvino", INT8, PREPARED] = partial(network, tensors)
    works["by hand", INT8, PREPARED] = partial(by_hand(file, [tensors[:1]] * RANGES), tensors)
    works["by hand", INT8, IN_FILE] = partial(by_hand(folder / "float.onnx", [images[:1]] * RANGES), images)
    if eager := timm_network(theirs):
        works[TIMM] = partial(_forward, eager, torch.from_numpy(tensors))
    products = {FLOAT32: quickest_product(torch.device("cpu"))}
    products[INT8] = quickest_product(torch.device("cpu"), makers=INT8_PRODUCTS)
    works |= {("limit", form, ""): product.work for form, product in products.items()}
    times = in_turns(works, rounds=ROUNDS, seconds=SECONDS, shortest_s=0.05)
    rows = []
    for key, taken in times.items():
        if key[0] == "limit":
            continue
        limit = times["limit", key[1], ""]
        of_limit = [
            BATCH * macs / own / (products[key[1]].side ** 3 / most) for own, most in zip(taken, limit, strict=True)
        ]
        ratios = [_ratio(times, other, taken) for other in (TIMM, ("by hand", INT8, key[2]))]
        cells = [name, *key, f"{BATCH / statistics.median(taken):.1f}", *ratios]
        cells.append(f"{100 * statistics.median(of_limit):.0f} %")
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def _forward(network: nn.Module, tensors: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return network(tensors)


def _ratio(times: dict, other: tuple[str, str, str], taken: list[float]) -> str:
    if other not in times:
        return ""
    return f"{statistics.median(slow / own for slow, own in zip(times[other], taken, strict=True)):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="*", choices=[*NETWORKS], default=[*NETWORKS])
    given = parser.parse_args()
    torch.set_num_threads(cores())
    torch.manual_seed(0)
    machine = this_machine(torch.device("cpu"))
    print("# Images per second, beside NNCF and timm\n")
    print(f"`python benchmarks/throughput.py` on {machine.device}, {cores()} threads, torch {machine.torch_version}:")
    print(f"medians of at most {ROUNDS} rounds in turns, batches of {BATCH}; ratios are medians of those in a round.\n")
    print("| network | what | numbers | images | images/s | times timm's eager | times by hand | of limit |")
    print("|---|---|---|---|---:|---:|---:|---:|")
    with TemporaryDirectory() as folder:
        for name in given.networks:
            print("\n".join(measure(name, NETWORKS[name], Path(folder) / name)), flush=True)


if __name__ == "__main__":
    main()
