"""Layouts: one to one, there and back, and strict; and the cards that need them."""

import functools
from collections import Counter

import pytest
import torch
from torch import nn

from convarium import create_model
from convarium.errors import DataError
from convarium.networks import CATALOGUE, create_on_meta
from convarium.weights.cards import all_cards
from convarium.weights.layout import FORMS, Layout
from convarium.weights.layouts import LIBRARIES, find_layout, layouts

CARDS = all_cards()
PAIRS = sorted({(library, name) for library in LIBRARIES for name in CATALOGUE if find_layout(library, name)})
SMALL = ["resnet18", "se_resnet18_timm", "squeezenet1_1", "mobilenet_v1_timm", "bn_inception_caffe"]
SMALL_PAIRS = [pair for pair in PAIRS if pair[1] in SMALL]

on_meta = functools.cache(create_on_meta)


def layout_of(library: str, name: str) -> Layout:
    found = find_layout(library, name)
    assert found is not None
    return found


def disturbed(name: str) -> nn.Module:
    """A network none of whose tensors is all zeros or ones."""
    network = create_model(name, num_classes=5)
    with torch.no_grad():
        for value in network.state_dict().values():
            value += torch.rand(value.shape) if value.is_floating_point() else 3
    return network


@pytest.fixture
def resnet() -> nn.Module:
    return create_model("resnet18", num_classes=5)


# -- rules ------------------------------------------------------------------------------------------------------


def test_every_layout_has_a_network():
    for library in LIBRARIES:
        for layout in layouts(library):
            assert any(layout.fits(name) for name in CATALOGUE), (library, layout.networks)


@pytest.mark.parametrize(("library", "name"), PAIRS)
def test_keys_are_one_to_one_and_leave_nothing_of_ours(library, name):
    keys = layout_of(library, name).keys(on_meta(name))
    assert len({*keys.values()}) == len(keys)
    for ours, theirs in keys.items():
        left = [
            part for part in ("stages.conv", "head.classifier", ".branch.", ".shortcut", "attention") if part in theirs
        ]
        assert left == [], (ours, theirs)


@pytest.mark.parametrize(
    ("library", "name", "ours", "theirs"),
    [
        # Each read in the peer's own state dict.
        ("timm", "resnet50_v1_5", "stages.conv3_x.1.branch.2.norm.bias", "layer2.1.bn3.bias"),
        ("timm", "vgg11_bn", "stages.block3.conv3_2.norm.weight", "features.12.weight"),
        ("timm", "vgg11_bn", "head.hidden.fc6.fc.weight", "pre_logits.fc1.weight"),
        ("timm", "se_resnet50_v1_5", "stages.conv2_x.0.attention.fc2.bias", "layer1.0.se.fc2.bias"),
        ("timm", "se_resnet18_timm", "stages.conv2_x.0.attention.fc1.weight", "layer1.0.se_module.fc1.weight"),
        ("timm", "senet154_gluon", "stages.conv1.2.norm.weight", "bn1.weight"),
        ("timm", "senet154_gluon", "stages.conv1.2.conv.weight", "conv1.6.weight"),
        ("timm", "preact_resnet50_timm", "stages.conv5_x.2.act.norm.weight", "norm.weight"),
        ("timm", "preact_resnet50_timm", "stages.pool1.preactivation.norm.bias", "stages.0.blocks.0.norm1.bias"),
        ("timm", "inception_resnet_v2_slim", "stages.block8.9.branch.linear.bias", "block8.conv2d.bias"),
        ("timm", "xception_cadene", "stages.block1.branch.conv2.depthwise.weight", "block1.rep.3.conv1.weight"),
        ("timm", "xception_cadene", "stages.block12.branch.conv2.pointwise.norm.weight", "block12.rep.5.weight"),
        ("timm", "mobilenet_v1_timm", "stages.dw13.pointwise.conv.weight", "blocks.4.1.conv_pw.weight"),
        ("cadene", "inception_v4", "stages.inception_c.2.branches.branch_2.3.branches.branch_1.conv.weight",
         "features.21.branch2_3b.conv.weight"),
        ("cadene", "resnext101_32x4d", "stages.conv2_x.0.branch.1.conv.weight", "features.4.0.0.0.0.3.weight"),
        ("cadene", "bn_inception_caffe", "stages.inception_3a.branches.double_3x3.2.norm.bias",
         "inception_3a_double_3x3_2_bn.bias"),
        ("cadene", "squeezenet1_0", "head.classifier.conv.weight", "last_conv.weight"),
        ("cadene", "alexnet_owt", "head.hidden.fc7.fc.bias", "linear1.bias"),
    ],
)  # fmt: skip
def test_a_key_as_the_peer_has_it(library, name, ours, theirs):
    assert layout_of(library, name).keys(on_meta(name))[ours] == theirs


