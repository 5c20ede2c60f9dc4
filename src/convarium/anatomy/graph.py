"""Which way the maps go inside a module: boxes in turn and side by side, found from a run.

A module is run once on the meta device, and every operation is a node that knows what it reads. Norms and activations
join the convolution they belong to; then the nodes are put into series and ways side by side.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import flop_registry

from convarium.anatomy.trace import POOLING, Field, _Recorder, _tensors, _window
from convarium.network import Shape, run_on_meta

aten = torch.ops.aten

# Operations that change how numbers are laid out and not what they are.
TRANSPARENT = {
    *(aten._to_copy, aten.clone, aten.detach, aten.expand, aten.permute, aten.squeeze, aten.t, aten.transpose),
    *(aten.unsqueeze, aten.view, aten._unsafe_view, aten.zeros_like),
}
JOINS = {aten.add: "+", aten.sub: "−", aten.mul: "×", aten.div: "÷", aten.add_: "+", aten.mul_: "×"}
ACTIVATIONS = {aten.relu, aten.relu_, aten.sigmoid, aten.tanh, aten.gelu, aten.silu, aten.elu, aten.leaky_relu}
POINTWISE = {*JOINS, *ACTIVATIONS, aten.hardtanh, aten.hardsigmoid, aten.hardswish, aten.pow, aten.exp, aten.clamp}
NORMS = {aten.native_batch_norm, aten._native_batch_norm_legit_no_training, aten.native_group_norm}
REDUCTIONS = {aten.mean: "average", aten.amax: "max", aten.sum: "sum", aten.var: "variance"}


@dataclass(eq=False)
class Node:
    """A box of the drawing.

    ``sort`` is conv, fc, pool, join, concat, point (a norm, an activation), module (drawn by itself, under the number
    ``kind``) or other; ``text`` and ``extra`` say what is done (``3x3 conv``, ``/2``), ``width`` how many channels come
    out, where the node decides that. ``before`` and ``after`` are the norms and activations that belong to it,
    ``times`` how often it stands there in turn.
    """

    sort: str
    text: str
    width: int | None = None
    extra: tuple[str, ...] = ()
    inputs: list[Node] = field(default_factory=list)
    before: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)
    path: str = ""
    owner: str = ""  # words for the module that made it
    output: Shape = ()
    kind: int = 0
    times: int = 1

    @property
    def label(self) -> str:
        """``3x3 conv, 64, /2``."""
        width = [] if self.width is None else [str(self.width)]
        return ", ".join([self.text, *width, *self.extra])


@dataclass
class Parallel:
    """Ways side by side from one map; what follows joins them, a sum the longest way first. An empty way is the map
    itself."""

    ways: list[Series]


Series = list[Node | Parallel]  # in turn


# -- a run, as nodes --------------------------------------------------------------------------------------------------


@dataclass
class Operation:
    """One operation: what it is, who called it, the activations it reads and writes."""

    packet: Any
    args: Any
    sources: list[Tensor]
    results: list[Tensor]
    path: str
    module: nn.Module
    call: int


class _GraphRecorder(_Recorder):
    def __init__(self, model: nn.Module) -> None:
        self.operations: list[Operation] = []
        self.calls: list[int] = []
        self.count = 0
        self.known: dict[int, Tensor] = {}  # of any type of number; holds them, so that no id is used twice
        super().__init__(model)

    def _enter(self, path: str) -> Any:
        enter = super()._enter(path)

        def hook(module: nn.Module, args: Any) -> None:
            enter(module, args)
            self.count += 1
            self.calls.append(self.count)

        return hook

    def _leave(self, *args: Any) -> None:
        super()._leave(*args)
        self.calls.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        sources = [x for x in _tensors(args) if id(x) in self.known]
        out = super().__torch_dispatch__(func, types, args, kwargs)
        results = _tensors(out if isinstance(out, tuple | list) else [out])
        if sources and self.stack:
            self.known |= {id(x): x for x in results}
            path, module = self.stack[-1]
            self.operations.append(Operation(func.overloadpacket, args, sources, results, path, module, self.calls[-1]))
        return out


@dataclass
class Run:
    """What one module did to one map."""

    operations: list[Operation]
    input: Shape
    output: Shape
    result: Tensor
    macs: dict[str, int]  # by module path


@torch.inference_mode(False)  # in which torch does not take composed operations apart
def run(module: nn.Module, shape: Shape) -> Run:
    """Run ``module`` on one map ``(C, H, W)``, of its own type of number, on the meta device."""
    recorder = _GraphRecorder(module)
    kind = next((parameter.dtype for parameter in module.parameters()), None)
    x = torch.empty(1, *shape, dtype=kind, device="meta")
    recorder.remember(x, (Field(), Field()))
    recorder.known[id(x)] = x
    try:
        with recorder:
            result = run_on_meta(module, x)
    finally:
        recorder.close()
    macs: Counter[str] = Counter()
    for row in recorder.trace.rows:
        macs[row.path] += row.macs
    return Run(recorder.operations, shape, tuple(result.shape[1:]), result, macs)


def series_of(done: Run) -> Series:
    """The operations that the result of a run comes of, as boxes in turn and side by side."""
    source = Node("other", "input", output=done.input)
    made: dict[int, Node] = {}
    for group in _groups(done.operations):
        _add_nodes(group, made, source)
    end = made.get(id(done.result), source)
    nodes = _fold_norms_and_activations(_flatten_joins(_reached(end, source)))
    return _in_series(nodes, _readers(nodes))


def _groups(operations: list[Operation]) -> Iterator[list[Operation]]:
    """Operations that are one node: those of one call of a module without modules inside; any other alone."""
    for _, together in groupby(operations, key=lambda op: op.call):
        group = list(together)
        leaf = next(group[0].module.children(), None) is None
        whole = leaf and sum(not _is_transparent(op) for op in group) > 1
        yield from [group] if whole else ([op] for op in group)


def _is_transparent(op: Operation) -> bool:
    same = op.packet is aten.slice and op.results[0].shape == op.sources[0].shape
    return same or op.packet in TRANSPARENT


def _add_nodes(group: list[Operation], made: dict[int, Node], source: Node) -> None:
    inside = {id(x) for op in group for x in op.results}
    inputs = [made.get(id(x), source) for op in group for x in op.sources if id(x) not in inside or len(group) == 1]
    first = group[0]
    if len(group) == 1 and (_is_transparent(first) or not _matters(first, inputs)):
        node = next((x for x in inputs if x.text != "0"), inputs[0])
    else:
        node = _node(first, len(inputs)) if len(group) == 1 else _composite(group, inputs)
        node.inputs, node.path = list(inputs if len(group) == 1 else dict.fromkeys(inputs)), first.path
        node.owner, node.output = _words(first.module), tuple(group[-1].results[0].shape[1:])
        if first.packet is aten.sub and len(inputs) == 2 and inputs[0] is inputs[1]:
            node.text = "0"  # a straight-through estimator: what it takes away it adds
    for op in group:
        made.update({id(x): node for x in op.results})


def _matters(op: Operation, inputs: list[Node]) -> bool:
    return not (op.packet is aten.add and any(x.text == "0" for x in inputs))


def _reached(end: Node, source: Node) -> list[Node]:
    """``end`` and what it is made of, each after what it reads; not the source."""
    order: dict[Node, None] = {}
    waiting = [(end, False)]
    while waiting:
        node, done = waiting.pop()
        if done:
            order[node] = None
        elif node is not source and node not in order:
            waiting.append((node, True))
            waiting += [(x, False) for x in reversed(node.inputs)]
    return list(order)


# -- words for operations ---------------------------------------------------------------------------------------------


def _node(op: Operation, inputs: int) -> Node:
    packet, args, out = op.packet, op.args, op.results[0]
    if packet is aten.convolution:
        return _convolution(op)
    if packet in flop_registry:
        return Node("fc", "fc", out.shape[-1])
    if packet in POOLING:
        return _pool(op, "avg pool" if packet is aten.avg_pool2d else "max pool")
    if packet is aten.cat:
        return Node("concat", "concat", out.shape[1])
    if packet in JOINS:
        return _join(op, inputs)
    if packet in NORMS:
        return Node("point", "BN" if "batch" in str(packet) else _words(op.module))
    if packet in ACTIVATIONS or (_is_leaf(op.module) and packet in POINTWISE):
        return Node("point", _words(op.module) if _is_leaf(op.module) else _name(packet))
    if packet in REDUCTIONS:
        return _reduction(op)
    if packet is aten.upsample_bilinear2d:
        return Node("other", "bilinear", extra=(f"to {_text(out.shape[2:])}",))
    if packet is aten.index_select:
        return Node("other", f"{out.shape[args[1]]} of {args[0].shape[args[1]]} maps")
    if packet is aten.gt:
        return Node("other", f"> {args[1]}")
    return Node("other", _words(op.module) if _is_leaf(op.module) else _name(packet))


def _pool(op: Operation, words: str) -> Node:
    kernel, stride, *_ = _window(op.packet, op.args) or ((1, 1), (1, 1))
    return Node("pool", f"{_text(kernel)} {words}", extra=_stride(stride))


def _convolution(op: Operation) -> Node:
    kernel, stride, padding, _ = _window(op.packet, op.args) or ((1, 1),) * 4
    groups, chans, width = op.args[8], op.args[0].shape[1], op.results[0].shape[1]
    depthwise = groups == chans > 1
    extra = [] if depthwise or groups == 1 else [f"{groups} groups"]
    extra += _stride(stride)
    if padding != tuple(side // 2 for side in kernel):
        extra.append("valid" if not any(padding) else f"pad {padding[0]}")
    return Node("conv", f"{_text(kernel)} {'depthwise ' if depthwise else ''}conv", width, tuple(extra))


def _join(op: Operation, inputs: int) -> Node:
    sign = JOINS[op.packet]
    if inputs > 1:
        return Node("join", sign)
    other = [x for x in op.args[:2] if x is not op.sources[0]]
    factor = f"{other[0]:g}" if other and isinstance(other[0], int | float) else "weights"
    return Node("other", f"{sign} {factor}")


def _reduction(op: Operation) -> Node:
    before, after = op.args[0].shape, op.results[0].shape
    kind = REDUCTIONS[op.packet]
    if len(before) == 4 and prod(after) == before[0] * before[1]:
        return Node("pool", f"global {kind} pool" if kind in ("average", "max") else f"{kind} of each map")
    if _is_leaf(op.module):
        return Node("other", _words(op.module), after[1])
    return Node("other", f"{kind} over channels")


def _composite(group: list[Operation], inputs: list[Node]) -> Node:
    """The several operations of one module as one node."""
    packets = {op.packet for op in group} - TRANSPARENT
    before, after, words = group[0].sources[0], group[-1].results[0], _words(group[0].module)
    pools = [op for op in group if op.packet in POOLING]
    if len(pools) == 1 and packets <= {*POOLING, aten.constant_pad_nd}:
        return _node(pools[0], 1)
    convolutions = [op for op in group if op.packet is aten.convolution]
    if len(convolutions) == 1 and packets <= {aten.convolution, aten.constant_pad_nd}:  # padded before, so not "valid"
        made = _node(convolutions[0], 1)
        return replace(made, extra=tuple(word for word in made.extra if word != "valid"))
    if len(set(inputs)) == 1 and packets <= POINTWISE and before.shape == after.shape:
        return Node("point", words)
    if pools and before.ndim == 4 and after.ndim == 4 and before.shape != after.shape:
        return _pool(pools[0], words)
    matrix = [op for op in group if op.packet in flop_registry]
    changed = before.shape[1:2] != after.shape[1:2]
    shrunk = after.ndim == before.ndim == 4 and before.shape[2] > after.shape[2] > 0
    stride = round(before.shape[2] / after.shape[2]) if shrunk else 1
    return Node("fc" if matrix else "other", words, after.shape[1] if changed else None, _stride([stride]))


def _text(kernel: Sequence[int]) -> str:
    return "x".join(map(str, kernel))


def _stride(stride: Sequence[int]) -> tuple[str, ...]:
    return () if max(stride) == 1 else (f"/{max(stride)}",)


def _is_leaf(module: nn.Module) -> bool:
    return next(module.children(), None) is None


def _words(module: nn.Module) -> str:
    """The name of a module's class as words: ``scaled tanh``; one with capitals side by side as it is: ``ReLU``."""
    name = type(module).__name__.strip("_")
    if re.search("[A-Z]{2}", name):
        return name
    return " ".join(re.findall("[A-Z]?[a-z]+|[0-9]+[a-z]?", name)).lower()


