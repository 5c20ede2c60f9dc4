"""Groups of channels that can be cut out of a network, and the cutting.

A group is what a convolution or a dense layer makes, with all that must go along: the norm after it, the layers that
read it, every layer of a residual stage. Its units are what can go one by one: a channel; the pieces of a maxout; one
channel of each group of a grouped convolution.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from convarium.compression.channels import FIXED, Channels, follow_channels
from convarium.errors import UsageError
from convarium.network import Network
from convarium.networks.lenet import TableConvolution
from convarium.surgery import write_plan

NO_UNIT = -1
NUMBERS = -1  # in the place of a dimension: a tensor's own numbers say which channels it selects


@dataclass(frozen=True)
class Member:
    """A dimension of a tensor along which a group's units lie.

    Attributes:
        tensor: name of the parameter or buffer, or of a head's number that counts channels (``head.in_features``).
        dim: the dimension; :data:`NUMBERS` where the tensor is a list of the group's channels by number.
        units: ``(size,)``, the unit that each index along it belongs to; :data:`NO_UNIT` where to none of this group.
    """

    tensor: str
    dim: int
    units: np.ndarray

    @property
    def made(self) -> bool:
        """Whether the units are what the tensor makes, not what it reads."""
        return self.dim == 0


@dataclass(frozen=True, eq=False)
class Group:
    """Channels of one width. Each group found is its own, and the key to what is said of it.

    Attributes:
        name: path of the layer that makes them, the first to work where several do.
        size: how many units.
        members: every dimension of every tensor that they lie along, in no order.
    """

    name: str
    size: int
    members: tuple[Member, ...]

    @property
    def stage(self) -> str:
        """The stage that makes them, or ``head``."""
        return self.name.split(".")[1] if self.name.startswith("stages.") else "head"

    def __repr__(self) -> str:
        return f"Group({self.name}, {self.size} units)"


Kept = Mapping[Group, Sequence[int]]  # the units that stay; a group that is not there stays whole


def find_groups(model: Network, input_size: Sequence[int] | None = None) -> list[Group]:
    """All channels of a network that can be cut, in the order in which they are made.

    Args:
        model: in any state, pruned before or not, on any device, the meta device too.
        input_size: ``(C, H, W)`` of an image it takes; its own when not given.
    """
    channels = follow_channels(model, input_size)
    count = 1 + max(int(labels.max(initial=FIXED)) for labels in channels.axes.values())
    group_of, unit_of = np.full(count + 1, NO_UNIT), np.full(count + 1, NO_UNIT)  # by label; the last is for NONE
    sizes: dict[str, int] = {}
    for maker in channels.makers:
        labels = channels.axes[maker, 0]
        new = [label for label in dict.fromkeys(labels.tolist()) if label != FIXED and group_of[label] == NO_UNIT]
        if new:
            name = _layer(model, maker)
            first = sizes.setdefault(name, 0)
            group_of[new] = list(sizes).index(name)
            unit_of[new] = range(first, first + len(new))
            sizes[name] += len(new)
    members = _members(channels, group_of, unit_of, len(sizes))
    return [Group(name, size, tuple(own)) for (name, size), own in zip(sizes.items(), members, strict=True)]


def _layer(model: nn.Module, maker: str) -> str:
    """The layer of a weight: the whole of C3 of LeNet-5, whose convolutions make a map each."""
    path = maker.rpartition(".")[0]
    table = path.removesuffix(".convs." + path.rpartition(".")[2])
    return table if isinstance(model.get_submodule(table), TableConvolution) else path


def _members(channels: Channels, group_of: np.ndarray, unit_of: np.ndarray, groups: int) -> list[list[Member]]:
    found: list[list[Member]] = [[] for _ in range(groups)]
    indices = {(name, NUMBERS): labels for name, labels in channels.indices.items()}
    for (tensor, dim), labels in {**channels.axes, **indices}.items():
        own = group_of[labels]
        for group in np.unique(own[own != NO_UNIT]):
            found[group].append(Member(tensor, dim, np.where(own == group, unit_of[labels], NO_UNIT)))
    return found


# -- cutting --------------------------------------------------------------------------------------------------------


def cut(model: Network, kept: Kept) -> None:
    """Cut, in place, all units but those that are ``kept``, and write down the network's plan.

    Every tensor that shrinks is a new parameter: an optimiser made before holds the old ones.

    Args:
        model: the network that the groups were found in, or one of the same shapes; on the meta device too.
        kept: for each group the units that stay, at least one; groups that are not there stay whole.

    Raises:
        UsageError: no unit kept, one that a group does not have, or a layer left without anything to read; nothing is
            changed then.
    """
    masks = kept_indices(kept)
    for (tensor, dim), mask in masks.items():
        if dim > 0 and not mask.any():
            raise UsageError(f"{tensor} would read nothing: keep a channel that it reads")
    depthwise = {path for path, module in model.named_modules() if _is_depthwise(module)}
    for (name, dim), mask in masks.items():
        path, _, own = name.rpartition(".")
        module = model.get_submodule(path)
        old = getattr(module, own)
        if isinstance(old, nn.Parameter):
            setattr(module, own, nn.Parameter(_cut(old.detach(), dim, mask), requires_grad=old.requires_grad))
        else:
            setattr(module, own, int(mask.sum()) if isinstance(old, int) else _cut(old, dim, mask))
    for path in {name.rpartition(".")[0] for name, _ in masks}:
        module = model.get_submodule(path)
        if isinstance(module, nn.Conv2d) and not len(module.weight):  # of the maps of LeNet-5's C3, each has its own
            model.set_submodule(path, nn.Identity())
        else:
            _count(module, path in depthwise)
    write_plan(model)


def kept_indices(kept: Kept) -> dict[tuple[str, int], np.ndarray]:
    """For each dimension of each tensor that a cut touches, ``(size,)``, whether the index stays.

    Raises:
        UsageError: no unit kept, or one that a group does not have.
    """
    masks: dict[tuple[str, int], np.ndarray] = {}
    for group, units in kept.items():
        if not len(units) or min(units) < 0 or max(units) >= group.size:
            raise UsageError(f"of the units 0 to {group.size - 1} of {group.name} at least one must stay; got {units}")
        stays = np.zeros(group.size + 1, dtype=bool)
        stays[[*units, NO_UNIT]] = True
        for member in group.members:
            before = masks.get((member.tensor, member.dim))
            masks[member.tensor, member.dim] = stays[member.units] & (True if before is None else before)
    # Numbers of channels change before the list of them is cut.
    return dict(sorted(masks.items(), key=lambda item: item[0][1]))


def _cut(tensor: Tensor, dim: int, mask: np.ndarray) -> Tensor:
    if dim != NUMBERS:
        return tensor.index_select(dim, torch.from_numpy(np.flatnonzero(mask)).to(tensor.device))
    place = np.where(mask, mask.cumsum() - 1, mask.sum() - 1)  # what is cut is replaced by the last one: zeros
    return tensor if tensor.is_meta else torch.from_numpy(place).to(tensor)[tensor]


def _is_depthwise(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.groups == module.in_channels == module.out_channels > 1


def _count(module: nn.Module, depthwise: bool) -> None:
    """Have a layer say how many channels it has now."""
    if isinstance(module, nn.Conv2d):
        module.out_channels, columns = module.weight.shape[:2]
        module.groups = module.out_channels if depthwise else module.groups
        module.in_channels = columns * module.groups
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        module.num_features = len(next(x for x in (module.weight, module.bias, module.running_mean) if x is not None))


# -- gates ----------------------------------------------------------------------------------------------------------


def remove_gates(model: Network, stages: Iterable[str] | None = None) -> list[str]:
    """Take the gates out of some stages, in place: their slots are empty then, and the plan says so.

    Args:
        model: a network.
        stages: their names; all when not given.

    Returns:
        Paths of what was taken out.

    Raises:
        UsageError: no such stage, or no gate there.
    """
    names = list(model.stages) if stages is None else list(stages)
    for name in names:
        if name not in model.stages:
            raise UsageError(f"{model.name} has no stage {name!r}; stages: {', '.join(model.stages)}")
    paths = [
        path
        for path, module in model.named_modules()
        if path.rpartition(".")[2] == "attention"
        and path.split(".")[1] in names
        and not isinstance(module, nn.Identity)
    ]
    if not paths:
        raise UsageError(f"{model.name} has no gates in {', '.join(names)}")
    for path in paths:
        model.set_submodule(path, nn.Identity())
    write_plan(model)
    return paths