def test_two_keys_that_become_one_are_a_fault_of_the_layout():
    with pytest.raises(AssertionError, match="become one"):
        Layout(("resnet18",), ((".branch.0.", ".branch.1."),)).keys(on_meta("resnet18"))


# -- numbers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [name for name in FORMS if "7x7" not in name])
def test_a_form_is_undone_by_its_other_side(form):
    dimensions = {"vector": 1, "1x1": 2, "transposed": 2, "hwio 1x1": 2, "rows": 2}.get(form, 4)
    ours = torch.rand(4, 3, 5, 6)[(0,) * (4 - dimensions)]
    theirs = FORMS[form].save(ours)
    assert torch.equal(FORMS[form].load(theirs, ours), ours)


@pytest.mark.parametrize("form", [name for name in FORMS if "7x7" in name])
def test_a_form_of_a_flattened_map_is_undone_by_its_other_side(form):
    ours = torch.rand(2, 3 * 7 * 7)
    assert torch.equal(FORMS[form].load(FORMS[form].save(ours), ours), ours)


def test_a_dense_layer_over_a_map_is_the_convolution_as_large_as_the_map():
    dense, images = nn.Linear(3 * 7 * 7, 4, bias=False), torch.rand(2, 3, 7, 7)
    kernel = FORMS["7x7"].save(dense.weight)
    torch.testing.assert_close(nn.functional.conv2d(images, kernel).flatten(1), dense(images.flatten(1)))


@pytest.mark.parametrize(("library", "name"), [("keras", "resnet50"), ("cadene", "bn_inception_caffe")])
def test_turned_channels_take_turned_images(library, name):
    """A file whose first layer is told to take blue, green, red answers turned images as one that is not answers."""
    # In double precision: channels are added in another order, and float32 ends as far apart as the bound.
    network, layout = create_model(name, num_classes=5).double().eval(), layout_of(library, name)
    images = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        expected = network(images)
        network.load_state_dict(layout.load(network, layout.save(network), "file", bgr=True))
        torch.testing.assert_close(network(images.flip(1)), expected)
        network.load_state_dict(layout.load(network, layout.save(network, bgr=True), "file"))
        torch.testing.assert_close(network(images), expected)


def test_grey_images_have_no_order_of_colours():
    network, layout = create_model("resnet18", num_classes=5, in_chans=1), layout_of("timm", "resnet18")
    loaded = layout.load(network, layout.save(network), "file", bgr=True)
    assert torch.equal(loaded["stages.conv1.conv.weight"], network.state_dict()["stages.conv1.conv.weight"])


@pytest.mark.parametrize(("library", "name"), SMALL_PAIRS)
def test_there_and_back(library, name):
    network = disturbed(name)
    layout = layout_of(library, name)
    loaded = layout.load(network, layout.save(network), "file")
    assert loaded.keys() == network.state_dict().keys()
    for key, value in network.state_dict().items():
        torch.testing.assert_close(loaded[key], value, rtol=1e-6, atol=1e-6, msg=key)


# -- strictness -------------------------------------------------------------------------------------------------


