"""Occlusion against a loop of single predictions, and windows of stages against whole maps."""

import pytest
import torch

from convarium import create_model
from convarium.errors import UsageError
from convarium.explanation import occlusion as module
from convarium.explanation import windows
from convarium.explanation.occlusion import occluded_logits, occlusion, over_pixels, places
from convarium.networks import CATALOGUE


def one_by_one(model, image, patch, starts, fill=0.0):
    """Logits of each copy alone."""
    rows = []
    for row in starts:
        for column in starts:
            copy = image.clone()
            copy[..., row : row + patch, column : column + patch] = fill
            rows.append(model(copy))
    return torch.cat(rows).detach()


def unsettled(name, **options):
    """A network whose batch norms are not the identity."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=10, **options).eval()
    for norm in model.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.running_mean.normal_(0, 0.1)
            norm.running_var.uniform_(0.5, 1.5)
            norm.bias.data.normal_(0, 0.2)
    return model


class Quarter(torch.nn.Module):
    """A classifier's first stage that reads the upper left quarter of the image, and its mean in the first channel."""

    def forward(self, x):
        half = x.shape[2] // 2
        kept = torch.zeros_like(x)
        kept[..., :half, :half] = x[..., :half, :half]
        return kept


@pytest.fixture(scope="module")
def network():
    return unsettled("resnet20_cifar")


@pytest.mark.parametrize(("patch", "stride", "fill"), [(8, 6, 0.0), (5, 9, -1.5), (32, 1, 0.0)])
def test_it_is_a_loop_of_single_predictions(network, patch, stride, fill):
    images, targets = torch.randn(2, 3, 32, 32), torch.tensor([3, 7])
    given = occlusion(network, images, targets, patch=patch, stride=stride, fill=fill)
    _, starts = places(32, patch, stride)
    for image, target, drop in zip(images, targets, given, strict=True):
        loop = one_by_one(network, image[None], patch, starts, fill).softmax(1)[:, target]
        whole = network(image[None]).softmax(1)[0, target]
        torch.testing.assert_close(drop.flatten(), (whole - loop).detach(), atol=1e-5, rtol=1e-4)


def test_a_network_that_reads_one_quarter_loses_nothing_elsewhere(network):
    model = unsettled("resnet20_cifar")
    model.stages["conv1"] = torch.nn.Sequential(Quarter(), model.stages["conv1"])
    lost = occlusion(model, torch.randn(1, 3, 32, 32), patch=4, stride=4)[0]
    assert lost[:4, :4].abs().min() > 1e-5 and lost.abs().amax() < 1
    assert lost[4:].abs().max() < 1e-6 and lost[:, 4:].abs().max() < 1e-6


def test_a_batch_changes_nothing_and_the_predicted_class_is_taken(network):
    images = torch.randn(2, 3, 32, 32)
    together = occlusion(network, images, patch=8, stride=8)
    alone = torch.cat([occlusion(network, image[None], patch=8, stride=8) for image in images])
    named = occlusion(network, images, network(images).argmax(1), patch=8, stride=8)
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-5)
    assert torch.equal(together, named)


def test_more_copies_than_a_batch_holds_are_split(network, monkeypatch):
    image, sizes = torch.randn(1, 3, 32, 32), []
    expected = occluded_logits(network, image, patch=8, stride=8)
    handle = network.stages["stage1"].register_forward_hook(lambda _module, _given, made: sizes.append(len(made)))
    monkeypatch.setattr(module, "PIXELS_AT_ONCE", 3 * 32 * 32)
    ticks = []
    split = occluded_logits(network, image, patch=8, stride=8, tick=ticks.append)
    handle.remove()
    assert max(sizes) == 3 and ticks[-1] == 16
    torch.testing.assert_close(split, expected, atol=1e-5, rtol=1e-5)


def test_over_pixels_is_the_mean_of_the_squares_that_hide_a_pixel():
    drop = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])  # squares of 2 at 0 and 1, on 3 pixels
    pixels = [[1, 1.5, 2], [2, 2.5, 3], [3, 3.5, 4]]
    torch.testing.assert_close(over_pixels(drop, 3, 2, 1), torch.tensor([pixels]))
    assert over_pixels(torch.ones(1, 2, 2), 5, 1, 4)[0, 0, 1] == 0  # no square hides it


def test_squares_stand_as_in_the_paper_and_reach_the_edge():
    assert places(224) == (32, list(range(0, 193, 8)))
    assert places(30, 8, 5) == (8, [0, 5, 10, 15, 20, 22])


@pytest.mark.parametrize(
    ("patch", "stride", "says"), [(33, 1, "1 to 32 pixels"), (0, 1, "got 0"), (8, 0, "stride must be 1 or more")]
)
def test_a_square_that_does_not_fit_is_refused(network, patch, stride, says):
    with pytest.raises(UsageError, match=says):
        occlusion(network, torch.randn(1, 3, 32, 32), patch=patch, stride=stride)
    with pytest.raises(UsageError, match="takes square images; got 32x40"):
        occlusion(network, torch.randn(1, 3, 32, 40))


# -- windows -----------------------------------------------------------------------------------------------------


@pytest.fixture
def in_double():
    """Small changes of untrained networks are then no rounding."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def check_windows(name, monkeypatch):
    """Maps made of windows are those of whole copies, at corners, edges and odd places; returns the stages that can."""
    monkeypatch.setattr(windows, "WORTH", 0.8)  # wherever they are possible, not only where they pay
    monkeypatch.setattr(windows, "SMALLEST_MAP", 8)
    model = unsettled(name)
    side = model.input_size[1] if model.head.pool.kind == "flatten" else max(97, model.min_input_size)
    image, square = torch.randn(1, model.input_size[0], side, side), 9
    at = [(0, 0), (side - 9, side - 9), (side // 2, 3), (side // 3 + 1, side // 2 + 1), (side - 10, side // 2)]
    with torch.no_grad():
        shared = windows.share(model, image, square)
        given = shared.maps(image.new_zeros(len(at), image.shape[1], square, square), at)
        for (row, column), made in zip(at, given, strict=True):
            whole = image.clone()
            whole[..., row : row + square, column : column + square] = 0
            for local in shared.local:
                whole = local.stage(whole)
            change = (whole - shared.whole).abs().max()
            assert change > 0 and (made - whole[0]).abs().max() < 1e-6 * change
    return [stage for stage, module in model.stages.items() if module in [local.stage for local in shared.local]]


@pytest.mark.parametrize("name", ["lenet5", "resnet18", "bn_inception", "mobilenet_v1_025", "squeezenet1_1"])
def test_windows_give_the_maps_of_whole_copies(name, monkeypatch, in_double):
    assert len(check_windows(name, monkeypatch)) >= 2


def test_what_sees_the_whole_image_ends_the_windows(monkeypatch, in_double):
    """A gate and a soft mask: the stages before them can work on windows, they cannot."""
    assert check_windows("resnet18", monkeypatch)[-1] == "conv2_x"
    model = unsettled("resnet18", attention="se")
    shared = windows.share(model, torch.randn(1, 3, 224, 224), 16)
    assert [local.stage for local in shared.local] == [model.stages["conv1"], model.stages["pool1"]]


FILES = {address.split(":")[0]: name for name, (address, _) in reversed(CATALOGUE.items())}


@pytest.mark.long
@pytest.mark.parametrize("name", FILES.values())
def test_windows_of_one_network_of_each_file(name, monkeypatch, in_double):
    check_windows(name, monkeypatch)
