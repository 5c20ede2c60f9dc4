"""The layouts of Keras and pytorchcv: forms, numbers, biases, gains and constants, by what they compute."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from convarium import list_models
from convarium.blocks import SameConv2d, conv_bn
from convarium.errors import DataError
from convarium.networks import create_on_meta
from convarium.weights.layout import FORMS, Layout
from convarium.weights.layouts import find_layout
from convarium.weights.layouts.keras import one_set_of_names


class Net(nn.Module):
    """A convolution with batch norm, at ``a``, and one more, at ``b``."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv_bn(2, 3, 3), conv_bn(3, 4, 1)
        for norm in (self.a.norm, self.b.norm):
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 1.5)
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.a(x))


def batch_norm(x: torch.Tensor, theirs: dict[str, torch.Tensor], layer: str, eps: float) -> torch.Tensor:
    """Batch norm of a file's tensors, written out."""
    weight = theirs.get(f"{layer}.norm.weight", torch.tensor(1.0)).reshape(-1, 1, 1)
    bias, mean, variance = (
        theirs[f"{layer}.norm.{part}"][:, None, None] for part in ("bias", "running_mean", "running_var")
    )
    return weight * (x - mean) / (variance + eps).sqrt() + bias


def theirs_computed(x: torch.Tensor, theirs: dict[str, torch.Tensor], eps: float = 1e-5) -> torch.Tensor:
    """What the network computes with a file's tensors: biases where it has some, gains where it has some."""
    for layer, padding in (("a", 1), ("b", 0)):
        x = F.conv2d(x, theirs[f"{layer}.conv.weight"], theirs.get(f"{layer}.conv.bias"), padding=padding)
        x = batch_norm(x, theirs, layer, eps).relu()
    return x


def loaded(layout: Layout, theirs: dict[str, torch.Tensor]) -> Net:
    net = Net()
    net.load_state_dict(layout.load(net, theirs, "a file"))
    return net


ABSENT = (("*.num_batches_tracked", 0),)
X = torch.randn(2, 2, 5, 5, generator=torch.Generator().manual_seed(0))


def test_biases_before_a_norm_go_into_its_means():
    layout = Layout(("*",), (), absent=ABSENT, idle_biases=True)
    theirs = layout.save(Net()) | {"a.conv.bias": torch.randn(3), "b.conv.bias": torch.randn(4)}
    torch.testing.assert_close(loaded(layout, theirs)(X), theirs_computed(X, theirs))


def test_the_way_back_writes_biases_of_zero():
    net, layout = Net(), Layout(("*",), (), absent=ABSENT, idle_biases=True)
    written = layout.save(net)
    assert torch.equal(written["a.conv.bias"], torch.zeros(3))
    torch.testing.assert_close(theirs_computed(X, written), net(X))


def test_a_missing_bias_is_told():
    layout = Layout(("*",), (), absent=ABSENT, idle_biases=True)
    theirs = layout.save(Net())
    del theirs["a.conv.bias"]
    with pytest.raises(DataError, match=r"a\.conv\.bias"):
        loaded(layout, theirs)


def test_gains_that_a_file_never_has_are_ones_and_go_into_the_kernels_on_the_way_back():
    layout = Layout(("*",), (), absent=(*ABSENT, ("*.norm.weight", 1)))
    net = Net()
    written = layout.save(net)
    assert not any("norm.weight" in key for key in written)
    torch.testing.assert_close(theirs_computed(X, written), net(X))
    again = loaded(layout, written)
    assert torch.equal(again.a.norm.weight, torch.ones(3))
    torch.testing.assert_close(again(X), net(X))


def test_another_constant_of_the_batch_norms_computes_the_same_both_ways():
    layout = Layout(("*",), (), absent=ABSENT, eps=1e-3)
    theirs = layout.save(Net())
    theirs["a.norm.running_var"][0] = 0  # a channel that is dead there
    net = loaded(layout, theirs)
    assert (net.a.norm.running_var >= 0).all()
    torch.testing.assert_close(net(X), theirs_computed(X, theirs, eps=1e-3))
    torch.testing.assert_close(theirs_computed(X, layout.save(net), eps=1e-3), net(X))


def test_layers_are_numbered_in_the_order_they_stand_in_and_named_ones_are_not_counted():
    layout = Layout(("*",), (), numbered=(("b.conv", "last"), ("*.conv", "conv_{}"), ("*.norm", "norm_{}")))
    assert {key.rpartition(".")[0] for key in layout.keys(Net()).values()} == {"conv_0", "norm_0", "last", "norm_1"}


def test_keras_numbers_begin_anywhere():
    theirs = dict.fromkeys(["conv2d_95/kernel", "conv2d_187/kernel", "conv2d_100/kernel", "conv_dw_3/kernel"])
    assert set(one_set_of_names(theirs)) == {
        "conv2d_0/kernel",
        "conv2d_2/kernel",
        "conv2d_1/kernel",
        "conv_dw_3/depthwise_kernel",
    }


def test_a_kernel_stored_height_width_in_out():
    kernel = torch.randn(3, 2, 4, 5)
    ours = FORMS["hwio"].load(kernel, kernel)
    assert all(
        ours[o, i, y, x] == kernel[y, x, i, o] for o in range(5) for i in range(4) for y in range(3) for x in range(2)
    )


def test_a_dense_layer_over_a_map_flattened_by_pixels():
    kernel, x = torch.randn(7 * 7 * 3, 5), torch.randn(2, 3, 7, 7)
    ours = FORMS["over 7x7 hwc"].load(kernel, kernel)
    torch.testing.assert_close(x.flatten(1) @ ours.T, x.permute(0, 2, 3, 1).flatten(1) @ kernel)


def test_a_tensor_of_another_rank_is_told_as_misshapen():
    layout = Layout(("*",), (), absent=ABSENT, values=(("*.conv.weight", "hwio"),))
    theirs = layout.save(Net())
    theirs["a.conv.weight"] = torch.randn(9, 6)
    with pytest.raises(DataError, match=r"a\.conv\.weight"):
        loaded(layout, theirs)


@pytest.mark.parametrize("name", ["hwio", "hwoi", "over 7x7 hwc", "transposed", "hwio 1x1"])
def test_every_form_comes_back(name):
    kernel = {"over 7x7 hwc": torch.randn(147, 5), "transposed": torch.randn(4, 5), "hwio 1x1": torch.randn(1, 1, 4, 5)}
    theirs = kernel.get(name, torch.randn(3, 2, 3, 5))
    assert torch.equal(FORMS[name].save(FORMS[name].load(theirs, theirs)), theirs)


@pytest.mark.parametrize("library", ["keras", "pytorchcv"])
def test_none_of_our_words_is_left_in_a_key_of_theirs(library):
    for name in list_models():
        if layout := find_layout(library, name):
            words = {
                part for key in layout.keys(create_on_meta(name)).values() for part in key.replace("/", ".").split(".")
            }
            assert not words & {"stages", "head", "branch", "shortcut", "norm", "attention", "depthwise", "pointwise"}


def test_same_padding_is_below_and_at_the_right_of_an_even_map_and_all_around_an_odd_one():
    conv = SameConv2d(1, 1, 3, 2, 1, bias=False)
    nn.init.ones_(conv.weight)
    even, odd = torch.ones(1, 1, 4, 4), torch.ones(1, 1, 5, 5)
    assert conv(even)[0, 0].tolist() == [[9, 6], [6, 4]]
    assert conv(odd)[0, 0].tolist() == [[4, 6, 4], [6, 9, 6], [4, 6, 4]]
