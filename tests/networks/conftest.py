"""Tests that ask for ``network``, ``on_meta`` or ``each_name`` run on every network of the catalogue: in `make check`
on the smallest of each file (but for deep ones, and with weights only if those are few), in `make test` on all. Those
marked ``dear`` run in `make test` on the smallest of each file, in `make slow` on all."""

import pytest
import torch
from torch import nn

from convarium import create_model
from convarium.facts import all_facts
from convarium.networks import CATALOGUE

SMALL = 30e6  # parameters
LARGE = 3e9  # multiply-adds; these share one process, so that memory holds one of them


def _macs(name: str) -> int:
    return all_facts()[name].counts.macs


def _smallest_of_each_file() -> set[str]:
    files = {address.split(":")[0] for address, _ in CATALOGUE.values()}
    return {min((n for n, (a, _) in CATALOGUE.items() if a.startswith(f"{file}:")), key=_macs) for file in files}


SMALLEST = _smallest_of_each_file()
# Smallest of their files, and still so deep that `make check` would take too long.
DEEP = {"attention92_cifar", "preact_resnet164_cifar", "resnext50_32x4d"}
DEEP |= {"inception_v2", "inception_resnet_v1", "xception"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    asked = {"network", "on_meta", "each_name"} & set(metafunc.fixturenames)
    if not asked:
        return
    dear = metafunc.definition.get_closest_marker("dear")
    params = []
    for name in CATALOGUE:
        marks = [pytest.mark.xdist_group("large" if _macs(name) > LARGE else name)]
        if dear:
            marks.append(pytest.mark.long if name in SMALLEST else pytest.mark.slow)
        elif name not in SMALLEST - DEEP or ("network" in asked and all_facts()[name].counts.params > SMALL):
            marks.append(pytest.mark.long)
        params.append(pytest.param(name, marks=marks, id=name))
    fixture = asked.pop()
    metafunc.parametrize(fixture, params, indirect=fixture != "each_name", scope="module")


@pytest.fixture(scope="module")
def network(request):
    """The network of the test's parameter, with real weights, in evaluation mode.

    Its running statistics are those of a few images: with zeros and ones the sums of a thousand layers overflow.
    """
    torch.manual_seed(0)
    network = create_model(request.param)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    if norms:
        side = max(16, network.min_input_size)
        for norm in norms:
            norm.momentum = 1.0
        with torch.no_grad():
            network.train()(torch.randn(8, network.input_size[0], side, side))
        for norm in norms:
            norm.momentum = 0.1
    return network.eval()


@pytest.fixture(scope="module")
def on_meta(request):
    """The network of the test's parameter, without weights, in evaluation mode."""
    with torch.device("meta"):
        return create_model(request.param).eval()


@pytest.fixture
def smallest_images():
    """A function from a network to two images of its smallest size."""

    def images(network, batch=2):
        side = network.min_input_size
        return torch.randn(batch, network.input_size[0], side, side, generator=torch.Generator().manual_seed(0))

    return images


@pytest.fixture
def uneven_norms():
    """A function that draws the statistics, gains and shifts of all batch norms of a module: none is the identity."""

    def set_at_random(module):
        for norm in module.modules():
            if isinstance(norm, nn.BatchNorm2d):
                nn.init.uniform_(norm.running_mean, -1, 1)
                nn.init.uniform_(norm.weight, 0.5, 2)
                nn.init.uniform_(norm.bias, -1, 1)
        return module

    return set_at_random
