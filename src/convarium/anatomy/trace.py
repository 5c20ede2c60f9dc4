"""One run on the meta device, seen operation by operation: multiply-adds, shapes and receptive fields together.

MACs are the multiply-adds of convolutions and matrix products, exactly half of what
``torch.utils.flop_counter`` counts.
Operations that do arithmetic of another kind (norms, activations, pooling, additions) are free in this convention; an
operation that is in neither list is reported as not counted, never as a silent zero.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from convarium.network import GlobalPool, run_on_meta

aten = torch.ops.aten

POOLING = {aten.avg_pool2d, aten.max_pool2d_with_indices}
# Element by element: the result is a map like the operands.
ALIKE = {
    *(aten.native_batch_norm, aten.relu, aten.hardtanh, aten.sigmoid, aten.tanh),
    *(aten.add, aten.sub, aten.mul, aten.div, aten.pow, aten.clamp_min, aten.rsqrt),
}
IN_PLACE = {*ALIKE, aten.gt, aten._to_copy}  # the result can take the place of an operand
FREE = {
    *POOLING,
    *IN_PLACE,
    *(aten.sum, aten.mean, aten.amax, aten.avg_pool3d, aten.var, aten.linalg_vector_norm, aten.upsample_bilinear2d),
    *(
        aten._to_copy,
        aten.cat,
        aten.constant_pad_nd,
        aten.detach,
        aten.expand,
        aten.split,
        aten.index_select,
        aten.slice,
        aten.squeeze,
        aten.t,
        aten.unsqueeze,
        aten.view,
        aten.zeros_like,
    ),
}


@dataclass(frozen=True)
class Field:
    """What the units of a map see along one axis, in input pixels from the first to the last.

    ``spans`` are those of units 0 to n - 1, and ``step`` is how far the next n see to the right of them. One span is
    enough until a map is enlarged: its units then fall between those they are made of, and see unequal pieces.
    """

    spans: tuple[tuple[int, int], ...] = ((0, 0),)
    step: int = 1

    @property
    def size(self) -> int:
        """Of the units that see the most."""
        return max(high - low + 1 for low, high in self.spans)

    @property
    def jump(self) -> int:
        return self.step // len(self.spans)

    def at(self, unit: int) -> tuple[int, int]:
        """What one unit sees, of a map without ends."""
        turns, place = divmod(unit, len(self.spans))
        low, high = self.spans[place]
        return low + turns * self.step, high + turns * self.step

    def window(self, kernel: int, stride: int, padding: int, dilation: int = 1) -> Field:
        """Seen through a convolution or a pooling."""
        period = len(self.spans) // math.gcd(len(self.spans), stride)
        starts = [unit * stride - padding for unit in range(period)]
        spans = tuple((self.at(start)[0], self.at(start + (kernel - 1) * dilation)[1]) for start in starts)
        return Field(spans, self.step * period * stride // len(self.spans))

    def enlarge(self, factor: int) -> Field:
        """Seen through a bilinear enlargement: by each unit, the two it lies between. Where the outermost pixels are
        aligned instead of the edges, units lie up to a quarter of a step elsewhere, but between the same two."""
        doubled = [2 * unit + 1 - factor for unit in range(len(self.spans) * factor)]  # in steps of 1 / (2 factor)
        spans = tuple((self.at(x // (2 * factor))[0], self.at(-(-x // (2 * factor)))[1]) for x in doubled)
        return Field(spans, self.step)

    def join(self, other: Field) -> Field:
        """Seen by the sum, product or concatenation of two branches: from the first pixel of either to the last."""
        mine, its = len(self.spans), len(other.spans)
        both = [(self.at(unit), other.at(unit)) for unit in range(math.lcm(mine, its))]
        spans = tuple((min(a[0], b[0]), max(a[1], b[1])) for a, b in both)
        return Field(spans, max(self.step * len(spans) // mine, other.step * len(spans) // its))


Fields = tuple[Field, Field] | None  # height and width; None: the whole image


@dataclass
class Row:
    """One module that does work itself, at one call: ``what`` it is, and the window of a convolution or a pooling."""

    path: str
    what: str
    kernel: tuple[int, int] | None = None
    stride: int = 1
    groups: int = 1
    shape: tuple[int, ...] = ()
    macs: int = 0
    activations: int = 0
    fields: Fields = None

    @property
    def kind(self) -> str:
        """The layer as the papers' tables write it: ``conv 3x3/2``, ``max pool 2x2/2``, ``linear``."""
        window = f" {window_text(self.kernel)}{f'/{self.stride}' if self.stride > 1 else ''}" if self.kernel else ""
        return self.what + window + (f" in {self.groups} groups" if self.groups > 1 else "")


