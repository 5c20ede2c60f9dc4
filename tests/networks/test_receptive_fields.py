"""Receptive fields of every network equal what the gradient reaches."""

import pytest
import torch
from torch import nn

from convarium import create_model, describe
from convarium.anatomy.trace import trace
from convarium.networks.senet import SqueezeExcite


def reached(network, out, x):
    """Columns of ``x`` that one value ``out`` depends on, from the first to the last.

    The gradient is followed as ones and zeros, module by module: its edges would sink below the smallest number in a
    thousand layers.
    """
    (gradient,) = torch.autograd.grad(out, x, retain_graph=True)
    columns = gradient.abs().sum((0, 1, 2)).nonzero().flatten().tolist()
    return columns[0], columns[-1]


def linear(network, monkeypatch):
    """Positive weights, no shifts, gates constant; means for maxima, whose gradient reaches one pixel of a window."""
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(False).fill_(0 if name.endswith("bias") else 1)
    for module in network.modules():
        if isinstance(module, SqueezeExcite):
            module.register_forward_hook(lambda module, inputs, out: inputs[0])
        elif not list(module.children()):
            module.register_forward_hook(follow)
    monkeypatch.setattr(nn.functional, "max_pool2d", mean_pool)
    monkeypatch.setattr(
        nn.functional, "pad", lambda x, sides, mode="constant", value=0.0: torch.ops.aten.constant_pad_nd(x, sides, 0.0)
    )
    return network.eval()


def follow(module, inputs, out):
    if out.requires_grad:
        out.register_hook(lambda gradient: (gradient != 0).to(gradient))


def mean_pool(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    assert dilation == 1 and not return_indices
    return nn.functional.avg_pool2d(x, kernel_size, stride, padding, ceil_mode)


def added_masks(name):
    """Masks are added here, not multiplied, and not squashed: the fields are the same, and no gradient fades."""
    return dict(normalise=nn.Identity(), learning=torch.add) if name.startswith("attention") else {}


@pytest.mark.dear
def test_fields_of_every_network_equal_the_measured_ones(each_name, monkeypatch):
    """Size, jump and offset after every stage: what the unit in the middle of a strip sees, as high as the network's
    smallest input and wider than its field."""
    network = linear(
        create_model(each_name, num_classes=0, global_pool="", act=nn.Identity, **added_masks(each_name)), monkeypatch
    )
    widest = describe(each_name).receptive_field_px or 0
    channels, height = network.input_size[0], network.min_input_size
    step = 64
    width = max(height, (widest // step + 4) * step)
    rows = trace(network, (channels, height, width)).rows
    x = torch.zeros(1, channels, height, width, requires_grad=True)
    for stage, maps in zip(network.stages, network.forward_intermediates(x, intermediates_only=True), strict=True):
        field = [row for row in rows if f"{row.path}.".startswith(f"stages.{stage}.")][-1].fields[1]
        unit = maps.shape[3] // 2
        low, high = reached(network, maps[0, :, maps.shape[2] // 2, unit].sum(), x)
        assert low > 0 and high < width - 1, "the strip is too narrow"
        assert (low, high) == field.at(unit), stage
