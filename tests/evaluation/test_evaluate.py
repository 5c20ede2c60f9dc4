"""Measures against scikit-learn and by hand; which images are judged; whose classes they are."""

import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix as sklearn_confusion
from sklearn.metrics import top_k_accuracy_score

from convarium import evaluate
from convarium.errors import DataError
from convarium.evaluation.metrics import confusion_matrix, softmax, top_k_error_percent


@given(st.integers(0, 2**31), st.integers(3, 40), st.integers(3, 12), st.integers(1, 6))
def test_measures_agree_with_scikit_learn(seed, count, classes, k):
    generator = np.random.default_rng(seed)
    scores, labels = generator.random((count, classes)), generator.integers(0, classes, count)
    expected = 100 * (1 - top_k_accuracy_score(labels, scores, k=min(k, classes - 1), labels=range(classes)))
    assert top_k_error_percent(scores, labels, min(k, classes - 1)) == pytest.approx(expected)
    predicted = scores.argmax(1)
    matrix = confusion_matrix(predicted, labels, classes)
    assert np.array_equal(matrix, sklearn_confusion(labels, predicted, labels=range(classes)))


def test_softmax_of_large_logits():
    assert softmax(np.array([[1000.0, 1000.0], [0.0, np.log(3)]])).tolist() == [[0.5, 0.5], pytest.approx([0.25, 0.75])]


def test_the_folder_it_was_trained_on_is_judged_on_what_it_did_not_see(run, images):
    result = evaluate(run, data=str(images))
    assert (result.split, result.images) == ("val", 6)
    assert np.array(result.confusion).sum() == 6
    assert [row.images for row in result.per_class] == [2, 2, 2]
    assert evaluate(run, data=str(images), split="all").images == 36


def test_another_folder_is_judged_whole(run, tmp_path, draw_folder):
    other = draw_folder(tmp_path / "other", {"ant": 3, "bee": 3, "cat": 3}, seed=7)
    assert evaluate(run, data=str(other)).images == 9


def test_a_folder_that_changed_since_training_is_judged_with_a_warning(images, tmp_path, capsys):
    from convarium import train

    data = shutil.copytree(images, tmp_path / "data")
    train(str(data), model="lenet5_modern", output=tmp_path / "run", epochs=1, threads=1)
    capsys.readouterr()
    assert evaluate(tmp_path / "run", data=str(data)).split == "val" and capsys.readouterr().err == ""
    shutil.copy(data / "ant" / "000.png", data / "ant" / "new.png")
    assert evaluate(tmp_path / "run", data=str(data)).images == 37
    assert "has changed since" in capsys.readouterr().err


def test_errors_are_counted_from_the_confusion(run, tmp_path, draw_folder):
    """Pictures of ants in the folder of bees are mistakes, and are named."""
    wrong = draw_folder(tmp_path / "wrong", {"ant": 4, "bee": 4, "cat": 4}, seed=3)
    shutil.rmtree(wrong / "bee")
    shutil.copytree(wrong / "ant", wrong / "bee")
    result = evaluate(run, data=str(wrong))
    ant, bee = result.class_names.index("ant"), result.class_names.index("bee")
    assert result.confusion[bee][ant] == 4
    assert result.top1_error_percent == pytest.approx(100 * 4 / 12)
    assert {m.image.split("/")[0] for m in result.mistakes} == {"bee"} and result.mistakes[0].predicted == "ant"
    sureness = [m.probability for m in result.mistakes]
    assert sureness == sorted(sureness, reverse=True)


def test_an_error_has_its_interval_and_probabilities_their_calibration(run, tmp_path, draw_folder):
    other = draw_folder(tmp_path / "other", {"ant": 8, "bee": 8, "cat": 8}, seed=7)
    shutil.copytree(other / "ant", other / "bee", dirs_exist_ok=True)  # eight ants called bees
    result = evaluate(run, data=str(other))
    low, high = result.top1_interval_percent
    assert low < result.top1_error_percent < high
    assert result.calibration.whole.accuracy_percent == pytest.approx(100 - result.top1_error_percent)
    assert result.calibration.whole.images == result.images


def test_several_runs_are_each_paired_with_the_first(run, images, tmp_path, capsys):
    """A copy errs where the first errs: nothing tells the two apart."""
    copy = shutil.copytree(run, tmp_path / "copy")
    result = evaluate([run, copy, copy], data=str(images))
    assert [(pair.first, pair.second) for pair in result.paired] == [(str(run), str(copy))] * 2
    assert all(pair.p_value == 1 and pair.better is None for pair in result.paired)
    assert result.as_dict()["paired"][0]["better"] is None


def test_other_classes_are_refused(run, tmp_path, draw_folder):
    fewer = draw_folder(tmp_path / "fewer", {"ant": 2, "bee": 2})
    with pytest.raises(DataError, match="add --map-by-name"):
        evaluate(run, data=str(fewer))
    assert evaluate(run, data=str(fewer), map_by_name=True).images == 4
    other = draw_folder(tmp_path / "other", {"ant": 2, "bea": 2, "cat": 2})
    with pytest.raises(DataError, match="has the class 'bea', which the weights do not know; nearest: bee"):
        evaluate(run, data=str(other))


def test_a_split_that_is_not_there(run, images):
    with pytest.raises(DataError, match="has no test images; splits: train, val, all"):
        evaluate(run, data=str(images), split="test")


def test_latency_is_measured_for_every_network(run):
    from convarium import load_run
    from convarium.evaluation.latency import latency_ms

    loaded = load_run(run)
    measured = latency_ms({"a": (loaded.model, loaded.preprocessing), "b": (loaded.model, loaded.preprocessing)})
    assert set(measured) == {"a", "b"} and all(value > 0 for value in measured.values())
