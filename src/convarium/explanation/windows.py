"""Many copies of one image that differ in a square each, computed where the square can change something only.

A stage that works place by place (convolutions, poolings, sums of them) gives on a part of its map what it gives on the
whole, away from the cut. So the early stages, whose units see little, run on windows around the square; once a window
is most of the map, the rest of the network runs on whole maps. What looks at the whole image (a gate, a mask) is found
by trying, and ends the windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from convarium.network import Network

WORTH = 0.5  # of the map's area: cutting a larger window costs more than it saves
SMALLEST_MAP = 48  # a side: on smaller maps cutting costs more than it saves
AGREES = 1e-4  # of the map's largest value

Place = tuple[int, int]  # row and column of a window's first unit


@dataclass(frozen=True)
class Reach:
    """Unit ``j`` of a stage's map reads ``width`` units of the map before, from ``first + step * j`` on."""

    step: int
    first: int
    width: int

    def changed(self, square: int) -> int:
        """How many units, along a side, a ``square`` of the map before can change."""
        return (square + self.width - 2) // self.step + 1

    def first_changed(self, low: int) -> int:
        """The first unit that reads unit ``low`` of the map before; below 0 in the padding."""
        return -(-(low - self.first - self.width + 1) // self.step)


@dataclass(frozen=True)
class Local:
    """A stage that is run on windows of ``length`` cut out of ``before``, and yields squares of ``square`` units that
    stand in place of parts of ``after``; both maps are the whole image's, ``(1, C, H, H)``."""

    stage: nn.Module
    reach: Reach
    before: Tensor
    after: Tensor
    length: int
    square: int

    def window(self, place: Place) -> Place:
        """Where to cut for the square of ``after`` that begins at ``place``: on the stage's grid, inside the map."""
        step, last = self.reach.step, self.before.shape[2] - self.length
        row, column = (min(max(self.reach.first // step * step + step * at, 0), last) for at in place)
        return row, column

    def moved(self, place: Place) -> Place:
        """Where in ``after`` the change begins that a square at ``place`` of ``before`` makes."""
        last = self.after.shape[2] - self.square
        row, column = (min(max(self.reach.first_changed(at), 0), last) for at in place)
        return row, column

    def __call__(self, squares: Tensor, places: Sequence[Place]) -> tuple[Tensor, list[Place]]:
        """From the squares that stand in ``before`` to those that stand in ``after``, and where."""
        moved = [self.moved(place) for place in places]
        windows = [self.window(place) for place in moved]
        maps = self.stage(_put(self.before, squares, places, windows, self.length))
        step = self.reach.step
        inside = [(at[0] - cut[0] // step, at[1] - cut[1] // step) for at, cut in zip(moved, windows, strict=True)]
        return torch.cat([_cut(maps[i : i + 1], at, self.square) for i, at in enumerate(inside)]), moved

    def holds(self) -> bool:
        """Whether windows of a map give what the whole map gives, as they do where units read places alone."""
        side, reach = self.before.shape[2], self.reach
        uneven = torch.linspace(0, 1, side)[:, None] * torch.rand(
            self.before.shape, generator=torch.Generator().manual_seed(0)
        )
        uneven = uneven.to(self.before)  # on a flat map a gate would not show
        whole, last = self.stage(uneven), side - self.length
        for cut in {0, last // 2 // reach.step * reach.step, last}:
            part, begin = self.stage(_cut(uneven, (cut, cut), self.length)), cut // reach.step
            # Units that read beyond the cut are left out, but at the map's own edge.
            low = begin if cut == 0 else -(-(cut - reach.first) // reach.step)
            high = begin + part.shape[2]
            if cut < last:
                high = min(high, (cut + self.length - reach.first - reach.width) // reach.step + 1)
            given, wanted = _cut(part, (low - begin, low - begin), high - low), _cut(whole, (low, low), high - low)
            if given.shape != wanted.shape or (given - wanted).abs().max() > AGREES * wanted.abs().max():
                return False
        return True


@dataclass(frozen=True)
class Shared:
    """A network made ready for copies of one image: stages on windows, then the others on whole maps."""

    model: Network
    local: Sequence[Local]
    whole: Tensor  # the map that the other stages begin with
    others: Sequence[nn.Module]

    def __call__(self, squares: Tensor, places: Sequence[Place]) -> Tensor:
        """Logits ``(N, classes)`` of the image with ``squares`` ``(N, C, p, p)`` put at ``places``."""
        maps = self.maps(squares, places)
        for other in self.others:
            maps = other(maps)
        return self.model.forward_head(maps)

    def maps(self, squares: Tensor, places: Sequence[Place]) -> Tensor:
        """The whole maps that the other stages begin with."""
        for stage in self.local:
            squares, places = stage(squares, places)
        return _put(self.whole, squares, places, [(0, 0)] * len(places), self.whole.shape[2])


def share(model: Network, image: Tensor, square: int) -> Shared:
    """Make a network ready for copies of ``image`` ``(1, C, S, S)`` that differ in a square of ``square`` pixels."""
    stages = list(model.stages.values())
    local: list[Local] = []
    x = image
    for stage, reach in zip(stages, _reaches(model, image), strict=False):
        side = x.shape[2]
        changed = reach.changed(square)
        needs = reach.step * (changed - 1) + reach.width + reach.first % reach.step
        length = side - (side - needs) // reach.step * reach.step  # as the whole side is, to the step: pads alike
        if side < SMALLEST_MAP or needs > side or length**2 > WORTH * side**2:
            break
        made = Local(stage, reach, x, stage(x), length, changed)
        if not made.holds():
            break
        local.append(made)
        x, square = made.after, changed
    return Shared(model, local, x, stages[len(local) :])


def _reaches(model: Network, image: Tensor) -> list[Reach]:
    """Of the leading stages that have one, from the receptive fields of their maps."""
    from convarium.anatomy.describe import describe

    found: list[Reach] = []
    size, jump, offset = 1, 1, 0
    parts = describe(model, input_size=tuple(image.shape[1:])).stages
    for part in parts[: len(model.stages)]:
        if part.receptive_field_px is None or part.jump_px is None or part.offset_px is None:
            break
        width = (part.receptive_field_px - size) // jump + 1
        found.append(Reach(part.jump_px // jump, (part.offset_px - offset) // jump, width))
        size, jump, offset = part.receptive_field_px, part.jump_px, part.offset_px
    return found


def _cut(maps: Tensor, place: Place, length: int) -> Tensor:
    row, column = place
    return maps[:, :, row : row + length, column : column + length]


def _put(whole: Tensor, squares: Tensor, places: Sequence[Place], windows: Sequence[Place], length: int) -> Tensor:
    """Windows ``(N, C, length, length)`` of a map, each with its square in it; what lies outside is left away."""
    maps = torch.cat([_cut(whole, window, length) for window in windows])
    side = squares.shape[2]
    for one, square, place, window in zip(maps, squares, places, windows, strict=True):
        (top, left), (row, column) = place, window
        a, b = max(top - row, 0), max(left - column, 0)
        c, d = min(top - row + side, length), min(left - column + side, length)
        one[:, a:c, b:d] = square[:, a + row - top : c + row - top, b + column - left : d + column - left]
    return maps
