"""``describe``: what a network costs, stage by stage and layer by layer, beside what its paper printed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from convarium.errors import UsageError
from convarium.facts import Published, find_facts

if TYPE_CHECKING:
    from rich.console import RenderableType

    from convarium.anatomy.trace import Fields, Row
    from convarium.network import Network

    Model = str | Network
else:
    Model = str  # what the command line passes

WHOLE_IMAGE = None


@dataclass(frozen=True)
class Part:
    """One stage or layer. ``receptive_field_px`` and ``jump_px`` are ``None`` where a unit sees the whole image."""

    name: str
    kind: str
    output: tuple[int, ...]
    params: int
    macs: int
    activations: int
    receptive_field_px: int | None
    jump_px: int | None


@dataclass(frozen=True)
class Description:
    """What a network is made of at one input size.

    ``params`` counts trainable parameters, ``macs`` multiply-adds of convolutions and matrix products for one image,
    ``activations`` the outputs of those (the definition of Radosavovic et al., CVPR 2020), ``size_mib`` the parameters
    and buffers as stored; ``auxiliary_params`` are those of heads that only training has; ``published`` is empty for
    another input or other arguments than the paper's; ``not_counted`` names the operations that no rule covers.
    """

    name: str
    input_size: tuple[int, int, int]
    stages: list[Part]
    layers: list[Part]
    params: int
    macs: int
    activations: int
    size_mib: float
    auxiliary_params: int
    receptive_field_px: int | None
    published: list[Published]
    departures: list[str]
    not_counted: dict[str, int]
    print_layers: bool = False

    def as_dict(self) -> dict[str, Any]:
        kept = asdict(self)
        del kept["print_layers"]
        return kept

    def render(self) -> RenderableType:
        from convarium.console import description_tables

        return description_tables(self)


def describe(model: Model, /, *, input_size: int | tuple[int, ...] | None = None, layers: bool = False) -> Description:
    """Describe a network: shapes, parameters, MACs, activations, receptive fields, and the published figures.

    Nothing is computed and no weights are allocated when a name is given: the network is built on the meta device.

    Args:
        model: a catalogue name, or a network.
        input_size: the image's side, (height, width) or (channels, height, width); the paper's when not given.
        layers: print a row per layer instead of a row per stage.

    Raises:
        UsageError: no such network, or an image too small for it.
    """
    from convarium.anatomy.trace import trace
    from convarium.networks import create_on_meta

    if isinstance(model, str):
        own = create_on_meta(model)
        channels = _full_size(input_size, own.input_size)[0]
        model = own if channels == own.input_size[0] else create_on_meta(model, in_chans=channels)
    size = _full_size(input_size, model.input_size)
    traced = trace(model, size)
    params = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    stages = [_gather(name, prefix, traced.rows, params) for name, prefix in _parts(model)]
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
        macs=sum(row.macs for row in traced.rows),
        activations=sum(row.activations for row in traced.rows),
        size_mib=round(stored / 2**20, 2),
        auxiliary_params=_auxiliary_params(model),
        receptive_field_px=last.receptive_field_px,
        published=list(facts.published) if facts and as_published else [],
        departures=list(facts.departures) if facts else [],
        not_counted=dict(traced.not_counted),
        print_layers=layers,
    )


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
        Part(row.path, row.kind, row.shape, own.pop(row.path, 0), row.macs, row.activations, *_reach(row.fields))
        for row in rows
    ]


def _gather(name: str, prefix: str, rows: list[Row], params: dict[str, int]) -> Part:
    inside = [row for row in rows if _within(row.path, prefix)]
    last = inside[-1] if inside else None
    return Part(
        name=name,
        kind=inside[0].kind if len(inside) == 1 else "",
        output=last.shape if last else (),
        params=sum(count for path, count in params.items() if _within(path, prefix)),
        macs=sum(row.macs for row in inside),
        activations=sum(row.activations for row in inside),
        receptive_field_px=_reach(last.fields)[0] if last else WHOLE_IMAGE,
        jump_px=_reach(last.fields)[1] if last else WHOLE_IMAGE,
    )


def _within(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(prefix + ".")


def _reach(fields: Fields) -> tuple[int | None, int | None]:
    """Size and jump along the axis that sees more."""
    if fields is None:
        return WHOLE_IMAGE, WHOLE_IMAGE
    widest = max(fields, key=lambda field: field.size)
    return widest.size, widest.jump
