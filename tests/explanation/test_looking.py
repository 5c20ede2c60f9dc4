"""What a run's units see and react to: fields, the strongest patches, filters and maps, and the pictures of them."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from convarium import create_model, explain
from convarium.cli import main
from convarium.errors import UsageError
from convarium.explanation.fields import ReceptiveFields, Region, reach_of
from convarium.explanation.figures import montage, stretched
from convarium.explanation.filters import first_filters
from convarium.explanation.receptive_field import unit_gradient
from convarium.explanation.strongest import strongest
from convarium.network import on_meta
from convarium.runs import load_run

# -- fields ------------------------------------------------------------------------------------------------------


def test_what_a_unit_sees_is_a_known_window():
    """LeNet-5, Section II-B: a unit of C1 sees 5x5 pixels, of S2 6x6, of C3 14x14; ZFNet by its table."""
    fields = ReceptiveFields(create_model("lenet5_modern"), (1, 32, 32))
    assert fields.of("C1", 0, 3) == Region(0, 4, 3, 7)
    assert fields.of("S2", 1, 2) == Region(2, 7, 4, 9)
    assert fields.of("C3", 9, 0).sides == (14, 14) and fields.side("C5") == 32
    assert fields.telling() == "S4"
    with on_meta():
        zfnet = create_model("zfnet")
    assert ReceptiveFields(zfnet, (3, 224, 224)).of("conv1", 0, 0) == Region(-1, 5, -1, 5)
    assert ReceptiveFields(zfnet, (3, 224, 224)).telling() == "conv5"


def test_a_region_is_cut_with_its_padding():
    image = np.arange(12.0).reshape(3, 4)
    part = Region(-1, 1, 2, 4).cut(image)
    np.testing.assert_array_equal(part, [[np.nan] * 3, [2, 3, np.nan], [6, 7, np.nan]])
    np.testing.assert_array_equal(Region(-9, 9, 1, 2).cut(image), image[:, 1:3])  # no more rows than there are
    assert Region(-1, 1, 2, 4).inside((3, 4)) == Region(0, 1, 2, 3)


def test_the_reach_holds_its_share():
    """Weight 7 at the middle, 1 at each of two places a step away, 1 four away: 90 % lies within one step."""
    weight, field = np.zeros((9, 9)), Region(0, 8, 0, 8)
    weight[4, 4], weight[3, 4], weight[4, 5], weight[0, 4] = 7, 1, 1, 1
    assert (
        reach_of(weight, field, 0.7) == 0 and reach_of(weight, field, 0.9) == 1 and reach_of(weight, field, 0.95) == 4
    )
    assert field.shrunk(1) == Region(3, 5, 3, 5) and Region(0, 3, 0, 3).shrunk(0.5) == Region(1, 2, 1, 2)
    assert reach_of(0 * weight, field, 0.9) == 0 and field.shrunk(50) == field


def test_the_gradient_of_a_unit_lies_in_its_field():
    torch.manual_seed(0)
    model = create_model("lenet5_modern").eval()
    gradient, units = unit_gradient(model, torch.randn(1, 1, 32, 32), "C3", 3)
    seen = ReceptiveFields(model, (1, 32, 32)).of("C3", int(units.row), int(units.column))
    inside = gradient[0, seen.top : seen.bottom + 1, seen.left : seen.right + 1]
    assert gradient.any() and inside.sum() == gradient.sum()


# -- the strongest patches --------------------------------------------------------------------------------------


def test_one_pass_finds_what_sorting_everything_finds():
    torch.manual_seed(0)
    model = create_model("lenet5_modern").eval()
    images = torch.randn(50, 1, 32, 32)
    batches = [(100 + np.arange(i, min(i + 7, 50)), images[i : i + 7]) for i in range(0, 50, 7)]
    found = strongest(model, batches, ["C3", "C1"])
    assert set(found) == {"C1", "C3"}
    with torch.no_grad():
        _, maps = model.forward_intermediates(images, ["C1", "C3"])
    for stage, every in zip(("C1", "C3"), maps, strict=True):
        for channel in range(every.shape[1]):
            values = every[:, channel].amax((1, 2))
            order = values.argsort(descending=True)[:9]
            torch.testing.assert_close(found[stage].values[channel], values[order])
            order = order[values[order] > 0]  # which of the silent ones come first says nothing
            assert (found[stage].positions[channel] - 100).tolist()[: len(order)] == order.tolist()
            for image, (row, column) in zip(order, found[stage].places(channel), strict=False):
                torch.testing.assert_close(every[image, channel, row, column], values[image])
    few = strongest(model, batches[:1], ["C1"])["C1"]
    assert few.values.shape == (6, 7)


def test_silent_channels_are_left_out():
    model = create_model("lenet5_modern").eval()
    model.stages["C1"].conv.bias.data[2] = -1e6
    found = strongest(model, [(np.arange(3), torch.rand(3, 1, 32, 32))], ["C1"])["C1"]
    assert 2 not in found.alive() and not found.values[2].any()


# -- pictures ---------------------------------------------------------------------------------------------------


def test_contrast_and_tiles():
    signal = np.linspace(-2, 2, 201).reshape(3, 67)
    assert stretched(signal).min() == 0 and stretched(signal).max() == 1 and stretched(0 * signal).mean() == 0.5
    tile = np.array([[0.0, np.nan], [1.0, 0.5]])
    made = montage([tile] * 3, columns=2, side=4, gap=1)
    assert made.shape == (9, 9, 4)
    np.testing.assert_array_equal(made[0, :, 3], [1, 1, 0, 0, 0, 1, 1, 0, 0])  # two clear pixels, the gap, the same
    assert made[2:4, :2, :3].min() == 1 and not made[5:, 5:].any()


@pytest.mark.parametrize("method", ["filters", "activations", "receptive-field", "deconvnet"])
def test_a_method_draws_pictures_of_image_files(run, images, tmp_path, method):
    result = explain(run, [images / "bee" / "000.png"], output=tmp_path, method=method)
    (row,) = result.rows
    assert json.loads(json.dumps(row.numbers)) == row.numbers
    with Image.open(row.picture) as picture:
        assert picture.format == "PNG" and picture.width > 200


@pytest.mark.long
def test_a_data_set_gives_a_sheet(run, images, tmp_path):
    asked = dict(data=str(images), split="all", count=1, method="deconvnet", stage="stage1", output=tmp_path)
    sheet, picture = explain(run, **asked).rows
    rows = sheet.numbers["channels"]
    assert (sheet.name, picture.name) == ("sheet-stage1", "000-000") and len(rows) == 9
    assert all(len(row["images"]) == 9 and row["values"] == sorted(row["values"], reverse=True) for row in rows)
    one = explain(run, **asked, channel=rows[2]["channel"]).rows[0]
    assert one.numbers["channels"] == [rows[2]]


@pytest.mark.long
def test_every_stage_has_a_sheet(run, images, tmp_path):
    rows = explain(run, data=str(images), split="all", count=1, method="deconvnet", output=tmp_path).rows
    assert [row.name for row in rows[:-1]] == [f"sheet-{stage}" for stage in load_run(run).model.stages]


def test_a_silent_channel_is_said_to_be(run, images, tmp_path, monkeypatch):
    def silenced(path):
        loaded = load_run(path)
        norms = [m for m in loaded.model.stages["conv1"].modules() if isinstance(m, nn.BatchNorm2d)]
        norms[0].bias.data[0] = -1e6
        return loaded

    monkeypatch.setattr("convarium.runs.load_run", silenced)
    asked = dict(method="deconvnet,receptive-field", stage="conv1", channel=0, output=tmp_path)
    result = explain(run, [images / "bee" / "000.png"], **asked)
    assert [("silent" in row.says) for row in result.rows] == [True, True]
    with pytest.raises(UsageError, match="channel 0 of conv1: silent on"):
        explain(run, data=str(images), **(asked | {"method": "deconvnet"}))


def test_the_first_filters_are_the_weights():
    model = create_model("lenet5_modern")
    path, filters = first_filters(model)
    assert path == "stages.C1.conv" and filters.shape == (6, 5, 5, 1)
    np.testing.assert_array_equal(filters[3, :, :, 0], model.stages["C1"].conv.weight[3, 0].detach())


def test_the_command_names_what_is_missing(run, images, capsys):
    bee = str(images / "bee" / "000.png")
    for arguments, line in (
        (["--method", "deconvnet"], "deconvnet needs images"),
        (["--method", "deconvnett"], "nearest: deconvnet"),
        ([bee, "--stage", "stage9"], "stages: conv1, stage1"),
        ([bee, "--stage", "conv1", "--channel", "16"], "channels 0 to 15; got 16"),
        ([bee, "--channel", "1"], "channel 1 of which stage"),
    ):
        assert main(["explain", str(run), *arguments]) == 2
        assert line in capsys.readouterr().err
