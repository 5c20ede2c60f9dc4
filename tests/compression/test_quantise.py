"""Int8: right in both runtimes alone, within the budget or not at all, with what cannot bear it left in float."""

import dataclasses

import numpy as np
import onnx
import pytest
import torch

from convarium import create_model
from convarium.compression import int8, trials
from convarium.compression.layers import PREPROCESSING, in_groups, layers_of_nodes
from convarium.compression.quantise import quantise
from convarium.compression.quantised import OverBudget
from convarium.compression.samples import Samples, choose_samples
from convarium.compression.sensitivity import MOST_DB, fewest, sqnr_db
from convarium.data.datasets import open_dataset
from convarium.data.preprocess import Preprocessing
from convarium.data.resize import Preprocess
from convarium.deploy.onnx import export_onnx
from convarium.deploy.seal import check_seal
from convarium.errors import DataError, UsageError
from convarium.runs import load_run

SUFFIX = {"openvino": ".xml", "onnxruntime": ".onnx"}
BROKEN = "stages.stage2.1.branch.1.conv"


# -- parts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("fpu avx2 avx512_vnni", True), ("fpu avx_vnni", True), ("fpu avx512f avx512_vnni_like", False)],
)
def test_vnni_is_read_from_the_flags_of_the_processor(tmp_path, flags, expected):
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nmodel name\t: avx_vnni\nflags\t\t: {flags}\n")
    assert int8.has_vnni(tmp_path / "cpuinfo") is expected


def test_a_system_that_does_not_tell_has_no_vnni(tmp_path):
    assert not int8.has_vnni(tmp_path / "none")


def test_signal_to_noise_of_logits():
    exact = np.array([[3.0, -3.0], [1.0, -1.0]])
    assert sqnr_db(exact, exact * 1.1) == pytest.approx(20)  # a tenth of the amplitude
    assert sqnr_db(exact, exact + 5) == sqnr_db(exact, exact) == MOST_DB  # equal steps change no prediction
    assert sqnr_db(exact, exact * np.nan) == -MOST_DB


@pytest.mark.parametrize("needed", range(1, 9))
def test_the_fewest_that_fit_are_found(needed):
    tried = []

    def attempt(layers):
        tried.append(len(layers))
        return len(layers)

    order = [f"layer {i}" for i in range(9)]
    found = fewest(order, attempt, fits=lambda count: count >= needed, worth=lambda count: True)
    assert found == needed
    assert len(tried) == len(set(tried)) <= 7


def test_the_search_ends_where_nothing_is_gained_or_all_but_one_is_given_away():
    tried = []

    def attempt(layers):
        tried.append(len(layers))
        return len(layers)

    order = [f"layer {i}" for i in range(9)]
    assert fewest(order, attempt, fits=lambda count: count >= 6, worth=lambda count: count < 3) is None
    assert fewest(order, attempt, fits=lambda count: False, worth=lambda count: True) is None
    assert tried == [1, 2, 4, 1, 2, 4, 8]
    assert fewest(order[:1], attempt, fits=lambda count: True, worth=lambda count: True) is None


def test_layers_are_grouped_where_they_are_many():
    layers = ["stem", "a.0.conv", "a.0.fc", "a.1.conv", "b.0.conv"]
    assert list(in_groups(layers, 5)) == layers
    assert in_groups(layers, 4) == {
        "stem": ["stem"], "a.0": ["a.0.conv", "a.0.fc"], "a.1": ["a.1.conv"], "b.0": ["b.0.conv"],
    }  # fmt: skip
    assert list(in_groups(layers, 3)) == ["stem", "a", "b"]


