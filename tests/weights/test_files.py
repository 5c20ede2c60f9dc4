"""Weight files of every dialect: what they hold comes out as it was; what they should not hold is refused."""

import contextlib
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from convarium.errors import DataError, UsageError
from convarium.weights import keras_file, torch_file, unpickle
from convarium.weights.files import kind_of, read_tensors
from convarium.weights.keras_file import renumbered


def refused(path: Path, reason: str, *, trusted: bool = True) -> None:
    """It is refused for ``reason``, in one line that names the file."""
    with pytest.raises(DataError, match=reason) as error:
        read_tensors(path, trusted=trusted)
    assert path.name in str(error.value) and "\n" not in str(error.value)


def assert_equal(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        assert found[key].dtype == value.dtype and torch.equal(found[key], value), key


TENSORS = {
    "conv.weight": torch.randn(4, 3, 2, 2),
    "conv.half": torch.randn(5).half(),
    "bn.count": torch.tensor(7),
    "bf": torch.randn(3, 1).bfloat16(),
    "mask": torch.tensor([True, False, True]),
    "none": torch.empty(0, 4),
}

# --- safetensors


def test_safetensors_come_back_with_their_metadata(tmp_path):
    save_file(TENSORS, tmp_path / "weights", {"of": "lenet5"})
    file = read_tensors(tmp_path / "weights")
    assert (file.kind, file.metadata) == ("safetensors", {"of": "lenet5"})
    assert_equal(file.tensors, TENSORS)


def test_the_tensors_of_a_file_do_not_change_with_it(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.ones(1000)}, path)
    tensors = read_tensors(path).tensors
    with open(path, "rb+") as file:  # written over in place, which would change mapped pages
        file.seek(-4000, os.SEEK_END)
        file.write(bytes(4000))
    assert tensors["a"].sum() == 1000