def test_keys_that_are_missing_or_left_over_are_told_from_both_sides(resnet):
    layout = layout_of("timm", "resnet18")
    theirs = layout.save(resnet)
    theirs["layer9.weight"] = theirs.pop("layer1.0.conv1.weight")
    with pytest.raises(DataError, match=r"mine\.pth.*resnet18.*missing 1 \(.*\); unexpected 1 \(layer9\.weight\)"):
        layout.load(resnet, theirs, "mine.pth")


def test_another_shape_is_told_with_both(resnet):
    layout = layout_of("timm", "resnet18")
    theirs = layout.save(resnet)
    theirs["fc.weight"] = torch.zeros(7, 512)
    with pytest.raises(DataError, match=r"1 of another shape .*\(7, 512\) for \(5, 512\)"):
        layout.load(resnet, theirs, "mine.pth")


def test_counters_may_be_missing_and_auxiliary_heads_left_over(resnet):
    layout = layout_of("timm", "resnet18")
    theirs = {key: value for key, value in layout.save(resnet).items() if not key.endswith("num_batches_tracked")}
    assert layout.load(resnet, theirs, "file")["stages.conv1.norm.num_batches_tracked"] == 0
    network, layout = on_meta("inception_v3_tv"), layout_of("timm", "inception_v3_tv")
    layout.load(network, layout.save(network) | {"AuxLogits.fc.weight": torch.zeros(1)}, "file")


def test_a_file_of_the_same_shapes_and_other_keys_does_not_load(resnet):
    with pytest.raises(DataError, match="missing"):
        layout_of("timm", "resnet18").load(resnet, resnet.state_dict(), "file")


@pytest.mark.parametrize(
    ("library", "name", "older"),
    [("cadene", "resnet18", ("last_linear.", "fc.")), ("cadene", "squeezenet1_1", ("last_conv.", "classifier.1."))],
)
def test_files_with_their_makers_names_are_read_and_never_written(library, name, older):
    network, layout = disturbed(name), layout_of(library, name)
    today, before = older
    written = layout.save(network)
    file = {key.replace(today, before): value for key, value in written.items()}
    assert file.keys() != written.keys()
    loaded = layout.load(network, file, "file")
    assert all(torch.equal(value, loaded[key]) for key, value in network.state_dict().items())


def test_a_dense_head_is_read_in_both_forms():
    """timm's VGG-11, and torchvision's, from which timm's file comes."""
    network = on_meta("vgg11")
    layout = layout_of("timm", "vgg11")
    for library in ("timm", "torchvision"):
        file = layout_of(library, "vgg11").save(network)
        assert layout.load(network, file, "file")["head.hidden.fc6.fc.weight"].shape == (4096, 25088)


# -- cards ------------------------------------------------------------------------------------------------------


def test_every_card_is_of_a_network_and_has_a_layout():
    for card in CARDS:
        assert card.network in CATALOGUE and find_layout(card.library, card.network), card


def test_cards_have_names_of_their_own_and_one_network_recommends_one_at_most():
    assert [name for name, count in Counter((card.network, card.name) for card in CARDS).items() if count > 1] == []
    recommended = Counter(card.network for card in CARDS if card.recommended)
    assert [name for name, count in recommended.items() if count > 1] == []


def test_cards_are_plausible():
    for card in CARDS:
        assert card.url.startswith(("https://", "http://")) or card.note, card
        assert 0 < card.crop_pct <= 1 and card.size >= 32, card
        assert all(0.2 < value < 0.6 for value in card.mean) and all(0 < value < 0.6 for value in card.std), card
        assert card.classes - card.background == 1000 or card.labels != "imagenet-1k", card
        algorithm, _, digits = card.checksum.partition(":")
        length = {"sha256": 64, "sha1": 40, "md5": 32, "": 0}[algorithm]
        assert set(digits) <= {*"0123456789abcdef"}, card
        assert len(digits) == length or (algorithm == "sha256" and 8 <= len(digits) < length), card
        assert not card.member or card.url.endswith(f"/{card.member}.zip"), card