def _name(packet: Any) -> str:
    return str(packet).removeprefix("aten.").strip("_").replace("_", " ")


# -- fewer nodes ------------------------------------------------------------------------------------------------------


def _readers(nodes: list[Node]) -> dict[Node, list[Node]]:
    readers: dict[Node, list[Node]] = {}
    for node in nodes:
        for x in node.inputs:
            readers.setdefault(x, []).append(node)
    return readers


def _flatten_joins(nodes: list[Node]) -> list[Node]:
    """A concatenation of concatenations is one; so is a sum of sums that one module makes."""
    readers, gone = _readers(nodes), set()
    for node in nodes:
        inputs: list[Node] = []
        for x in node.inputs:
            alike = node.sort == x.sort == "concat" or (
                node.sort == x.sort == "join" and node.text == x.text == "+" and node.path == x.path
            )
            if alike and len(readers[x]) == 1:
                inputs += x.inputs
                gone.add(x)
            else:
                inputs.append(x)
        node.inputs = inputs
    return [node for node in nodes if node not in gone]


def _fold_norms_and_activations(nodes: list[Node]) -> list[Node]:
    """Into the convolution (or sum) before them, or after them where that is the one they were made with."""
    readers, gone = _readers(nodes), set()

    def replace(node: Node, by: Node) -> None:
        """``node`` becomes part of ``by``, which is next to it."""
        gone.add(node)
        if by in node.inputs:
            for reader in readers.get(node, []):
                reader.inputs = [by if x is node else x for x in reader.inputs]
            readers[by] = readers.get(node, [])
        else:
            by.inputs = list(node.inputs)
            for x in node.inputs:
                readers[x] = [by if reader is node else reader for reader in readers[x]]

    for node in [n for n in nodes if n.sort == "point"]:
        (x, *_), after = node.inputs, readers.get(node, [])
        target = after[0] if len(after) == 1 else node
        while target.sort == "point" and len(readers.get(target, [])) == 1:
            target = readers[target][0]
        made_for_next = target.sort == "conv" and _siblings(node, target) and not _siblings(node, x)
        if x.sort != "other" and len(readers[x]) == 1 and (x.sort == "point" or not made_for_next):
            x.after.append(node.text)
            replace(node, x)
    for node in reversed([n for n in nodes if n.sort == "point" and n not in gone]):
        after = readers.get(node, [])
        if len(after) == 1 and after[0].sort in ("conv", "fc") and len(after[0].inputs) == 1:
            after[0].before = [node.text, *node.after, *after[0].before]
            replace(node, after[0])
    return [node for node in nodes if node not in gone]


