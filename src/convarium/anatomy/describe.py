"""``describe``: what a network costs, stage by stage and layer by layer, beside what its paper printed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convarium.errors import UsageError
from convarium.facts import Published, find_facts
from convarium.networks import departures

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from convarium.anatomy.trace import Fields, Row
    from convarium.network import Network

    Model = str | Network
else:
    Model = str  # what the command line passes

WHOLE_IMAGE = None


@dataclass(frozen=True)
class Part:
    """One stage or layer.

    ``kernel`` lists the windows of its convolutions and poolings, such as ``"1x1, 3x3"``, and ``stride`` is what a step
    in its map is in steps of the map before it. A unit of its map sees ``receptive_field_px`` pixels, neighbours begin
    ``jump_px`` apart, and the first unit begins at pixel ``offset_px`` (in the padding where it is negative), along the
    side that sees more; all four are ``None`` where a unit sees the whole image.
    """

    name: str
    kind: str
    output: tuple[int, ...]
    kernel: str
    stride: int | None
    params: int
    macs: int
    activations: int
    receptive_field_px: int | None
    jump_px: int | None
    offset_px: int | None


@dataclass(frozen=True)
class Description:
    """What a network is made of at one input size.

    ``params`` counts trainable parameters, ``dense_params`` those of them in dense layers, ``macs`` multiply-adds of
    convolutions and matrix products for one image, ``activations`` the outputs of those (the definition of Radosavovic
    et al., CVPR 2020); ``peak_activations`` is the most numbers that are alive at once in a forward pass, skips and
    branches included, operations element by element working in place; ``size_mib`` the parameters and buffers as
    stored; ``auxiliary_params`` those of heads that only training has. ``published`` is empty for another input or
    other arguments than the paper's; ``departs_from_paper`` says where this network does, ``departures`` how well-known
    implementations of it do; ``not_counted`` names the operations that no rule covers.
    """

    name: str
    input_size: tuple[int, int, int]
    stages: list[Part]
    layers: list[Part]
    params: int
    dense_params: int
    macs: int
    activations: int
    peak_activations: int
    size_mib: float
    auxiliary_params: int
    receptive_field_px: int | None
    published: list[Published]
    departs_from_paper: list[str]
    departures: list[str]
    not_counted: dict[str, int]
    print_layers: bool = False

    def as_dict(self) -> dict[str, Any]:
        kept = asdict(self)
        del kept["print_layers"]
        return kept

    def render(self) -> RenderableType:
        """The paper's table, the totals, what was published, and where this network and others depart from it."""
        from rich.console import Group

        shown: list[RenderableType] = [_parts_table(self), "", *_totals(self)]
        if self.published:
            shown += ["", _published_table(self)]
        for title, lines in (
            ("Departs from the paper:", self.departs_from_paper),
            ("Known implementations that differ:", self.departures),
        ):
            if lines:
                shown += ["", title, *(f"- {line}" for line in lines)]
        return Group(*shown)


