"""Which network of ours is which entry of another library, and another size than its own that both take. Plain data:
``tests/parity`` reads it too, where those libraries are."""

from typing import NamedTuple


class Pair(NamedTuple):
    """``options`` are for the library's own constructor; ``size`` is the network's own, ``other`` a second one."""

    library: str
    entry: str
    ours: str
    size: int = 224
    other: int = 160
    options: dict = {}  # noqa: RUF012  never changed


VGGS = [f"vgg{depth}{bn}" for depth in (11, 13, 16, 19) for bn in ("", "_bn")]


def torchvision() -> list[Pair]:
    same = ["resnet18", "resnet34", "resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d"]
    same += ["squeezenet1_0", "squeezenet1_1"]
    pairs = [Pair("torchvision", name, name) for name in same]
    pairs += [Pair("torchvision", f"resnet{depth}", f"resnet{depth}_v1_5") for depth in (50, 101, 152)]
    # Their dense heads average a larger map down to the size they know, which no paper does: one size only.
    dense = [("alexnet", "alexnet_owt"), *((name, name) for name in VGGS)]
    pairs += [Pair("torchvision", entry, ours, other=224) for entry, ours in dense]
    for heads in (True, False):
        options = {"aux_logits": heads, "init_weights": False}
        pairs.append(Pair("torchvision", "googlenet", "googlenet_tv", options=options))
        pairs.append(Pair("torchvision", "inception_v3", "inception_v3_tv", 299, 200, options=options))
    return pairs


def timm() -> list[Pair]:
    same = ["resnet18", "resnet34", "resnext50_32x4d", "resnext101_32x4d", "resnext101_64x4d", "resnext101_32x8d"]
    pairs = [Pair("timm", name, name) for name in same]
    pairs += [Pair("timm", f"resnet{depth}", f"resnet{depth}_v1_5") for depth in (50, 101, 152)]
    pairs += [Pair("timm", f"resnetv2_{depth}", f"preact_resnet{depth}_timm") for depth in (50, 101)]
    # Theirs reads a larger map with its dense layers slid over it, ours only after to_fully_convolutional.
    pairs += [Pair("timm", name, name, other=224) for name in VGGS]
    pairs += [Pair("timm", f"legacy_seresnet{depth}", f"se_resnet{depth}_timm") for depth in (18, 34)]
    pairs += [Pair("timm", f"legacy_seresnet{depth}", f"se_resnet{depth}_caffe") for depth in (50, 101, 152)]
    pairs += [Pair("timm", f"legacy_seresnext{d}_32x4d", f"se_resnext{d}_32x4d_caffe") for d in (50, 101)]
    pairs += [Pair("timm", f"seresnext{d}_32x4d", f"se_resnext{d}_32x4d") for d in (50, 101)]
    return [
        *pairs,
        Pair("timm", "seresnet50", "se_resnet50_v1_5"),
        Pair("timm", "legacy_senet154", "senet154"),
        Pair("timm", "senet154", "senet154_gluon"),
        Pair("timm", "inception_v3", "inception_v3_tv", 299, 200),
        Pair("timm", "inception_v4", "inception_v4", 299, 200),
        Pair("timm", "inception_resnet_v2", "inception_resnet_v2_slim", 299, 200),
        Pair("timm", "legacy_xception", "xception_cadene", 299, 200),
        Pair("timm", "mobilenetv1_100", "mobilenet_v1_timm"),
    ]


def cadene() -> list[Pair]:
    """Most of its networks average a window of fixed size: at the second size, too, that window is the last map."""
    same = ["resnet18", "resnet34", "squeezenet1_0", "squeezenet1_1"]
    pairs = [Pair("cadene", name, name) for name in same]
    pairs += [Pair("cadene", f"resnet{depth}", f"resnet{depth}_v1_5") for depth in (50, 101, 152)]
    dense = [("alexnet", "alexnet_owt"), *((name, name) for name in VGGS)]
    pairs += [Pair("cadene", entry, ours, other=224) for entry, ours in dense]
    pairs += [Pair("cadene", name, name, other=200) for name in ("resnext101_32x4d", "resnext101_64x4d", "senet154")]
    senets = [*(f"se_resnet{depth}" for depth in (50, 101, 152)), *(f"se_resnext{depth}_32x4d" for depth in (50, 101))]
    pairs += [Pair("cadene", name, f"{name}_caffe", other=200) for name in senets]
    return [
        *pairs,
        Pair("cadene", "cafferesnet101", "resnet101_caffe", other=200),
        Pair("cadene", "bninception", "bn_inception_caffe", other=228),
        Pair("cadene", "inceptionv3", "inception_v3_tv", 299, 315),
        Pair("cadene", "inceptionv4", "inception_v4", 299, 315),
        Pair("cadene", "inceptionresnetv2", "inception_resnet_v2_slim", 299, 315),
        Pair("cadene", "xception", "xception_cadene", 299, 200),
    ]


