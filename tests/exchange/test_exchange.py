"""Files of other libraries, written here by their layouts: whose they are, what they become, and what is refused."""

import json
import shutil
from itertools import permutations

import pytest
import torch
from safetensors.torch import load_file, save_file

from convarium import create_model, load_run, predict
from convarium.cli import main
from convarium.errors import ConvariumError, DataError, UsageError
from convarium.exchange.cards import list_cards, show
from convarium.exchange.convert import convert
from convarium.exchange.identify import identify
from convarium.networks import CATALOGUE, create_on_meta
from convarium.weights.cards import all_cards, find_card, read_cards
from convarium.weights.labels import class_names
from convarium.weights.layouts import LIBRARIES, find_layout, layouts
from convarium.weights.loading import load_source, look_alikes
from convarium.weights.source import Source


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    return {
        "resnet18": create_model("resnet18").eval(),
        "resnet50": create_model("resnet50_v1_5", num_classes=7).eval(),
    }


@pytest.fixture(scope="module")
def files(networks, tmp_path_factory):
    """What torchvision would have written of them."""
    folder, made = tmp_path_factory.mktemp("files"), {}
    for key, network in networks.items():
        made[key] = folder / f"{key}.safetensors"
        save_file(find_layout("torchvision", network.name).save(network), made[key])
    return made


@pytest.mark.long
def test_a_file_is_identified_by_keys_and_shapes(files):
    found = identify(files["resnet18"])
    assert (found.certain.network, found.certain.library, found.certain.classes) == ("resnet18", "torchvision", 1000)
    assert found.kind == "safetensors" and found.card == ""


@pytest.mark.long
def test_networks_that_share_keys_are_all_told_and_none_is_certain(files, capsys):
    found = identify(files["resnet50"])
    assert found.certain is None
    assert found.candidates[0].network == "resnet50_v1_5"
    assert {"resnet50", "resnet50_v1_5"} <= {c.network for c in found.candidates}
    assert {c.classes for c in found.candidates} == {7}
    assert main(["weights", "identify", str(files["resnet50"])]) == 0
    assert "the same keys and shapes have: resnet50" in capsys.readouterr().out


