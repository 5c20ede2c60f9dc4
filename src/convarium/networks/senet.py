"""SENet: J. Hu, L. Shen, G. Sun, "Squeeze-and-Excitation Networks", CVPR 2018; journal form with S. Albanie and E. Wu,
TPAMI 2020, Table 1 and appendix: SE-ResNet and SE-ResNeXt with a gate at the end of every residual branch; SENet-154.

Departs from the paper:

- SE-ResNet and SE-ResNeXt pool as their bases here, with padding; the released files pad nothing and round up, and so
  do their forms with the suffix ``_caffe`` and ``senet154``;
- ``_timm`` are the forms of timm's legacy SE-ResNet-18 and 34: an activation before the gate too, and the pooling of
  the released files;
- ``_v1_5`` has the stride in the 3x3, as ResNet's later form;
- ``senet154_gluon`` pools with padding, as MXNet's port and timm's;
- the widths of SENet-154's three 3x3 (64, 64, 128) and its pooling are the released file's, the appendix giving none;
- the initialisation is He's (reference 66 of the journal form), of the gates and the classifier torch's default;
- where VGG-16 and MobileNet have their gates (after every convolution, after every pointwise one) and which form of
  Inception-ResNet-v2 the authors took are not printed: both forms are here, with the gate before the residual scale;
- the two dense layers keep their biases, as in the released files; the journal form's ablations drop them;
- the CIFAR forms, whose stages of 16 channels leave one hidden unit at reduction 16, take ``max(1, C // 16)``.
"""

from functools import partial
from typing import Any

from torch import Tensor, nn

from convarium.attention import TwiceSigmoid
from convarium.blocks import Slot, conv_bn, he_normal, max_pool_caffe, max_pool_torch
from convarium.network import BYTE_STD, CAFFE_MEAN, Head, Network
from convarium.networks.bn_inception import bn_inception
from convarium.networks.inception_v4 import inception_resnet_v2, inception_resnet_v2_slim
from convarium.networks.mobilenet import mobilenet_v1
from convarium.networks.resnet import (
    TABLE_1,
    residual_stages,
    resnet,
    resnet_caffe,
    resnet_cifar,
    resnet_cifar_b,
    resnet_v1_5,
)
from convarium.networks.resnext import resnext
from convarium.networks.vgg import vgg_bn


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate computed from all channels' means (Fig. 1, Eqs. 2-4); keeps ``(N, C, H, W)``."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.fc1 = nn.Linear(channels, hidden)
        self.act = nn.ReLU()
        self.fc2 = nn.Linear(hidden, channels)
        self.gate: nn.Module = nn.Sigmoid()

    def start_as_identity(self) -> None:
        """The gates become ``2 sigmoid(...)`` of 0: one for every channel."""
        nn.init.zeros_(self.fc2.weight)
        nn.init.zeros_(self.fc2.bias)
        self.gate = TwiceSigmoid()

    def forward(self, x: Tensor) -> Tensor:
        squeezed = x.mean((2, 3))
        excited = self.gate(self.fc2(self.act(self.fc1(squeezed))))
        return x * excited[:, :, None, None]


def activated(in_chans: int, width: int, stride: int, conv: Slot) -> nn.Sequential:
    """Two 3x3, the second activated too: what the gate takes has no negative values."""
    return nn.Sequential(conv(in_chans, width, 3, stride), conv(width, width, 3))


se_resnet = partial(resnet, attention=SqueezeExcite)
se_resnet_caffe = partial(resnet_caffe, attention=SqueezeExcite)
se_resnet_timm = partial(se_resnet_caffe, shallow=activated)
se_resnet_v1_5 = partial(resnet_v1_5, attention=SqueezeExcite)
se_resnet_cifar = partial(resnet_cifar, attention=SqueezeExcite)
se_resnet_cifar_b = partial(resnet_cifar_b, attention=SqueezeExcite)
se_resnext = partial(resnext, attention=SqueezeExcite)
se_resnext_caffe = partial(se_resnext, pool=max_pool_caffe)
se_vgg_bn = partial(vgg_bn, attention=SqueezeExcite)
se_bn_inception = partial(bn_inception, attention=SqueezeExcite)
se_inception_resnet_v2 = partial(inception_resnet_v2, attention=SqueezeExcite)
se_inception_resnet_v2_slim = partial(inception_resnet_v2_slim, attention=SqueezeExcite)
se_mobilenet_v1 = partial(mobilenet_v1, attention=SqueezeExcite)


def halved(in_chans: int, width: int, stride: int, conv: Slot) -> nn.Sequential:
    """ResNeXt's 64x4d bottleneck with half the channels in its first 1x1 (appendix, a)."""
    inner = 4 * width
    return nn.Sequential(
        conv(in_chans, inner // 2, 1),
        conv(inner // 2, inner, 3, stride, groups=64),
        conv(inner, 4 * width, 1, act=None),
    )


def projection(in_chans: int, out_chans: int, stride: int, conv: Slot) -> nn.Module:
    """A 3x3 where the map is halved (appendix, c), a 1x1 where only channels change, the identity elsewhere."""
    if in_chans == out_chans and stride == 1:
        return nn.Identity()
    return conv(in_chans, out_chans, 3 if stride > 1 else 1, stride, act=None)


def senet154(
    *,
    num_classes: int = 1000,
    in_chans: int = 3,
    attention: Slot | None = SqueezeExcite,
    conv: Slot = conv_bn,
    act: Slot = nn.ReLU,
    pool: Slot = max_pool_caffe,
) -> Network:
    """SENet-154 for 224x224 images (appendix): ResNeXt-152 64x4d, three 3x3 for its 7x7, dropout, and gates."""
    stages = {
        "conv1": nn.Sequential(conv(in_chans, 64, 3, 2), conv(64, 64, 3), conv(64, 128, 3)),
        "pool1": pool(3, 2),
    }
    parts: dict[str, Any] = dict(
        branch=halved, expansion=4, shortcut=projection, attention=attention, conv=conv, act=act
    )
    stages |= residual_stages(128, TABLE_1[152], **parts)
    head, size = Head(2048, num_classes, drop_rate=0.2), (in_chans, 224, 224)
    network = Network(stages, head, input_size=size, min_input_size=32, mean=CAFFE_MEAN, std=BYTE_STD)
    return network.apply(he_normal)


senet154_gluon = partial(senet154, pool=max_pool_torch)
