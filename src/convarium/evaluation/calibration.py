"""Whether a network is right as often as it is sure: calibration error, reliability, and the temperature that mends it.

C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On Calibration of Modern Neural Networks", ICML 2017: the confidence of an
image is the largest of its probabilities.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from convarium.errors import DataError
from convarium.evaluation.metrics import softmax

BINS = 15  # of equal width, as in the paper
PRECISION = 1e-6  # of the temperature, relative
ROWS = 4096  # images at once
CHANCES = 200


@dataclass(frozen=True)
class Bin:
    """The images whose confidence is above ``low`` and at most ``high``: how many, how sure and how often right.

    ``confidence`` and ``accuracy`` are means in 0..1, 0 where there are no images.
    """

    low: float
    high: float
    images: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Reliability:
    """How far the confidences of ``images`` images can be trusted.

    Attributes:
        images: how many.
        confidence_percent, accuracy_percent: how sure the network is on average, and how often it is right.
        error_percent: the expected calibration error (ECE, Eq. 3), in points: how far the two are apart, bin by bin.
        by_chance_percent: the same of a perfectly calibrated network that is as sure of as many images.
        nll: negative log likelihood, in nats.
        bins: lowest confidence first.
    """

    images: int
    confidence_percent: float
    accuracy_percent: float
    error_percent: float
    by_chance_percent: float
    nll: float
    bins: list[Bin]


@dataclass(frozen=True)
class Calibration:
    """All images; and a ``temperature`` fitted on half of them, with the other half ``before`` and ``after`` it.

    The last three are ``None`` where no temperature is best.
    """

    whole: Reliability
    temperature: float | None
    before: Reliability | None
    after: Reliability | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def sentence(self) -> str:
        """Sure and right, how far apart, and what a temperature changes."""
        whole = self.whole
        told = (
            f"{whole.confidence_percent:.1f} % sure on average and right in {whole.accuracy_percent:.1f} %; "
            f"calibration error {whole.error_percent:.1f} points ({whole.by_chance_percent:.1f} by chance)"
        )
        if self.temperature is None or self.before is None or self.after is None:
            return f"{told}; no temperature improves it"
        return (
            f"{told}; temperature {self.temperature:.2f}, fitted on one half, takes the other from "
            f"{self.before.error_percent:.1f} to {self.after.error_percent:.1f}"
        )


def calibrate(probabilities: np.ndarray, labels: np.ndarray, *, seed: int = 0) -> Calibration:
    """Calibration of ``(n, classes)`` probabilities, and of the same with a temperature fitted on a half of them.

    Args:
        probabilities: of one view or averaged over many.
        labels: ``(n,)`` true classes.
        seed: of the split into halves.

    Raises:
        DataError: no images.
    """
    if not len(labels):
        raise DataError("no images to judge on")
    whole = reliability(probabilities, labels, seed=seed)
    fitted, judged = np.array_split(np.random.default_rng(seed).permutation(len(labels)), 2)
    temperature = fit_temperature(probabilities[fitted], labels[fitted]) if len(judged) else None
    if temperature is None:
        return Calibration(whole, None, None, None)
    after = with_temperature(probabilities[judged], temperature)
    return Calibration(
        whole,
        temperature,
        reliability(probabilities[judged], labels[judged], seed=seed),
        reliability(after, labels[judged], seed=seed),
    )


def reliability(probabilities: np.ndarray, labels: np.ndarray, *, bins: int = BINS, seed: int = 0) -> Reliability:
    """How far to trust ``(n, classes)`` probabilities, in ``bins`` bins of equal width; ``seed`` is chance's.

    Chance is there since an accuracy over few images is never quite the confidence: J. Bröcker, L. A. Smith,
    "Increasing the Reliability of Reliability Diagrams", Weather and Forecasting 22, 2007.
    """
    confidences, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    order = np.argsort(confidences)  # each bin is then one piece
    confidences, right = confidences[order].astype(np.float64), right[order]
    edges = np.linspace(0, 1, bins + 1)
    ends = np.append(np.searchsorted(confidences, edges[1:-1], side="right"), len(labels))
    return Reliability(
        images=len(labels),
        confidence_percent=100 * float(confidences.mean()),
        accuracy_percent=100 * float(right.mean()),
        error_percent=_error_percent(confidences, right, ends),
        by_chance_percent=_by_chance_percent(confidences, ends, seed),
        nll=negative_log_likelihood(probabilities, labels),
        bins=_bins(confidences, right, edges, ends),
    )


def _bins(confidences: np.ndarray, right: np.ndarray, edges: np.ndarray, ends: np.ndarray) -> list[Bin]:
    images = np.diff(ends, prepend=0)
    sure, hits = (_sums(each, ends) / np.maximum(images, 1) for each in (confidences, right))
    return [
        Bin(float(edges[i]), float(edges[i + 1]), int(images[i]), float(sure[i]), float(hits[i]))
        for i in range(len(images))
    ]


def _error_percent(confidences: np.ndarray, right: np.ndarray, ends: np.ndarray) -> float:
    return 100 * float(np.abs(_sums(right, ends) - _sums(confidences, ends)).sum()) / len(confidences)


def _by_chance_percent(confidences: np.ndarray, ends: np.ndarray, seed: int) -> float:
    generator = np.random.default_rng(seed)
    drawn = (generator.random(len(confidences)) < confidences for _ in range(CHANCES))
    return float(np.mean([_error_percent(confidences, right, ends) for right in drawn]))


def _sums(values: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Of the pieces that end before ``ends``; 0 for an empty one."""
    return np.diff(np.concatenate([[0.0], np.cumsum(values)])[ends], prepend=0.0)