def _siblings(one: Node, other: Node) -> bool:
    return one.path.rpartition(".")[0] == other.path.rpartition(".")[0]


# -- in turn and side by side -----------------------------------------------------------------------------------------


def _in_series(nodes: list[Node], readers: dict[Node, list[Node]]) -> Series:
    """Nodes, each after what it reads, between one source and one end that are not among them.

    A node is in series with the rest when no line passes it by; between two such nodes, what does not touch is side by
    side. What is neither is one box, so that lines never cross.
    """
    place, end = {node: i for i, node in enumerate(nodes)}, len(nodes)
    edges = [(place.get(x, -1), place[node]) for node in nodes for x in node.inputs]
    for node in nodes:
        leaving = sum(reader not in place for reader in readers[node]) if node in readers else 1
        edges += [(place[node], end)] * leaving
    passing = [0] * (end + 1)
    for low, high in edges:
        for i in range(low + 1, high):
            passing[i] += 1
    series: Series = []
    last = -1
    for i in [k for k in range(end + 1) if not passing[k]]:
        between, direct = nodes[last + 1 : i], edges.count((last, i))
        if between or direct > 1:
            series += _side_by_side(between, direct, readers)
        if i < end:
            if nodes[i].sort == "join" and series and isinstance(series[-1], Parallel):
                series[-1].ways.sort(key=lambda way: -sum(1 for _ in nodes_in(way)))
            series.append(nodes[i])
        last = i
    return series


