"""A channel plan: how a changed network differs from the catalogue's of its name, as plain data.

A compressed network is the catalogue's network, a plan and weights. A plan has an entry for each module that changed::

    {"stages.conv1.conv": {"out_channels": 24, "weight": [24, 3, 7, 7]},   # attributes, and shapes of its own tensors
     "stages.conv5_x.2.attention": None,                                  # removed: the identity stands there
     "head.hidden.fc6": {"rank": 128}}                                    # a dense layer as two of that rank
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from convarium.errors import DataError
from convarium.network import Network

Plan = dict[str, dict[str, Any] | None]


class LowRank(nn.Sequential):
    """A dense layer as two without anything between: ``(N, in)`` to ``(N, rank)`` to ``(N, out)``."""

    def __init__(self, in_features: int, out_features: int, rank: int, *, bias: bool = True) -> None:
        super().__init__(nn.Linear(in_features, rank, bias=False), nn.Linear(rank, out_features, bias=bias))


def apply_plan(model: Network, plan: Mapping[str, dict[str, Any] | None]) -> None:
    """Give ``model``, in place, the modules and tensors that a plan says, and the plan; new tensors are zeros.

    ``model`` is as ``create_model`` made it.

    Raises:
        DataError: the plan names what the network does not have.
    """
    for path, entry in plan.items():
        parent, _, name = path.rpartition(".")
        try:
            module = model.get_submodule(path)
        except AttributeError:
            raise DataError(f"the plan changes {path}, which this network does not have") from None
        if entry is None:
            setattr(model.get_submodule(parent), name, nn.Identity())
        elif "rank" in entry:
            new = LowRank(entry["in_features"], entry["out_features"], entry["rank"], bias=entry["bias"])
            setattr(model.get_submodule(parent), name, new.train(module.training))
        else:
            _change(module, path, entry)
    model.plan = dict(plan)


def _change(module: nn.Module, path: str, entry: Mapping[str, Any]) -> None:
    for name, value in entry.items():
        if not isinstance(value, list):
            if not hasattr(module, name):
                raise DataError(f"the plan changes {path}.{name}, which this network does not have")
            setattr(module, name, value)
            continue
        old = module._parameters.get(name, module._buffers.get(name))
        like = old if old is not None else next(module.parameters())  # a bias that folding made
        tensor = torch.zeros(value, dtype=like.dtype, device=like.device)
        if name in module._buffers:
            module._buffers[name] = tensor
        elif name in module._parameters:
            module._parameters[name] = nn.Parameter(tensor, requires_grad=like.requires_grad)
        else:
            raise DataError(f"the plan changes {path}.{name}, which this network does not have")


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
    """Whole numbers and shapes of a module's own that differ."""
    numbers = {
        name: value
        for name, value in vars(after).items()
        if isinstance(value, int) and not name.startswith("_") and name != "training" and vars(before)[name] != value
    }
    old, new = _tensors(before), _tensors(after)
    return numbers | {name: list(t.shape) for name, t in new.items() if name not in old or old[name].shape != t.shape}


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    own = {**module._parameters, **module._buffers}
    return {name: tensor for name, tensor in own.items() if tensor is not None}