def keras() -> list[Pair]:
    # A network that has dense layers over its map has one size.
    pairs = [Pair("keras", f"VGG{d}", f"vgg{d}", other=224) for d in (16, 19)]
    pairs += [Pair("keras", f"ResNet{d}", f"resnet{d}") for d in (50, 101, 152)]
    pairs += [Pair("keras", f"ResNet{d}V2", f"preact_resnet{d}_keras") for d in (50, 101, 152)]
    pairs.append(Pair("keras", "InceptionV3", "inception_v3", 299, 200))
    pairs.append(Pair("keras", "InceptionResNetV2", "inception_resnet_v2_slim", 299, 200))
    pairs.append(Pair("keras", "Xception", "xception", 299, 200))
    widths = {"": 1.0, "_075": 0.75, "_050": 0.5, "_025": 0.25}
    # Theirs pads at the bottom and the right where TensorFlow pads both sides: the same where all maps are even.
    return pairs + [
        Pair("keras", "MobileNet", f"mobilenet_v1{text}_tf", options={"alpha": width}) for text, width in widths.items()
    ]


def pytorchcv() -> list[Pair]:
    # Their last pooling has a fixed window, so that the other size is one whose last map is as large.
    names = {"alexnet": "alexnet_pytorchcv", "alexnetb": "alexnet_owt", "zfnet": "zfnet_pytorchcv"}
    names |= {f"vgg{d}": f"vgg{d}" for d in (11, 13, 16, 19)}
    names |= {f"bn_vgg{d}{b}": f"vgg{d}_bn" for d in (11, 13, 16, 19) for b in ("", "b")}
    dense = [Pair("pytorchcv", entry, ours, other=224) for entry, ours in names.items()]
    names = {"squeezenet_v1_0": "squeezenet1_0", "squeezenet_v1_1": "squeezenet1_1"}
    widths = {"w1": "", "w3d4": "_075", "wd2": "_050", "wd4": "_025"}
    names |= {f"mobilenet_{theirs}": f"mobilenet_v1{ours}" for theirs, ours in widths.items()}
    names |= {f"{se}resnet{d}": f"{se and 'se_'}resnet{d}" for se in ("", "se") for d in (18, 34, 50, 101, 152)}
    names |= {f"resnet{d}b": f"resnet{d}_v1_5" for d in (50, 101, 152)} | {"seresnet50b": "se_resnet50_v1_5"}
    names |= {f"preresnet{d}b": f"preact_resnet{d}_pytorchcv" for d in (50, 101, 152)}
    groups = ("50_32x4d", "101_32x4d", "101_64x4d")
    names |= {
        f"{se}resnext{x}": f"{se and 'se_'}resnext{x}" for se in ("", "se") for x in groups if not se or "64x" not in x
    }
    names |= {"senet154": "senet154_gluon"}
    pairs = dense + [Pair("pytorchcv", entry, ours, other=220) for entry, ours in names.items()]
    names = {"bninception": "bn_inception_caffe"} | {f"resattnet{d}": f"attention{d}_pytorchcv" for d in (56, 92)}
    pairs += [Pair("pytorchcv", entry, ours, other=223) for entry, ours in names.items()]
    names = {"xception": "xception_cadene", "inceptionv3": "inception_v3_tv", "inceptionv4": "inception_v4"}
    names |= {"inceptionresnetv1": "inception_resnet_v1_facenet", "inceptionresnetv2": "inception_resnet_v2_slim"}
    pairs += [Pair("pytorchcv", entry, ours, 299, 300) for entry, ours in names.items()]
    pairs.append(Pair("pytorchcv", "nin_cifar10", "nin_cifar_pytorchcv", 32, 31))
    names = {f"{se}resnet{d}_cifar10": f"{se and 'se_'}resnet{d}_cifar_b" for se in ("", "se") for d in (20, 56, 110)}
    names |= {"preresnet164bn_cifar10": "preact_resnet164_cifar_pytorchcv"}
    return pairs + [Pair("pytorchcv", entry, ours, 32, 30) for entry, ours in names.items()]


PAIRS: list[Pair] = [*torchvision(), *timm(), *cadene(), *keras(), *pytorchcv()]
