"""Measures over probabilities and labels, in numpy."""

from __future__ import annotations

import numpy as np


def top_k_wrong(probabilities: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """``(n,)``: whose label is not among the ``k`` largest of ``(n, classes)``; ties go to the lower class."""
    k = min(k, probabilities.shape[1])
    ranked = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return ~(ranked == labels[:, None]).any(axis=1)


def top_k_error_percent(probabilities: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Per cent of rows of ``(n, classes)`` whose label is not among the ``k`` largest; ties go to the lower class."""
    return 100.0 * float(np.mean(top_k_wrong(probabilities, labels, k)))


def confusion_matrix(predicted: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """``(classes, classes)`` counts: row the true class, column the predicted one."""
    return np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of ``(n, classes)`` logits, in double precision."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    powers = np.exp(shifted)
    return powers / powers.sum(axis=1, keepdims=True)