def _side_by_side(nodes: list[Node], direct: int, readers: dict[Node, list[Node]]) -> Series:
    """What lies between two nodes, and how many lines go from one to the other directly."""
    parts = _connected(nodes)
    if len(parts) + direct == 1:
        return [Node("other", nodes[-1].path.rpartition(".")[2] or "module", extra=(f"{len(nodes)} operations",))]
    return [Parallel([_in_series(part, readers) for part in parts] + [[] for _ in range(direct)])]


def _connected(nodes: list[Node]) -> list[list[Node]]:
    """The nodes in groups that touch, in their order."""
    group: dict[Node, list[Node]] = {}
    for node in nodes:
        merged = [node]
        for touched in {id(group[x]): group[x] for x in node.inputs if x in group}.values():
            merged = touched + merged
        group.update(dict.fromkeys(merged, merged))
    place = {node: i for i, node in enumerate(nodes)}
    parts = {id(part): sorted(part, key=place.__getitem__) for part in group.values()}
    return sorted(parts.values(), key=lambda part: place[part[0]])


def nodes_in(series: Series) -> Iterator[Node]:
    for item in series:
        if isinstance(item, Parallel):
            for way in item.ways:
                yield from nodes_in(way)
        else:
            yield item


def is_chain(series: Series) -> bool:
    return not any(isinstance(item, Parallel) for item in series)
