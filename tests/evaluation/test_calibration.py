"""Calibration, against hand computations, scipy's minimiser, and networks whose calibration is known."""

import json

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from convarium.errors import DataError
from convarium.evaluation.calibration import (
    calibrate,
    fit_temperature,
    negative_log_likelihood,
    reliability,
    with_temperature,
)
from convarium.evaluation.metrics import softmax
from convarium.report.figures import to_svg
from convarium.report.reliability import calibration_figure


def draw(images: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits of a network that is right exactly as often as it is sure, and labels."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 2, (images, classes))
    labels = (softmax(logits).cumsum(axis=1) > generator.random((images, 1))).argmax(axis=1)
    return logits, labels


def test_the_calibration_error_by_hand():
    """Two bins of three and one images: 0.6, 0.7, 0.8 of which two are right, and 1.0 which is wrong."""
    sure = np.array([0.6, 0.7, 0.8, 1.0])
    found = reliability(np.stack([sure, 1 - sure], axis=1), np.array([0, 0, 1, 1]), bins=5)
    assert [each.images for each in found.bins] == [0, 0, 1, 2, 1]  # 0.6 and 0.8 belong to the bins that they end
    by_hand = (abs(0.6 - 1) + abs(1.5 - 1) + abs(1.0 - 0)) / 4
    assert found.error_percent == pytest.approx(100 * by_hand)
    assert found.confidence_percent == pytest.approx(77.5) and found.accuracy_percent == 50
    assert found.bins[3].confidence == pytest.approx(0.75) and found.bins[3].accuracy == 0.5


def test_the_negative_log_likelihood_by_hand():
    assert negative_log_likelihood(np.array([[0.5, 0.5], [0.25, 0.75]]), np.array([0, 0])) == pytest.approx(
        (np.log(2) + np.log(4)) / 2
    )
    assert np.isfinite(negative_log_likelihood(np.array([[0.0, 1.0]]), np.array([0])))


def test_a_perfectly_calibrated_network_errs_by_chance_and_by_less_the_more_images():
    errors = []
    for images in (300, 30_000):
        logits, labels = draw(images, 10)
        found = reliability(softmax(logits), labels)
        assert 0.5 < found.error_percent / found.by_chance_percent < 2
        errors.append(found.error_percent)
    assert errors[1] < 1 < errors[0]


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
def test_a_known_temperature_is_found(scale):
    logits, labels = draw(20_000, 10)
    assert fit_temperature(softmax(scale * logits), labels) == pytest.approx(scale, rel=0.03)
    found = calibrate(softmax(scale * logits), labels)
    assert found.after.error_percent < 2 * found.after.by_chance_percent
    if scale != 1:
        assert found.after.error_percent < found.before.error_percent / 5 and found.after.nll < found.before.nll
        assert (found.whole.confidence_percent > found.whole.accuracy_percent) == (scale > 1)


@pytest.mark.parametrize("seed", range(4))
def test_the_temperature_is_that_of_a_general_minimiser(seed):
    logits, labels = draw(80, 5, seed)
    probabilities = softmax((0.2, 1, 8, 60)[seed] * logits)
    best = minimize_scalar(
        lambda log: negative_log_likelihood(with_temperature(probabilities, np.exp(log)), labels),
        bounds=(-6, 8), method="bounded", options={"xatol": 1e-9},
    )  # fmt: skip
    assert fit_temperature(probabilities, labels) == pytest.approx(np.exp(best.x), rel=1e-5)


def test_a_temperature_keeps_the_answers_and_undoes_itself():
    probabilities = softmax(draw(100, 6)[0])
    warmer = with_temperature(probabilities, 2.5)
    assert np.array_equal(warmer.argmax(axis=1), probabilities.argmax(axis=1))
    assert warmer.max(axis=1).mean() < probabilities.max(axis=1).mean()
    assert np.allclose(with_temperature(warmer, 0.4), probabilities, rtol=1e-12)


def test_where_no_temperature_is_best_there_is_none():
    logits, _ = draw(100, 6)
    always_right = calibrate(softmax(logits), logits.argmax(axis=1))
    assert always_right.temperature is None and always_right.after is None
    assert always_right.sentence().endswith("; no temperature improves it")
    assert fit_temperature(softmax(logits), logits.argmin(axis=1)) is None  # worse than guessing
    assert calibrate(softmax(logits[:1]), np.array([3])).temperature is None
    with pytest.raises(DataError, match="no images"):
        calibrate(softmax(logits)[:0], np.zeros(0, dtype=int))


def test_probabilities_that_are_exactly_zero_and_float32_are_taken():
    probabilities = np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1, 2]]
    found = fit_temperature(probabilities, np.array([0, 1, 2, 0, 1, 0]))
    # One logit at 0 and two at log(tiny): right in five of six, so p = 5/6 is best, less what two others share.
    logit = np.log(np.finfo(np.float64).tiny)
    best = minimize_scalar(
        lambda log: (np.log(1 + 2 * np.exp(logit / np.exp(log))) - logit / np.exp(log) / 6), bounds=(0, 9),
        method="bounded", options={"xatol": 1e-9},
    )  # fmt: skip
    assert found == pytest.approx(np.exp(best.x), rel=1e-5)


def test_it_is_told_as_a_sentence_as_data_and_as_a_picture():
    logits, labels = draw(2_000, 10)
    found = calibrate(softmax(2 * logits), labels)
    assert "points (" in found.sentence() and f"temperature {found.temperature:.2f}" in found.sentence()
    told = json.loads(json.dumps(found.as_dict()))
    assert sum(each["images"] for each in told["whole"]["bins"]) == 2_000
    svg = to_svg(calibration_figure(found))
    assert f"as it is: {found.before.error_percent:.1f}" in svg
    assert f"temperature {found.temperature:.2f}: {found.after.error_percent:.1f}" in svg
    assert "how often right" in svg
