"""Every measure against hand arithmetic, and measures that are written wrongly."""

from fractions import Fraction

import pytest

from convarium import describe
from convarium.claims.measures import COMBINATIONS, COUNTS, Measurer, networks_of
from convarium.errors import DataError


def measured(measure, **arguments):
    return Measurer().measure({"measure": measure, **arguments})


def layers(*texts, on):
    return {"layers": [*texts], "input": [*on]}


# -- networks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("measure", "arguments", "value"),
    [
        # C1 of LeNet-5: six 5x5 and six biases on 28x28 places; F6: 120 x 84 and 84.
        ("params", {"stage": "C1"}, 6 * 25 + 6),
        ("weights", {"stage": "C1"}, 6 * 25),
        ("macs", {"stage": "C1"}, 6 * 25 * 28**2),
        ("operations", {"stage": "C1"}, 2 * 6 * 25 * 28**2),
        ("neurons", {"stage": "C1"}, 6 * 28**2),
        ("connections", {"stage": "C1"}, 6 * 26 * 28**2),
        ("connections", {"stage": "S2"}, 6 * 5 * 14**2),
        ("params", {"stage": "F6"}, 120 * 84 + 84),
        ("params", {"stage": "[CS]*"}, 60_000 - 10_164),
        ("inputs", {}, 32 * 32),
        ("receptive_field_px", {"stage": "S2"}, 6),
        ("connections", {}, 122_304 + 5_880 + 151_600 + 2_000 + 48_120 + 10_164 + 840),
    ],
)
def test_lenet_by_hand(measure, arguments, value):
    assert measured(measure, network="lenet5", **arguments) == value


def test_counts_are_those_of_describe():
    described = describe("se_resnet20_cifar", input_size=16)
    node = dict(network="se_resnet20_cifar", input_size=16)
    assert measured("params", **node) == described.params
    assert measured("macs", **node) == described.macs
    assert measured("neurons", **node) == described.activations
    assert float(measured("stored_bytes", **node)) / 2**20 == pytest.approx(described.size_mib, abs=0.005)


@pytest.mark.parametrize("reduction", [2, 16])
def test_gates_follow_equation_5(reduction):
    """2 / r times the sum of blocks times squared channels, over the stages of ResNet-50 (SENet, Eq. 5)."""
    expected = 2 * sum(n * c**2 for n, c in [(3, 256), (4, 512), (6, 1024), (3, 2048)]) // reduction
    assert measured("gate_weights", network="resnet50", reduction=reduction) == expected
    last = measured("gate_weights", network="resnet50", reduction=reduction, stage="conv5_x")
    assert last == 2 * 3 * 2048**2 // reduction


def test_elementwise_operations_by_hand():
    """One per element of nine additions on 16x32x32, 32x16x16 and 64x8x8; as many again for nine squeezes."""
    additions = 3 * (16 * 32**2 + 32 * 16**2 + 64 * 8**2)
    for name, times in (("resnet20_cifar", 1), ("se_resnet20_cifar", 2)):
        assert measured("macs_and_elementwise", network=name) == measured("macs", network=name) + times * additions


def test_other_arguments_than_the_catalogues():
    """A block of ResNeXt-29 twice as wide inside: 1x1, grouped 3x3 and 1x1 double."""
    own, wide = (
        measured("weights", network="resnext29_8x64d_cifar", stage="stage1", arguments={"cardinality": c})
        for c in (8, 16)
    )
    shortcut = 64 * 256
    assert wide - shortcut == 2 * (own - shortcut)


