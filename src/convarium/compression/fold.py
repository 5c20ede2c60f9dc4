"""Batch norm folded into the layer before it: in evaluation it is a scale and a shift of every channel, and the layer's
weights and a bias can hold them.

A norm directly follows a convolution or a dense layer when it reads what that layer gives, and nothing else does. One
that follows an addition or a pooling stays, such as the first of a pre-activation unit: between it and the next weights
is an activation.
"""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, nn

from convarium.anatomy.graph import NORMS, run
from convarium.network import Network
from convarium.surgery import write_plan

Layer = nn.Conv2d | nn.Linear
Norm = nn.BatchNorm1d | nn.BatchNorm2d


@torch.no_grad()
def fold_norms(model: Network) -> list[str]:
    """Fold, in place, every batch norm that directly follows a convolution or a dense layer; the plan says so.

    In evaluation the outputs are the same to rounding. In training they are others: what was folded normalises no more.

    Returns:
        Paths of the norms that are gone.
    """
    pairs = find_foldable(model)
    for norm_path, layer_path in pairs.items():
        layer, norm = model.get_submodule(layer_path), model.get_submodule(norm_path)
        assert isinstance(layer, Layer) and isinstance(norm, Norm)
        _fold(layer, norm)
        model.set_submodule(norm_path, nn.Identity())
    if pairs:
        write_plan(model)
    return list(pairs)


def find_foldable(model: Network) -> dict[str, str]:
    """The path of each norm that can be folded, and of the layer before it, in the order of execution."""
    operations = run(model, model.input_size).operations
    readers = Counter(id(x) for op in operations for x in op.sources)
    calls = Counter(path for path, _ in {(op.path, op.call) for op in operations})
    layers: dict[int, str] = {}  # the layer that made a map, by itself or with norms already folded into it
    pairs: dict[str, str] = {}
    for op in operations:
        if calls[op.path] > 1:  # its weights serve other maps as well
            continue
        if op.packet in NORMS and isinstance(op.module, Norm) and op.module.running_mean is not None:
            source = op.sources[0]
            if id(source) in layers and readers[id(source)] == 1:
                pairs[op.path] = layers[id(op.results[0])] = layers[id(source)]
        elif isinstance(op.module, Layer):
            layers[id(op.results[0])] = op.path
    return pairs


def _fold(layer: Layer, norm: Norm) -> None:
    """``gain * (W x + b - mean) / sqrt(var + eps) + shift`` as one layer, calculated in double precision."""
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None and variance is not None
    scale = (variance.double() + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight.double()
    bias = -mean.double() if layer.bias is None else layer.bias.double() - mean.double()
    bias = bias * scale
    bias = bias if norm.bias is None else bias + norm.bias.double()
    weight = layer.weight.double() * scale.view(-1, *(1,) * (layer.weight.ndim - 1))
    layer.weight, layer.bias = _like(layer.weight, weight), _like(layer.weight, bias)


def _like(old: Tensor, new: Tensor) -> nn.Parameter:
    return nn.Parameter(new.to(old.dtype), requires_grad=old.requires_grad)
