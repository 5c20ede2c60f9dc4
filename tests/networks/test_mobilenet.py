"""MobileNet against Tables 1, 2 and 4 to 7, equation 5 and SENet's Table 3."""

from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from convarium import create_model, describe
from convarium.networks import create_on_meta, mobilenet

# Table 1, two lines of it in a row here: stride, channels in and out, the side of the input.
ROWS = [
    (1, 32, 64, 112), (2, 64, 128, 112), (1, 128, 128, 56), (2, 128, 256, 56), (1, 256, 256, 28), (2, 256, 512, 28),
    *5 * [(1, 512, 512, 14)], (2, 512, 1024, 14), (1, 1024, 1024, 7),
]  # fmt: skip


def count(network):
    """Parameters and multiply-adds."""
    description = describe(network)
    return description.params, description.macs


def test_table_1_row_by_row():
    network = create_on_meta("mobilenet_v1")
    shapes = list(network.stage_shapes().values())
    assert shapes[0] == (32, 112, 112)
    stages = list(network.stages.values())[1:]
    for (stride, chans, out_chans, side), (before, after), stage in zip(ROWS, pairwise(shapes), stages, strict=True):
        assert before == (chans, side, side) and after == (out_chans, side // stride, side // stride)
        assert stage.depthwise.conv.weight.shape == (chans, 1, 3, 3) and stage.depthwise.conv.stride == (stride, stride)
        assert stage.pointwise.conv.weight.shape == (out_chans, chans, 1, 1)


@pytest.mark.parametrize(
    ("name", "width", "macs", "params"),
    [("", 1, 569, 4.2), ("_075", 0.75, 325, 2.6), ("_050", 0.5, 149, 1.3), ("_025", 0.25, 41, 0.5)],
)
def test_table_6_the_width_multiplier_by_hand(name, width, macs, params):
    """A norm has two parameters per channel; the classifier a bias."""
    chans = int(32 * width)
    found_params, found_macs = 3 * 9 * chans + 2 * chans, 3 * 9 * chans * 112**2
    for stride, a, b, side in ROWS:
        a, b, out_side = int(a * width), int(b * width), side // stride
        found_params += 9 * a + 2 * a + a * b + 2 * b
        found_macs += (9 * a + a * b) * out_side**2
    last = int(1024 * width)
    found_params, found_macs = found_params + last * 1000 + 1000, found_macs + last * 1000
    assert count(create_on_meta(f"mobilenet_v1{name}")) == (found_params, found_macs)
    assert round(found_macs / 1e6) == macs and round(found_params / 1e6, 1) == params


@pytest.mark.parametrize(("side", "printed"), [(224, 569), (192, 418), (160, 290), (128, 186)])
def test_table_7_the_resolution_multiplier(side, printed):
    network = create_on_meta("mobilenet_v1")
    macs = describe(network, input_size=side).macs
    assert abs(macs / 1e6 - printed) < 1
    if side == 160:
        assert round(macs / 1e6) == 291  # the paper rounds this one down


def test_table_2_where_the_multiply_adds_and_parameters_are():
    """Without those of the norms. The paper prints 1.19 for the 1.91 % of the first convolution."""
    network = create_on_meta("mobilenet_v1").eval()
    kinds = {(1, 1): "1x1", (3, 3): "3x3"}
    macs, params = dict.fromkeys(("1x1", "dw", "3x3", "fc"), 0), dict.fromkeys(("1x1", "dw", "3x3", "fc"), 0)

    def add(module, _inputs, output):
        kind = "fc"
        if isinstance(module, nn.Conv2d):
            kind = "dw" if module.groups > 1 else kinds[module.kernel_size]
        params[kind] += module.weight.numel()
        macs[kind] += module.weight.numel() * (output.shape[2] * output.shape[3] if output.ndim == 4 else 1)

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(add)
    network(torch.empty(1, 3, 224, 224, device="meta"))
    share = lambda found: {kind: round(100 * n / sum(found.values()), 2) for kind, n in found.items()}  # noqa: E731
    assert share(macs) == {"1x1": 94.86, "dw": 3.06, "3x3": 1.91, "fc": 0.18}
    assert share(params) == {"1x1": 74.59, "dw": 1.06, "3x3": 0.02, "fc": 24.33}


def test_table_4_with_full_convolutions(monkeypatch):
    """The multiply-adds printed are those of the convolutions, without the classifier's."""
    full = lambda a, b, kernel, stride, depthwise, pointwise: pointwise(a, b, kernel, stride)  # noqa: E731
    monkeypatch.setattr(mobilenet, "separable", full)
    params, macs = count(create_on_meta("mobilenet_v1"))
    assert round((macs - 1024 * 1000) / 1e6) == 4866 and round(params / 1e6, 1) == 29.3


def test_table_5_without_five_layers(monkeypatch):
    """The five at 14x14x512."""
    rows = {name: row for name, row in mobilenet.TABLE_1.items() if name not in ("dw7", "dw8", "dw9", "dw10", "dw11")}
    monkeypatch.setattr(mobilenet, "TABLE_1", rows)
    params, macs = count(create_on_meta("mobilenet_v1"))
    assert round(macs / 1e6) == 307 and round(params / 1e6, 1) == 2.9


def test_equation_5_a_separable_convolution_costs_one_over_n_plus_one_ninth():
    layer = create_on_meta("mobilenet_v1").stages.dw9
    separable = layer.depthwise.conv.weight.numel() + layer.pointwise.conv.weight.numel()
    assert separable / (9 * 512 * 512) == pytest.approx(1 / 512 + 1 / 9)


def test_a_layer_by_hand():
    """Fig. 3, right: norm and ReLU after either half."""
    torch.manual_seed(0)
    layer = create_model("mobilenet_v1_025").eval().stages.dw4
    for module in layer.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0, 0.1)  # the constant of 1e-3 shows
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.uniform_(module.bias, -1, 1)

    def normed(norm, x):
        scale = norm.weight / (norm.running_var + 1e-3).sqrt()
        return (x - norm.running_mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None]

    x = torch.randn(2, 32, 8, 8)
    kernels = layer.depthwise.conv.weight
    each = [F.conv2d(x[:, i : i + 1], kernels[i : i + 1], stride=2, padding=1) for i in range(32)]
    y = normed(layer.depthwise.norm, torch.cat(each, dim=1)).clamp(min=0)
    y = torch.einsum("oi,nihw->nohw", layer.pointwise.conv.weight[:, :, 0, 0], y)
    torch.testing.assert_close(layer(x), normed(layer.pointwise.norm, y).clamp(min=0), rtol=1e-4, atol=1e-4)


