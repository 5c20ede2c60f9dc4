"""Channels followed through a network: which of them stand or fall together.

Every channel that a layer makes gets a label, and one run on the meta device carries the labels along: an addition
makes two of them one, a concatenation puts them side by side, a convolution ties what it reads to the columns of its
weight. What an operation without a rule touches can never be cut.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

from convarium.errors import UsageError
from convarium.network import Network

aten = torch.ops.aten

FIXED = 0  # the label of what cannot be cut: the image's channels, the classes
NONE = -1  # of what belongs to no channel: zeros, a sum over all channels

# Each channel of the result is made of that channel of the operand alone, besides the element-by-element operations.
PER_CHANNEL = {
    *(aten.max_pool2d_with_indices, aten.avg_pool2d, aten._adaptive_avg_pool2d, aten.upsample_bilinear2d),
    *(aten.detach, aten._to_copy, aten.clone, aten.alias),
}


@dataclass
class Channels:
    """Labels of a network's tensors; equal ones are channels that stand or fall together.

    Attributes:
        axes: by a tensor's name and the number of a dimension, ``(size,)`` labels. The two numbers of a head that count
            channels are there too, as dimension 0.
        makers: names of the weights whose dimension 0 makes channels, in the order of execution.
        indices: by the name of a buffer that selects channels, the labels of those it selects from.
    """

    axes: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)
    makers: list[str] = field(default_factory=list)
    indices: dict[str, np.ndarray] = field(default_factory=dict)


def follow_channels(model: Network, input_size: Sequence[int] | None = None) -> Channels:
    """The labels of every tensor of ``model``, found in one run on an image ``(C, H, W)``, the network's own when not
    given. Its weights may stand on the meta device, but for the numbers of a buffer that selects channels.

    Raises:
        UsageError: such a buffer without numbers.
    """
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    tensors = {name: tensor.detach().to("meta") for name, tensor in named.items()}
    follower = _Follower(named, tensors)
    kind = next(model.parameters()).dtype
    x = torch.empty(1, *(input_size or model.input_size), dtype=kind, device="meta")
    training = [module for module in model.modules() if module.training]
    hooks = [
        model.head.hidden.register_forward_pre_hook(lambda _m, args: follower.count("head.in_features", args[0])),
        model.head.classifier.register_forward_pre_hook(lambda _m, args: follower.count("head.hidden_size", args[0])),
    ]
    model.eval()
    try:
        with torch.no_grad(), follower:
            follower.fix(functional_call(model, tensors, (x,)))
    finally:
        for hook in hooks:
            hook.remove()
        for module in training:
            module.training = True
    return follower.result()


class _Follower(TorchDispatchMode):
    """Labels by tensor: an array that broadcasts to its shape, of side 1 where all along a dimension have the same."""

    def __init__(self, named: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
        """``named`` are the network's own tensors, ``tensors`` the same on the meta device."""
        super().__init__()
        self.named = named
        self.channels = Channels()
        self.fresh = 1
        self.ties: list[np.ndarray] = []  # (2, n) labels that are one
        self.seen: dict[int, tuple[Tensor, np.ndarray]] = {}  # holds the tensors, so that no id is used twice
        self.names = {id(tensor): (name, False) for name, tensor in tensors.items()}  # ... and whether transposed
        self.kept = list(tensors.values())
        for name, tensor in tensors.items():
            for dim in range(min(2, tensor.ndim)):
                self.channels.axes[name, dim] = self._new(tensor.shape[dim])
            if tensor.ndim == 1:
                self.seen[id(tensor)] = tensor, self.channels.axes[name, 0]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Spares importing torch's compiler."""
        return False

    def result(self) -> Channels:
        roots = _components(self.fresh, np.concatenate(self.ties, axis=1))
        roots = np.append(roots, NONE)  # where NONE points to
        axes = {key: roots[labels] for key, labels in self.channels.axes.items()}
        indices = {name: roots[labels] for name, labels in self.channels.indices.items()}
        return Channels(axes, self.channels.makers, indices)

    # -- labels -----------------------------------------------------------------------------------------------------

    def _new(self, count: int) -> np.ndarray:
        self.fresh += count
        return np.arange(self.fresh - count, self.fresh)

    def tie(self, ours: np.ndarray, theirs: np.ndarray | int) -> None:
        """Labels that are one from now on, of equal shape or broadcast to it; what has none is left alone."""
        pairs = np.stack(np.broadcast_arrays(ours, theirs)).reshape(2, -1)
        self.ties.append(pairs[:, (pairs != NONE).all(0)])

    def fix(self, x: Tensor) -> None:
        self.tie(self.of(x), FIXED)

    def count(self, name: str, x: Tensor) -> None:
        self.channels.axes[name, 0] = self._row(x)

    def of(self, x: Tensor) -> np.ndarray:
        """The labels of a tensor; of an unknown one: it cannot be cut."""
        return self.seen[id(x)][1] if id(x) in self.seen else np.broadcast_to(FIXED, x.shape)

    def _row(self, x: Tensor) -> np.ndarray:
        """``(C,)``, the labels of ``(N, C, ...)`` along its channels."""
        labels = self.of(x)[0]
        return np.broadcast_to(labels.reshape(len(labels), -1)[:, 0], (x.shape[1],))

    def _axis(self, x: Tensor, dim: int) -> np.ndarray:
        name, transposed = self.names[id(x)]
        return self.channels.axes[name, 1 - dim if transposed else dim]

    # -- operations -------------------------------------------------------------------------------------------------

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        packet, results = func.overloadpacket, [out] if isinstance(out, Tensor) else list(out)
        if packet is aten.t and id(args[0]) in self.names:
            name, transposed = self.names[id(args[0])]
            self.names[id(out)] = name, not transposed
            self.kept.append(out)
            return out
        labels = self._labels(func, packet, args, results)
        for result, each in zip(results, labels, strict=False):
            self.seen[id(result)] = result, each
        return out

    def _labels(self, func: Any, packet: Any, args: Any, results: list[Tensor]) -> list[np.ndarray]:
        """The labels of what an operation gives."""
        out = results[0]
        if packet in PER_CHANNEL:
            return [self.of(args[0])]
        if torch.Tag.pointwise in func.tags:
            return [self._joined([self.of(x) for x in args if isinstance(x, Tensor)], out.ndim)]
        if packet in RULES:
            made = RULES[packet](self, out, *args)
            return made if isinstance(made, list) else [made]
        for x in args:
            if isinstance(x, Tensor):
                self.fix(x)
        return [np.broadcast_to(FIXED, x.shape) for x in results]

    def _joined(self, operands: list[np.ndarray], ndim: int) -> np.ndarray:
        """Element by element: what meets is one; what is spread over many channels cannot be cut."""
        joined = np.full((1,) * ndim, NONE)
        for labels in operands:
            labels = labels.reshape((1,) * (ndim - labels.ndim) + labels.shape)
            if (labels == NONE).all():
                continue
            if (joined == NONE).all():
                joined = labels
            elif joined.shape == labels.shape:
                self.tie(joined, labels)
            else:
                small, joined = sorted((joined, labels), key=np.size)
                self.tie(small, FIXED)
        return joined

    def _convolution(self, out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, *other: Any) -> np.ndarray:
        groups, read = other[-1], self._row(x)
        rows, columns = (self._axis(weight, dim) for dim in (0, 1))
        if groups == len(rows) and len(columns) == 1 and groups > 1:  # depthwise: a kernel goes with its channel
            self.tie(rows, read)
        else:
            self._make(weight, rows.reshape(groups, -1))
            self._read(read.reshape(groups, -1), columns)
        if bias is not None:
            self.tie(self.of(bias), rows)
        return rows.reshape(1, -1, *(1,) * (out.ndim - 2))

    def _make(self, weight: Tensor, rows: np.ndarray) -> None:
        """Channels ``(groups, each)``: groups stay equal, so that one of each goes with its like in the others."""
        self.tie(rows, rows[0])
        name = self.names[id(weight)][0]
        if name not in self.channels.makers:
            self.channels.makers.append(name)

    def _read(self, read: np.ndarray, columns: np.ndarray) -> None:
        """``(groups, each)`` channels by the columns of a weight, which are the same for every group."""
        self.tie(read, columns if len(read) == 1 or len(columns) > 1 else FIXED)

    def _dense(self, out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> np.ndarray:
        if id(weight) not in self.names:  # a product of two maps
            self.fix(x)
            return np.broadcast_to(FIXED, out.shape)
        self.tie(self._row(x), self._axis(weight, 0))
        rows = self._axis(weight, 1)
        self._make(weight, rows[None])
        if bias is not None:
            self.tie(self.of(bias), rows)
        return rows[None]

    def _norm(self, out: Tensor, x: Tensor, *tensors: Any) -> np.ndarray:
        for tensor in tensors[:4]:
            if tensor is not None:
                self.tie(self.of(tensor), self._row(x))
        return self.of(x)

    def _cat(self, out: Tensor, tensors: list[Tensor], dim: int = 0) -> np.ndarray:
        return np.concatenate([self._along(x, dim) for x in tensors], axis=dim)

    def _along(self, x: Tensor, dim: int) -> np.ndarray:
        """Labels in full along one dimension."""
        labels = self.of(x)
        return np.repeat(labels, x.shape[dim], dim) if labels.shape[dim] == 1 < x.shape[dim] else labels

    def _slice(
        self, out: Tensor, x: Tensor, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
    ) -> np.ndarray:
        labels = self.of(x)
        cut = (slice(None),) * (dim % x.ndim) + (slice(start, end, step),)
        return labels[cut] if labels.shape[dim] > 1 else labels

    def _select(self, out: Tensor, x: Tensor, dim: int, index: Tensor) -> np.ndarray:
        """Channels by a buffer of their numbers. Where one of them is zeros, a channel that is cut can be replaced by
        it, and what is selected has labels of its own."""
        name = self.names[id(index)][0]
        read = self.channels.indices[name] = self._row(x)
        selected = self.channels.axes[name, 0]
        if NONE not in read:
            numbers = self.named[name]
            if numbers.is_meta:
                raise UsageError(f"{name} says which channels are read, and stands on the meta device without numbers")
            self.tie(read[numbers.cpu().numpy()], selected)
        return selected.reshape(1, -1, *(1,) * (out.ndim - 2))

    def _reduced(self, out: Tensor, x: Tensor, dims: Any, how: str) -> np.ndarray:
        """Over some dimensions: a maximum of channels makes them one, of their sum each can be left out, and of what
        depends on their number none can be cut."""
        labels = self.of(x)
        dims = {dim % x.ndim for dim in ([dims] if isinstance(dims, int) else dims)}
        for dim in dims:
            first = labels.take([0], dim)
            if labels.shape[dim] > 1:
                if how != "sum":
                    self.tie(labels, first if how == "maximum" else FIXED)
                first = first if how == "maximum" else np.full_like(first, NONE)
            labels = first
        return labels if out.ndim == x.ndim else labels.squeeze(tuple(dims))

    def _view(self, out: Tensor, x: Tensor, *_shape: Any) -> np.ndarray:
        labels = np.broadcast_to(self.of(x), x.shape).reshape(out.shape)
        for dim in range(2, out.ndim):
            first = labels.take([0], dim)
            labels = first if (labels == first).all() else labels
        return labels

    def _padded(self, out: Tensor, x: Tensor, padding: list[int], *_value: Any) -> np.ndarray:
        labels = self.of(x)
        widths = [(0, 0)] * x.ndim
        for i in range(len(padding) // 2):
            if labels.shape[-1 - i] > 1:
                widths[-1 - i] = padding[2 * i], padding[2 * i + 1]
        return np.pad(labels, widths, constant_values=NONE)


def _components(count: int, ties: np.ndarray) -> np.ndarray:
    """The smallest label that each of ``count`` is tied to, over any number of ``(2, n)`` ties."""
    roots = np.arange(count)
    while True:
        low, high = np.sort(roots[ties], axis=0)
        if (low == high).all():
            return roots
        np.minimum.at(roots, high, low)
        while (roots[roots] != roots).any():
            roots = roots[roots]


Rule = Callable[..., "np.ndarray | list[np.ndarray]"]
RULES: dict[Any, Rule] = {
    aten.convolution: _Follower._convolution,
    aten.addmm: lambda self, out, bias, x, weight, **_: _Follower._dense(self, out, x, weight, bias),
    aten.mm: _Follower._dense,
    aten.native_batch_norm: _Follower._norm,
    aten.cat: _Follower._cat,
    aten.slice: _Follower._slice,
    aten.index_select: _Follower._select,
    aten.mean: lambda self, out, x, dims, *_: self._reduced(out, x, dims, "mean"),
    aten.var: lambda self, out, x, dims, *_: self._reduced(out, x, dims, "mean"),
    aten.sum: lambda self, out, x, dims, *_: self._reduced(out, x, dims, "sum"),
    aten.linalg_vector_norm: lambda self, out, x, _order, dims, *_: self._reduced(out, x, dims, "sum"),
    aten.amax: lambda self, out, x, dims, *_: self._reduced(out, x, dims, "maximum"),
    aten.view: _Follower._view,
    aten._unsafe_view: _Follower._view,
    aten.unsqueeze: lambda self, out, x, dim: np.expand_dims(self.of(x), dim),
    aten.squeeze: lambda self, out, x, dim: self.of(x).squeeze(dim),
    aten.expand: lambda self, out, x, *_: self.of(x),
    aten.constant_pad_nd: _Follower._padded,
    aten.zeros_like: lambda self, out, x, *_: np.full_like(self.of(x), NONE),
    # A mean over neighbouring channels is what local response normalisation divides by.
    aten.avg_pool3d: lambda self, out, *_: np.full((1,) * out.ndim, NONE),
}