def test_a_node_belongs_to_the_last_layer_before_it():
    def node(kind, name, *inputs):
        return onnx.helper.make_node(kind, list(inputs), [name], name=name)

    weights = ["1.conv.weight", "1.gate.fc.weight", "masked"]
    graph = onnx.helper.make_graph(
        [
            node("MatMul", "resize", "image", "image"),
            node("Conv", "conv", "resize", "1.conv.weight"),
            node("Relu", "relu", "conv"),
            node("Gemm", "fc", "relu", "1.gate.fc.weight"),
            node("Mul", "product", "fc", "relu"),
            node("Conv", "last", "product", "masked"),
        ],
        "graph", [], [],
        [onnx.numpy_helper.from_array(np.zeros((2, 2), np.float32), name) for name in weights],
    )  # fmt: skip
    assert layers_of_nodes(graph) == {
        "resize": PREPROCESSING, "conv": "conv", "relu": "conv", "fc": "gate.fc", "product": "gate.fc", "last": "last",
    }  # fmt: skip


# -- images -------------------------------------------------------------------------------------------------------


def test_samples_are_even_over_the_classes_and_apart_from_the_judges(run, draw_folder, tmp_path):
    dataset = open_dataset(draw_folder(tmp_path / "data", {"ant": 40, "bee": 10, "cat": 5}))
    calibration, judges = choose_samples(load_run(run), dataset, 18)
    assert np.bincount(calibration.labels).tolist() == [7, 7, 4]  # cat has no more to give
    assert set(calibration.positions) <= set(dataset.splits["train"])
    assert set(judges.positions) == set(dataset.splits["val"])


def test_data_that_is_held_out_alone_gives_samples_and_judges(run, images):
    whole = open_dataset(images)
    dataset = dataclasses.replace(whole, splits={"val": np.arange(36)})
    calibration, judges = choose_samples(load_run(run), dataset, 6)
    assert np.bincount(calibration.labels).tolist() == [2, 2, 2]
    assert len(judges) == 30 and not set(calibration.positions) & set(judges.positions)
    with pytest.raises(DataError, match="no images to judge on"):
        choose_samples(load_run(run), dataset, 36)


def test_images_of_many_sizes_are_judged_in_their_order(run, images):
    dataset = open_dataset(images)
    sizes = [(4 + i % 3, 5, 3) for i in range(70)]
    shown = [np.full(size, i, np.uint8) for i, size in enumerate(sizes)]
    samples, _ = choose_samples(load_run(run), dataset, 1)
    fake = dataclasses.replace(dataset, images=shown)
    samples = dataclasses.replace(samples, dataset=fake, positions=np.arange(70), labels=np.zeros(70, int))
    assert samples.logits(lambda batch: batch[:, 0, 0].astype(np.float32))[:, 0].tolist() == list(range(70))


