"""Dense layers as two of low rank: the singular value decomposition of their weights, cut off after some directions.

No matrix of that rank is closer to the weights (C. Eckart, G. Young, Psychometrika 1, 1936): the squared difference is
the sum of the squares of the singular values that are left out, and the energy kept is the part of the others. For
networks: E. Denton et al., "Exploiting Linear Structure Within Convolutional Networks", NIPS 2014, Section 3.1.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from convarium.anatomy.trace import trace
from convarium.console import counting
from convarium.errors import UsageError, nearest
from convarium.network import Network
from convarium.plan import LowRank
from convarium.surgery import write_plan

COLUMNS = 4096  # of a weight that are in double precision at a time


@dataclass(frozen=True)
class Factors:
    """One dense layer that is two now: of what ``rank``, and the ``energy`` of its weights that is kept, 0 to 1."""

    in_features: int
    out_features: int
    rank: int
    energy: float


@dataclass(frozen=True)
class Factorised:
    """What was done: multiply-adds of one image and parameters before and after, and every layer that is two now."""

    macs_before: int
    macs: int
    params_before: int
    params: int
    layers: dict[str, Factors]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Spectrum:
    """A weight ``(out, in)`` in the directions of its singular vectors on the shorter side, the largest first.

    Attributes:
        squares: squares of its singular values, ``(n,)``, in double precision.
        vectors: the singular vectors of the shorter side, ``(n, n)``, in columns.
    """

    layer: nn.Linear
    squares: Tensor
    vectors: Tensor

    @property
    def kept(self) -> Tensor:
        """By rank less one, the part of the sum of squares that is kept."""
        return self.squares.cumsum(0) / self.squares.sum().clamp(min=torch.finfo(torch.double).tiny)

    def rank_for(self, energy: float) -> int:
        """The least rank that keeps this part."""
        return min(len(self.squares), 1 + int((self.kept < energy).sum()))

    @property
    def whole(self) -> int:
        """Parameters of the weight."""
        return self.layer.weight.numel()

    def params_of(self, rank: int) -> int:
        return rank * (self.layer.in_features + self.layer.out_features)

    def saves(self, rank: int) -> bool:
        return self.params_of(rank) < self.whole


@torch.no_grad()
def factorise(
    model: Network,
    paths: Sequence[str] | None = None,
    *,
    rank: int | None = None,
    energy: float | None = None,
    params: float | None = None,
) -> Factorised:
    """Make two of dense layers, in place, by one of ``rank``, ``energy`` and ``params``; the plan says so.

    By ``energy`` and ``params`` a layer stays whole where two would not be smaller.

    Args:
        model: the network, with weights.
        paths: of its dense layers; all of its head when not given.
        rank: the same for all.
        energy: part of the sum of squares of each weight that is kept at least, above 0 to 1.
        params: the most parameters that the network may have afterwards; all layers keep the same energy, as much as
            this allows.

    Raises:
        UsageError: not one goal, what is no dense layer, a rank or part that cannot be, or a number of parameters that
            rank 1 does not reach.
    """
    if sum(goal is not None for goal in (rank, energy, params)) != 1:
        raise UsageError("make layers of low rank by one goal: a rank, an energy or params")
    layers = _dense_layers(model, paths)
    if rank is not None:
        for path, layer in layers.items():
            if not 1 <= rank <= min(layer.weight.shape):
                raise UsageError(f"{path} has ranks from 1 to {min(layer.weight.shape)}; got {rank}")
    if energy is not None and not 0 < energy <= 1:
        raise UsageError(f"a part above 0 and at most 1 of the energy can be kept; got {energy}")
    before, macs_before = _params(model), _macs(model)
    spectra = _decompose(layers)
    if params is not None:
        energy = _energy_within(spectra, params - before)
    made: dict[str, Factors] = {}
    for path, spectrum in spectra.items():
        own = rank or spectrum.rank_for(energy or 0.0)
        if rank or spectrum.saves(own):
            model.set_submodule(path, _two_of(spectrum, own))
            made[path] = Factors(
                spectrum.layer.in_features, spectrum.layer.out_features, own, float(spectrum.kept[own - 1])
            )
    if made:
        write_plan(model)
    return Factorised(macs_before, _macs(model), before, _params(model), made)


def _dense_layers(model: Network, paths: Sequence[str] | None) -> dict[str, nn.Linear]:
    halves = {
        f"{path}.{name}"
        for path, module in model.named_modules()
        if isinstance(module, LowRank)
        for name, _ in module.named_children()
    }
    found = {p: m for p, m in model.named_modules() if isinstance(m, nn.Linear) and p not in halves}
    if paths is None:
        paths = [path for path in found if path.startswith("head.")]
        if not paths:
            raise UsageError(f"the head of {model.name} has no dense layer")
    for path in paths:
        if path not in found:
            hint = nearest(path, found) if found else "it has none"
            raise UsageError(f"{model.name} has no dense layer {path!r}; {hint}")
    return {path: found[path] for path in paths}


def _params(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _macs(model: Network) -> int:
    return sum(row.macs for row in trace(model, model.input_size).rows)


def _decompose(layers: dict[str, nn.Linear]) -> dict[str, Spectrum]:
    spectra = {}
    with counting("decomposing dense layers", len(layers)) as tick:
        for path, layer in layers.items():
            spectra[path] = _spectrum(layer)
            tick(len(spectra))
    return spectra


def _spectrum(layer: nn.Linear) -> Spectrum:
    """By the products of its rows (or columns, where these are fewer) with each other, whose eigenvectors are the
    singular vectors: of a layer of VGG it takes a tenth of the time and memory of the decomposition itself, and in
    double precision it is as exact as weights in single precision need."""
    rows = layer.weight if layer.out_features <= layer.in_features else layer.weight.T
    products = sum(part @ part.T for part in (columns.double() for columns in rows.split(COLUMNS, dim=1)))
    assert isinstance(products, Tensor)
    squares, vectors = torch.linalg.eigh(products)
    return Spectrum(layer, squares.flip(0).clamp(min=0), vectors.flip(1))


def _energy_within(spectra: dict[str, Spectrum], change: float) -> float:
    """The highest energy at which parameters change by no more than ``change``, a negative number."""

    def change_at(energy: float) -> int:
        ranks = {path: spectrum.rank_for(energy) for path, spectrum in spectra.items()}
        return sum(min(0, spectra[path].params_of(own) - spectra[path].whole) for path, own in ranks.items())

    steps = sorted({energy for spectrum in spectra.values() for energy in spectrum.kept.tolist()})
    place = bisect_right(steps, change, key=change_at)
    if not place:
        raise UsageError(
            f"{-change:,.0f} parameters were to be spared, and at most {-change_at(0.0):,} can be, at rank 1"
        )
    return steps[place - 1]


def _two_of(spectrum: Spectrum, rank: int) -> LowRank:
    """``W`` is nearest to ``U (U^T W)`` with the first singular vectors ``U`` of its rows, or ``(W V) V^T`` of its
    columns."""
    layer, vectors = spectrum.layer, spectrum.vectors[:, :rank]
    weight = layer.weight.double()
    upright = layer.out_features <= layer.in_features
    first, second = (vectors.T @ weight, vectors) if upright else (vectors.T, weight @ vectors)
    with torch.device("meta"):
        two = LowRank(layer.in_features, layer.out_features, rank, bias=layer.bias is not None)
    for half, new in zip(two, (first, second), strict=True):
        assert isinstance(half, nn.Linear)
        half.weight = nn.Parameter(new.to(layer.weight.dtype).contiguous(), layer.weight.requires_grad)
    if layer.bias is not None:
        two[1].register_parameter("bias", layer.bias)
    return two.train(layer.training)