@pytest.mark.long
def test_converting_asks_which_of_several(files, tmp_path):
    with pytest.raises(UsageError, match=r"fits several networks.*--network, one of resnet50_v1_5"):
        convert(files["resnet50"], output=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    convert(files["resnet50"], output=tmp_path / "run", network="resnet50")
    assert load_run(tmp_path / "run").model.name == "resnet50"
    with pytest.raises(DataError, match="does not fit vgg16"):
        convert(files["resnet50"], output=tmp_path / "other", network="vgg16")


@pytest.mark.long
def test_a_converted_run_predicts_and_goes_back(files, networks, tmp_path, images):
    made = convert(files["resnet18"], output=tmp_path / "run")
    run = load_run(tmp_path / "run")
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(run.model(x), networks["resnet18"](x))
    assert run.class_names == list(class_names("imagenet-1k")) and made.classes == 1000
    assert predict(tmp_path / "run", [str(next(images.rglob("*.png")))]).rows[0].labels[0] in run.class_names
    convert(tmp_path / "run", output=tmp_path / "back.safetensors", to="torchvision")
    first, again = load_file(files["resnet18"]), load_file(tmp_path / "back.safetensors")
    assert first.keys() == again.keys() and all(torch.equal(first[key], again[key]) for key in first)


def test_create_model_reads_other_libraries_files_and_says_what_was_decided(files, networks, capsys):
    x = torch.randn(1, 3, 64, 64)
    loaded = create_model("resnet50_v1_5", num_classes=7, weights=str(files["resnet50"])).eval()
    with torch.no_grad():
        assert torch.equal(loaded(x), networks["resnet50"](x))
    said = " ".join(capsys.readouterr().err.split())
    assert (
        "is read as resnet50_v1_5, as asked" in said and "resnet50, resnet50_caffe, which are other functions" in said
    )
    create_model("resnet50", num_classes=7, weights=str(files["resnet50"]))
    assert "is read as resnet50, as asked" in " ".join(capsys.readouterr().err.split())
    create_model("resnet18", weights=str(files["resnet18"]))  # nothing is like it
    told = "resnet18.safetensors does not say how its images are prepared: taken as for torchvision:IMAGENET1K_V1\n"
    assert capsys.readouterr().err == told
    fresh = create_model("resnet18", num_classes=3, in_chans=1, weights=str(files["resnet18"]))
    said = capsys.readouterr().err
    assert "a fresh classifier for 3 classes" in said and "summed" in said
    assert fresh(x[:, :1]).shape == (1, 3)


def test_a_file_of_another_network_is_refused_from_both_sides(files):
    with pytest.raises(DataError, match=r"resnet34: missing 80 \(layer1.2.bn1.bias.*"):
        create_model("resnet34", weights=str(files["resnet18"]))
    with pytest.raises(DataError, match=r"missing .*unexpected"):
        create_model("vgg11", weights=str(files["resnet18"]))
    with pytest.raises(DataError, match="of another shape"):
        create_model("resnet50_v1_5", weights=str(files["resnet50"]))  # 1000 classes are wanted, 7 are there


def test_a_hash_decides_where_keys_do_not(files, monkeypatch):
    card = next(card for card in all_cards() if card.network == "resnet50_v1_5")
    source = Source(files["resnet50"], card)
    with pytest.raises(DataError, match="by its hash: that is another function than resnet50"):
        load_source(create_model("resnet50", num_classes=7), source)
    assert load_source(create_model("resnet50_v1_5", num_classes=7), source) == []


@pytest.mark.long
def test_no_file_loads_silently_into_another_network():
    """All networks with the same keys and shapes, whose files fit each other, are told by name as one is loaded."""
    signatures = {}
    for name in CATALOGUE:
        network = create_on_meta(name)
        shapes = tuple((key, tuple(value.shape)) for key, value in network.state_dict().items())
        signatures.setdefault(shapes, []).append(network)
    groups = [networks for networks in signatures.values() if len(networks) > 1]
    assert any({"resnet50", "resnet50_v1_5"} <= {network.name for network in networks} for networks in groups)
    for networks in groups:
        for network, other in permutations(networks, 2):
            assert network.name in look_alikes(other.name)  # what load_source says when a file does not


@pytest.mark.long
def test_every_card_has_a_layout_and_a_network_that_it_fits():
    for card in all_cards():
        assert card.network in CATALOGUE, card
        assert card.library in LIBRARIES, card
        assert find_layout(card.library, card.network) is not None, card
        assert 0.5 < card.crop_pct <= 1 and card.size in range(28, 400), card
        assert card.classes == len(class_names(card.labels, card.background)) or card.labels != "imagenet-1k", card
    names = [(card.network, card.name) for card in all_cards()]
    assert len(names) == len(set(names))
    best = [card.network for card in all_cards() if card.recommended]
    assert len(best) == len(set(best))


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.long
def test_layouts_name_networks_that_exist_and_no_key_twice(library):
    for layout in layouts(library):
        fitting = [name for name in CATALOGUE if layout.fits(name)]
        assert fitting, layout.networks
        keys = layout.keys(create_on_meta(fitting[0]))
        assert len({*keys.values()}) == len(keys)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("resnet18", "torchvision:IMAGENET1K_V9"), UsageError, "nearest: torchvision:IMAGENET1K_V1"),
        (("resnet18", "torchvision:IMAGENET1K_V2"), UsageError, "are of resnet50_v1_5"),
        (("lenet5", "torchvision:IMAGENET1K_V1"), UsageError, "are of alexnet_owt"),
    ],
)
def test_a_tag_that_does_not_exist(arguments, error, message):
    name, weights = arguments
    with pytest.raises(error, match=message):
        create_model(name, weights=weights)
    with pytest.raises(error, match=message):
        show(name, weights)


def test_networks_without_public_weights_say_so():
    with pytest.raises(UsageError, match="no public weights of lenet5 are known"):
        create_model("lenet5", pretrained=True)
    with pytest.raises(UsageError, match="nearest"):
        list_cards("resnet5O")


