"""Features on disk are what the classifier reads of each image, in the order of the names beside them."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from convarium import load_run, predict
from convarium.cli import main
from convarium.data.datasets import open_dataset
from convarium.data.images import read_image
from convarium.data.resize import Preprocess
from convarium.deploy import features
from convarium.errors import ConvariumError, DataError, UsageError


@pytest.fixture(scope="module")
def expected(run, images) -> np.ndarray:
    """By hand: one image after the other through preprocessing, stages, and the head but for its classifier."""
    loaded = load_run(run)
    preprocess = Preprocess(loaded.preprocessing)
    rows = []
    for name in open_dataset(images).ids:
        x = preprocess(torch.from_numpy(read_image(images / name))[None])
        with torch.no_grad():
            rows.append(loaded.model.forward_head(loaded.model.forward_features(x), pre_logits=True)[0].numpy())
    return np.stack(rows)


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_a_folder_of_classes_gives_rows_names_labels_and_splits(run, images, expected, tmp_path):
    result = predict(run, [images], features=tmp_path / "out.npy")
    found = np.load(tmp_path / "out.npy")
    assert found.dtype == np.float32 and found.shape == (36, 64) == (result.images, result.width)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    dataset = open_dataset(images, load_run(run).own["data"]["seed"])
    rows = table(result.names)
    assert result.names == tmp_path / "out.csv"
    assert [row["id"] for row in rows] == dataset.ids
    assert [row["class"] for row in rows] == [Path(name).parent.name for name in dataset.ids]
    assert [int(row["label"]) for row in rows] == dataset.labels.tolist()
    assert [i for i, row in enumerate(rows) if row["split"] == "val"] == dataset.splits["val"].tolist()
    assert {row["split"] for row in rows} == {"train", "val"}


def test_an_npz_holds_it_all_and_is_the_same_file_again(run, images, expected, tmp_path):
    for name in ("a.npz", "b.npz"):
        predict(run, [images], features=tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "b.npz"]
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with np.load(tmp_path / "a.npz", allow_pickle=False) as found:
        assert sorted(found) == ["class_names", "features", "ids", "labels", "splits"]
        np.testing.assert_allclose(found["features"], expected, rtol=1e-4, atol=1e-5)
        assert found["class_names"].tolist() == ["ant", "bee", "cat"]
        assert found["ids"][found["labels"] == 1].tolist() == [f"bee/{i:03d}.png" for i in range(12)]
        assert (found["splits"] == "val").sum() == 6


def test_files_and_plain_folders_have_names_alone(run, images, expected, tmp_path):
    files = [images / "cat" / "003.png", images / "ant"]
    predict(run, files, features=tmp_path / "out.npy")
    rows = table(tmp_path / "out.csv")
    assert [list(row) for row in rows] == [["id"]] * 13
    assert [row["id"] for row in rows] == [str(files[0]), *(str(images / "ant" / f"{i:03d}.png") for i in range(12))]
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected[[27, *range(12)]], rtol=1e-4, atol=1e-5)
    predict(run, files, features=tmp_path / "out.npz")
    assert sorted(np.load(tmp_path / "out.npz")) == ["features", "ids"]


def test_the_classifier_makes_predicts_probabilities_of_them(run, images, tmp_path):
    predict(run, [images / "bee"], features=tmp_path / "out.npy")
    classifier = load_run(run).model.get_classifier()
    with torch.no_grad():
        probabilities = classifier(torch.from_numpy(np.load(tmp_path / "out.npy"))).softmax(1)
    for row, own in zip(predict(run, [images / "bee"], top=1).rows, probabilities, strict=True):
        assert row.probabilities[0] == pytest.approx(own.max().item(), abs=1e-5)


def test_an_embedded_data_set(run, tmp_path):
    predict(run, [Path("glyphs:side=28,train=26,val=26,test=26")], features=tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as found:
        assert found["features"].shape == (78, 64) and found["class_names"][found["labels"][27]] == "B"
        assert [(found["splits"] == split).sum() for split in ("train", "val", "test")] == [26, 26, 26]


def test_rows_go_to_disk_as_they_come():
    """Before each batch, those before it are written: memory holds one."""
    file, lengths = io.BytesIO(), []

    def batches():
        for i in range(3):
            lengths.append(len(file.getvalue()))
            yield np.full((4, 5), i, dtype=np.float32)

    assert features._write_rows(file, batches(), 12) == 5
    assert lengths[0] == 0 and lengths[2] - lengths[1] == 4 * 5 * 4
    file.seek(0)
    assert np.load(file).tolist() == np.repeat(np.arange(3.0), 20).reshape(12, 5).tolist()


def test_from_the_command_line(run, images, tmp_path, capsys):
    command = ["predict", str(run), str(images), "--features", str(tmp_path / "out.npy")]
    assert main(command) == 0
    said = f"36 images, 64 features each: {tmp_path}/out.npy; the images' names are in {tmp_path}/out.csv\n"
    assert capsys.readouterr().out == said
    assert main([*command, "--json"]) == 0
    stored = {"output": f"{tmp_path}/out.npy", "names": f"{tmp_path}/out.csv", "images": 36, "width": 64}
    assert json.loads(capsys.readouterr().out) == stored


def test_a_table_of_somebody_elses_is_not_replaced(run, images, tmp_path):
    (tmp_path / "mine.csv").write_text("name,age\n")
    with pytest.raises(UsageError, match=r"would replace .*mine\.csv, which holds something else"):
        predict(run, [images], features=tmp_path / "mine.npy")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.csv"]
    for _ in range(2):  # its own is
        predict(run, [images / "ant"], features=tmp_path / "out.npy")


def test_bad_input(run, images, folder, tmp_path):
    target = tmp_path / "out.npy"
    for name in ("out.csv", "out", "out.npy.gz"):
        with pytest.raises(UsageError, match=r"--features must be a file that ends in \.npy or \.npz"):
            predict(run, [images], features=tmp_path / name)
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(UsageError, match="--features must be a file"):
        predict(run, [images], features=tmp_path / "folder.npy")
    (tmp_path / "net.onnx").write_bytes(b"")
    for exported in (tmp_path / "net.onnx", tmp_path / "gone.onnx", run / "model.safetensors"):
        with pytest.raises(UsageError, match=r"gives no features: --features needs the run folder"):
            predict(exported, [images], features=target)
    with pytest.raises(DataError, match="no run folder"):
        predict(tmp_path / "nowhere", [images], features=target)
    with pytest.raises(UsageError, match="no image to predict"):
        predict(run, [], features=target)
    with pytest.raises(DataError, match=r"no image: 'nothing\.png' does not exist"):
        predict(run, [Path("nothing.png")], features=target)
    with pytest.raises(ConvariumError, match=r"cannot write .*: No such file or directory"):
        predict(run, [images], features=tmp_path / "no" / "out.npy")
    (folder / "bee" / "003.png").write_bytes(b"not a picture")
    for name in ("out.npy", "out.npz"):
        with pytest.raises(DataError, match=r"cannot read the image .*bee/003\.png"):
            predict(run, [folder], features=tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.npy", "images", "net.onnx"]
