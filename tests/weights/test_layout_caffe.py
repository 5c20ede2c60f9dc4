"""Caffe's layout, against each network computed layer by layer as its published prototxt has it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from convarium import create_model
from convarium.cli import main
from convarium.errors import DataError
from convarium.exchange.identify import identify
from convarium.networks import create_on_meta
from convarium.weights.layouts import find_layout
from convarium.weights.layouts.caffe import averaged

CLASSES = 5


class Net:
    """Layers as Caffe computes them; the blobs of each, 32 bits to a number, are made as it first runs. What is
    computed of them has 64, as a deep random network magnifies its rounding."""

    def __init__(self) -> None:
        self.blobs: dict[str, list[Tensor]] = {}
        self.order: list[str] = []

    def conv(self, x, name, out, kernel, stride=1, pad=0, group=1, bias=True):
        inputs = x.shape[1] // group
        weight = torch.randn(out, inputs, kernel, kernel) * (2 / (inputs * kernel**2)) ** 0.5
        weight, *biases = self._made(name, weight, *([0.1 * torch.randn(out)] if bias else []))
        return F.conv2d(
            x, weight.double(), *(each.double() for each in biases), stride=stride, padding=pad, groups=group
        )

    def dense(self, x, name, out):
        x = x.flatten(1)
        weight, bias = self._made(name, torch.randn(out, x.shape[1]) * x.shape[1] ** -0.5, torch.randn(out))
        return x @ weight.T.double() + bias

    def norm(self, x, name, scale):
        """BatchNorm holds sums and the weight of all that went into them, by which it divides in 32 bits; Scale stands
        behind it. The statistics are those of the first images."""
        chans, weight = x.shape[1], torch.tensor([9.9899])
        mean, variance = x.mean((0, 2, 3)).float(), x.var((0, 2, 3)).float()
        variance = variance.clamp(min=0.1 * float(variance.mean()))
        sums, squares, weight = self._made(name, mean * weight, variance * weight, weight)
        share = 1 / weight
        gains, shifts = self._made(scale, 2 * torch.rand(chans) - 0.5, torch.randn(chans))
        x = (x - plane(sums * share)) / (plane(squares * share) + 1e-5).sqrt()
        return x * plane(gains) + plane(shifts)

    def lrn(self, x, name):
        """Across five channels, alpha 1e-4 over their number, beta 0.75, k 1."""
        self.order.append(name)
        padded = F.pad(x**2, (0, 0, 0, 0, 2, 2))
        return x / (1 + 1e-4 / 5 * sum(padded[:, i : i + x.shape[1]] for i in range(5))) ** 0.75

    def pool(self, x, name, stride=2, pad=0):
        """3x3; a last window may hang over the edge."""
        self.order.append(name)
        return F.max_pool2d(x, 3, stride, pad, ceil_mode=True)

    def _made(self, name: str, *blobs: Tensor) -> list[Tensor]:
        self.order.append(name)
        return self.blobs.setdefault(name, list(blobs))

    def write(self, caffe, path: Path, *, legacy: bool = False) -> Path:
        made = caffe.NetParameter(name="net")
        for name in self.order:
            layer = made.layers.add(name=name, type=4) if legacy else made.layer.add(name=name, type="?")
            layer.blobs.extend(caffe.blob(tensor, legacy=legacy) for tensor in self.blobs.get(name, []))
        path.write_bytes(made.SerializeToString())
        return path


def plane(values: Tensor) -> Tensor:
    return values[:, None, None]


def alexnet(net: Net, x: Tensor) -> Tensor:
    x = net.pool(net.lrn(net.conv(x, "conv1", 96, 11, 4).relu(), "norm1"), "pool1")
    x = net.pool(net.lrn(net.conv(x, "conv2", 256, 5, pad=2, group=2).relu(), "norm2"), "pool2")
    x = net.conv(x, "conv3", 384, 3, pad=1).relu()
    x = net.conv(x, "conv4", 384, 3, pad=1, group=2).relu()
    x = net.pool(net.conv(x, "conv5", 256, 3, pad=1, group=2).relu(), "pool5")
    return net.dense(net.dense(net.dense(x, "fc6", 4096).relu(), "fc7", 4096).relu(), "fc8", CLASSES)


def vgg16(net: Net, x: Tensor) -> Tensor:
    for block, (convs, width) in enumerate([(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)], 1):
        for i in range(convs):
            x = net.conv(x, f"conv{block}_{i + 1}", width, 3, pad=1).relu()
        x = F.max_pool2d(x, 2, 2)
    return net.dense(net.dense(net.dense(x, "fc6", 4096).relu(), "fc7", 4096).relu(), "fc8", CLASSES)


def nin_imagenet(net: Net, x: Tensor) -> Tensor:
    x = net.conv(x, "conv1", 96, 11, 4).relu()
    x = net.pool(net.conv(net.conv(x, "cccp1", 96, 1).relu(), "cccp2", 96, 1).relu(), "pool0")
    x = net.conv(x, "conv2", 256, 5, pad=2).relu()
    x = net.pool(net.conv(net.conv(x, "cccp3", 256, 1).relu(), "cccp4", 256, 1).relu(), "pool2")
    x = net.conv(x, "conv3", 384, 3, pad=1).relu()
    x = net.pool(net.conv(net.conv(x, "cccp5", 384, 1).relu(), "cccp6", 384, 1).relu(), "pool3")
    x = net.conv(net.conv(x, "conv4-1024", 1024, 3, pad=1).relu(), "cccp7-1024", 1024, 1).relu()
    return net.conv(x, "cccp8-1024", CLASSES, 1).relu().mean((2, 3))


def squeezenet1_1(net: Net, x: Tensor) -> Tensor:
    x = net.pool(net.conv(x, "conv1", 64, 3, 2).relu(), "pool1")
    for i, (squeeze, expand) in enumerate([(16, 64), (32, 128), (48, 192), (64, 256)]):
        for number in (2 * i + 2, 2 * i + 3):
            x = net.conv(x, f"fire{number}/squeeze1x1", squeeze, 1).relu()
            ones = net.conv(x, f"fire{number}/expand1x1", expand, 1).relu()
            x = torch.cat([ones, net.conv(x, f"fire{number}/expand3x3", expand, 3, pad=1).relu()], 1)
        if i < 2:
            x = net.pool(x, f"pool{2 * i + 3}")
    return net.conv(x, "conv10", CLASSES, 1).relu().mean((2, 3))


INCEPTIONS = {
    "3a": (64, 96, 128, 16, 32, 32), "3b": (128, 128, 192, 32, 96, 64), "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64), "4c": (128, 128, 256, 24, 64, 64), "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128), "5a": (256, 160, 320, 32, 128, 128), "5b": (384, 192, 384, 48, 128, 128),
}  # fmt: skip


def googlenet(net: Net, x: Tensor) -> Tensor:
    x = net.conv(x, "conv1/7x7_s2", 64, 7, 2, 3).relu()
    x = net.lrn(net.pool(x, "pool1/3x3_s2"), "pool1/norm1")
    x = net.conv(net.conv(x, "conv2/3x3_reduce", 64, 1).relu(), "conv2/3x3", 192, 3, pad=1).relu()
    x = net.pool(net.lrn(x, "conv2/norm2"), "pool2/3x3_s2")
    for name, (ones, reduce3, threes, reduce5, fives, projection) in INCEPTIONS.items():
        if name in ("4a", "5a"):
            x = net.pool(x, f"pool{int(name[0]) - 1}/3x3_s2")
        prefix = f"inception_{name}/"
        three = net.conv(x, f"{prefix}3x3_reduce", reduce3, 1).relu()
        five = net.conv(x, f"{prefix}5x5_reduce", reduce5, 1).relu()
        branches = [
            net.conv(x, f"{prefix}1x1", ones, 1),
            net.conv(three, f"{prefix}3x3", threes, 3, pad=1),
            net.conv(five, f"{prefix}5x5", fives, 5, pad=2),
            net.conv(net.pool(x, f"{prefix}pool", 1, 1), f"{prefix}pool_proj", projection, 1),
        ]
        x = torch.cat(branches, 1).relu()
    net.conv(x[:, :, :4, :4], "loss1/conv", 128, 1)  # of an auxiliary head, as the published file has them
    return net.dense(x.mean((2, 3)), "loss3/classifier", CLASSES)


def resnet(depth: int) -> Callable[[Net, Tensor], Tensor]:
    blocks = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}[depth]

    def forward(net: Net, x: Tensor) -> Tensor:
        x = net.norm(net.conv(x, "conv1", 64, 7, 2, 3, bias=depth == 50), "bn_conv1", "scale_conv1").relu()
        x = net.pool(x, "pool1")
        for stage, count in enumerate(blocks, 2):
            for i in range(count):
                numbered = depth > 50 and stage in (3, 4) and i
                name = f"{stage}b{i}" if numbered else f"{stage}{'abcdef'[i]}"
                width, stride = 32 * 2**stage // 2, 2 if stage > 2 and i == 0 else 1

                def layer(x, branch, out, kernel, stride=1, name=name):
                    x = net.conv(x, f"res{name}_{branch}", out, kernel, stride, kernel // 2, bias=False)
                    return net.norm(x, f"bn{name}_{branch}", f"scale{name}_{branch}")

                shortcut = layer(x, "branch1", 4 * width, 1, stride) if i == 0 else x
                x = layer(layer(x, "branch2a", width, 1, stride).relu(), "branch2b", width, 3).relu()
                x = (shortcut + layer(x, "branch2c", 4 * width, 1)).relu()
        return net.dense(x.mean((2, 3)), "fc1000", CLASSES)

    return forward


def senet(name: str) -> Callable[[Net, Tensor], Tensor]:
    deep = name == "senet154"
    blocks = (3, 8, 36, 3) if deep else (3, 4, 23, 3) if "101" in name else (3, 4, 6, 3)
    # Of each stage, as a multiple of its output: the first 1x1, the 3x3, and the groups of the 3x3.
    reduce, middle, group = (0.5, 1, 64) if deep else (0.5, 0.5, 32) if "next" in name else (0.25, 0.25, 1)
    early = not deep and "next" not in name  # the stride in the first 1x1

    def forward(net: Net, x: Tensor) -> Tensor:
        def layer(x, name, out, kernel, stride=1, group=1):
            x = net.conv(x, name, out, kernel, stride, kernel // 2, group, bias=False)
            return net.norm(x, f"{name}/bn", f"{name}/bn/scale")

        if deep:
            x = layer(layer(x, "conv1_1/3x3_s2", 64, 3, 2).relu(), "conv1_2/3x3", 64, 3).relu()
            x = layer(x, "conv1_3/3x3", 128, 3).relu()
        else:
            x = layer(x, "conv1/7x7_s2", 64, 7, 2).relu()
        x = net.pool(x, "pool1/3x3_s2")
        for stage, count in enumerate(blocks, 2):
            for i in range(count):
                prefix, out, stride = f"conv{stage}_{i + 1}", 64 * 2**stage, 2 if stage > 2 and i == 0 else 1
                first, second = (stride, 1) if early else (1, stride)
                branch = layer(x, f"{prefix}_1x1_reduce", int(reduce * out), 1, first).relu()
                branch = layer(branch, f"{prefix}_3x3", int(middle * out), 3, second, group).relu()
                branch = layer(branch, f"{prefix}_1x1_increase", out, 1)
                gate = net.conv(branch.mean((2, 3), keepdim=True), f"{prefix}_1x1_down", out // 16, 1).relu()
                gate = net.conv(gate, f"{prefix}_1x1_up", out, 1).sigmoid()
                kernel = 3 if deep and stride == 2 else 1
                shortcut = layer(x, f"{prefix}_1x1_proj", out, kernel, stride) if i == 0 else x
                x = (gate * branch + shortcut).relu()
        return net.dense(x.mean((2, 3)), "classifier", CLASSES)

    return forward


NETWORKS: dict[str, tuple[Callable[[Net, Tensor], Tensor], int]] = {
    "nin_imagenet": (nin_imagenet, 67),
    "squeezenet1_1": (squeezenet1_1, 67),
    "googlenet": (googlenet, 64),
    "resnet50_caffe": (resnet(50), 64),
    "se_resnet50_caffe": (senet("se_resnet50"), 64),
}
HEAVY: dict[str, tuple[Callable[[Net, Tensor], Tensor], int]] = {
    "alexnet": (alexnet, 227),
    "vgg16": (vgg16, 224),
    "resnet101_caffe": (resnet(101), 64),
    "resnet152_caffe": (resnet(152), 64),
    "se_resnet101_caffe": (senet("se_resnet101"), 64),
    "se_resnext50_32x4d_caffe": (senet("se_resnext50"), 64),
    "se_resnext101_32x4d_caffe": (senet("se_resnext101"), 64),
    "senet154": (senet("senet154"), 64),
}
OLD_FORMAT = ("alexnet", "vgg16", "nin_imagenet")


@pytest.mark.parametrize("name", [*NETWORKS, *(pytest.param(name, marks=pytest.mark.long) for name in HEAVY)])
@pytest.mark.long
def test_a_file_loads_into_the_same_function(name, caffe, tmp_path):
    forward, size = (NETWORKS | HEAVY)[name]
    torch.manual_seed(0)
    net, images = Net(), torch.randn(2, 3, size, size, dtype=torch.float64)
    with torch.no_grad():
        expected = forward(net, images.flip(1))  # blue, green, red
        file = net.write(caffe, tmp_path / "net.caffemodel", legacy=name in OLD_FORMAT)
        found = create_model(name, num_classes=CLASSES, weights=file).eval().double()(images)
    largest = float(expected.abs().max())
    assert float((expected[0] - expected[1]).abs().max()) > 0.01 * largest  # they are told apart
    assert float((found - expected).abs().max()) <= 1e-5 * largest


def test_what_a_batch_norm_summed_up_is_divided_and_an_empty_one_stands_for_zeros():
    theirs = {"bn/0": torch.tensor([6.0]), "bn/1": torch.tensor([3.0]), "bn/2": torch.tensor([3.0])}
    assert averaged(theirs) == {"bn/0": torch.tensor([2.0]), "bn/1": torch.tensor([1.0])}
    assert averaged(theirs | {"bn/2": torch.zeros(1)})["bn/0"] == 0


@pytest.mark.long
def test_alexnets_factors_are_undone_on_the_way_back():
    network, layout = create_on_meta("alexnet", num_classes=CLASSES), find_layout("caffe", "alexnet")
    network = network.to_empty(device="cpu")
    torch.manual_seed(0)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)
    again = layout.load(network, layout.save(network), "file")
    for key, value in network.state_dict().items():
        torch.testing.assert_close(again[key], value)


def test_caffenet_is_not_read_as_alexnet(caffe, tmp_path):
    net = Net()
    net.blobs["conv1"] = [torch.randn(96, 3, 11, 11), torch.randn(96)]
    net.order = ["conv1", "pool1", "norm1"]
    with pytest.raises(DataError, match="is of CaffeNet, which pools before it normalises"):
        create_model("alexnet", weights=net.write(caffe, tmp_path / "net.caffemodel"))
    with pytest.raises(DataError, match="is of CaffeNet"):
        identify(tmp_path / "net.caffemodel")


@pytest.mark.long
def test_a_file_becomes_a_run_that_sees_bytes(caffe, tmp_path, capsys):
    net = Net()
    with torch.no_grad():
        squeezenet1_1(net, torch.randn(1, 3, 67, 67).double())
    file = net.write(caffe, tmp_path / "net.caffemodel")
    assert main(["weights", "identify", str(file)]) == 0
    said = capsys.readouterr().out
    assert "squeezenet1_1, as caffe writes it: 5 classes, 3 input channels" in said
    assert "its images are taken to be blue, green, red" in said and "--no-bgr" in said
    assert main(["weights", "convert", str(file), "--output", str(tmp_path / "run"), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["difference"] is None and "logits not compared" in " ".join(made["notes"])
    told = json.loads((tmp_path / "run" / "config.json").read_text())["pretrained_cfg"]
    assert told["mean"] == pytest.approx([123 / 255, 117 / 255, 104 / 255])
    assert told["std"] == pytest.approx([1 / 255] * 3)