def negative_log_likelihood(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The mean of -log p of the true classes, in nats."""
    return float(-_logs(probabilities[np.arange(len(labels)), labels]).mean())


def with_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """What the softmax would give of the logits divided by ``temperature``: above 1 less sure, below 1 surer."""
    return softmax(_logs(probabilities) / temperature)


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float | None:
    """The temperature under which the labels are likeliest.

    In the inverse of the temperature the likelihood is a smooth problem with one optimum: Newton's steps, and
    a bisection wherever a step would leave the interval that is known to hold it.

    Returns:
        A number above 0; ``None`` where there is no best one: every image is right, so that surer is always better, or
        the network is worse than guessing, so that nothing is better than no answer.
    """
    logits = _logs(probabilities)
    logits -= logits.max(axis=1, keepdims=True)
    true = logits[np.arange(len(labels)), labels]
    if not true.any() or logits.mean() >= true.mean():  # the slope has one sign from 0 to infinity
        return None
    low, high = 0.0, 1.0
    while _slope(logits, true, high)[0] < 0:
        low, high = high, 2 * high
    inverse = 1.0
    while high - low > PRECISION * high:
        slope, curvature = _slope(logits, true, inverse)
        low, high = (inverse, high) if slope < 0 else (low, inverse)
        step = inverse - slope / curvature if curvature else np.inf
        if abs(step - inverse) < PRECISION * inverse:
            return 1 / float(step)
        inverse = float(step) if low < step < high else (low + high) / 2
    return 1 / inverse


def _slope(logits: np.ndarray, true: np.ndarray, inverse: float) -> tuple[float, float]:
    """First and second derivative of the negative log likelihood by the inverse temperature."""
    first = second = 0.0
    for start in range(0, len(logits), ROWS):
        block = logits[start : start + ROWS]
        weights = np.exp(inverse * block)
        weights /= weights.sum(axis=1, keepdims=True)
        mean = np.einsum("ij,ij->i", weights, block)
        first += float((mean - true[start : start + ROWS]).sum())
        second += float((np.einsum("ij,ij,ij->i", weights, block, block) - mean**2).sum())
    return first / len(logits), second / len(logits)


def _logs(probabilities: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(probabilities.astype(np.float64), np.finfo(np.float64).tiny))
