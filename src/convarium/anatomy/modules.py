"""The modules that a network is made of: one of each kind, and where it stands.

Modules of equal structure, whatever their widths, are one kind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import Any

import torch
from torch import nn

from convarium.anatomy.graph import Node, Parallel, Run, Series, is_chain, nodes_in, run, series_of
from convarium.network import Network, Shape

# So many equal parts are drawn once: ways side by side and modules inside a module; boxes in turn.
SEVERAL, MANY = 3, 5


@dataclass(frozen=True)
class Place:
    """Modules of one kind and the same ``widths`` in a stage: their positions in it, from 1, of so many."""

    stage: str
    positions: tuple[int, ...]
    of: int
    widths: str


@dataclass(eq=False)
class Kind:
    """Modules of one structure: the series of the first of them, from a map of one shape to another, and where all of
    them stand."""

    number: int
    series: Series
    input: Shape
    output: Shape
    places: list[Place] = field(default_factory=list)
    inside: str = ""  # of modules found inside others: what they are
    within: list[int] = field(default_factory=list)  # the kinds that have such modules inside


@dataclass
class Stage:
    """A stage or a part of the head: a short one as ``series``, others as ``modules``, kinds in turn."""

    name: str
    output: Shape
    params: int
    macs: int
    series: list[Node]
    modules: list[Kind]


# -- kinds ------------------------------------------------------------------------------------------------------------


def structure(series: Series, *, widths: bool = False) -> Any:
    """What is equal for two series of one structure (and, with ``widths``, of the same widths)."""
    return tuple(_item_structure(item, widths) for item in series)


def _item_structure(item: Node | Parallel, widths: bool) -> Any:
    if isinstance(item, Parallel):
        return ("ways", *sorted((structure(way, widths=widths) for way in item.ways), key=repr))
    grouped = [x for x in item.extra if widths or not x.startswith("to ")]
    own = item.text, *grouped, item.kind, item.times, *item.before, "then", *item.after
    return (item.sort, *own, item.width if widths else None)


def widths_of(series: Series) -> str:
    """The channels that convolutions and dense layers give, a way after the other: ``64; 96, 128; 16, 32; 32``."""
    texts: list[str] = []
    for item in series:
        if isinstance(item, Parallel):
            texts.append("; ".join(filter(None, map(widths_of, item.ways))))
        elif item.width is not None and item.sort in ("conv", "fc") and "depthwise" not in item.text:
            texts.append(str(item.width))
    texts = [text for text in texts if text]
    return ", ".join(texts if len(texts) == 1 else [f"({text})" if ";" in text else text for text in texts])


class _Kinds:
    def __init__(self) -> None:
        self.found: dict[Any, Kind] = {}

    def of(self, series: Series, before: Shape, after: Shape) -> Kind:
        """The kind of a module; modules that stand in it three times or more are kinds of their own."""
        key = structure(series)
        if key not in self.found:
            kind = self.found[key] = Kind(len(self.found) + 1, series, before, after)
            kind.series = _folded(self._with_inner_kinds(series))
            inner = dict.fromkeys(node.kind for node in nodes_in(kind.series) if node.kind)
            for other in self.found.values():
                other.within += [kind.number] if other.number in inner else []
        return self.found[key]

    def _with_inner_kinds(self, series: Series) -> Series:
        often = {key for key, count in Counter(_joined_pairs(series)).items() if count >= SEVERAL}
        return self._replaced(series, often) if often else series

    def _replaced(self, series: Series, often: set[Any]) -> Series:
        made: Series = []
        for item in series:
            if made and isinstance(made[-1], Parallel) and isinstance(item, Node):
                pair: Series = [made[-1], item]
                if structure(pair) in often:
                    made[-1] = self._inner(pair)
                    continue
                made[-1] = Parallel([self._replaced(way, often) for way in made[-1].ways])
            made.append(item)
        if made and isinstance(made[-1], Parallel):
            made[-1] = Parallel([self._replaced(way, often) for way in made[-1].ways])
        return made

    def _inner(self, pair: Series) -> Node:
        own = list(nodes_in(pair))
        before = next((x.output for node in own for x in node.inputs if x not in own), ())
        is_new = structure(pair) not in self.found
        kind = self.of(pair, before, own[-1].output)
        if is_new:
            kind.inside = own[-1].owner
        return Node("module", own[-1].owner, own[-1].output[0], kind=kind.number, output=own[-1].output)


def _joined_pairs(series: Series) -> Iterator[Any]:
    """Of every set of ways and what joins them, the structure."""
    for item, after in pairwise([*series, None]):
        if isinstance(item, Parallel):
            if isinstance(after, Node):
                yield structure([item, after])
            for way in item.ways:
                yield from _joined_pairs(way)


def _folded(series: Series) -> Series:
    """Many equal boxes in turn as one with their number; of modules drawn by themselves, two."""
    made: Series = []
    for _, together in groupby(series, key=lambda item: _item_structure(item, True)):
        items = list(together)
        first = items[0]
        if isinstance(first, Parallel):
            made += [Parallel([_folded(way) for way in item.ways]) for item in items if isinstance(item, Parallel)]
        elif len(items) >= (2 if first.sort == "module" else MANY):
            first.times = len(items)
            made.append(first)
        else:
            made += items
    return made


# -- a whole network --------------------------------------------------------------------------------------------------


def anatomy(model: Network, input_size: Shape) -> tuple[list[Stage], list[Kind]]:
    """The stages of a network and the parts of its head, and the kinds of modules that they are made of.

    Modules that are built alike and get maps of the same shape are run once.

    Raises:
        UsageError: an image too small for the network.
    """
    model._check_input(torch.empty(1, *input_size, device="meta"))
    kinds, runs, stages, shape = _Kinds(), {}, [], tuple(input_size)
    for name, module in model.stages.items():
        ran = []
        for part in _modules_in_turn(module):
            key = (_built(part), shape)
            if key not in runs:
                done = run(part, shape)
                runs[key] = done, series_of(done)
            ran.append(runs[key])
            shape = ran[-1][0].output
        stages.append(_stage(name, module, ran, kinds))
    return [*stages, *_head(model, shape, kinds)], list(kinds.found.values())


def _modules_in_turn(stage: nn.Module) -> list[nn.Module]:
    """The modules of a stage that is a numbered chain; norms and activations alone go with the module after them."""
    children = list(stage.named_children())
    if type(stage) is not nn.Sequential or not children or not all(name.isdigit() for name, _ in children):
        return [stage]
    made: list[list[nn.Module]] = []
    alone: list[nn.Module] = []
    for _, module in children:
        alone.append(module)
        if any(p.ndim > 1 for p in module.parameters()):
            made.append(alone)
            alone = []
    if not made:
        return [stage]
    made[-1] += alone
    return [group[0] if len(group) == 1 else nn.Sequential(*group) for group in made]


def _built(module: nn.Module) -> Any:
    """Equal for modules that are built alike: of the same classes, attributes and shapes of weights."""
    plain = _PLAIN.keys()
    own = tuple((key, repr(value)) for key, value in vars(module).items() if key not in plain)
    weights = tuple((key, None if p is None else p.shape) for key, p in module._parameters.items())
    return type(module), own, weights, tuple((name, _built(child)) for name, child in module.named_children())


_PLAIN = vars(nn.Module())


def _stage(name: str, module: nn.Module, ran: list[tuple[Run, Series]], kinds: _Kinds) -> Stage:
    if all(is_chain(series) for _, series in ran):
        ran = [_in_turn(ran)]
    params = sum(p.numel() for p in module.parameters() if p.requires_grad)
    macs = sum(sum(done.macs.values()) for done, _ in ran)
    stage = Stage(name, ran[-1][0].output, params, macs, [], [])
    if len(ran) == 1 and _is_short(ran[0][1]):
        stage.series = list(nodes_in(ran[0][1]))
        return stage
    found: dict[tuple[Kind, str], list[int]] = {}
    for i, (done, series) in enumerate(ran, start=1):
        widths = widths_of(series)
        stage.modules.append(kinds.of(series, done.input, done.output))
        found.setdefault((stage.modules[-1], widths), []).append(i)
    for (kind, widths), positions in found.items():
        kind.places.append(Place(name, tuple(positions), len(ran), widths))
    return stage


def _in_turn(ran: list[tuple[Run, Series]]) -> tuple[Run, Series]:
    """Chains that follow one another as one."""
    macs: Counter[str] = Counter()
    for done, _ in ran:
        macs.update(done.macs)
    last = ran[-1][0]
    return Run([], ran[0][0].input, last.output, last.result, macs), [node for _, series in ran for node in series]


def _is_short(series: Series) -> bool:
    """One layer, with what follows it: said in words."""
    return is_chain(series) and sum(node.sort in ("conv", "fc", "pool") for node in nodes_in(series)) <= 1


def _head(model: Network, shape: Shape, kinds: _Kinds) -> list[Stage]:
    done, stages = run(model.head, shape), []
    for path in model.head.parts():
        own = [op for op in done.operations if f"{op.path}.".startswith(f"{path}.")]
        if not own:
            continue
        output, result = tuple(own[-1].results[0].shape[1:]), own[-1].results[0]
        macs = {at: count for at, count in done.macs.items() if f"{at}.".startswith(f"{path}.")}
        part = Run(own, shape, output, result, macs)
        stage = _stage(path.rpartition(".")[2], model.head.get_submodule(path), [(part, series_of(part))], kinds)
        stages.append(stage)
        shape = output
    return stages