def test_offline_says_so_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("CONVARIUM_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("CONVARIUM_OFFLINE", "1")
    with pytest.raises(ConvariumError, match="resnet18-f37072fd"):
        create_model("resnet18", pretrained=True)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_card_makes_the_preprocessing_and_the_classes(networks, tmp_path, monkeypatch):
    """Its file here is one of ours, so its hash is put into the card."""
    import hashlib
    from dataclasses import replace

    from convarium.weights import cards, source

    file = tmp_path / "resnet18-00000000.safetensors"
    save_file(find_layout("torchvision", "resnet18").save(networks["resnet18"]), file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    made = dict(url=file.as_uri(), checksum=f"sha256:{digest}", size=160, crop_pct=0.9)
    card = replace(cards.find_card("resnet18", "torchvision"), **made)
    monkeypatch.setattr(source, "fetch_card", lambda card: Source(file, card, trusted=True))
    monkeypatch.setattr(cards, "all_cards", lambda: (card,))
    network = create_model("resnet18", pretrained=True).eval()
    assert network.pretrained_cfg["input_size"] == (3, 160, 160) and network.pretrained_cfg["crop_pct"] == 0.9
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(network(x), networks["resnet18"](x))


@pytest.mark.long
def test_a_file_of_unknown_origin_is_prepared_for_as_its_librarys_own_are(tmp_path, capsys):
    """Keras' ResNets take blue, green, red of 0 to 255; so does one that says nothing, unless told otherwise."""
    theirs = create_model("resnet50", num_classes=4).eval()
    layout, x = find_layout("keras", "resnet50"), torch.randn(1, 3, 64, 64)
    file = tmp_path / "mine.safetensors"
    save_file(layout.save(theirs, bgr=True), file)
    ours = create_model("resnet50", num_classes=4, weights=file).eval()
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-4)
    assert ours.pretrained_cfg["mean"] == pytest.approx((123.68 / 255, 116.779 / 255, 103.939 / 255))
    assert ours.pretrained_cfg["std"] == pytest.approx((1 / 255,) * 3)
    said = capsys.readouterr().err
    assert (
        "taken as for keras:imagenet, blue, green, red; where they are red, green, blue: convarium weights conv" in said
    )
    first = "stages.conv1.conv.weight"
    told = load_source(plain := create_model("resnet50", num_classes=4), Source(file, bgr=False))
    assert torch.equal(plain.state_dict()[first], theirs.state_dict()[first].flip(1))
    assert told[-1].endswith("taken as for keras:imagenet, but red, green, blue")


@pytest.mark.long
def test_the_order_of_colours_is_asked_for_on_the_command_line(tmp_path, capsys):
    network, file = create_model("resnet50", num_classes=4), tmp_path / "mine.safetensors"
    save_file(find_layout("keras", "resnet50").save(network), file)
    command = ["weights", "convert", str(file), "--network", "resnet50", "--output", str(tmp_path / "run")]
    assert main(["weights", "identify", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["candidates"][0]["bgr"]
    key = "stages.conv1.conv.weight"
    for option, turned in ([], True), (["--no-bgr"], False), (["--bgr"], True):
        assert main([*command, "--overwrite", *option]) == 0
        kernel = load_file(tmp_path / "run" / "model.safetensors")[key]
        assert torch.equal(kernel, network.state_dict()[key].flip(1) if turned else network.state_dict()[key])
    for option in [], ["--no-bgr"]:
        assert main(["weights", "convert", str(tmp_path / "run"), "--to", "keras", "--output", str(file), *option]) == 0
        written = load_file(file)["conv1_conv/kernel"].permute(3, 2, 0, 1)
        assert torch.equal(written, kernel if option else kernel.flip(1))


def test_a_card_without_an_address_says_where_its_file_is():
    with pytest.raises(UsageError, match=r"no address of resnet50_caffe caffe:msra is known: it is ResNet-50-model"):
        create_model("resnet50_caffe", weights="caffe:msra")


@pytest.mark.parametrize("named", ["resnet50_weights_tf_dim_ordering_tf_kernels.h5", "mine-DIGITS.h5"])
def test_a_file_is_known_by_a_hash_of_any_kind(named, tmp_path, monkeypatch):
    """By its library's name for it, or by digits in its name; any other file is not read for it."""
    import hashlib
    from dataclasses import replace

    from convarium.weights import source

    digest = hashlib.md5(b"weights").hexdigest()
    card = replace(find_card("resnet50", "keras:imagenet"), checksum=f"md5:{digest}")
    monkeypatch.setattr(source, "all_cards", lambda: (card,))
    for name, content, known in ((named, b"weights", True), (named, b"others", False), ("x.h5", b"weights", False)):
        file = tmp_path / name.replace("DIGITS", digest[:8])
        file.write_bytes(content)
        assert source.card_by_hash(file) == (card if known else None)


def test_bad_cards_are_refused():
    with pytest.raises(DataError, match=r"x.toml, resnet18:a: unknown key 'sze'; keys: library"):
        read_cards('[[cards]]\nnetwork = "resnet18"\ntag = "a"\nsze = 3\n', "x.toml")
    with pytest.raises(DataError, match=r"x.toml, resnet18:a: .*missing"):
        read_cards('[[cards]]\nnetwork = "resnet18"\ntag = "a"\n', "x.toml")


def test_the_commands(capsys):
    assert main(["weights", "list", "resnet18", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cards"][0]["network"] == "resnet18"
    assert main(["weights", "lst"]) == 2
    assert "no command 'weights lst'; nearest: weights list" in capsys.readouterr().err


def test_a_file_of_nobody(tmp_path):
    save_file({"a": torch.zeros(3)}, tmp_path / "odd.safetensors")
    with pytest.raises(DataError, match="fits no network of the catalogue: 1 tensors, 3 numbers, beginning with a"):
        identify(tmp_path / "odd.safetensors")


def test_a_runs_preprocessing_comes_with_its_weights(run, tmp_path):
    run = shutil.copytree(run, tmp_path / "run")
    told = json.loads((run / "config.json").read_text())["pretrained_cfg"]
    network = create_model(load_run(run).model.name, num_classes=3, weights=run)
    assert list(network.pretrained_cfg["mean"]) == told["mean"] and list(network.input_size) == told["input_size"]
    (run / "config.json").write_text("{}")
    with pytest.raises(DataError, match="does not say how images are prepared"):
        create_model(network.name, num_classes=3, weights=run)


@pytest.mark.long
def test_a_run_of_another_network_is_refused_even_where_all_keys_are_the_same(files, tmp_path):
    convert(files["resnet50"], output=tmp_path / "run", network="resnet50")
    with pytest.raises(DataError, match=r"the weights of resnet50, not of resnet50_v1_5"):
        create_model("resnet50_v1_5", num_classes=7, weights=tmp_path / "run")
