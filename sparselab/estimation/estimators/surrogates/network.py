"""A multi-layer perceptron whose parameters are one vector, with its gradients in parameters and in inputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Array = np.ndarray


class Network:
    """Dense layers with leaky rectifiers between them; the parameters are handed in, the object holds shapes only.

    sizes: inputs, widths of the hidden layers, outputs. slope: of a rectifier below zero (0: an ordinary one).
    A parameter vector has the layers one after another, each its weights (inputs, outputs) and then its biases. It may be
    longer: what follows belongs to the loss, and no output depends on it.
    """

    def __init__(self, sizes: Sequence[int], slope: float):
        self.sizes, self.slope = tuple(sizes), slope
        self.places: list[tuple[slice, tuple[int, int], slice]] = []
        start = 0
        for fan_in, fan_out in zip(self.sizes, self.sizes[1:], strict=False):
            middle = start + fan_in * fan_out
            self.places.append((slice(start, middle), (fan_in, fan_out), slice(middle, middle + fan_out)))
            start = middle + fan_out
        self.size = start

    def start(self, rng: np.random.Generator, dtype: type = np.float32) -> Array:
        """(size,) first parameters: weights uniform in ±sqrt(6 / (inputs + outputs)) (Glorot), biases zero."""
        vector: Array = np.zeros(self.size, dtype)
        for weights, shape, _ in self.places:
            reach = np.sqrt(6 / sum(shape))
            vector[weights] = rng.uniform(-reach, reach, shape).ravel()
        return vector

    def layers(self, vector: Array) -> list[tuple[Array, Array]]:
        """(weights, biases) of each layer, as views."""
        return [(vector[weights].reshape(shape), vector[biases]) for weights, shape, biases in self.places]

    def forward(self, vector: Array, X: Array) -> list[Array]:
        """Return what each layer reads, and last the outputs (n, outputs)."""
        seen = [X]
        for number, (weights, biases) in enumerate(self.layers(vector)):
            z = seen[-1] @ weights
            z += biases
            if number < len(self.places) - 1:
                np.maximum(z, self.slope * z, out=z)
            seen.append(z)
        return seen

    def backward(self, vector: Array, seen: list[Array], slopes: Array, into: Array) -> Array:
        """The gradient in the parameters, written over ``into``; ``slopes`` (n, outputs): of the loss in the outputs."""
        into[self.size :] = 0
        gradients, layers, back = self.layers(into), self.layers(vector), slopes
        for number in range(len(layers) - 1, -1, -1):
            weights, biases = gradients[number]
            np.matmul(seen[number].T, back, out=weights)
            np.sum(back, axis=0, out=biases)
            if number:
                back = self._past(back @ layers[number][0].T, seen[number])
        return into

    def inputs(self, vector: Array, seen: list[Array], slopes: Array) -> Array:
        """(n, inputs) the gradient in the inputs, row by row."""
        layers, back = self.layers(vector), slopes
        for number in range(len(layers) - 1, -1, -1):
            back = back @ layers[number][0].T
            if number:
                back = self._past(back, seen[number])
        return back

    def _past(self, back: Array, seen: Array) -> Array:
        """Slopes before a rectifier, from those behind it and what it gave."""
        slope = back.dtype.type(self.slope)
        steep = back * (1 - slope)
        steep *= seen > 0
        back *= slope
        back += steep
        return back


class Adam:
    """Adam as Keras has it: eps (1e-7) is added to the root of the uncorrected second moment."""

    def __init__(self, size: int, rate: float, dtype: type = np.float32):
        self.rate, self.steps = rate, 0
        self.first: Array = np.zeros(size, dtype)
        self.second: Array = np.zeros(size, dtype)

    def step(self, vector: Array, gradient: Array) -> None:
        """Move ``vector`` in place."""
        self.steps += 1
        self.first += 0.1 * (gradient - self.first)
        self.second += 0.001 * (gradient * gradient - self.second)
        rate = self.rate * np.sqrt(1 - 0.999**self.steps) / (1 - 0.9**self.steps)
        vector -= np.asarray(rate, vector.dtype) * self.first / (np.sqrt(self.second) + np.asarray(1e-7, vector.dtype))
