"""Which layer of the network each node of an exported graph belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
PREPROCESSING = ""  # the layer of what comes before the first


def layers_of_nodes(graph: Any) -> dict[str, str]:
    """The layer of every node of an ONNX graph, by the nodes' names, in the graph's order.

    A node with weights begins a layer, called as the module that holds them. What follows it (bias, activation,
    pooling, a gate's product, a sum) belongs to it as well, and to the last of several; what stands before the first
    layer is :data:`PREPROCESSING`.

    Args:
        graph: an ``onnx.GraphProto`` that :func:`convarium.deploy.onnx.export_onnx` wrote.
    """
    weights = {tensor.name for tensor in graph.initializer if len(tensor.dims) > 1}
    order = {PREPROCESSING: 0}
    of_values: dict[str, str] = {}
    of_nodes: dict[str, str] = {}
    for node in graph.node:
        layer = last(map(of_values.get, node.input), order)
        if node.op_type in WEIGHTED and len(node.input) > 1 and node.input[1] in weights:
            layer = _module(node.input[1], node.name)
            order.setdefault(layer, len(order))
        of_nodes[node.name] = layer
        of_values.update(dict.fromkeys(node.output, layer))
    return of_nodes


def last(layers: Iterable[str | None], order: Mapping[str, int]) -> str:
    """The one that stands last in ``order``; :data:`PREPROCESSING` where none is known."""
    return max((layer for layer in layers if layer), key=lambda layer: order[layer], default=PREPROCESSING)


def _module(weight: str, node: str) -> str:
    """``1.stages.conv1.conv.weight``, of the second of two modules in series, to ``stages.conv1.conv``."""
    if not weight.endswith(".weight"):
        return node  # weights that were calculated, such as masked ones, have lost their name
    place, _, module = weight.removesuffix(".weight").partition(".")
    return module if place.isdigit() else f"{place}.{module}".rstrip(".")


def in_groups(layers: Sequence[str], most: int) -> dict[str, list[str]]:
    """Layers by the longest common beginnings of their names that make at most ``most`` groups: each by itself, else
    blocks, else stages."""
    depth = max(layer.count(".") for layer in layers) + 1
    while True:
        groups: dict[str, list[str]] = {}
        for layer in layers:
            groups.setdefault(".".join(layer.split(".")[:depth]), []).append(layer)
        if len(groups) <= most or depth == 1:
            return groups
        depth -= 1