@dataclass(frozen=True)
class Step:
    """What an operation does to memory: the blocks it reads, the one it writes, and whether it can work in place."""

    reads: frozenset[int]
    write: int
    in_place: bool


@dataclass
class Trace:
    """``rows`` in the order of execution; ``not_counted``: operations without a rule, with how often each ran;
    ``steps`` read and write blocks of memory of ``sizes`` numbers each, of which the first is the image."""

    rows: list[Row] = field(default_factory=list)
    not_counted: Counter[str] = field(default_factory=Counter)
    steps: list[Step] = field(default_factory=list)
    sizes: dict[int, int] = field(default_factory=dict)

    def peak(self) -> int:
        """The most numbers of activations that are alive at once.

        A map lives from the operation that makes it to the last that reads it: a block's input through its whole
        branch, a branch's output until the branches meet. An operation element by element takes the place of the
        operand that nobody reads after it.
        """
        last_use = {block: k for k, step in enumerate(self.steps) for block in (*step.reads, step.write)}
        alive, most = {0}, self.sizes[0]
        for k, step in enumerate(self.steps):
            made = 0 if step.write in alive else self.sizes[step.write]
            dying = {block for block in step.reads if last_use[block] == k}
            if step.in_place and any(self.sizes[block] == made for block in dying):
                made = 0
            most = max(most, sum(self.sizes[block] for block in alive) + made)
            alive = {block for block in alive | {step.write} if last_use[block] > k}
        return most


@torch.inference_mode(False)  # in which torch does not take composed operations apart
def trace(model: nn.Module, input_size: tuple[int, int, int]) -> Trace:
    """Run one image ``(C, H, W)`` through ``model`` on the meta device."""
    recorder = _Recorder(model)
    x = torch.empty(1, *input_size, device="meta")
    recorder.remember(x, (Field(), Field()))
    try:
        with recorder:
            run_on_meta(model, x)
    finally:
        recorder.close()
    return recorder.trace


class _Recorder(TorchDispatchMode):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.trace = Trace()
        self.stack: list[tuple[str, nn.Module]] = []
        self.seen: dict[int, tuple[Tensor, Fields]] = {}  # holds the tensors, so that no id is used twice
        self.blocks: dict[int, int] = {}  # storage -> its number
        self.hooks = []
        for path, module in model.named_modules():
            self.hooks.append(module.register_forward_pre_hook(self._enter(path)))
            self.hooks.append(module.register_forward_hook(self._leave, always_call=True))

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Spares importing torch's compiler, which takes as long as torch itself."""
        return False

    def _enter(self, path: str) -> Any:
        def hook(module: nn.Module, _args: Any) -> None:
            self.stack.append((path, module))

        return hook

    def _leave(self, *_args: Any) -> None:
        self.stack.pop()

    def close(self) -> None:
        for hook in self.hooks:
            hook.remove()

    def remember(self, x: Tensor, fields: Fields) -> int:
        """Keep what ``x`` sees; returns the number of the memory it lies in."""
        self.seen[id(x)] = (x, fields)
        storage = x.untyped_storage()
        block = self.blocks.setdefault(storage._cdata, len(self.blocks))
        self.trace.sizes[block] = storage.nbytes() // x.element_size()
        return block

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        packet = func.overloadpacket
        out = _shaped(packet, args) if packet in {*ALIKE, aten.mean, aten.addmm} else func(*args, **kwargs)
        sources = [self.seen[id(x)] for x in _tensors(args) if id(x) in self.seen]
        results = [x for x in _tensors(out if isinstance(out, tuple | list) else [out]) if x.is_floating_point()]
        if not results or not (sources or packet in flop_registry):
            return out
        result, fields = results[0], _seen_through(packet, args, results[0], sources)
        written = [self.remember(each, fields) for each in results]  # a split has several, in one block
        read = frozenset(self.blocks[x.untyped_storage()._cdata] for x, _ in sources)
        self.trace.steps.append(Step(read, written[0], packet in IN_PLACE))
        if self.stack:
            self._record(packet, args, kwargs, out, result, fields)
        return out

    def _record(self, packet: Any, args: Any, kwargs: Any, out: Any, result: Tensor, fields: Fields) -> None:
        path, module = self.stack[-1]
        rows = self.trace.rows
        if not rows or rows[-1].path != path:
            rows.append(Row(path, _name(module)))
        row = rows[-1]
        row.shape, row.fields = tuple(result.shape[1:]), fields
        if window := _window(packet, args):
            row.kernel, row.stride = window[0], window[1][0]
            row.groups = args[8] if packet is aten.convolution else 1
        if packet in flop_registry:
            row.macs += flop_registry[packet](*args, **kwargs, out_val=out) // 2
            row.activations += result.numel()
        elif packet not in FREE:
            self.trace.not_counted[str(packet).removeprefix("aten.")] += 1


