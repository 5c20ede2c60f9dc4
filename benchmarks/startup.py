"""Seconds from the command to the first prediction of an exported file, each in a process of its own.

python benchmarks/startup.py > benchmarks/startup.md
"""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from convarium import create_model, export
from convarium.data.preprocess import Preprocessing
from convarium.runs import save_run

ROUNDS = 5
NETWORKS = {"resnet20_cifar": 32, "resnet50_v1_5": 224}  # and the side of their images
PREDICT = (
    "import sys; from convarium.cli import main; sys.exit(main(['predict', *sys.argv[1:]]) or 'torch' in sys.modules)"
)


def predict(*arguments: str) -> tuple[float, float]:
    """Seconds by the clock, and of the processor; fails where torch was imported for it."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", PREDICT, *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"predict {' '.join(arguments)} failed with status {status}")
    return time.perf_counter() - began, usage.ru_utime + usage.ru_stime


def main() -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["CONVARIUM_HOME"] = str(folder / "cache")
        image = folder / "image.png"
        Image.fromarray(np.zeros((375, 500, 3), np.uint8)).save(image)
        print("# From the command to the first prediction\n")
        print(
            f"`python benchmarks/startup.py`: median of {ROUNDS} runs of `convarium predict FILE IMAGE`, none of which"
        )
        print(
            "imports torch; before them one run with an empty model cache. Seconds of the processor stand beside those"
        )
        print("of the clock, which other work on the machine makes longer.\n")
        print("| file | MiB | first run, s | s | of the processor, s |\n|---|---:|---:|---:|---:|")
        for network, size in NETWORKS.items():
            run = folder / network
            run.mkdir()
            model = create_model(network, in_chans=3).eval()
            settings = Preprocessing(size, 3, (0.5,) * 3, (0.25,) * 3)
            classes = [str(i) for i in range(model.num_classes)]
            save_run(run, model, settings, classes, data={"name": "none", "fingerprint": "", "seed": 0})
            for kind in ("onnx", "openvino"):
                exported = export(run, format=kind)
                first, _ = predict(exported.path, str(image))
                times = [predict(exported.path, str(image)) for _ in range(ROUNDS)]
                wall, processor = (statistics.median(taken) for taken in zip(*times, strict=True))
                label = f"{network}{Path(exported.path).suffix}"
                print(
                    f"| `{label}` | {exported.size_mib:.1f} | {first:.2f} | {wall:.2f} | {processor:.2f} |", flush=True
                )


if __name__ == "__main__":
    main()
