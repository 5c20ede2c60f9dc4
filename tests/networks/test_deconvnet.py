"""The deconvnet through every network of the catalogue."""

import pytest
import torch

from convarium.explanation.deconvnet import reconstruct
from convarium.explanation.fields import ReceptiveFields

AROUND = 8  # pixels that the image is larger than the field, where the smallest image is not


def stage_and_side(network):
    """The last stage whose field is smaller than the network's smallest image; else the first that is local, and a
    larger image."""
    channels, least = network.input_size[0], network.min_input_size
    fields = ReceptiveFields(network, (channels, least, least))
    within = [stage for stage in fields.fields if fields.fields[stage] and fields.side(stage) < least]
    if within:
        return within[-1], least
    first = next(stage for stage in fields.fields if fields.fields[stage])
    return first, fields.side(first) + AROUND


@pytest.mark.dear
def test_a_reconstruction_is_finite_not_zero_and_within_the_field(network):
    stage, side = stage_and_side(network)
    x = torch.randn(1, network.input_size[0], side, side, generator=torch.Generator().manual_seed(0))
    down, units = reconstruct(network, x, stage)
    field = ReceptiveFields(network, (network.input_size[0], side, side)).of(stage, int(units.row), int(units.column))
    seen = field.inside((side, side))
    assert seen.sides != (side, side), "the unit must leave something outside"
    assert units.value.item() > 0 and down.isfinite().all() and down.any()
    outside = torch.ones(side, side, dtype=torch.bool)
    outside[seen.top : seen.bottom + 1, seen.left : seen.right + 1] = False
    assert not down[0, :, outside].any()
