"""ResNet against Table 1, Section 3.3, Section 4.2 and Table 6."""

import pytest
import torch
from torch import nn

from convarium import create_model
from convarium.networks.resnet import ZeroPadShortcut

WIDTH = {18: 1, 34: 1, 50: 4, 101: 4, 152: 4}
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def on_meta(name, **arguments):
    with torch.device("meta"):
        return create_model(name, **arguments)


@pytest.mark.parametrize("depth", WIDTH)
def test_table_1_output_sizes(depth):
    wide = WIDTH[depth]
    assert on_meta(f"resnet{depth}").stage_shapes() == {
        "conv1": (64, 112, 112),
        "pool1": (64, 56, 56),
        "conv2_x": (64 * wide, 56, 56),
        "conv3_x": (128 * wide, 28, 28),
        "conv4_x": (256 * wide, 14, 14),
        "conv5_x": (512 * wide, 7, 7),
    }


@pytest.mark.parametrize("depth", WIDTH)
def test_depth_is_the_number_of_weighted_layers_on_the_path(depth):
    network = on_meta(f"resnet{depth}")
    on_path = [m for name, m in network.named_modules() if isinstance(m, nn.Conv2d) and "shortcut" not in name]
    assert len(on_path) + 1 == depth
    assert tuple(len(stage) for name, stage in network.stages.items() if name.endswith("_x")) == BLOCKS[depth]


@pytest.mark.parametrize("depth", [20, 32, 44, 56, 110, pytest.param(1202, marks=pytest.mark.long)])
def test_cifar_sizes_and_depth(depth):
    network = on_meta(f"resnet{depth}_cifar")
    assert network.stage_shapes() == {
        "conv1": (16, 32, 32), "stage1": (16, 32, 32), "stage2": (32, 16, 16), "stage3": (64, 8, 8),
    }  # fmt: skip
    assert sum(isinstance(m, nn.Conv2d) for m in network.modules()) + 1 == depth


@pytest.mark.parametrize(("name", "first", "second"), [("resnet50", 2, 1), ("resnet50_v1_5", 1, 2)])
def test_where_the_stride_is(name, first, second):
    branch = on_meta(name).stages.conv3_x[0].branch
    assert (branch[0].conv.stride[0], branch[1].conv.stride[0]) == (first, second)


def test_v1_and_v1_5_share_every_key_and_shape_but_not_the_function():
    shapes = [{k: v.shape for k, v in on_meta(name).state_dict().items()} for name in ("resnet50", "resnet50_v1_5")]
    assert shapes[0] == shapes[1]
    torch.manual_seed(0)
    v1, v15 = create_model("resnet50").eval(), create_model("resnet50_v1_5").eval()
    v15.load_state_dict(v1.state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert not torch.allclose(v1(x), v15(x))


def test_projections_stand_only_where_the_shape_changes():
    network = on_meta("resnet50")
    found = [
        name for name, m in network.named_modules() if name.endswith("shortcut") and not isinstance(m, nn.Identity)
    ]
    assert found == [f"stages.conv{i}_x.0.shortcut" for i in (2, 3, 4, 5)]
    identity = on_meta("resnet18").stages.conv2_x[0].shortcut
    assert isinstance(identity, nn.Identity)


def test_option_a_keeps_every_second_pixel_and_pads_with_zero_channels():
    shortcut, x = ZeroPadShortcut(3, 6, 2), torch.randn(2, 3, 8, 8)
    out = shortcut(x)
    assert torch.equal(out[:, :3], x[:, :, ::2, ::2]) and not out[:, 3:].any() and out.shape == (2, 6, 4, 4)
    assert not list(shortcut.parameters())


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet50_v1_5"])
def test_a_block_by_hand(name, uneven_norms):
    """Fig. 5: conv, norm and ReLU in turn, no ReLU after the last norm; then the addition; then ReLU."""
    torch.manual_seed(0)
    block = uneven_norms(create_model(name).eval().stages.conv3_x[0])
    normed = lambda layer, x: layer.norm(layer.conv(x))  # noqa: E731
    x = torch.randn(2, block.shortcut.conv.in_channels, 8, 8)
    y = x
    for layer in block.branch[:-1]:
        y = normed(layer, y).clamp(min=0)
    y = normed(block.branch[-1], y)
    expected = (normed(block.shortcut, x) + y).clamp(min=0)
    torch.testing.assert_close(block(x), expected)


def test_a_residual_block_of_zero_weights_is_the_identity_on_positive_maps():
    network = create_model("resnet20_cifar").eval()
    block = network.stages.stage1[0]
    nn.init.zeros_(block.branch[1].norm.weight)
    x = torch.rand(1, 16, 8, 8)
    assert torch.equal(block(x), x)


def test_he_initialisation_has_variance_two_over_fan_out():
    torch.manual_seed(0)
    for module in create_model("resnet34").stages.conv5_x.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            assert module.weight.var().item() == pytest.approx(2 / (9 * module.out_channels), rel=0.02)
            assert module.bias is None


@pytest.mark.parametrize("name", ["18", "34", "20_cifar", "56_cifar"])
def test_a_plain_net_is_the_residual_net_without_its_shortcuts(name):
    plain, residual = on_meta(f"plain{name}"), on_meta(f"resnet{name}")
    assert plain.stage_shapes() == residual.stage_shapes()
    lost = sum(p.numel() for n, p in residual.named_parameters() if "shortcut" in n)
    assert sum(p.numel() for p in plain.parameters()) == sum(p.numel() for p in residual.parameters()) - lost
    torch.manual_seed(0)
    network, x = create_model("plain20_cifar").eval(), torch.randn(1, 16, 8, 8)
    block = network.stages.stage1[0]
    assert torch.equal(block(x), block[0](x).clamp(min=0))


def test_caffes_pooling_takes_other_windows_of_the_same_map():
    x = torch.randn(1, 2, 112, 112)
    released, torchs = on_meta("resnet50_caffe").stages.pool1(x), on_meta("resnet50").stages.pool1(x)
    assert released.shape == torchs.shape == (1, 2, 56, 56)
    assert torch.equal(released[..., 0, 0], x[..., :3, :3].amax((2, 3)))
    assert torch.equal(torchs[..., 0, 0], x[..., :2, :2].amax((2, 3)))
