"""In the peers' environment: let each peer write a file of random weights, and what it answers to random images.

python tests/parity/peers.py FOLDER LIBRARY [ENTRY ...]

For each pair it writes FOLDER/<library>-<number>.safetensors (or .h5) with the weights under the peer's own keys, and
FOLDER/<library>-<number>.io.safetensors with ``input0``, ``logits0``, ``input1``, ``logits1``.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from convarium.exchange.pairs import PAIRS, Pair
from convarium.exchange.peers import Keras, build
from convarium.weights.source import takes_bgr

# torchvision's wheel, which timm and pretrainedmodels import too, looks for compiled operators that do not come with a
# CPU build of torch.
OPERATORS = torch.library.Library("torchvision", "DEF")
OPERATORS.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
OPERATORS.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def randomise_keras(model: Keras, size: int) -> None:
    """As for torch's. Keras orders its sums otherwise than torch, so that a deep random network shows its own
    rounding: the more layers, the larger the shifts beside the gains."""
    from keras.layers import BatchNormalization

    norms = [layer for layer in model.made.layers if isinstance(layer, BatchNormalization)]
    usual = (0.5 if len(norms) < 100 else 1.0) if norms else 0.1
    for layer in model.made.layers:
        shift = 1.0 if layer in norms and not layer.scale else usual
        for variable in layer.trainable_variables:
            if variable.name == "gamma":
                variable.assign(torch.empty(variable.shape).uniform_(-0.2, 1.0))
            elif len(variable.shape) == 1:  # biases and betas
                variable.assign(shift * torch.randn(variable.shape))
            elif not norms:  # Glorot's start lets the images fade on their way through rectifiers
                variable.assign(2**0.5 * variable.value)
    for norm in norms:
        norm.momentum = 0.0
    if norms:
        with torch.no_grad():
            model(torch.randn(4, 3, size, size), training=True)


def save_keras(model: Keras, stem: str, kind: str) -> None:
    """``h5``: the form of all files that Keras applications have published."""
    if kind != "h5":
        return model.made.save(f"{stem}.keras") if kind == "keras" else model.made.save_weights(f"{stem}.{kind}")
    import h5py
    from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

    with h5py.File(f"{stem}.h5", "w") as file:
        save_weights_to_hdf5_group(file, model.made)


# Keras has three kinds of files; the others are h5.
KERAS_FILES = {"ResNet101": "weights.h5", "InceptionV3": "keras"}


def randomise(model: nn.Module, size: int) -> None:
    """Gains of both signs, shifts, and the statistics of random images: with zeros and ones they would hide errors, and
    with statistics that are not the maps' own the images would fade on the way. The shifts are as large as the gains:
    with small ones a deep random network magnifies its own rounding (Cadene's cafferesnet101 to 7e-5 of its logits)."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        if norm.weight is not None:
            nn.init.uniform_(norm.weight, -0.5, 1.5)
            nn.init.normal_(norm.bias)
    if norms:
        with torch.no_grad():
            model.train()(torch.randn(4, 3, size, size))
        for norm in norms:  # a channel that those images left dead would drown the others when another image wakes it
            norm.running_var.clamp_(min=0.01 * float(norm.running_var.mean()))
    model.eval()


def write(folder: Path, number: int, pair: Pair, model: Any) -> None:
    answers: dict[str, Tensor] = {}
    with torch.no_grad():
        for i, size in enumerate(dict.fromkeys((pair.size, pair.other))):
            x = torch.randn(2, 3, size, size)
            logits = model(x).flatten(1)
            if (logits[0] - logits[1]).abs().max() < 0.01 * logits.abs().max():
                raise SystemExit(f"{pair.entry} does not tell two images apart: its answers would hide errors")
            answers |= {f"input{i}": x.flip(1) if takes_bgr(pair.ours, pair.library) else x, f"logits{i}": logits}
    stem = folder / f"{pair.library}-{number}"
    if isinstance(model, Keras):
        save_keras(model, str(stem), KERAS_FILES.get(pair.entry, "h5"))
    else:
        save_file({key: value.clone().contiguous() for key, value in model.state_dict().items()}, f"{stem}.safetensors")
    save_file(answers, f"{stem}.io.safetensors")


def main(folder: str, library: str, *entries: str) -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    for number, pair in enumerate(PAIRS):
        if pair.library == library and (not entries or pair.entry in entries):
            torch.manual_seed(number)
            model: Any = build(pair).eval()
            (randomise_keras if isinstance(model, Keras) else randomise)(model, pair.size)
            write(Path(folder), number, pair, model)
            print(pair.library, pair.entry, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