# -- layers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("node", "weights", "macs", "field"),
    [
        (layers("3x3, 64", on=(3, 8, 8)), 9 * 3 * 64, 9 * 3 * 64 * 64, 3),
        (layers("3x3/2, 64", on=(3, 8, 8)), 9 * 3 * 64, 9 * 3 * 64 * 16, 3),
        (layers("5x5 valid, 6", on=(3, 32, 32)), 25 * 3 * 6, 25 * 3 * 6 * 28**2, 5),
        (layers("2x2, 4", on=(1, 8, 8)), 16, 16 * 64, 2),
        (layers("3x3, 16, C=16", "1x1, 32", on=(16, 8, 8)), 16 * 9 + 16 * 32, (16 * 9 + 16 * 32) * 64, 3),
        (layers("1x7, 4", "7x1, 4", on=(4, 16, 16)), 2 * 7 * 16, 2 * 7 * 16 * 256, 7),
        (layers("3x3, 1", "3x3, 1", "3x3, 1", on=(1, 16, 16)), 27, 27 * 256, 7),
        (layers(["1x1, 2"], ["1x1, 3", "3x3, 4"], on=(5, 8, 8)), 10 + 15 + 108, (10 + 15 + 108) * 64, 3),
    ],
)
def test_layers_by_hand(node, weights, macs, field):
    assert measured("weights", **node) == measured("params", **node) == weights
    assert measured("macs", **node) == macs
    assert measured("receptive_field_px", **node) == field


def test_dense_and_local_layers_by_hand():
    assert measured("weights", **layers("dense, 10", on=(3, 8, 8))) == 3 * 64 * 10
    assert measured("macs", **layers("3x3, 4", "mean", "dense, 10", on=(1, 8, 8))) == 36 * 64 + 40
    local = layers("local 5x5 valid, 100", on=(3, 32, 32))
    assert measured("weights", **local) == measured("macs", **local) == 28 * 28 * 7_500
    assert measured("weights", **layers("local 10x10, 1", on=(1, 50, 50))) == 50 * 50 * 100


def test_combinations():
    one, two = (dict(measure="weights", **layers(*["3x3, 1"] * n, on=(1, 8, 8))) for n in (1, 2))
    assert measured("sum", parts=[one, two]) == 27
    assert measured("difference", of=two, less=one) == 9
    assert measured("ratio", of=one, to=two) == Fraction(1, 2)
    assert measured("percent", of=one, to=two) == 50
    assert set(COMBINATIONS) == {"sum", "difference", "ratio", "percent"}
    assert networks_of({"parts": [{"network": "lenet5"}, {"of": {"network": "vgg16"}}]}) == {"lenet5", "vgg16"}


def test_a_network_is_built_once():
    measurer = Measurer()
    for measure in COUNTS:
        measurer.measure({"measure": measure, "network": "lenet5", "stage": "C1"})
    assert len(measurer.subjects) == 1


# -- wrong ones -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"measure": "parms", "network": "lenet5"}, "no measure 'parms'; nearest: params"),
        ({}, "no measure ''"),
        ({"measure": "params"}, "measure 'params' needs 'network'"),
        ({"measure": "params", "network": "lenet6"}, "no network named 'lenet6'; nearest: lenet5"),
        ({"measure": "params", "network": "lenet5", "stages": "C1"}, "takes no 'stages'; it takes: network, stage"),
        ({"measure": "params", "network": "lenet5", "stage": "C9"}, "no stage 'C9' in lenet5; nearest: C"),
        ({"measure": "params", "layers": ["3x3, 4"]}, "measure 'params' needs 'input'"),
        ({"measure": "params", "layers": ["3x3 4"], "input": [1, 8, 8]}, "no layer can be read from '3x3 4'"),
        ({"measure": "params", "layers": ["local 1x3, 4"], "input": [1, 8, 8]}, "a local layer has a square kernel"),
        ({"measure": "ratio", "of": {"measure": "params", "network": "lenet5"}}, "measure 'ratio' needs 'to'"),
        ({"measure": "ratio", "of": {}, "by": {}}, "measure 'ratio' takes no 'by'; it takes: of, to"),
        ({"measure": "receptive_field_px", "network": "lenet5", "stage": "F6"}, "its last map sees the whole image"),
    ],
)
def test_a_wrong_measure_is_refused(node, message):
    with pytest.raises(DataError, match=message):
        Measurer().measure(node)
