"""The deconvnet against a computation by hand, a transposed matrix, Captum, and the two methods it is not."""

from collections import OrderedDict
from itertools import product

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from convarium import create_model
from convarium.errors import UsageError
from convarium.explanation.backward_rules import backward_rules, guided
from convarium.explanation.deconvnet import deconvnet, reconstruct
from convarium.network import Head, Network


def network(*stages, channels=1):
    """Stages a, b, c ... without a classifier, in evaluation mode."""
    named = OrderedDict(zip("abcdefgh", stages, strict=False))
    return Network(named, Head(0, 0, pool=""), input_size=(channels, 9, 9), min_input_size=1).eval()


def integers(*shape, seed):
    return np.random.default_rng(seed).integers(-3, 4, shape).astype(float)


# -- by hand --------------------------------------------------------------------------------------------------------


def up(x, weight, bias):
    """A valid convolution of ``(C, H, W)``, then a ReLU, one window at a time."""
    filters, _, k, _ = weight.shape
    out = np.zeros((filters, x.shape[1] - k + 1, x.shape[2] - k + 1))
    for f, i, j in np.ndindex(*out.shape):
        out[f, i, j] = max(0.0, (x[:, i : i + k, j : j + k] * weight[f]).sum() + bias[f])
    return out


def pooled(x, k, stride):
    """Max pooling, and the switches: where each maximum was, the first of equals."""
    out = np.zeros((len(x), (x.shape[1] - k) // stride + 1, (x.shape[2] - k) // stride + 1))
    switches = {}
    for c, i, j in np.ndindex(*out.shape):
        places = product(range(i * stride, i * stride + k), range(j * stride, j * stride + k))
        switches[c, i, j] = max(places, key=lambda at: x[c, at[0], at[1]])
        out[c, i, j] = x[c, *switches[c, i, j]]
    return out, switches


def transposed(signal, weight, shape):
    """Each number of the rectified signal puts its filter, times itself, where it came from."""
    out = np.zeros(shape)
    k = weight.shape[2]
    for f, i, j in np.ndindex(*signal.shape):
        out[:, i : i + k, j : j + k] += max(0.0, signal[f, i, j]) * weight[f]
    return out


def test_it_is_what_is_computed_by_hand():
    """Conv, ReLU, overlapping max pooling, conv, ReLU, in whole numbers, so that both are exact."""
    image = integers(2, 9, 9, seed=0)
    weight1, bias1, weight2, bias2 = (
        integers(*s, seed=i) for i, s in enumerate([(3, 2, 3, 3), (3,), (4, 3, 2, 2), (4,)])
    )
    first = up(image, weight1, bias1)
    small, switches = pooled(first, 3, 2)
    assert len({(c, *at) for (c, _, _), at in switches.items()}) < len(switches)  # two windows share a maximum
    second = up(small, weight2, bias2)

    def by_hand(channel):
        signal = np.zeros_like(second)
        at = (channel, *np.unravel_index(second[channel].argmax(), second[channel].shape))
        signal[at] = second[at]
        signal = transposed(signal, weight2, small.shape)
        unpooled = np.zeros_like(first)
        for (c, i, j), (row, column) in switches.items():
            unpooled[c, row, column] += signal[c, i, j]
        return transposed(unpooled, weight1, image.shape)

    one, two = nn.Conv2d(2, 3, 3).double(), nn.Conv2d(3, 4, 2).double()
    for conv, weight, bias in ((one, weight1, bias1), (two, weight2, bias2)):
        conv.weight.data, conv.bias.data = torch.from_numpy(weight), torch.from_numpy(bias)
    model = network(nn.Sequential(one, nn.ReLU()), nn.MaxPool2d(3, 2), nn.Sequential(two, nn.ReLU()), channels=2)
    x = torch.from_numpy(image)[None]
    for channel in range(4):
        np.testing.assert_array_equal(deconvnet(model, x, "c", channel)[0], by_hand(channel))
    strongest = second.max((1, 2)).argmax()
    np.testing.assert_array_equal(deconvnet(model, x, "c")[0], by_hand(strongest))


def test_of_a_linear_net_it_is_the_transposed_map():
    """Stride, groups, padding, average pooling, batch norm, a sum and a concatenation: the matrix is found by sending
    every pixel up alone."""

    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 3, padding=1)

        def forward(self, x):
            return torch.cat([x + self.one(x), self.two(x)], 1)

    torch.manual_seed(0)
    stages = nn.Conv2d(1, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, padding=1, groups=2), Branches(), nn.BatchNorm2d(6)
    model = network(*stages, nn.AvgPool2d(2), nn.Conv2d(6, 3, 2)).double()
    for norm in (model.stages["d"],):
        nn.init.uniform_(norm.weight, 0.5, 2)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    pixels = torch.eye(81, dtype=torch.double).view(81, 1, 9, 9)
    with torch.no_grad():
        matrix = model.forward_features(pixels) - model.forward_features(torch.zeros_like(pixels))  # (81, 3, 1, 1)
    x = torch.randn(2, 1, 9, 9, dtype=torch.double)
    down, units = reconstruct(model, x, "f", channel=torch.tensor([2, 0]))
    wanted = torch.stack([units.value[i] * matrix[:, channel, 0, 0].view(1, 9, 9) for i, channel in enumerate((2, 0))])
    torch.testing.assert_close(down, wanted, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("act", [nn.Tanh, nn.Sigmoid, lambda: nn.LocalResponseNorm(2)])
def test_what_passes_through_is_as_if_it_were_not_there(act):
    torch.manual_seed(0)
    one, two = nn.Conv2d(1, 4, 3, bias=False), nn.Conv2d(4, 2, 3, bias=False)
    x = torch.randn(1, 1, 9, 9)
    bare, full = network(one, two), network(nn.Sequential(one, act()), two)
    with torch.no_grad():
        value, bare_value = (m.forward_features(x)[0, 1, 2, 3] for m in (full, bare))
    down = deconvnet(full, x, "b", 1, (2, 3)) / value
    torch.testing.assert_close(down, deconvnet(bare, x, "b", 1, (2, 3)) / bare_value)


def test_where_it_differs_from_the_gradient_and_from_guided_backpropagation():
    """Three hidden units under one output: open with a positive weight, open with a negative one, shut with a positive
    one. The gradient takes the first two, the deconvnet the first and the third, guided backpropagation the first."""
    first, second = nn.Conv2d(3, 3, 1, bias=False), nn.Conv2d(3, 1, 1, bias=False)
    first.weight.data = torch.eye(3).view(3, 3, 1, 1)
    second.weight.data = torch.tensor([4.0, -2.0, 5.0]).view(1, 3, 1, 1)
    model = network(nn.Sequential(first, nn.ReLU()), second, channels=3)
    x = torch.tensor([1.0, 1.0, -1.0]).view(1, 3, 1, 1).requires_grad_()
    value = 4 - 2
    (gradient,) = torch.autograd.grad(value * model.forward_features(x).sum(), x)
    with backward_rules(relu=guided):
        (by_both,) = torch.autograd.grad(value * model.forward_features(x).sum(), x)
    assert gradient.flatten().tolist() == [8, -4, 0]
    assert deconvnet(model, x, "b").flatten().tolist() == [8, 0, 10]
    assert by_both.flatten().tolist() == [8, 0, 0]


def test_maxout_sends_the_signal_to_its_largest_piece():
    class Maxout(nn.Module):
        def forward(self, x):
            return x.unflatten(1, (-1, 2)).amax(2)

    conv = nn.Conv2d(1, 4, 1, bias=False)
    conv.weight.data = torch.tensor([2.0, 3.0, -1.0, -4.0]).view(4, 1, 1, 1)
    model = network(nn.Sequential(conv, Maxout()))
    assert deconvnet(model, torch.ones(1, 1, 1, 1), "a", 0).item() == 3 * 3
    assert deconvnet(model, torch.ones(1, 1, 1, 1), "a", 1).item() == (-1) * (-1)


def test_a_silent_unit_has_nothing_to_show():
    conv = nn.Conv2d(1, 2, 1)
    conv.weight.data, conv.bias.data = torch.tensor([1.0, 1.0]).view(2, 1, 1, 1), torch.tensor([0.0, -100.0])
    model = network(nn.Sequential(conv, nn.ReLU()))
    x = torch.rand(1, 1, 9, 9)
    assert not deconvnet(model, x, "a", 1).any() and deconvnet(model, x, "a").any()


def test_frozen_weights_a_batch_and_a_dead_graph_change_nothing():
    torch.manual_seed(0)
    model, x = create_model("resnet20_cifar").eval(), torch.randn(3, 3, 32, 32)
    together = deconvnet(model, x, "stage2")
    model.requires_grad_(False)
    with torch.no_grad():
        alone = torch.cat([deconvnet(model, x[i : i + 1], "stage2") for i in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    assert not together.requires_grad and not x.requires_grad and all(p.grad is None for p in model.parameters())


def test_what_is_not_there_is_named():
    model, x = create_model("lenet5_modern").eval(), torch.randn(1, 1, 32, 32)
    with pytest.raises(UsageError, match="no stage 'conv9'"):
        deconvnet(model, x, "conv9")
    with pytest.raises(UsageError, match="channels 0 to 5; got 6"):
        deconvnet(model, x, "C1", 6)
    with pytest.raises(UsageError, match="rows 0 to 27 and columns 0 to 27; got "):
        deconvnet(model, x, "C1", 0, (3, 28))


# -- Captum -----------------------------------------------------------------------------------------------------------


class Flat(nn.Module):
    """A network up to a stage, each unit of the map an output, as Captum takes them."""

    def __init__(self, model, stage):
        super().__init__()
        self.model, self.stage = model, stage

    def forward(self, x):
        return self.model.forward_intermediates(x, [self.stage], stop_early=True, intermediates_only=True)[0].flatten(1)


class FunctionalReLU(nn.Module):
    def forward(self, x):
        return F.relu(x)


def captums(model, x, stage, unit):
    attr = pytest.importorskip("captum.attr")
    with torch.no_grad():
        value = Flat(model, stage)(x)[0, unit]
    return value * attr.Deconvolution(Flat(model, stage)).attribute(x.clone().requires_grad_(), target=unit).detach()


def plain_gradient(model, x, stage, unit):
    x = x.clone().requires_grad_()
    value = Flat(model, stage)(x)[0, unit]
    return torch.autograd.grad(value, x)[0] * value.detach()


@pytest.mark.filterwarnings("ignore:Setting .* hooks on ReLU activations")
@pytest.mark.parametrize(
    ("name", "stage", "side"),
    [
        ("lenet5_modern", "C5", 32),
        ("resnet20_cifar", "stage2", 32),
        ("squeezenet1_1", "fire4", 64),
        ("mobilenet_v1_025", "dw4", 64),
    ],
)
def test_where_every_relu_is_a_module_it_is_captums(name, stage, side):
    torch.manual_seed(0)
    model = create_model(name).eval()
    x = torch.randn(1, model.input_size[0], side, side)
    down, units = reconstruct(model, x, stage)
    shape = model.stage_shapes((model.input_size[0], side, side))[stage]
    unit = int(np.ravel_multi_index([int(part) for part in units[:3]], shape))
    scale = down.abs().max()
    torch.testing.assert_close(down / scale, captums(model, x, stage, unit) / scale, atol=1e-5, rtol=1e-5)
    assert (down - plain_gradient(model, x, stage, unit)).abs().max() > 0.01 * scale


@pytest.mark.filterwarnings("ignore:Setting .* hooks on ReLU activations")
def test_where_relus_are_functions_captum_gives_the_gradient_and_this_does_not():
    torch.manual_seed(0)
    x = torch.randn(1, 3, 32, 32)
    modules, functions = (
        create_model("resnet20_cifar").eval(),
        create_model("resnet20_cifar", act=FunctionalReLU).eval(),
    )
    functions.load_state_dict(modules.state_dict())
    down, units = reconstruct(functions, x, "stage2")
    assert torch.equal(down, deconvnet(modules, x, "stage2"))
    unit = int(np.ravel_multi_index([int(part) for part in units[:3]], (32, 16, 16)))
    gradient = plain_gradient(functions, x, "stage2", unit)
    assert (down - gradient).abs().max() > 0.1 * down.abs().max()
    torch.testing.assert_close(captums(functions, x, "stage2", unit), gradient)
