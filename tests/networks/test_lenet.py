"""LeNet-5 against its paper: Table I, the counts of Section II-B, the squashing function, the RBF outputs."""

import torch
from torch.nn import functional as F

from convarium import create_model
from convarium.networks.lenet import C3_TABLE, RBF, ScaledTanh, Subsampling

# Section II-B, per layer: trainable parameters, connections.
PAPER = {
    "C1": (156, 122_304),
    "S2": (12, 5_880),
    "C3": (1_516, 151_600),
    "S4": (32, 2_000),
    "C5": (48_120, 48_120),
    "F6": (10_164, 10_164),
}
SHAPES = {"C1": (6, 28, 28), "S2": (6, 14, 14), "C3": (16, 10, 10), "S4": (16, 5, 5), "C5": (120, 1, 1)}


def layers(network):
    return {**dict(network.stages.items()), "F6": network.head.hidden.F6}


def test_parameters_of_every_layer():
    found = {name: sum(p.numel() for p in layer.parameters()) for name, layer in layers(create_model("lenet5")).items()}
    assert found == {name: params for name, (params, _) in PAPER.items()}


def test_shapes():
    assert create_model("lenet5").stage_shapes() == SHAPES
    assert create_model("lenet5_modern").stage_shapes() == SHAPES


def test_connections():
    """Each unit has as many connections as inputs, and one for its bias; the outputs have 84 and no bias."""
    fan_in = {"C1": 25, "S2": 4, "C5": 400, "F6": 120}
    units = {name: torch.Size(shape).numel() for name, shape in {**SHAPES, "F6": (84,)}.items()}
    connections = {name: units[name] * (fan + 1) for name, fan in fan_in.items()}
    connections["S4"] = units["S4"] * 5
    connections["C3"] = sum(100 * (25 * len(maps) + 1) for maps in C3_TABLE)
    assert connections == {name: count for name, (_, count) in PAPER.items()}
    assert sum(connections.values()) + 10 * 84 == 340_908


def test_table_1_has_the_papers_structure():
    """Six maps read three neighbours in a ring, six read four, three four that are not neighbours, one all."""
    assert [len(maps) for maps in C3_TABLE] == [3] * 6 + [4] * 9 + [6]
    ring = lambda start, count: {(start + i) % 6 for i in range(count)}  # noqa: E731
    assert [set(maps) for maps in C3_TABLE[:6]] == [ring(i, 3) for i in range(6)]
    assert [set(maps) for maps in C3_TABLE[6:12]] == [ring(i, 4) for i in range(6)]
    assert all(set(maps) not in [ring(i, 4) for i in range(6)] for maps in C3_TABLE[12:15])
    assert [sum(s in maps for maps in C3_TABLE) for s in range(6)] == [10] * 6


def test_c3_reads_only_the_maps_of_the_table():
    c3 = create_model("lenet5").stages.C3.conv
    for i, maps in enumerate(C3_TABLE):
        x = torch.randn(1, 6, 14, 14, requires_grad=True)
        c3(x)[0, i].sum().backward()
        assert {s for s in range(6) if x.grad[0, s].any()} == set(maps)


def test_the_whole_network_by_hand():
    """Section II-B from pixels to distances: every unit up to F6 squashes its weighted sum."""
    torch.manual_seed(0)
    network = create_model("lenet5").double()
    squash = lambda a: 1.7159 * torch.tanh(2 * a / 3)  # noqa: E731
    subsample = lambda layer, y: squash(  # noqa: E731
        y.unfold(2, 2, 2).unfold(3, 2, 2).sum((4, 5)) * layer.coefficient[:, None, None] + layer.bias[:, None, None]
    )
    c1, c3, c5, f6 = (network.stages.C1.conv, network.stages.C3.conv, network.stages.C5.conv, network.head.hidden.F6.fc)
    x = torch.randn(2, 1, 32, 32).double()
    y = squash(F.conv2d(x, c1.weight, c1.bias))
    y = subsample(network.stages.S2.pool, y)
    maps = [F.conv2d(y[:, list(t)], conv.weight, conv.bias) for t, conv in zip(C3_TABLE, c3.convs, strict=True)]
    y = subsample(network.stages.S4.pool, squash(torch.cat(maps, 1)))
    y = squash(y.flatten(1) @ c5.weight.flatten(1).T + c5.bias)
    y = squash(y @ f6.weight.T + f6.bias)
    distances = ((y[:, None] - network.head.classifier.codes) ** 2).sum(2)
    torch.testing.assert_close(network(x), -distances)


def test_input_scaling():
    """Section II-B: background at -0.1, ink at 1.175."""
    cfg = create_model("lenet5").default_cfg
    scaled = [(value - cfg["mean"][0]) / cfg["std"][0] for value in (0.0, 1.0)]
    torch.testing.assert_close(torch.tensor(scaled), torch.tensor([-0.1, 1.175]))


def test_squashing_function():
    squash = ScaledTanh()
    torch.testing.assert_close(
        squash(torch.tensor([-1.0, 0.0, 1.0])), torch.tensor([-1.0, 0.0, 1.0]), atol=1e-4, rtol=0
    )
    assert abs(squash(torch.tensor(100.0)).item() - 1.7159) < 1e-6


def test_subsampling_is_a_scaled_sum_of_four():
    layer = Subsampling(1)
    with torch.no_grad():
        layer.coefficient.fill_(0.5)
        layer.bias.fill_(-1)
    x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    assert layer(x).item() == 0.5 * (1 + 2 + 3 + 4) - 1


def test_logits_are_minus_the_squared_distances():
    layer, x = RBF(84, 10), 1.7 * torch.randn(5, 84)
    codes = layer.codes
    assert set(codes.unique().tolist()) == {-1.0, 1.0} and not list(layer.parameters())
    torch.testing.assert_close(
        layer(x), -torch.cdist(x.double(), codes.double()).square().float(), rtol=1e-5, atol=1e-3
    )
    assert layer(codes).argmax(1).tolist() == list(range(10))


def test_codes_of_other_classes_are_fixed_and_distinct():
    once, again = RBF(84, 26).codes, RBF(84, 26).codes
    assert torch.equal(once, again) and once.shape == (26, 84)
    assert len({tuple(code) for code in once.tolist()}) == 26


def test_initial_weights_lie_within_the_papers_bounds():
    torch.manual_seed(0)
    network = create_model("lenet5")
    for layer, fan_in in (
        (network.stages.C1.conv, 25),
        (network.stages.C5.conv, 400),
        (network.head.hidden.F6.fc, 120),
    ):
        assert layer.weight.abs().max() <= 2.4 / fan_in
        assert layer.weight.std() > 0.9 * 2.4 / fan_in / 3**0.5


def test_average_pooling_in_the_head_takes_larger_images():
    network = create_model("lenet5", global_pool="avg").eval()
    assert network(torch.randn(1, 1, 64, 48)).shape == (1, 10)
