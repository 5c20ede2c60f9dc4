"""Asking another library for its logits: a stand-in for torchvision, and what is said where there is none."""

import json
import sys

import pytest
from safetensors.torch import save_file

from convarium import create_model
from convarium.cli import main
from convarium.exchange.pairs import PAIRS
from convarium.exchange.peers import MODULES, NotComparable, difference, import_peer
from convarium.networks import CATALOGUE
from convarium.weights.files import read_tensors
from convarium.weights.layouts import find_layout

# A network with torchvision's keys that answers a thousandth more than it should.
STAND_IN = """
from torch import nn
from convarium import create_model
from convarium.weights.layouts import find_layout


class Peer(nn.Module):
    def __init__(self, name, num_classes):
        super().__init__()
        self.inner, self.layout = create_model(name, num_classes=num_classes), find_layout("torchvision", name)

    def state_dict(self):
        return self.layout.save(self.inner)

    def load_state_dict(self, theirs, strict):
        self.inner.load_state_dict(self.layout.load(self.inner, theirs, "file"))

    def forward(self, x):
        return 1.001 * self.inner(x)


def squeezenet1_1(num_classes):
    return Peer("squeezenet1_1", num_classes if num_classes != 9 else 10)
"""


@pytest.fixture
def library(tmp_path, monkeypatch):
    """Writes a torchvision whose package and module ``models`` hold what is given."""
    monkeypatch.syspath_prepend(str(tmp_path / "site"))

    def write(package: str = "", models: str = STAND_IN) -> None:
        folder = tmp_path / "site" / "torchvision"
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text(package)
        (folder / "models.py").write_text(models)
        (told := tmp_path / "site" / "torchvision-1.2.3.dist-info").mkdir()
        (told / "METADATA").write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 1.2.3\n")

    yield write
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "net.safetensors"
    save_file(find_layout("torchvision", "squeezenet1_1").save(create_model("squeezenet1_1", num_classes=6)), path)
    return path


def asked(name, library, path, **arguments):
    network = create_model(name, weights=path, **arguments).eval()
    return difference(network, library, read_tensors(path), bgr=False)


@pytest.mark.long
def test_converting_prints_the_largest_difference(library, file, tmp_path, capsys):
    library()
    command = ["weights", "convert", str(file), "--output", str(tmp_path / "run"), "--overwrite"]
    assert main(command) == 0
    assert "largest difference of logits against torchvision 1.2.3: 0.001 of the largest" in capsys.readouterr().out
    assert main([*command, "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["asked"] == "torchvision 1.2.3" and made["difference"] == pytest.approx(1e-3, rel=0.01)


@pytest.mark.parametrize(
    ("package", "reason"),
    [
        (
            "raise RuntimeError('operator torchvision::nms does not exist\\nmore')",
            r"imported \(operator .* not exist\)$",
        ),
        ("import nowhere", "^nowhere, which torchvision needs, is not installed"),
        ("from torch import nothing_like_it", r"^torchvision cannot be imported \(cannot import name"),
    ],
)
def test_a_library_that_cannot_be_imported_is_told_in_a_line(package, reason, library):
    library(package)
    with pytest.raises(NotComparable, match=reason) as error:
        import_peer("torchvision")
    assert "\n" not in str(error.value)


def test_a_library_that_is_not_installed_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "pretrainedmodels", None)
    with pytest.raises(NotComparable, match=r"^pretrainedmodels is not installed$"):
        import_peer("cadene")


def test_what_a_library_does_not_build_is_told(library, file, tmp_path):
    library()
    assert asked("squeezenet1_1", "torchvision", file, num_classes=6)[1] == pytest.approx(1e-3, rel=0.01)
    with pytest.raises(NotComparable, match=r"no library of this kind can be asked for caffe"):
        asked("squeezenet1_1", "caffe", file, num_classes=6)
    with pytest.raises(NotComparable, match=r"torchvision builds squeezenet1_1 for three channels only"):
        asked("squeezenet1_1", "torchvision", file, num_classes=6, in_chans=1)
    nine = tmp_path / "nine.safetensors"
    save_file(find_layout("torchvision", "squeezenet1_1").save(create_model("squeezenet1_1", num_classes=9)), nine)
    with pytest.raises(NotComparable, match=r"builds squeezenet1_1 with other keys or shapes than this file's"):
        asked("squeezenet1_1", "torchvision", nine, num_classes=9)
    network = create_model("resnet50")
    with pytest.raises(NotComparable, match=r"torchvision has no network of the function of resnet50"):
        difference(network, "torchvision", read_tensors(file), bgr=False)


def test_every_pair_is_of_a_network_with_a_layout_and_of_a_library_that_can_be_asked():
    for pair in PAIRS:
        assert pair.ours in CATALOGUE and pair.library in MODULES, pair
        assert find_layout(pair.library, pair.ours), pair
