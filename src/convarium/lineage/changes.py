"""What changed between two networks, stage by stage and layer by layer.

One mechanism pairs stages, the blocks of a stage and the layers of a block: two sequences, in order, so that the pairs
resemble each other most. What has neither shape nor count (padding, constants, the weights) is not compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeVar

from convarium.anatomy.describe import Description, Part

T = TypeVar("T")

# What the papers call modules whose class has another name.
WORDS = {
    "SqueezeExcite": "squeeze-and-excitation",
    "Residual": "addition of the shortcut",
    "ZeroPadShortcut": "zero-padded shortcut",
    "Concat": "concatenation",
    "LocalResponseNorm": "response norm",
    "Subsampling": "sub-sampling",
    "ScaledTanh": "scaled tanh",
    "TableConvolution": "connection table",
}

FAMILIES = {"conv", "pool", "linear"}


@dataclass(frozen=True)
class StageDifference:
    """A row of either table, or one of both where they were found to be the same place."""

    a: Part | None
    b: Part | None
    params_difference: int
    macs_difference: int
    differs: bool


@dataclass(frozen=True)
class LayerChange:
    """One kind of change within stages that both have: ``a`` became ``b``; an empty one was added or removed.

    ``a_output`` and ``b_output`` are the first place's, ``places`` are stages with the number of the block in them;
    the differences are those of all places together.
    """

    a: str
    b: str
    note: str
    a_output: tuple[int, ...]
    b_output: tuple[int, ...]
    places: list[str]
    params_difference: int
    macs_difference: int


@dataclass(frozen=True)
class LayerCount:
    """How many layers of one kind each has."""

    kind: str
    a: int
    b: int


# -- pairs --------------------------------------------------------------------------------------------------


def align(a: Sequence[T], b: Sequence[T], score: Callable[[T, T], float]) -> Iterator[tuple[T | None, T | None]]:
    """Pair two sequences in order so that the sum of ``score`` is largest; 0 keeps two apart. Every item appears once,
    beside ``None`` where it has no partner."""
    scores = [[score(x, y) for y in b] for x in a]
    best = [[0.0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i in reversed(range(len(a))):
        for j in reversed(range(len(b))):
            paired = scores[i][j] + best[i + 1][j + 1] if scores[i][j] else 0.0
            best[i][j] = max(paired, best[i + 1][j], best[i][j + 1])
    i = j = shown_a = shown_b = 0
    while i < len(a) and j < len(b):
        if scores[i][j] and best[i][j] == scores[i][j] + best[i + 1][j + 1]:
            yield from _apart(a[shown_a:i], b[shown_b:j])
            yield a[i], b[j]
            i, j = shown_a, shown_b = i + 1, j + 1
        # Of two ways that are as good, the one that is taken whichever network is named first.
        elif best[i + 1][j] > best[i][j + 1] or (best[i + 1][j] == best[i][j + 1] and repr(a[i]) < repr(b[j])):
            i += 1
        else:
            j += 1
    yield from _apart(a[shown_a:], b[shown_b:])


def _apart(a: Sequence[T], b: Sequence[T]) -> Iterator[tuple[T | None, T | None]]:
    yield from ((x, None) for x in a)
    yield from ((None, y) for y in b)


@dataclass(frozen=True)
class Layer:
    """A convolution or dense layer with its norm and activation, or what stands alone; ``path`` within its block."""

    path: str
    kinds: tuple[str, ...]
    output: tuple[int, ...]
    params: int
    macs: int

    @property
    def main(self) -> str:
        """What it is called when its norm and activation are not."""
        return next((kind for kind in self.kinds if FAMILIES & {*kind.split()}), self.kinds[0])

    @property
    def family(self) -> str:
        """``conv`` of ``depthwise conv 3x3/2``."""
        return next(iter(FAMILIES & {*self.main.split()}), self.main)

    @property
    def cost(self) -> tuple[Any, ...]:
        return self.kinds, self.output, self.params, self.macs


@dataclass(frozen=True)
class Block:
    """A numbered block of a stage, or all of a stage that has none."""

    place: str
    layers: tuple[Layer, ...]

    @property
    def costs(self) -> list[tuple[Any, ...]]:
        return [layer.cost for layer in self.layers]

    @property
    def text(self) -> str:
        """What it is made of."""
        working = [layer.main for layer in self.layers if layer.macs]
        return working[0] if len(self.layers) == 1 and working else f"block of {', '.join(working) or 'no layers'}"


def _same_stage(a: Part, b: Part) -> float:
    if a.name == b.name:
        return 8 + 2 * (a.output == b.output)
    alike = len(a.output) == len(b.output) == 3 and a.output[1:] == b.output[1:]
    return (1 + (bool(a.macs) == bool(b.macs))) if alike else 0


def _same_block(a: Block, b: Block) -> float:
    return 4 if a.costs == b.costs else 1 + (a.layers[-1].output == b.layers[-1].output)


def _same_layer(a: Layer, b: Layer) -> float:
    if a.cost == b.cost:
        return 8
    near = (a.path == b.path) + (a.output == b.output)
    if a.kinds == b.kinds:
        return 4 + near
    if a.family == b.family:
        return 2 + near
    return float(a.path == b.path)


# -- stages, blocks, layers -------------------------------------------------------------------------------------


def compare_stages(a: Description, b: Description) -> tuple[list[StageDifference], list[LayerChange]]:
    blocks_a, blocks_b = blocks_of(a), blocks_of(b)
    stages, found = [], []
    for left, right in align(a.stages, b.stages, _same_stage):
        inside: list[_Change] = []
        if left and right:
            inside = list(_stage_changes(blocks_a.get(left.name, []), blocks_b.get(right.name, [])))
        found += inside
        differs = left is None or right is None or left.output != right.output or bool(inside)
        stages.append(StageDifference(left, right, _minus(right, left, "params"), _minus(right, left, "macs"), differs))
    return stages, _collapse(found)


def _minus(b: Any, a: Any, name: str) -> int:
    return (getattr(b, name) if b else 0) - (getattr(a, name) if a else 0)


def blocks_of(described: Description) -> dict[str, list[Block]]:
    """The blocks of each row of the paper's table by its name."""
    found: dict[str, list[Block]] = {}
    for (stage, number), parts in groupby(described.layers, key=lambda part: _place(part.name)[:2]):
        place = f"{stage}.{number}" if number else stage
        found.setdefault(stage, []).append(Block(place, tuple(_merged(parts))))
    return found