def describe(
    model: Model,
    /,
    *,
    input_size: int | tuple[int, ...] | None = None,
    num_classes: int | None = None,
    attention: str | None = None,
    layers: bool = False,
    svg: Path | None = None,
) -> Description:
    """Describe a network: shapes, parameters, MACs, activations, receptive fields, and the published figures.

    Nothing is computed and no weights are allocated when a name is given: the network is built on the meta device.

    Args:
        model: a catalogue name, or a network.
        input_size: the image's side, (height, width) or (channels, height, width); the paper's when not given.
        num_classes: outputs of the named network; the paper's when not given.
        attention: se, spatial, hard or scale, in the named network.
        layers: print a row per layer instead of a row per stage.
        svg: draw the network into this file: its stages, and one module of each kind with its branches.

    Raises:
        UsageError: no such network or attention, or an image too small for it.
        ConvariumError: the file cannot be written.
    """
    from convarium.anatomy.trace import trace

    if isinstance(model, str):
        model = _build(model, input_size, num_classes=num_classes, attention=attention)
    size = _full_size(input_size, model.input_size)
    traced = trace(model, size)
    params = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    stages = [_gather(name, prefix, traced.rows, params) for name, prefix in _parts(model)]
    stages = [replace(part, stride=_stride(part, before)) for part, before in zip(stages, [None, *stages])]  # noqa: B905
    if svg is not None:
        from convarium.anatomy.drawing import draw
        from convarium.atomic import write_text

        write_text(svg, draw(model, size))
    stored = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    facts = find_facts(model.name)
    as_published = facts is not None and size == facts.input and not model.arguments
    last = stages[len(model.stages) - 1]
    return Description(
        name=model.name,
        input_size=size,
        stages=stages,
        layers=_layers(traced.rows, params),
        params=sum(params.values()),
        dense_params=_dense_params(model),
        macs=sum(row.macs for row in traced.rows),
        activations=sum(row.activations for row in traced.rows),
        peak_activations=traced.peak(),
        size_mib=round(stored / 2**20, 2),
        auxiliary_params=_auxiliary_params(model),
        receptive_field_px=last.receptive_field_px,
        published=list(facts.published) if facts and as_published else [],
        departs_from_paper=departures(model.name) if facts else [],
        departures=list(facts.departures) if facts else [],
        not_counted=dict(traced.not_counted),
        print_layers=layers,
    )


def _build(name: str, input_size: int | Sequence[int] | None, **arguments: Any) -> Network:
    from convarium.networks import create_on_meta

    own = create_on_meta(name, **arguments)
    channels = _full_size(input_size, own.input_size)[0]
    return own if channels == own.input_size[0] else create_on_meta(name, in_chans=channels, **arguments)


def _dense_params(model: Network) -> int:
    from torch import nn

    dense = [module for module in model.modules() if isinstance(module, nn.Linear)]
    return sum(p.numel() for module in dense for p in module.parameters() if p.requires_grad)


def _auxiliary_params(model: Network) -> int:
    import torch

    if model.auxiliary is None:
        return 0
    with torch.device("meta"):
        heads = model.auxiliary.heads(model.num_classes, model.stage_shapes())
    return sum(p.numel() for head in heads.values() for p in head.parameters())


def _full_size(asked: int | Sequence[int] | None, own: tuple[int, int, int]) -> tuple[int, int, int]:
    if asked is None:
        return own
    sizes = (asked, asked) if isinstance(asked, int) else tuple(asked)
    if len(sizes) not in (2, 3) or not all(isinstance(side, int) and 1 <= side <= 65_536 for side in sizes):
        raise UsageError(f"input size must be a side, (height, width) or (channels, height, width); got {asked}")
    return (own[0], *sizes) if len(sizes) == 2 else (sizes[0], sizes[1], sizes[2])


def _parts(model: Network) -> list[tuple[str, str]]:
    """Name and module path of each row of the paper's table: the stages, then the head's parts."""
    stages = [(name, f"stages.{name}") for name in model.stages]
    return [*stages, *((part.rpartition(".")[2], f"head.{part}") for part in model.head.parts())]


def _layers(rows: list[Row], params: dict[str, int]) -> list[Part]:
    own: Counter[str] = Counter()
    for name, count in params.items():
        own[name.rpartition(".")[0]] += count
    # A module that works before and after its children has two rows; its parameters stand in the first.
    return [
        Part(
            name=row.path,
            kind=row.what + (f" in {row.groups} groups" if row.groups > 1 else ""),
            output=row.shape,
            kernel=_kernels([row]),
            stride=row.stride if row.kernel else None,
            params=own.pop(row.path, 0),
            macs=row.macs,
            activations=row.activations,
            **_reach(row.fields),
        )
        for row in rows
    ]


def _gather(name: str, prefix: str, rows: list[Row], params: dict[str, int]) -> Part:
    inside = [row for row in rows if _within(row.path, prefix)]
    last = inside[-1] if inside else None
    return Part(
        name=name,
        kind=_contents(inside),
        output=last.shape if last else (),
        kernel=_kernels(inside),
        stride=None,
        params=sum(count for path, count in params.items() if _within(path, prefix)),
        macs=sum(row.macs for row in inside),
        activations=sum(row.activations for row in inside),
        **_reach(last.fields if last else None),
    )


