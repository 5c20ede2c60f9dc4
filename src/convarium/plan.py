"""A channel plan: how a changed network differs from the catalogue's of its name, as plain data.

A compressed network is the catalogue's network, a plan and weights. A plan has an entry for each module that changed::

    {"stages.conv1.conv": {"out_channels": 24, "weight": [24, 3, 7, 7]},   # attributes, and shapes of its own tensors
     "stages.conv5_x.2.attention": None,                                  # removed: the identity stands there
     "head.hidden.fc6": {"rank": 128}}                                    # a dense layer as two of that rank
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from convarium.errors import DataError
from convarium.network import Network, run_on_meta

Plan = dict[str, dict[str, Any] | None]


class LowRank(nn.Sequential):
    """A dense layer as two without anything between: ``(N, in)`` to ``(N, rank)`` to ``(N, out)``."""

    def __init__(self, in_features: int, out_features: int, rank: int, *, bias: bool = True) -> None:
        super().__init__(nn.Linear(in_features, rank, bias=False), nn.Linear(rank, out_features, bias=bias))


# Numbers of a layer or a head that count its channels.
WIDTHS = {
    *("in_channels", "out_channels", "groups", "in_features", "out_features", "num_features", "hidden_size"),
}


def apply_plan(model: Network, plan: Mapping[str, dict[str, Any] | None]) -> None:
    """Give ``model``, in place, the modules and tensors that a plan says, and the plan; new tensors are zeros.

    ``model`` is as ``create_model`` made it. A plan makes nothing larger than it was.

    Raises:
        DataError: no plan, one that names what the network does not have or makes something of another kind or larger
            of it, or one whose layers do not fit together.
    """
    if not isinstance(plan, Mapping):
        raise DataError(f"a plan says by the path of a module what becomes of it; got {plan!r}")
    for path, entry in plan.items():
        parent, _, name = path.rpartition(".")
        try:
            module = model.get_submodule(path)
        except AttributeError:
            raise DataError(f"the plan changes {path}, which this network does not have") from None
        if not path or not isinstance(entry, Mapping | None):
            raise DataError(f"the plan makes {entry!r} of {path or 'the network'}: it names what changes in a module")
        if entry is None:
            setattr(model.get_submodule(parent), name, nn.Identity())
        elif "rank" in entry:
            setattr(model.get_submodule(parent), name, _low_rank(module, path, entry))
        else:
            _change(module, path, entry)
    model.plan = dict(plan)
    if plan:
        _check(model)


def _low_rank(module: nn.Module, path: str, entry: Mapping[str, Any]) -> LowRank:
    sizes: list[Any] = [entry.get(key) for key in ("in_features", "out_features", "rank")]
    if not isinstance(module, nn.Linear) or entry.keys() != {"in_features", "out_features", "rank", "bias"}:
        raise DataError(f"the plan makes {dict(entry)} of {path}: of a dense layer, two with in_features, rank, ...")
    limits = (module.in_features, module.out_features, min(module.in_features, module.out_features))
    _check_sizes(path, sizes, limits, least=1)
    with module.weight.device:
        return LowRank(*sizes, bias=bool(entry["bias"])).to(module.weight.dtype).train(module.training)


def _change(module: nn.Module, path: str, entry: Mapping[str, Any]) -> None:
    tensors = _tensors(module)
    for name, value in entry.items():
        whole = f"{path}.{name}"
        if name in WIDTHS and isinstance(vars(module).get(name), int):
            _check_sizes(whole, [value], [getattr(module, name)], least=1)
            setattr(module, name, value)
            continue
        old = tensors.get(name)
        if old is None and name == "bias" and "bias" in module._parameters and "weight" in tensors:  # that folding made
            old = tensors["weight"].flatten(1)[:, 0]
        if old is None:
            raise DataError(f"the plan changes {whole}, which this network does not have")
        if not isinstance(value, list):
            raise DataError(f"the plan makes {value!r} of {whole}: a tensor has a shape, such as {list(old.shape)}")
        _check_sizes(whole, value, old.shape)
        tensor = torch.zeros(value, dtype=old.dtype, device=old.device)
        setattr(module, name, tensor if name in module._buffers else nn.Parameter(tensor, old.requires_grad))


def _check_sizes(path: str, sizes: Sequence[Any], limits: Sequence[int], least: int = 0) -> None:
    fit = len(sizes) == len(limits) and all(type(size) is int for size in sizes)
    if not fit or not all(least <= size <= limit for size, limit in zip(sizes, limits, strict=True)):
        raise DataError(f"the plan makes {[*sizes]} of {path}: sizes from {least} to {[*limits]} can be")


def _check(model: Network) -> None:
    """One run without arithmetic: layers that do not fit together are the plan's fault."""
    try:
        out = run_on_meta(model, torch.empty(1, *model.input_size, device="meta"))
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError, ZeroDivisionError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"the layers of {model.name} do not fit together after this plan: {reason}") from None
    if model.num_classes and out.shape[1:] != (model.num_classes,):
        raise DataError(f"{model.name} gives {tuple(out.shape[1:])} for {model.num_classes} classes after this plan")


def plan_between(before: nn.Module, after: nn.Module) -> Plan:
    """The plan that makes ``before`` into ``after``, two forms of one network."""
    plan: Plan = {}
    theirs = dict(after.named_modules())
    for path, module in before.named_modules():
        if any(path == done or path.startswith(f"{done}.") for done, entry in plan.items() if _replaced(entry)):
            continue
        other = theirs[path]
        if isinstance(other, LowRank) and not isinstance(module, LowRank):
            first, last = other
            plan[path] = {
                "rank": first.out_features, "in_features": first.in_features,
                "out_features": last.out_features, "bias": last.bias is not None,
            }  # fmt: skip
        elif type(other) is nn.Identity and type(module) is not nn.Identity:
            plan[path] = None
        elif entry := _entry(module, other):
            plan[path] = entry
    return plan


def _replaced(entry: dict[str, Any] | None) -> bool:
    return entry is None or "rank" in entry


def _entry(before: nn.Module, after: nn.Module) -> dict[str, Any]:
    """Widths and shapes of a module's own that differ."""
    numbers = {name: value for name, value in vars(after).items() if name in WIDTHS and vars(before)[name] != value}
    old, new = _tensors(before), _tensors(after)
    return numbers | {name: list(t.shape) for name, t in new.items() if name not in old or old[name].shape != t.shape}


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    own = {**module._parameters, **module._buffers}
    return {name: tensor for name, tensor in own.items() if tensor is not None}