def test_se_mobilenet_is_senets():
    """SENet, Table 3: 4.7M parameters, a gate after each of the thirteen pointwise convolutions."""
    channels = [row[2] for row in ROWS]
    gates = sum(2 * c * (c // 16) + c + c // 16 for c in channels)
    params, macs = count(create_on_meta("mobilenet_v1", attention="se"))
    bare = count(create_on_meta("mobilenet_v1"))
    assert params == bare[0] + gates and round(params / 1e6, 1) == 4.7
    assert macs == bare[1] + sum(2 * c * (c // 16) for c in channels)


def test_initialisation_is_cut_at_two_deviations():
    torch.manual_seed(0)
    network = create_model("mobilenet_v1_050")
    weights = torch.cat([m.weight.flatten() for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)])
    assert weights.abs().max() <= 0.18
    # A normal cut at two deviations keeps 0.8796 of its deviation.
    assert weights.std().item() == pytest.approx(0.09 * 0.8796, rel=0.01)
    assert not network.head.classifier.bias.any() and network.head.drop.p == 0.001


def test_timms_form_is_cut_at_six_and_has_torchs_constant():
    network = create_on_meta("mobilenet_v1_timm")
    kinds = {type(m) for m in network.modules()}
    assert nn.ReLU6 in kinds and nn.ReLU not in kinds
    assert {m.eps for m in network.modules() if isinstance(m, nn.BatchNorm2d)} == {1e-5}
