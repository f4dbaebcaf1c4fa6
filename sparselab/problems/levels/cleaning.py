"""Hyper-cleaning: a weight for every training example, learned so that a model of the weighted ones does well on clean ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparselab.problems.levels.descent import minimise, step_of
from sparselab.problems.levels.instance import Array, Instance, Rows

SURE = 5.0  # the logit of a weight that is told the truth: 0.993 and 0.007
POWER_STEPS = 50
RETRAINED = 200  # steps from a solver's model towards the minimiser of the weighted examples


@dataclass(frozen=True)
class Split:
    """Examples as rows (n, p), the last column ones, and their classes (n,)."""

    inputs: Array
    labels: Array

    @staticmethod
    def of(images: Array, labels: Array) -> Split:
        """Images (n, ...) of 0 to 255 as rows in [0, 1] with a one behind them."""
        rows = images.reshape(len(images), -1) / 255.0
        return Split(np.column_stack([rows, np.ones(len(rows))]), labels)


class Cleaning(Instance):
    """f = cross-entropy on validation, g = mean of sigmoid(x_i) * cross-entropy_i + reg |y|² / 2, of a linear softmax model.

    y: (p * classes,), zeros at the start. x: (n,) logits of the training examples' weights; ``told`` starts them at the
    truth. clean: (n,) bool, the examples whose label is right, which no solver sees.
    """

    def __init__(
        self, train: Split, validation: Split, test: Split, clean: Array, classes: int, reg: float, told: bool
    ):
        self.train, self.validation, self.test = train, validation, test
        self.clean, self.classes, self.reg = clean, classes, reg
        self.rows = len(validation.labels), len(train.labels)
        self.x0 = np.where(clean, SURE, -SURE) if told else np.zeros(len(clean))
        self.y0 = np.zeros(train.inputs.shape[1] * classes)
        self.probes = self.x0[None]
        self.upper_curvature = _curvature(validation.inputs)
        self._lower_curvature = _curvature(train.inputs) + reg

    def lower_curvature(self, x: Array) -> float:
        return self._lower_curvature

    def upper(self, x: Array, y: Array, rows: Rows = None) -> float:
        return float(self._losses(self.validation, y, rows and rows[0])[0].mean())

    def upper_y(self, x: Array, y: Array, rows: Rows = None) -> Array:
        inputs, errors = self._losses(self.validation, y, rows and rows[0])[1:]
        return (inputs.T @ errors).ravel() / len(errors)

    def lower(self, x: Array, y: Array, rows: Rows = None) -> float:
        losses = self._losses(self.train, y, rows and rows[1])[0]
        return float((self._weights(x, rows) * losses).mean()) + 0.5 * self.reg * float(y @ y)

    def lower_x(self, x: Array, y: Array, rows: Rows = None) -> Array:
        losses = self._losses(self.train, y, rows and rows[1])[0]
        weights = self._weights(x, rows)
        slopes = weights * (1 - weights) * losses / len(losses)
        if rows is None:
            return slopes
        return np.bincount(rows[1], slopes, minlength=len(x))

    def lower_y(self, x: Array, y: Array, rows: Rows = None) -> Array:
        inputs, errors = self._losses(self.train, y, rows and rows[1])[1:]
        return (inputs.T @ (self._weights(x, rows)[:, None] * errors)).ravel() / len(errors) + self.reg * y

    def lower_yy(self, x: Array, y: Array, v: Array) -> Array:
        inputs = self.train.inputs
        shares = _softmax(inputs @ self._matrix(y))
        moved = shares * (inputs @ self._matrix(v))
        moved -= shares * moved.sum(1, keepdims=True)
        return (inputs.T @ (self._weights(x, None)[:, None] * moved)).ravel() / len(inputs) + self.reg * v

    def lower_xy(self, x: Array, y: Array, v: Array) -> Array:
        inputs, errors = self._losses(self.train, y, None)[1:]
        weights = self._weights(x, None)
        return weights * (1 - weights) * (errors * (inputs @ self._matrix(v))).sum(1) / len(inputs)

    def judge(self, x: Array, z: Array) -> dict[str, float]:
        """``accuracy``, ``validation_accuracy`` and ``validation_loss`` of z; ``auroc`` of x for clean examples.

        Where x was learned, z is first brought closer to the lower level's minimiser, so that weights are compared and not
        how far each solver took its model.
        """
        from sklearn.metrics import roc_auc_score

        if (x != self.x0).any():
            z = minimise(lambda y: self.lower_y(x, y), self.project_y, z, step_of(self, x, 0.0, 1.0), RETRAINED, 0.0)
        scores = {"validation_loss": self.upper(x, z)}
        for name, split in (("accuracy", self.test), ("validation_accuracy", self.validation)):
            found = (split.inputs @ self._matrix(z)).argmax(1)
            scores[name] = float((found == split.labels).mean())
        if 0 < self.clean.sum() < len(self.clean):
            scores["auroc"] = float(roc_auc_score(self.clean, x))
        return scores

    def _matrix(self, y: Array) -> Array:
        return y.reshape(-1, self.classes)

    @staticmethod
    def _weights(x: Array, rows: Rows) -> Array:
        return 1 / (1 + np.exp(-(x if rows is None else x[rows[1]])))

    def _losses(self, split: Split, y: Array, rows: Array | None) -> tuple[Array, Array, Array]:
        """(cross-entropies, inputs, softmax minus one-hot) of some rows."""
        inputs = split.inputs if rows is None else split.inputs[rows]
        labels = split.labels if rows is None else split.labels[rows]
        scores = inputs @ self._matrix(y)
        scores -= scores.max(1, keepdims=True)
        here = np.arange(len(labels))
        shares = np.exp(scores)
        total = shares.sum(1)
        losses = np.log(total) - scores[here, labels]
        shares /= total[:, None]
        shares[here, labels] -= 1
        return losses, inputs, shares


def _softmax(scores: Array) -> Array:
    shares = np.exp(scores - scores.max(1, keepdims=True))
    return shares / shares.sum(1, keepdims=True)


def _curvature(inputs: Array) -> float:
    """Half the largest eigenvalue of the inputs' second moments, which bounds the Hessian of their mean cross-entropy."""
    v = np.ones(inputs.shape[1])
    for _ in range(POWER_STEPS):
        v = inputs.T @ (inputs @ v)
        v /= np.linalg.norm(v)
    return 0.5 * float(np.linalg.norm(inputs @ v) ** 2) / len(inputs) * 1.05  # the power method comes from below


def pollute(labels: Array, share: float, classes: int, rng: np.random.Generator) -> Array:
    """Labels of which ``share`` (rounded) are replaced by another class each, never by the true one."""
    wrong = rng.permutation(len(labels))[: round(share * len(labels))]
    found = labels.copy()
    found[wrong] = (labels[wrong] + rng.integers(1, classes, size=len(wrong))) % classes
    return found