def _shaped(packet: Any, args: Any) -> Any:
    """The result, without numbers, of an operation element by element, a mean over dimensions, or a dense layer. On the
    meta device torch would compose them of others, and import its compiler for it, which takes as long as all of torch.
    """
    x = args[0]
    if packet is aten.addmm:
        return x.new_empty(args[1].shape[0], args[2].shape[1])
    if packet is aten.native_batch_norm:
        return x.new_empty(x.shape), x.new_empty(0), x.new_empty(0)
    if packet is aten.mean:
        averaged = {dim % x.ndim for dim in (args[1] if len(args) > 1 else range(x.ndim))}
        sides = [1 if dim in averaged else side for dim, side in enumerate(x.shape)]
        keep = len(args) > 2 and args[2]
        return x.new_empty(sides if keep else [side for dim, side in enumerate(sides) if dim not in averaged])
    shapes = [operand.shape for operand in _tensors(args)]
    rank = max(map(len, shapes))
    aligned = [(*[1] * (rank - len(shape)), *shape) for shape in shapes]
    return x.new_empty([max(sides) for sides in zip(*aligned, strict=True)])


def _tensors(args: Any) -> list[Tensor]:
    flat = []
    for arg in args:
        flat += [x for x in arg if isinstance(x, Tensor)] if isinstance(arg, list | tuple) else [arg]
    return [x for x in flat if isinstance(x, Tensor)]


def _seen_through(packet: Any, args: Any, result: Tensor, sources: list[tuple[Tensor, Fields]]) -> Fields:
    local = [fields for _, fields in sources if fields is not None]
    if not local or (len(local) < len(sources) and packet not in (aten.mul, aten.div)):
        return None  # a factor that saw the whole image is a gate, and counts as a constant
    joined = local[0]
    for other in local[1:]:
        joined = (joined[0].join(other[0]), joined[1].join(other[1]))
    if window := _window(packet, args):
        height, width = zip(*window, strict=True)
        return joined[0].window(*height), joined[1].window(*width)
    if packet is aten.upsample_bilinear2d:
        before, after = sources[0][0].shape[2:], result.shape[2:]
        return (
            joined[0].enlarge(max(1, round(after[0] / before[0]))),
            joined[1].enlarge(max(1, round(after[1] / before[1]))),
        )
    if packet is aten.slice and args[1] in (2, 3):
        axis = args[1] - 2
        start, step = args[2] or 0, args[4] if len(args) > 4 else 1
        moved = joined[axis].window(1, step, -start)
        return (moved, joined[1]) if axis == 0 else (joined[0], moved)
    if packet is aten.constant_pad_nd and result.ndim == 4:
        left, _, top, _ = (*args[1], 0, 0)[:4]
        return joined[0].window(1, 1, top), joined[1].window(1, 1, left)
    kept = any(x.shape[-2:] == result.shape[-2:] for x, _ in sources)
    return joined if result.ndim >= 4 and kept else None  # flattened or averaged over the map: the whole image


def _window(packet: Any, args: Any) -> tuple[tuple[int, int], ...] | None:
    """Kernel, stride, padding and dilation, each (height, width), of a convolution or a pooling."""
    if packet is aten.convolution:
        values = (args[1].shape[2:], *args[3:6])
    elif packet in POOLING:
        kernel = args[1]
        stride = args[2] if len(args) > 2 and args[2] else kernel
        padding = args[3] if len(args) > 3 else (0, 0)
        dilation = args[4] if packet is aten.max_pool2d_with_indices and len(args) > 4 else (1, 1)
        values = (kernel, stride, padding, dilation)
    else:
        return None
    pairs = [list(value) * (2 // len(value)) for value in values]
    return tuple((height, width) for height, width in pairs)


# What the papers' tables call a layer.
NAMES = {
    "Conv2d": "conv",
    "SameConv2d": "conv",
    "MaxPool2d": "max pool",
    "_SameMaxPool": "max pool",
    "AvgPool2d": "avg pool",
    "Linear": "linear",
    "BatchNorm2d": "batch norm",
}


def _name(module: nn.Module) -> str:
    if isinstance(module, GlobalPool):
        return f"global {module.kind} pool" if module.kind in ("avg", "max") else module.kind
    return NAMES.get(type(module).__name__, type(module).__name__)


def window_text(kernel: tuple[int, int]) -> str:
    """Height and width: ``1x7``."""
    return "x".join(map(str, kernel))