def test_data_that_cannot_calibrate(run, images, draw_folder, tmp_path):
    loaded, dataset = load_run(run), open_dataset(images)
    nothing = dataclasses.replace(dataset, splits={**dataset.splits, "train": np.array([], int)})
    with pytest.raises(DataError, match="no images to calibrate on"):
        quantise(loaded, nothing, output=tmp_path / "model.onnx", backend="onnxruntime")
    others = open_dataset(draw_folder(tmp_path / "others", {"ant": 3, "bee": 3, "cow": 3}))
    with pytest.raises(DataError, match="'cow', which the weights do not know"):
        quantise(loaded, others, output=tmp_path / "model.onnx", backend="onnxruntime")
    assert not list(tmp_path.glob("model*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "tensorrt"}, "backend must be one of openvino, onnxruntime; got 'tensorrt'"),
        ({"backend": "openvino"}, r"ends in \.xml"),
        ({"samples": 0}, "samples must be 1 or more; got 0"),
        ({"max_drop": -0.1}, "0 to 100; got -0.1"),
        ({"max_drop": float("nan")}, "0 to 100; got nan"),
    ],
)
def test_what_is_refused(run, images, tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        quantise(
            load_run(run), open_dataset(images), output=tmp_path / "x.onnx", **{"backend": "onnxruntime", **options}
        )


def test_a_folder_that_is_not_there_is_refused_at_once(run, images, tmp_path):
    with pytest.raises(UsageError, match=r"no folder .*nowhere"):
        quantise(load_run(run), open_dataset(images), output=tmp_path / "nowhere" / "x.xml")


# -- whole --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def more(draw_folder, tmp_path_factory):
    """More images of the classes of ``run``, of another size."""
    return open_dataset(
        draw_folder(tmp_path_factory.mktemp("more") / "images", dict(ant=60, bee=60, cat=60), 20, seed=7)
    )


def alone(path):
    """The logits of an exported file, by nothing but its runtime."""
    if path.suffix == ".xml":
        import openvino

        model = openvino.Core().compile_model(str(path), "CPU")
        return lambda batch: model({"image": batch})[0]
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda batch: session.run(["logits"], {"image": batch})[0]


@pytest.mark.long
@pytest.mark.parametrize("backend", SUFFIX)
def test_an_int8_file_works_alone_on_images_of_any_size(run, more, tmp_path, backend, capfd):
    loaded, path = load_run(run), tmp_path / f"model{SUFFIX[backend]}"
    result = quantise(loaded, more, output=path, backend=backend, samples=30, max_drop=3)
    assert capfd.readouterr() == ("", "")
    assert result.path == str(path) and result.best.costs_at_most(3) and not result.best.in_float
    assert (
        result.best.bytes <= sum(file.stat().st_size for file in tmp_path.iterdir()) < result.best.bytes + 256
    )  # seal
    assert b"convarium-sha256:" in path.read_bytes()
    check_seal(path)
    assert not list(tmp_path.glob(".*")) and "points" in result.sentence()
    weights = path.with_suffix(".bin") if backend == "openvino" else path
    assert weights.stat().st_size < result.float_bytes / 2
    logits, shown = alone(path), torch.nn.Sequential(Preprocess(loaded.preprocessing), loaded.model)
    for height, width in ((20, 20), (7, 9), (300, 211), (16, 160)):
        batch = np.stack([more.read(i, 3) for i in range(0, 180, 20)])
        batch = np.ascontiguousarray(batch[:, np.arange(height) * 20 // height][:, :, np.arange(width) * 20 // width])
        with torch.inference_mode():
            exact = shown(torch.from_numpy(batch)).numpy()
        second, first = np.sort(exact, axis=1)[:, -2:].T
        decided = first - second > 1
        assert decided.sum() >= 3
        assert (logits(batch).argmax(1) == exact.argmax(1))[decided].all()


@pytest.mark.long
@pytest.mark.parametrize("backend", SUFFIX)
def test_preprocessing_stays_as_exact_as_in_float(run, more, tmp_path, backend):
    # All layers in float: what is left of the difference would be the preprocessing's.
    chosen, _ = choose_samples(load_run(run), more, 4)
    layers = trials._export(load_run(run), tmp_path / "float.onnx")
    path = tmp_path / f"model{SUFFIX[backend]}"
    runtime = trials.BACKENDS[backend]
    runtime.quantise(tmp_path / "float.onnx", path, chosen, int8.Settings(False, set(layers[1:])))
    text = path.read_bytes() if backend == "onnxruntime" else path.read_text()
    assert (b"QuantizeLinear" if backend == "onnxruntime" else "FakeQuantize") in text
    runtime.quantise(tmp_path / "float.onnx", path, chosen, int8.Settings(False, set(layers)))
    exact, same = (chosen.logits(runtime.open(file)) for file in (tmp_path / "float.onnx", path))
    np.testing.assert_allclose(same, exact, rtol=1e-5, atol=1e-5)


@pytest.mark.long
def test_a_padding_of_minus_infinity_gets_no_scale(more, tmp_path):
    # Max pools that round up pad so; onnxruntime took the scale of such a map from it, and it was no number.
    torch.manual_seed(0)
    settings = Preprocessing(32, 3, (0.5,) * 3, (0.25,) * 3)
    source, path = tmp_path / "float.onnx", tmp_path / "int8.onnx"
    export_onnx(
        create_model("bn_inception", num_classes=3), settings, more.class_names, source, metadata={}, parity_images=[]
    )
    samples = Samples(more, np.arange(8), more.labels[:8], 3)
    int8.quantise_onnxruntime(source, path, samples, int8.Settings(False))
    infinite = [tensor for tensor in weights_of(source) if np.isinf(tensor).any()]
    assert infinite and len([t for t in weights_of(path) if not np.isfinite(t).all()]) == len(infinite)
    network = trials.BACKENDS["onnxruntime"].open
    assert sqnr_db(samples.logits(network(source)), samples.logits(network(path))) > 20


def weights_of(path):
    tensors = (onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer)
    return [tensor for tensor in tensors if tensor.dtype.kind == "f"]


def break_a_map(loaded):
    """The same function, but one channel of a map is ten thousand times the others, and its readers' weights as much
    smaller: with one scale for the map, the other channels round to nothing."""
    branch = loaded.model.stages.stage2[1].branch
    with torch.no_grad():
        branch[0].norm.weight[0] *= 1e4
        branch[0].norm.bias[0] = branch[0].norm.bias[0].abs().clamp(min=0.1) * 1e4
        branch[1].conv.weight[:, 0] *= 1e-4
    return loaded


@pytest.mark.long
@pytest.mark.parametrize(
    ("backend", "most_groups", "groups", "broken"),
    [("openvino", 6, 5, "stages.stage2"), ("onnxruntime", 64, 20, BROKEN)],
)
def test_what_cannot_bear_int8_stays_in_float(run, more, tmp_path, backend, most_groups, groups, broken, monkeypatch):
    monkeypatch.setattr(trials, "MOST_GROUPS", most_groups)  # by stages the slower quantiser is done soon
    monkeypatch.setattr(trials, "speed_up", lambda before, after, images: 1.5)
    path = tmp_path / f"model{SUFFIX[backend]}"
    result = quantise(break_a_map(load_run(run)), more, output=path, backend=backend, samples=30, max_drop=0)
    assert len(result.sensitivity) == groups and result.sensitivity[0].layer == broken
    assert broken in result.best.in_float
    assert path.is_file()


@pytest.mark.long
def test_over_budget_there_is_no_file(run, more, tmp_path, monkeypatch):
    monkeypatch.setattr(trials, "speed_up", lambda before, after, images: 0.9)
    path = tmp_path / "model.onnx"
    with pytest.raises(OverBudget, match=rf"dB  {BROKEN}") as caught:
        quantise(break_a_map(load_run(run)), more, output=path, backend="onnxruntime", samples=30, max_drop=0)
    assert caught.value.exit_code == 4
    assert caught.value.result.path is None and len(caught.value.result.sensitivity) == 20
    assert not list(tmp_path.iterdir())


@pytest.mark.long
@pytest.mark.parametrize("backend", SUFFIX)
@pytest.mark.parametrize("vnni", [True, False])
def test_weights_have_seven_bits_where_the_processor_lacks_vnni(run, more, tmp_path, backend, vnni, monkeypatch):
    monkeypatch.setattr(int8, "has_vnni", lambda: vnni)
    path = tmp_path / f"model{SUFFIX[backend]}"
    result = quantise(load_run(run), more, output=path, backend=backend, samples=8, max_drop=100)
    assert result.weight_bits == (8 if vnni else 7)
    steps = largest_weights(path)
    assert len(steps) == 20
    assert all((step > 100) is vnni and (step <= 64) is not vnni for step in steps)


def largest_weights(path):
    """The largest absolute value in every int8 tensor of weights."""
    if path.suffix == ".onnx":
        graph = onnx.load(path).graph
        weights = [
            onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.name.endswith("_quantized")
        ]
        return [int(abs(w.astype(int)).max()) for w in weights if w.ndim > 1 and w.dtype == np.int8]
    import openvino

    model = openvino.Core().read_model(path)
    constants = [
        o for o in model.get_ops() if o.get_type_name() == "Constant" and o.get_element_type().get_type_name() == "i8"
    ]
    return [int(abs(c.data.astype(int)).max()) for c in constants if c.data.ndim > 1]