def _place(path: str) -> tuple[str, str, str]:
    """Stage, number of the block (empty where there is none) and the path within, of a layer's path."""
    names = path.split(".")
    names = names[2:] if names[:2] == ["head", "hidden"] else names[1:]
    stage, rest = names[0], names[1:]
    number = rest.pop(0) if rest and rest[0].isdigit() else ""
    return stage, number, ".".join(rest)


def _merged(parts: Iterable[Part]) -> Iterator[Layer]:
    """Layers of a block: a convolution or dense layer with its norm and activation is one, and so is a gate."""
    for key, group in groupby(parts, key=lambda part: _layer_of(part.name)):
        rows = list(group)
        own = [row for row in rows if row.name == key]  # of a gate: the gate itself, among what it is made of
        yield Layer(
            path=_place(key.rstrip("."))[2],
            kinds=tuple(dict.fromkeys(map(_word, own[:1] or rows))),
            output=rows[-1].output,
            params=sum(row.params for row in rows),
            macs=sum(row.macs for row in rows),
        )


def _layer_of(path: str) -> str:
    """What a row is part of: a gate for all that it is made of; a convolution or pooling for itself, its norm and its
    activation, as ``path.`` with a dot, since a block's own addition stands under the block's path."""
    names = path.split(".")
    if "attention" in names[1:]:
        return ".".join(names[: names.index("attention") + 1])
    if "conv" in names[2:-1]:  # what a convolution is made of, where it is more than one module
        return ".".join(names[: names.index("conv", 2)]) + "."
    named = len(names) > 2 and names[-1] in ("conv", "fc", "pool", "norm", "act")
    return ".".join(names[:-1]) + "." if named else path


