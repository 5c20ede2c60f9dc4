"""In our environment: load what the peers wrote, compare logits, and write it back.

python tests/parity/check.py FOLDER > benchmarks/parity.md
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from convarium import create_model
from convarium.exchange.pairs import PAIRS, Pair
from convarium.weights.files import read_tensors
from convarium.weights.layouts import find_layout
from convarium.weights.source import takes_bgr

LIMIT = 1e-5  # of the largest logit


def compare(pair: Pair, weights: Path, answers: Path) -> tuple[list[float], bool]:
    """Largest difference relative to the largest logit at each size; whether what is written
    back says the same."""
    theirs = read_tensors(weights).tensors
    network = create_model(pair.ours).eval()
    layout = find_layout(pair.library, pair.ours)
    if layout is None:
        raise SystemExit(f"{pair.library} has no layout for {pair.ours}")
    bgr = takes_bgr(pair.ours, pair.library)
    ours = layout.load(network, theirs, weights.name, bgr=bgr)
    network.load_state_dict(ours)
    held = load_file(answers)
    differences = []
    with torch.no_grad():
        for i in range(len(held) // 2):
            expected = held[f"logits{i}"]
            differences.append(float((network(held[f"input{i}"]) - expected).abs().max() / expected.abs().max()))
    written = layout.save(network, bgr=bgr)
    again = layout.load(network, written, "what was written", bgr=bgr)
    back = all(torch.allclose(again[key], ours[key], rtol=1e-6, atol=1e-7) for key in ours)
    return differences, back


def main(folder: str) -> None:
    print("# Weights of other libraries, loaded here\n")
    print(
        "`make parity`: each peer writes random weights; the largest difference of logits, relative to the largest.\n"
    )
    print("| peer | entry | network | own size | other size | written back |")
    print("|---|---|---|---:|---:|---|")
    failed = 0
    for number, pair in enumerate(PAIRS):
        stem = Path(folder) / f"{pair.library}-{number}"
        answers = Path(f"{stem}.io.safetensors")
        if not answers.exists():
            continue
        (weights,) = {*stem.parent.glob(f"{stem.name}.*")} - {answers}
        differences, back = compare(pair, weights, answers)
        failed += max(differences) > LIMIT or not back
        cells = [
            f"{pair.size}: {differences[0]:.0e}",
            f"{pair.other}: {differences[1]:.0e}" if len(differences) > 1 else "",
        ]
        print(
            f"| {pair.library} | {pair.entry} | {pair.ours} | {' | '.join(cells)} | {'same' if back else 'DIFFERS'} |",
            flush=True,
        )
    if failed:
        raise SystemExit(f"{failed} pairs differ")


if __name__ == "__main__":
    main(*sys.argv[1:])
