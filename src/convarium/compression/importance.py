"""How much each unit of a group matters: the least important go first.

Each function takes a network and some of its groups, and gives ``(size,)`` scores for each; what a group's layers make
(their filters, and the norms after them) is judged together. Scores of different groups are of different scales.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convarium.compression.groups import NO_UNIT, Group
from convarium.errors import UsageError
from convarium.network import Network

Scores = dict[Group, np.ndarray]


def random_scores(model: Network, groups: Sequence[Group], *, seed: int = 0) -> Scores:
    """Scores drawn from a seed: what every other choice is to beat."""
    draw = np.random.default_rng(seed)
    return {group: draw.random(group.size) for group in groups}


def l1_norm(model: Network, groups: Sequence[Group]) -> Scores:
    """The sum of the absolute weights of a unit's filters (Li et al., "Pruning Filters for Efficient ConvNets",
    ICLR 2017, Section 3.1)."""
    return {
        group: _sum(group, ((units, rows.abs().sum(1)) for units, rows in _filters(model, group))) for group in groups
    }


def l2_norm(model: Network, groups: Sequence[Group]) -> Scores:
    """The root of the sum of their squares."""
    return {
        group: np.sqrt(_sum(group, ((units, rows.square().sum(1)) for units, rows in _filters(model, group))))
        for group in groups
    }


def geometric_median(model: Network, groups: Sequence[Group]) -> Scores:
    """How far a unit's filters are from those of all others of its group, their distances summed: what is near the
    geometric median can be replaced by the others (He et al., "Filter Pruning via Geometric Median", CVPR 2019)."""
    return {group: _distances(model, group).sum(1) for group in groups}


def norm_gain(model: Network, groups: Sequence[Group]) -> Scores:
    """The mean absolute gain of a unit's batch norms (Liu et al., "Network Slimming", ICCV 2017).

    Raises:
        UsageError: a group without batch norm.
    """
    scores: Scores = {}
    for group in groups:
        made = list(_made(model, group))
        gains = [(units, gain.detach().abs()) for name, units, gain in made if _is_norm(model, name)]
        if not gains:
            raise UsageError(f"no batch norm with gains belongs to {group.name}: choose another importance, such as l1")
        scores[group] = _sum(group, gains) / np.maximum(1, _sum(group, ((u, torch.ones(len(u))) for u, _ in gains)))
    return scores


def taylor(model: Network, groups: Sequence[Group], batches: Iterable[tuple[Tensor, Tensor]]) -> Scores:
    """The squared change of the loss, to first order, if a unit were gone: ``(sum of gradient x weight) ** 2``, the
    mean over batches (Molchanov et al., "Importance Estimation for Neural Network Pruning", CVPR 2019, Eq. 8).

    Weights are a unit's gains and shifts of batch norm where it has some, else its filters and biases. The network runs
    as in evaluation; its gradients are cleared.

    Args:
        model: the network.
        groups: some of its groups.
        batches: images ``(N, C, H, W)``, preprocessed, and class positions ``(N,)``.
    """
    terms = {group: _terms(model, group) for group in groups}
    scores = {group: np.zeros(group.size) for group in groups}
    count, training = 0, [module for module in model.modules() if module.training]
    model.eval()
    for images, labels in batches:
        model.zero_grad(set_to_none=True)
        F.cross_entropy(model(images), labels).backward()
        for group, tensors in terms.items():
            scores[group] += _sum(group, ((units, _products(x)) for units, x in tensors)) ** 2
        count += 1
    model.zero_grad(set_to_none=True)
    for module in training:
        module.training = True
    if not count:
        raise UsageError("there are no images to take gradients of")
    return {group: total / count for group, total in scores.items()}


def gate_factors(model: Network, groups: Sequence[Group], factors: Mapping[str, np.ndarray]) -> Scores:
    """The L2 norm of a unit's filters times the mean of what its gates multiply it by; a group without gates has the
    norm alone.

    Args:
        model: a network with gates.
        groups: some of its groups.
        factors: path of a gate to ``(C,)``, its mean factor for each channel over some images
            (:func:`convarium.explanation.gates.gate_statistics`).
    """
    scores = l2_norm(model, groups)
    for group in groups:
        rows: list[tuple[np.ndarray, Tensor]] = []
        for path, means in factors.items():
            gate = [member for member in group.members if member.tensor.startswith(f"{path}.") and member.dim == 0]
            whole = [member for member in gate if len(member.units) == len(means)]
            rows += [(member.units, torch.from_numpy(np.nan_to_num(means))) for member in whole[:1]]
        if rows:
            count = _sum(group, ((units, torch.ones(len(units))) for units, _ in rows))
            scores[group] *= np.where(count > 0, _sum(group, rows) / np.maximum(1, count), 1.0)
    return scores


IMPORTANCES: dict[str, Callable[..., Scores]] = {
    "random": random_scores,
    "l1": l1_norm,
    "l2": l2_norm,
    "median": geometric_median,
    "norm": norm_gain,
    "taylor": taylor,
    "gates": gate_factors,
}


# -- what belongs to a unit -----------------------------------------------------------------------------------------


def _made(model: nn.Module, group: Group) -> Iterator[tuple[str, np.ndarray, Tensor]]:
    """Name, unit of each row, and tensor of the parameters whose rows are a group's."""
    parameters = dict(model.named_parameters())
    for member in group.members:
        if member.made and member.tensor in parameters:
            yield member.tensor, member.units, parameters[member.tensor]