def _contents(rows: list[Row]) -> str:
    """What a stage is made of: ``10 conv``, ``9 conv, 1 max pool``, or the one layer's name."""
    if len(rows) == 1:
        return rows[0].what
    layers = Counter(row.what for row in rows if row.kernel or row.macs)
    if sum(layers.values()) == 1:
        return next(iter(layers))
    return ", ".join(f"{count} {what}" for what, count in layers.items())


def _kernels(rows: list[Row]) -> str:
    from convarium.anatomy.trace import window_text

    return ", ".join(dict.fromkeys(window_text(row.kernel) for row in rows if row.kernel))


def _stride(part: Part, before: Part | None) -> int | None:
    jump = before.jump_px if before else 1
    return part.jump_px // jump if part.jump_px and jump else None


def _within(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(prefix + ".")


def _reach(fields: Fields) -> dict[str, int | None]:
    """Size, jump and offset along the axis that sees more."""
    if fields is None:
        return dict(receptive_field_px=WHOLE_IMAGE, jump_px=WHOLE_IMAGE, offset_px=WHOLE_IMAGE)
    widest = max(fields, key=lambda field: field.size)
    return dict(receptive_field_px=widest.size, jump_px=widest.jump, offset_px=widest.at(0)[0])


# -- for people ---------------------------------------------------------------------------------------------------


def _parts_table(described: Description) -> Table:
    from convarium.console import table

    layers = described.print_layers
    rows = table(
        *("layer" if layers else "stage", "kind", ">output", ">kernel", ">stride", ">params", ">MACs", ">activations"),
        *(">sees px", ">jump", ">from") if layers else (">sees px",),
        title=f"{described.name} on {'x'.join(map(str, described.input_size))}",
    )
    for part in described.layers if layers else described.stages:
        output = "x".join(map(str, part.output))
        sees = "all" if part.receptive_field_px is None else str(part.receptive_field_px)
        stride, jump, offset = ("" if x is None else str(x) for x in (part.stride, part.jump_px, part.offset_px))
        counts = [f"{count:,}" for count in (part.params, part.macs, part.activations)]
        last = (sees, jump, offset) if layers else (sees,)
        rows.add_row(part.name, part.kind, output, part.kernel, stride, *counts, *last)
    return rows


def _totals(described: Description) -> list[str]:
    """A line each: what it holds, what it calculates, what it sees."""
    dense = 100 * described.dense_params / max(1, described.params)
    field = f"{described.receptive_field_px} px" if described.receptive_field_px else "the whole image"
    peak = described.peak_activations
    lines = [
        f"{described.params:,} parameters, {described.size_mib} MiB stored; {dense:.1f} % of them in dense layers",
        f"{described.macs:,} MACs, {described.activations:,} activations; at most {peak:,} alive at once "
        f"({peak * 4 / 2**20:.2f} MiB in float32)",
        f"a unit of the last map sees {field}",
    ]
    if described.auxiliary_params:
        lines.append(f"{described.auxiliary_params:,} more parameters in auxiliary heads, in training only")
    if described.not_counted:
        names = ", ".join(f"{name} ({times}x)" for name, times in described.not_counted.items())
        lines.append(f"not counted: {names}")
    return lines


def _published_table(described: Description) -> Table:
    from convarium.console import percent, table

    ours = {"params": described.params, "macs": described.macs}
    rows = table("published", ">value", ">ours", "where", "protocol, note")
    for fact in described.published:
        value = fact.printed or (percent(fact.value) if fact.unit == "%" else f"{fact.value:,.0f}")
        own = f"{ours[fact.quantity]:,}" if fact.quantity in ours else ""
        rows.add_row(fact.quantity, value, own, fact.where, "; ".join(filter(None, (fact.protocol, fact.note))))
    return rows
