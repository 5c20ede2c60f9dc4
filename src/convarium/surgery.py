"""Changes to a built or trained network: gates put into it, a dense head made to slide over larger images, the plan."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from convarium.errors import UsageError
from convarium.network import ConvHead, Network, run_on_meta
from convarium.networks import create_on_meta, find_attention
from convarium.plan import plan_between


def insert_attention(
    model: Network,
    attention: str | Callable[..., nn.Module],
    *,
    stages: Sequence[str] | None = None,
    **options: Any,
) -> list[str]:
    """Put gates into a built or trained network, in place, without changing its outputs at the start.

    Every gate goes where ``create_model(..., attention=...)`` would have put it, and starts as the identity; it changes
    the maps once it is trained.

    Args:
        model: the network.
        attention: ``"se"``, ``"spatial"``, ``"hard"``, or ``(channels, **options) -> module``; a module that is not the
            identity as made needs a method ``start_as_identity()``.
        stages: names of the stages that get gates; all when not given.
        options: passed to the attention, such as ``reduction=16``.

    Returns:
        The paths of the new gates.

    Raises:
        UsageError: no such attention or stage, no empty slot there, or a module that changes its input.
    """
    names = list(model.stages) if stages is None else list(stages)
    for name in names:
        if name not in model.stages:
            raise UsageError(f"{model.name} has no stage {name!r}; stages: {', '.join(model.stages)}")
    make = find_attention(attention)
    known = list(inspect.signature(make).parameters)[1:]
    for option in options:
        if option not in known:
            raise UsageError(f"attention {attention!r} takes no {option!r}; it takes: {', '.join(known) or 'nothing'}")
    channels = {path: count for path, count in _empty_slots(model).items() if path.split(".")[1] in names}
    if not channels:
        raise UsageError(f"{model.name} has no empty attention slot in {', '.join(names)}")
    device = next(model.parameters()).device
    gates = {
        path: _as_identity(make(count, **options).to(device), count, attention) for path, count in channels.items()
    }
    for path, gate in gates.items():
        parent, _, own = path.rpartition(".")
        setattr(model.get_submodule(parent), own, gate.train(model.training))
    return list(gates)


def write_plan(model: Network) -> None:
    """Have a changed network say how it differs from the catalogue's of its name (:mod:`convarium.plan`)."""
    arguments = {**model.arguments, "num_classes": model.num_classes, "in_chans": model.input_size[0]}
    model.plan = plan_between(create_on_meta(model.name, **arguments), model)


def _empty_slots(model: Network) -> dict[str, int]:
    """Path of every empty attention slot, and the channels of the map that passes through it."""
    found: dict[str, int] = {}
    slots = [
        (path, module)
        for path, module in model.named_modules()
        if path.rpartition(".")[2] == "attention" and isinstance(module, nn.Identity)
    ]
    hooks = [
        module.register_forward_hook(lambda _m, _x, y, path=path: found.update({path: y.shape[1]}))
        for path, module in slots
    ]
    run_on_meta(model, torch.empty(1, *model.input_size, device="meta"))
    for hook in hooks:
        hook.remove()
    return found


def _as_identity(gate: nn.Module, channels: int, asked: object) -> nn.Module:
    if hasattr(gate, "start_as_identity"):
        gate.start_as_identity()  # type: ignore[operator]
    weight = next(gate.parameters(), torch.empty(0))
    if weight.is_meta:
        return gate
    x = torch.linspace(-1, 1, 2 * channels * 9, device=weight.device).view(2, channels, 3, 3)
    was_training = gate.training
    with torch.no_grad():
        same = torch.allclose(gate.eval()(x), x)
    if not same:
        raise UsageError(
            f"attention {asked!r} changes its input as made, and has no start_as_identity() that would mend it: "
            "build the network with create_model(..., attention=...) and train it"
        )
    return gate.train(was_training)


class AtEveryPlace(nn.Module):
    """A layer for rows of features, at every place of a map: ``(N, C, H, W)`` to ``(N, D, H, W)``."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        rows = self.layer(x.permute(0, 2, 3, 1).flatten(0, 2))
        return rows.view(batch, height, width, -1).permute(0, 3, 1, 2)


def to_fully_convolutional(model: Network) -> Network:
    """The same network with its dense layers as convolutions, so that it takes images larger than the paper's.

    A larger image gives a map of class scores, which are averaged over its places (Simonyan and Zisserman, ICLR 2015,
    Section 3.2). At the paper's size the outputs are the same. A network with global pooling takes any size as it is.

    Args:
        model: any network; it is left as it is, and the result shares its weights.

    Returns:
        A network from ``(N, C, H, W)``, of sides from ``min_input_size`` up, to ``(N, num_classes)``; ``model`` itself
        where it has no dense head.
    """
    head = model.head
    if head.pool.kind != "flatten":
        return model
    window = list(model.stage_shapes().values())[-1][1:]
    hidden = {}
    for name, layer in head.hidden.named_children():
        hidden[name] = _over_maps(layer, window)
        window = (1, 1)

    def classifier(features: int, classes: int) -> nn.Module:
        layer = head.make_classifier(features, classes)
        return _over_maps(layer, (1, 1)) if isinstance(layer, nn.Linear) else AtEveryPlace(layer)

    new_head = ConvHead(
        head.in_features, head.num_classes, hidden=hidden, hidden_size=head.hidden_size, drop_rate=head.drop.p,
        classifier=classifier,
    )  # fmt: skip
    own = head.classifier
    new_head.classifier = _over_maps(own, window) if isinstance(own, nn.Linear | nn.Identity) else AtEveryPlace(own)
    network = Network(
        dict(model.stages.items()), new_head, input_size=model.input_size, min_input_size=model.min_input_size,
        mean=model.mean, std=model.std, interpolation=model.interpolation, crop_pct=model.crop_pct,
        auxiliary=model.auxiliary,
    )  # fmt: skip
    network.name, network.arguments = model.name, model.arguments
    return network.train(model.training)


def _over_maps(layer: nn.Module, window: Sequence[int]) -> nn.Module:
    """``layer`` for maps: its first dense layer reads a ``window`` of the map, the others a place; the weights are
    shared."""
    if isinstance(layer, nn.Sequential):
        layers = nn.Sequential()
        for name, inner in layer.named_children():
            layers.add_module(name, _over_maps(inner, window))
            window = (1, 1) if isinstance(inner, nn.Linear) else window
        return layers
    if not isinstance(layer, nn.Linear):
        return layer  # an activation or a dropout, which works on maps as on rows
    channels = layer.in_features // (window[0] * window[1])
    with torch.device("meta"):
        conv = nn.Conv2d(channels, layer.out_features, (window[0], window[1]), bias=layer.bias is not None)
    conv.weight = nn.Parameter(layer.weight.data.unflatten(1, (channels, *window)))
    conv.bias = layer.bias
    return conv