def _word(row: Part) -> str:
    """The layer in the papers' words: ``conv 3x3/2 in 32 groups``, ``depthwise conv 3x3``, ``linear``."""
    what, _, groups = row.kind.partition(" in ")
    depthwise = groups == f"{row.output[0]} groups"
    words = ["depthwise"] if depthwise else []
    words.append(WORDS.get(what, what.lstrip("_")))
    if row.kernel:
        words.append(row.kernel + (f"/{row.stride}" if row.stride and row.stride > 1 else ""))
    if groups and not depthwise:
        words.append(f"in {groups}")
    return " ".join(words)


@dataclass(frozen=True)
class _Change:
    """At one place, ``a`` became ``b``, or one of them was added or removed: a layer, or a whole block."""

    place: str
    a: Layer | Block | None
    b: Layer | Block | None

    @property
    def key(self) -> tuple[str, str, str]:
        a, b = _kinds(self.a), _kinds(self.b)
        while len(a) > 1 and len(b) > 1 and a[-1] == b[-1]:  # the activation that both end in
            a, b = a[:-1], b[:-1]
        note = _resized(self.a, self.b) if isinstance(self.a, Layer) and isinstance(self.b, Layer) else ""
        return ", ".join(a), ", ".join(b), note

    def difference(self, name: str) -> int:
        return sum(getattr(layer, name) for layer in _inner(self.b)) - sum(
            getattr(layer, name) for layer in _inner(self.a)
        )


def _inner(thing: Layer | Block | None) -> tuple[Layer, ...]:
    return thing.layers if isinstance(thing, Block) else (thing,) if thing else ()


def _kinds(thing: Layer | Block | None) -> tuple[str, ...]:
    return (thing.text,) if isinstance(thing, Block) else thing.kinds if thing else ()


def _resized(a: Layer, b: Layer) -> str:
    """What became larger or smaller: ``2 x the channels``, ``1/2 of the side``; or else what the costs tell."""
    said = []
    if a.output[0] != b.output[0]:
        said.append(_times(b.output[0] / a.output[0], "channels", "fewer channels", "more channels"))
    if len(a.output) == len(b.output) == 3 and a.output[1:] != b.output[1:]:
        said.append(_times(b.output[1] / a.output[1], "side", "a smaller map", "a larger map"))
    if not said and a.kinds == b.kinds:
        bias = {b.output[0]: "with a bias", -b.output[0]: "without its bias"}.get(b.params - a.params)
        said.append("reads other channels" if a.macs != b.macs else bias or "other parameters")
    return ", ".join(said)


def _times(ratio: float, what: str, smaller: str, larger: str) -> str:
    """Whole multiples and parts in numbers; others without, so that they count as one kind of change."""
    if ratio == round(ratio):
        return f"{ratio:.0f} x the {what}"
    if abs(1 / ratio - round(1 / ratio)) < 1e-9:
        return f"1/{1 / ratio:.0f} of the {what}"
    return larger if ratio > 1 else smaller


def _stage_changes(a: list[Block], b: list[Block]) -> Iterator[_Change]:
    for left, right in align(a, b, _same_block):
        if left is None or right is None:
            yield _Change((left or right).place, left, right)  # type: ignore[union-attr]
        elif left.costs != right.costs:
            for x, y in align(left.layers, right.layers, _same_layer):
                if x is None or y is None or x.cost != y.cost:
                    yield _Change(right.place, x, y)


def _collapse(found: list[_Change]) -> list[LayerChange]:
    """One row for each kind of change, in the order of their first places."""
    kinds: dict[tuple[str, str, str], list[_Change]] = {}
    for change in found:
        kinds.setdefault(change.key, []).append(change)
    return [
        LayerChange(
            *key,
            a_output=_inner(same[0].a)[-1].output if same[0].a else (),
            b_output=_inner(same[0].b)[-1].output if same[0].b else (),
            places=[change.place for change in same],
            params_difference=sum(change.difference("params") for change in same),
            macs_difference=sum(change.difference("macs") for change in same),
        )
        for key, same in kinds.items()
    ]


def count_layers(a: Description, b: Description) -> list[LayerCount]:
    """How many layers of each kind either has; a norm or activation beside a convolution is not counted apart."""
    counts = [
        Counter(
            layer.main for blocks in blocks_of(each).values() for block in blocks for layer in block.layers
        )
        for each in (a, b)
    ]  # fmt: skip
    return [LayerCount(kind, counts[0][kind], counts[1][kind]) for kind in counts[0] | counts[1]]