def _filters(model: nn.Module, group: Group) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Unit of each row, and ``(rows, n)`` of a weight of convolutions or dense layers."""
    for _, units, tensor in _made(model, group):
        if tensor.ndim > 1:
            yield units, tensor.detach().double().flatten(1)


def _is_norm(model: nn.Module, name: str) -> bool:
    path, _, own = name.rpartition(".")
    return own == "weight" and isinstance(model.get_submodule(path), nn.BatchNorm1d | nn.BatchNorm2d)


def _terms(model: nn.Module, group: Group) -> list[tuple[np.ndarray, Tensor]]:
    made = list(_made(model, group))
    norms = {name.rpartition(".")[0] for name, _, _ in made if _is_norm(model, name)}
    return [(units, x) for name, units, x in made if not norms or name.rpartition(".")[0] in norms]


def _products(x: Tensor) -> Tensor:
    """``(rows,)``, gradient times weight, summed over a row."""
    assert x.grad is not None
    return (x.detach() * x.grad).reshape(len(x), -1).sum(1)


def _sum(group: Group, rows: Iterable[tuple[np.ndarray, Tensor]]) -> np.ndarray:
    """``(size,)``, values of rows summed by their unit."""
    total = np.zeros(group.size + 1)  # the last is for rows of no unit
    for units, values in rows:
        np.add.at(total, units, values.double().cpu().numpy())
    return total[:-1]


def _distances(model: nn.Module, group: Group) -> np.ndarray:
    """``(size, size)``, between the filters of units; where a layer makes nothing of a unit its filters there are 0."""
    squared = torch.zeros(group.size, group.size, dtype=torch.float64)
    for units, rows in _filters(model, group):
        place = np.zeros(len(units), dtype=int)  # of a row among those of its unit
        for unit in np.unique(units):
            place[units == unit] = range((units == unit).sum())
        filters = torch.zeros(group.size, place.max() + 1, rows.shape[1], dtype=torch.float64)
        own = np.flatnonzero(units != NO_UNIT)
        filters[units[own], place[own]] = rows[own].cpu()
        flat = filters.flatten(1)
        products = flat @ flat.T
        squared += products.diagonal()[:, None] + products.diagonal() - 2 * products
    return squared.clamp(min=0).fill_diagonal_(0).sqrt().numpy()
