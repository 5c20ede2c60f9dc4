"""Grad-CAM against its law on global-average-pooled nets, and the verb that draws it."""

import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from convarium import create_model, explain
from convarium.errors import DataError, UsageError
from convarium.explanation.gradcam import coarsest_stage, grad_cam


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return create_model("resnet20_cifar").eval()


def test_with_a_mean_and_a_linear_head_it_is_the_class_activation_map(network):
    """Selvaraju et al., Section 3.1: for a net of the form conv, global mean, linear, Grad-CAM is CAM, whose weights
    are the classifier's own row."""
    x, target = torch.randn(2, 3, 32, 32), torch.tensor([3, 7])
    maps = network.forward_features(x).detach()
    weights = network.get_classifier().weight[target].detach()
    cam = F.relu(torch.einsum("nc,nchw->nhw", weights, maps))
    cam = F.interpolate(cam[:, None], (32, 32), mode="bilinear")[:, 0]
    cam = cam / cam.amax((1, 2), keepdim=True)
    torch.testing.assert_close(grad_cam(network, x, target, "stage3"), cam, atol=1e-5, rtol=1e-4)


def test_it_points_at_the_only_place_that_matters(network):
    """A network that reads one quarter of the image puts all evidence there."""

    class Corner(torch.nn.Module):
        def forward(self, x):
            mask = torch.zeros_like(x)
            mask[..., :4, :4] = 1
            return x.abs() * mask

    masked = create_model("resnet20_cifar").eval()
    masked.stages["stage3"].append(Corner())
    masked.head.classifier.weight.data.abs_()
    heat = grad_cam(masked, torch.randn(1, 3, 32, 32), torch.tensor([0]), "stage3")
    assert heat[0, :16, :16].max() == pytest.approx(1, abs=0.2) and heat[0, 20:, 20:].max() < 1e-6


def test_frozen_weights_and_a_batch_change_nothing(network):
    x = torch.randn(2, 3, 32, 32)
    together = grad_cam(network, x)
    network.requires_grad_(False)
    alone = torch.cat([grad_cam(network, x[i : i + 1]) for i in range(2)])
    network.requires_grad_(True)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_no_evidence_is_all_zeros(network):
    silent = create_model("resnet20_cifar").eval()
    silent.head.classifier.weight.data.zero_()
    assert not grad_cam(silent, torch.randn(1, 3, 32, 32)).any()


@pytest.mark.parametrize(
    ("name", "size", "stage"), [("lenet5", 32, "S4"), ("resnet20_cifar", 16, "stage3"), ("resnet18", 224, "conv5_x")]
)
def test_the_stage_is_the_last_with_a_map_worth_seeing(name, size, stage):
    with torch.device("meta"):
        model = create_model(name)
    assert coarsest_stage(model, torch.empty(1, model.input_size[0], size, size)) == stage


def test_the_verb_draws_a_picture(run, images, tmp_path):
    result = explain(run, [images / "bee" / "000.png"], output=tmp_path, class_name="cat")
    row = result.rows[0]
    seen = result.images[0]
    assert (seen.label, row.numbers["class"]) == ("bee", "cat") and 0.4 < seen.probability <= 1
    with Image.open(row.picture) as picture:
        assert picture.format == "PNG" and min(picture.size) > 200


@pytest.mark.long
def test_images_of_one_name_get_a_picture_each(run, images, tmp_path):
    paths = [images / "ant" / "000.png", images / "bee" / "000.png", images / "bee" / "000.png"]
    pictures = [row.picture for row in explain(run, paths, output=tmp_path).rows]
    assert len(set(pictures)) == 3 == len(list(tmp_path.glob("*.png")))
    with pytest.raises(UsageError, match="gradcam needs images: convarium explain RUN IMAGE"):
        explain(run, [])
    with pytest.raises(UsageError, match="no method 'lime'"):
        explain(run, paths, method="lime")
    with pytest.raises(UsageError, match="cannot make the folder"):
        explain(run, paths, output=images / "ant" / "000.png")


def test_what_is_not_there_is_named(run, images, tmp_path):
    image = images / "bee" / "000.png"
    with pytest.raises(UsageError, match="no class 'be'; nearest: bee"):
        explain(run, [image], class_name="be")
    with pytest.raises(UsageError, match="has no stage 'conv5_x'; stages: conv1, stage1"):
        explain(run, [image], stage="conv5_x")
    with pytest.raises(DataError, match="does not exist"):
        explain(run, [tmp_path / "none.png"])