def entry(start: int, end: int, shape: tuple[int, ...] = (1,), dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


@pytest.mark.parametrize(
    ("header", "data_bytes", "length"),
    [
        pytest.param({"a": entry(0, 8, (2,)), "b": entry(4, 12, (2,))}, 12, None, id="tensors overlap"),
        pytest.param({"a": entry(0, 4), "b": entry(0, 4)}, 4, None, id="two tensors in one place"),
        pytest.param({"a": entry(0, 4), "b": entry(8, 12)}, 12, None, id="a hole"),
        pytest.param({"a": entry(4, 8)}, 8, None, id="a hole at the start"),
        pytest.param({"a": entry(0, 4)}, 100, None, id="bytes after the last"),
        pytest.param({"a": entry(0, 400, (100,))}, 100, None, id="cut off"),
        pytest.param({"a": entry(0, 4, (2,))}, 4, None, id="a shape that the bytes do not fill"),
        pytest.param({"a": entry(0, 4, (2**62, 16))}, 4, None, id="a shape beyond all integers"),
        pytest.param({"a": entry(0, 4, dtype="F77")}, 4, None, id="no such type"),
        pytest.param({"a": entry(4, 0)}, 4, None, id="it ends before it starts"),
        pytest.param({"a": entry(0, 4)}, 4, 2**40, id="a header of a terabyte"),
        pytest.param({"a": entry(0, 4)}, 4, 200, id="a header longer than the file"),
        pytest.param('{"a":' * 100_000, 0, None, id="a header a hundred thousand deep"),
    ],
)
def test_a_safetensors_file_that_lies_is_refused(header, data_bytes, length, tmp_path):
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", length or len(text)) + text + bytes(data_bytes))
    refused(path, "not a whole safetensors file")


# --- torch


class Evil:
    """Pickled as a call of a function that makes a file."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@pytest.fixture(params=[True, False], ids=["zip", "legacy"])
def save(request, tmp_path):
    def save(what: object, name: str = "a.pth") -> Path:
        torch.save(what, tmp_path / name, _use_new_zipfile_serialization=request.param)
        return tmp_path / name

    return save


@pytest.fixture
def here(monkeypatch):
    """The program that opens pickles runs in this process, which spares it importing torch."""

    def run(command, **_):
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            try:
                unpickle.main(*command[-2:])
                code = 0
            except SystemExit as end:
                code = end.code
        return subprocess.CompletedProcess(command, code, output.getvalue(), "")

    monkeypatch.setattr(unpickle, "_leave_network", lambda: None)
    monkeypatch.setattr(unpickle, "_limit_memory", lambda more_bytes: None)
    monkeypatch.setattr(torch_file.subprocess, "run", run)


def test_a_pickle_is_read_when_it_is_trusted(tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    torch.save(TENSORS, tmp_path / "a.pth")
    file = read_tensors(tmp_path / "a.pth", trusted=True)
    assert (file.kind, file.metadata) == ("torch", {})
    assert_equal(file.tensors, TENSORS)
    assert not [*(tmp_path / "temporary").iterdir()]


def test_both_formats_of_torch(save, here):
    assert_equal(read_tensors(save(TENSORS), trusted=True).tensors, TENSORS)


def test_a_pickle_that_nobody_vouches_for_is_refused_with_the_command_that_converts_it(save, monkeypatch):
    path = save(TENSORS, "weights.bin")
    monkeypatch.setattr(torch_file, "read_torch", lambda path: pytest.fail("it was opened"))
    refused(path, f"convarium weights convert {path} --trust", trusted=False)


def test_a_pickle_that_runs_code_is_refused_before_any_of_it_runs(tmp_path):
    mark, path = tmp_path / "ran", tmp_path / "a.pth"
    torch.save({"weight": torch.ones(2), "more": Evil(mark)}, path)
    refused(path, "asks for posix.system as it is opened")
    assert not mark.exists()
    torch.load(path, weights_only=False)
    assert mark.exists()  # it would have


@pytest.mark.parametrize("form", ["pickle", "zip", "legacy"])
def test_code_in_every_form_of_a_pickle_is_refused(form, here, tmp_path):
    mark, path = tmp_path / "ran", tmp_path / "a.pth"
    if form == "pickle":
        path.write_bytes(pickle.dumps(Evil(mark), protocol=2))
    else:
        torch.save(Evil(mark), path, _use_new_zipfile_serialization=form == "zip")
    refused(path, "asks for posix.system as it is opened")
    assert not mark.exists()


def test_a_module_is_refused_with_its_class(save, here):
    refused(save(nn.Linear(2, 2)), "asks for torch.nn.modules.linear.Linear .* state_dict")


def test_what_trainings_put_around_weights_is_taken_off_and_said(save, here):
    weight = torch.randn(4, 4)
    wrapped = {
        "epoch": 3,
        "best_acc1": torch.tensor(76.1),
        "state_dict": {"module.a": weight, "module.tied": weight, "module.part": weight[:2].T, "module.depth": 3},
        "optimizer": {"state": {}},
    }
    file = read_tensors(save(wrapped), trusted=True)
    assert file.metadata == {"unwrapped": "state_dict", "prefix": "module.", "left_out": "module.depth"}
    assert_equal(file.tensors, {"a": weight, "tied": weight, "part": weight[:2].T})


@pytest.mark.parametrize(
    ("wrapped", "unwrapped", "prefix"),
    [
        ({"model_state": {"a": torch.ones(1)}}, "model_state", ""),
        ({"model": {"state_dict": {"_orig_mod.a": torch.ones(1)}}}, "model.state_dict", "_orig_mod."),
        ({"state_dict": {"a": torch.zeros(1)}, "state_dict_ema": {"a": torch.ones(1)}}, "state_dict_ema", ""),
        ({"module._orig_mod.a": torch.ones(1)}, "", "module._orig_mod."),
    ],
)
def test_nests_and_prefixes(wrapped, unwrapped, prefix, here, tmp_path):
    torch.save(wrapped, tmp_path / "a.pt")
    file = read_tensors(tmp_path / "a.pt", trusted=True)
    assert (file.metadata.get("unwrapped", ""), file.metadata.get("prefix", "")) == (unwrapped, prefix)
    assert_equal(file.tensors, {"a": torch.ones(1)})


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ([torch.ones(1)], "holds a list and no tensors by name"),
        ({"lr": 0.1, "epoch": 2}, "holds a dict of lr, epoch and no tensors"),
        ({"a": torch.ones(2).to_sparse()}, "'a' as a sparse, quantised or empty form"),
        ({"a": torch.ones(2, device="meta")}, "'a' as a sparse, quantised or empty form"),
    ],
)
def test_what_is_no_state_dict_is_refused(what, reason, here, tmp_path):
    torch.save(what, tmp_path / "a.pth")
    refused(tmp_path / "a.pth", reason)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not say how much memory is held")
def test_a_pickle_that_swells_in_memory_is_refused(tmp_path):
    torch.save({"a": torch.zeros(1).expand(20_000, 20_000)}, tmp_path / "a.pth")  # 1.6 GB of one number
    refused(tmp_path / "a.pth", "takes far more memory than its size")


def test_a_process_that_takes_too_long_is_ended(tmp_path, monkeypatch):
    torch.save(TENSORS, tmp_path / "a.pth")
    monkeypatch.setattr(torch_file, "STARTING_SECONDS", 0)
    refused(tmp_path / "a.pth", "could not be read in 0 s")


@pytest.mark.skipif(sys.platform != "linux", reason="namespaces and address-space limits are Linux's")
def test_the_process_that_opens_pickles_reaches_no_network_and_little_memory():
    code = (
        "from convarium.weights import unpickle; unpickle._leave_network(); import socket, resource;"
        "names = [name for _, name in socket.if_nameindex()]; unpickle._limit_memory(2**28);"
        "print(names); bytearray(2**30)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "MemoryError" in ended.stderr
    if "['lo']" not in ended.stdout:
        pytest.skip("this machine lets nobody leave its network")


def test_a_zip_that_leads_out_of_itself_or_swells_is_refused(tmp_path):
    path = tmp_path / "a.pth"
    for name in ("../../x/data.pkl", "/etc/data.pkl", "a\\..\\data.pkl", "C:/data.pkl"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(zipfile.ZipInfo(name), b"x")
            archive.infolist()[0].filename = name
        refused(path, "would land outside")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(10**7))
    refused(path, "swells to 10,000,000 bytes")


def test_torchscript_and_other_archives_are_refused_with_what_to_do(tmp_path):
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), tmp_path / "a.pt")
    refused(tmp_path / "a.pt", "TorchScript archive, which is a program")
    with zipfile.ZipFile(tmp_path / "b.pth.zip", "w") as archive:
        archive.writestr("resnet10.pth", b"x")
    refused(tmp_path / "b.pth.zip", "a zip archive of resnet10.pth: unpack it")


def test_a_pickle_that_was_cut_off_is_refused(save, here):
    path = save(TENSORS)
    path.write_bytes(path.read_bytes()[:-30])
    refused(path, "download it again")


# --- Keras

KERNEL, BIAS = torch.randn(3, 3, 2, 4), torch.randn(4)
NORM = {
    "gamma": torch.randn(4),
    "beta": torch.randn(4),
    "moving_mean": torch.randn(4),
    "moving_variance": torch.rand(4),
}


def write_legacy(group: h5py.Group, layers: dict[str, dict[str, torch.Tensor]]) -> None:
    """As Keras 1 and 2 write them: the order and the names are in attributes."""
    group.attrs["layer_names"] = [name.encode() for name in layers]
    for layer, weights in layers.items():
        made = group.create_group(layer)
        made.attrs["weight_names"] = [name.encode() for name in weights]
        for name, tensor in weights.items():
            made[name] = tensor.numpy()


def write_keras3(file: h5py.File, layers: dict[str, tuple[str, list[torch.Tensor]]]) -> None:
    """As Keras 3 writes them: numbered variables, the layer's own name in an attribute of its group's ``vars``."""
    for path, (name, weights) in layers.items():
        group = file.create_group(f"{path}/vars")
        group.attrs["name"] = name
        for i, tensor in enumerate(weights):
            group[str(i)] = tensor.numpy()


def test_a_legacy_file_is_read_layer_by_layer_in_its_own_order(tmp_path):
    layers = {
        "input": {},
        "conv2d_10": {"conv2d_10/kernel:0": KERNEL, "conv2d_10/bias:0": BIAS},
        "bn": {f"bn/{name}:0": tensor for name, tensor in NORM.items()},
        "conv2d_2": {"conv2d_2/kernel:0": KERNEL + 1},
    }
    with h5py.File(tmp_path / "a.h5", "w") as file:
        write_legacy(file, layers)
        file.attrs["keras_version"] = b"2.1.6"
    file = read_tensors(tmp_path / "a.h5")
    assert (file.kind, file.metadata) == ("keras", {"layout": "keras h5", "keras_version": "2.1.6"})
    wanted = {"conv2d_10/kernel": KERNEL, "conv2d_10/bias": BIAS, **{f"bn/{name}": NORM[name] for name in NORM}}
    assert_equal(file.tensors, wanted | {"conv2d_2/kernel": KERNEL + 1})
    assert next(iter(file.tensors)) == "conv2d_10/kernel" and list(file.tensors)[-1] == "conv2d_2/kernel"


def test_a_whole_model_and_lists_of_names_in_pieces_and_names_of_keras_1(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        group = file.create_group("model_weights")
        layers = {
            "block1_conv1": {"block1_conv1_W_1:0": KERNEL, "block1_conv1_b_1:0": BIAS},
            "conv_dw_1": {"conv_dw_1/depthwise_kernel:0": KERNEL},
            "sepconv": {"sepconv/depthwise_kernel:0": KERNEL, "sepconv/pointwise_kernel:0": KERNEL},
        }
        write_legacy(group, layers)
        names = group.attrs.pop("layer_names")
        group.attrs["layer_names0"], group.attrs["layer_names1"] = names[:1], names[1:]
    assert list(read_tensors(tmp_path / "a.h5").tensors) == [
        "block1_conv1/kernel",
        "block1_conv1/bias",
        "conv_dw_1/kernel",
        "sepconv/depthwise_kernel",
        "sepconv/pointwise_kernel",
    ]


def test_a_keras_3_file_names_variables_by_the_class_of_their_layer(tmp_path):
    no_gamma = [NORM[name] for name in ("beta", "moving_mean", "moving_variance")]
    layers = {
        "layers/conv2d": ("stem", [KERNEL, BIAS]),
        "layers/conv2d_10": ("conv2d_104", [KERNEL + 10]),
        "layers/conv2d_2": ("conv2d_96", [KERNEL + 2]),
        "layers/batch_normalization": ("bn", list(NORM.values())),
        "layers/batch_normalization_1": ("bn_1", no_gamma),
        "layers/sequential/layers/dense": ("predictions", [torch.ones(4, 2), torch.ones(2)]),
        "layers/my_layer": ("mine", [BIAS]),
        "optimizer": ("adam", [BIAS]),
    }
    with h5py.File(tmp_path / "a.weights.h5", "w") as file:
        write_keras3(file, layers)
    tensors = read_tensors(tmp_path / "a.weights.h5").tensors
    assert list(tensors) == [
        *(f"bn/{name}" for name in NORM),
        *(f"bn_1/{name}" for name in list(NORM)[1:]),
        "stem/kernel",
        "stem/bias",
        "conv2d_96/kernel",
        "conv2d_104/kernel",
        "mine/0",
        "predictions/kernel",
        "predictions/bias",
    ]
    assert torch.equal(tensors["conv2d_104/kernel"], KERNEL + 10)
    assert list(renumbered(tensors))[9:11] == ["conv2d_0/kernel", "conv2d_1/kernel"]


def write_archive(path: Path, config: dict, **more: bytes) -> None:
    weights = io.BytesIO()
    with h5py.File(weights, "w") as file:
        write_keras3(file, {"layers/conv2d": ("last", [KERNEL]), "layers/dense": ("first", [BIAS])})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.weights.h5", weights.getvalue())
        archive.writestr("config.json", json.dumps(config))
        for name, content in more.items():
            archive.writestr(name, content)


def test_an_archive_takes_its_order_from_its_configuration(tmp_path):
    layers = [{"config": {"name": name}} for name in ("input", "first", "last")]
    write_archive(tmp_path / "a.keras", {"config": {"layers": layers}}, **{"assets/x.py": b"raise SystemExit"})
    file = read_tensors(tmp_path / "a.keras")
    assert (file.kind, list(file.tensors)) == ("keras", ["first/kernel", "last/kernel"])
    write_archive(tmp_path / "b.keras", {}, **{"../evil": b""})
    refused(tmp_path / "b.keras", "would land outside")


def test_renumbering_goes_by_the_numbers_and_leaves_given_names():
    tensors = dict.fromkeys(
        ["conv2d_95/kernel", "conv2d_94/kernel", "conv2d_94/bias", "conv2d_x/kernel", "dense/kernel"]
    )
    wanted = ["conv2d_1/kernel", "conv2d_0/kernel", "conv2d_0/bias", "conv2d_x/kernel", "dense_0/kernel"]
    assert list(renumbered(tensors)) == wanted


def external_link(file: h5py.File) -> None:
    file["conv/conv/kernel:0"] = h5py.ExternalLink("/etc/passwd", "/x")


def soft_link(file: h5py.File) -> None:
    file["conv/conv/kernel:0"] = h5py.SoftLink("/elsewhere")


def virtual_dataset(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", (4,))
    file.create_virtual_dataset("conv/conv/kernel:0", layout)


def external_storage(file: h5py.File) -> None:
    file.create_dataset("conv/conv/kernel:0", (4,), "f4", external=[("/etc/passwd", 0, 16)])


def cycle(file: h5py.File) -> None:
    file["conv/again"] = file["conv"]


def endless(file: h5py.File) -> None:
    file.create_dataset("conv/conv/kernel:0", (10**6, 10**6), "f4", chunks=(10, 10))


def words(file: h5py.File) -> None:
    file["conv/conv/kernel:0"] = np.array([b"os.system"], dtype=object)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (external_link, "link at /conv/conv/kernel:0 that leads elsewhere"),
        (soft_link, "leads elsewhere"),
        (virtual_dataset, "in another file"),
        (external_storage, "in another file"),
        (cycle, "in two places"),
        (endless, "unpacks to 4,000,000,000,000 bytes"),
        (words, "where numbers belong"),
    ],
)
def test_an_h5_file_that_leads_elsewhere_is_refused(spoil, reason, tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs["layer_names"] = [b"conv"]
        file.create_group("conv").attrs["weight_names"] = [b"conv/kernel:0"]
        spoil(file)
    refused(tmp_path / "a.h5", reason)


def test_a_damaged_h5_file_is_refused(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        write_legacy(file, {"conv": {"conv/kernel:0": KERNEL}})
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused(path, "not a whole Keras file")
    with h5py.File(path, "w") as file:
        file["other"] = [1.0]
    refused(path, "no weights of layers in it")
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"gone"]
    refused(path, "gone")


def test_without_h5py_the_extra_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    monkeypatch.setattr(
        keras_file, "require", lambda module, extra: (_ for _ in ()).throw(UsageError(f"{module} {extra}"))
    )
    with pytest.raises(UsageError, match="h5py weights"):
        read_tensors(tmp_path / "a.h5")


# --- Caffe


WEIGHT, SHIFT = torch.randn(4, 3, 2, 2), torch.randn(4)


def net(caffe):
    made = caffe.NetParameter(name="AlexNet", input=["data"], input_dim=[1, 3, 227, 227])
    made.layer.add(name="data", type="Data")
    conv = made.layer.add(name="conv1/7x7_s2", type="Convolution", bottom=["data"], loss_weight=[0.5])
    conv.blobs.extend([caffe.blob(WEIGHT), caffe.blob(SHIFT, double=True)])
    conv.blobs[0].diff.extend(WEIGHT.flatten().tolist())
    norm = made.layer.add(name="bn", type="BatchNorm")
    norm.blobs.extend([caffe.blob(SHIFT), caffe.blob(SHIFT + 1), caffe.blob(torch.tensor([999.0]))])
    return made


def test_a_caffemodel_gives_blobs_by_layer(caffe, tmp_path):
    (tmp_path / "a.caffemodel").write_bytes(net(caffe).SerializeToString())
    file = read_tensors(tmp_path / "a.caffemodel")
    assert file.kind == "caffe"
    layers = {"conv1/7x7_s2": "Convolution", "bn": "BatchNorm"}
    assert file.metadata == {"name": "AlexNet", "layers": layers, "order": ["data", *layers]}
    wanted = {"conv1/7x7_s2/0": WEIGHT, "conv1/7x7_s2/1": SHIFT, "bn/0": SHIFT, "bn/1": SHIFT + 1}
    assert_equal(file.tensors, wanted | {"bn/2": torch.tensor([999.0])})  # the factor stays as it is


def test_a_caffemodel_of_the_first_years(caffe, tmp_path):
    made = caffe.NetParameter(name="CaffeNet")
    made.layers.add(name="relu1", type=18)
    made.layers.add(name="conv1", type=4).blobs.extend(
        [caffe.blob(WEIGHT, legacy=True), caffe.blob(SHIFT, legacy=True)]
    )
    (tmp_path / "a.caffemodel").write_bytes(made.SerializeToString())
    file = read_tensors(tmp_path / "a.caffemodel")
    assert file.metadata["layers"] == {"conv1": "Convolution"}
    assert_equal(file.tensors, {"conv1/0": WEIGHT, "conv1/1": SHIFT[None, None, None]})
    made.layers.add(layer={"name": "conv2"})
    (tmp_path / "b.caffemodel").write_bytes(made.SerializeToString())
    refused(tmp_path / "b.caffemodel", "upgrade_net_proto_binary")


def test_a_damaged_caffemodel_is_refused(caffe, tmp_path):
    path = tmp_path / "a.caffemodel"
    made = net(caffe)
    path.write_bytes(made.SerializeToString()[:-5])
    refused(path, "download it again")
    made.layer[1].blobs[0].shape.dim[0] = 2**40
    path.write_bytes(made.SerializeToString())
    refused(path, r"blob conv1/7x7_s2/0 has 48 numbers for its shape \(1099511627776, 3, 2, 2\)")
    made = net(caffe)
    made.layer.add(name="bn").blobs.append(caffe.blob(SHIFT))
    path.write_bytes(made.SerializeToString())
    refused(path, "'bn' has weights twice")


def test_every_cut_of_a_caffemodel_is_refused(caffe, tmp_path):
    whole, path = net(caffe).SerializeToString(), tmp_path / "a.caffemodel"
    first_layer = whole.index(b"data", 20)
    for length in range(first_layer + 10, len(whole), 37):
        path.write_bytes(whole[:length])
        try:
            found = read_tensors(path).tensors
        except DataError:
            continue
        assert found.keys() < read_keys(caffe)  # cut between two layers: whole ones, which strict loading finds too few


def read_keys(caffe) -> set[str]:
    return {f"{layer.name}/{i}" for layer in net(caffe).layer for i in range(len(layer.blobs))}


# --- everything else


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.pth", b"", "is empty"),
        ("a.pth", b"\n<!DOCTYPE html><html><body>Sign in", "is a web page"),
        (
            "a.bin",
            b"\x04\0\0\0\x01\0\0\0\x03\0\0\0V 1\x0d\0\0\0nn.Sequential",
            "torch7 .* save its tensors as .safetensors",
        ),
        ("resnet-50.t7", b"anything", "torch7"),
        ("model.ckpt-1.index", bytes(40) + b"\x57\xfb\x80\x8b\x24\x75\x47\xdb", "tf.train.load_checkpoint"),
        ("model.ckpt-1.data-00000-of-00001", b"anything", "tf.train.load_checkpoint"),
        ("inception_v3_2016_08_28.tar.gz", b"\x1f\x8b\x08\0", "unpack it"),
        ("a.pkl", b"cposix\nsystem\n(S'true'\ntR.", "no weight file that is known here"),
        ("a.pth", bytes(100), "no weight file that is known here"),
        ("a.caffemodel", b"\x0a\x03abc", "no weight file that is known here"),
        ("a.onnx", b"\x08\x07\x12\x07pytorch", "no weight file that is known here"),
    ],
)
def test_what_is_no_weight_file_is_refused_by_what_it_is(name, content, reason, tmp_path):
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, reason)


def test_no_file_and_a_folder(tmp_path):
    refused(tmp_path / "none.pth", "no weight file at")
    refused(tmp_path, "no weight file at")


def test_a_file_is_known_by_its_content_and_not_by_its_name(save, tmp_path):
    assert kind_of(save(TENSORS, "a.safetensors")) == "torch"
    save_file(TENSORS, tmp_path / "a.pth")
    assert kind_of(tmp_path / "a.pth") == "safetensors"
