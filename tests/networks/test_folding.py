"""Every network, its batch norms folded: the same function, and no norm left behind a layer that could hold it."""

import copy

import pytest
import torch
from torch import nn

from convarium.compression.fold import fold_norms

# How much further from the result in double precision rounding may take a network than it took the unfolded one: the
# sums are as many and as long, so the two differ by chance alone.
ROUNDING = 4


@pytest.mark.long
@torch.no_grad()
def test_folded_it_is_the_same_function(network, smallest_images):
    network = copy.deepcopy(network)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):  # no gain of 1, no shift of 0
            if norm.weight is not None:
                nn.init.uniform_(norm.weight, 0.8, 1.2)
            nn.init.uniform_(norm.bias, -0.1, 0.1)
    x = smallest_images(network)
    double = copy.deepcopy(network).double()
    exact = double(x.double())
    error = (network(x) - exact).abs().max()

    gone = fold_norms(double)
    torch.testing.assert_close(double(x.double()), exact, rtol=0, atol=1e-10 * exact.abs().max().item())
    assert fold_norms(network) == gone
    floor = torch.finfo(torch.float32).eps * exact.abs().max()
    assert (network(x) - exact).abs().max() <= ROUNDING * max(error, floor)
    assert {path for path, entry in network.plan.items() if entry is None} == {*gone}

    made, read = set(), set()  # what convolutions and dense layers give, what norms read
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(lambda _m, _x, y: made.add(y))
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.register_forward_pre_hook(lambda _m, args: read.add(args[0]))
    network(x)
    assert not made & read
    assert gone or not read
