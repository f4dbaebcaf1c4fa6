"""The contract of a distribution, and the rounding that all of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from fractions import Fraction
from math import floor
from typing import TYPE_CHECKING, Any, ClassVar

from sparselab.core import options as spec_options
from sparselab.core.errors import refuse
from sparselab.core.model_spec import Layer
from sparselab.core.registry import Registry
from sparselab.weights.count import nearest_count
from sparselab.weights.patterns.admitted import patterns_where

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.weights.slot import Slot, UpdateContext


class Distribution(ABC):
    """Divides a density over layers. Built from validated options, kept as ``self.options``.

    patterns:     the names of the patterns (:data:`~sparselab.core.sparsity.PATTERNS`) that it is defined for.
    needs_scores: it looks at scores of weights: call :meth:`allocate_scored` instead of :meth:`allocate`.
    own_scores:   these are :meth:`score`'s, not the method's: the method then says which weights of a layer stay, and not
                  how many. A distribution that needs the inputs of layers inherits from ``ReadsInputs`` as well.
    """

    name: ClassVar[str]
    patterns: ClassVar[tuple[str, ...]] = patterns_where(
        lambda pattern: not pattern.fixed_count, whole=True, shared=True
    )
    needs_scores: ClassVar[bool] = False
    own_scores: ClassVar[bool] = False

    class Options(spec_options.Options):
        pass

    def __init__(self, options: spec_options.Options):
        self.options: Any = options  # an instance of the class's own Options

    @abstractmethod
    def densities(self, layers: list[Layer], density: float) -> dict[str, float]:
        """Return the fraction that each layer keeps, real-valued, as the rule gives it.

        Args:
            layers: the sparse layers, in the order of the network
            density: the fraction kept over all of them, in (0, 1]

        Returns:
            A fraction in [0, 1] for each layer's name.

        Raises:
            ConfigError: the rule has no answer for this density.
        """

    def allocate(self, layers: list[Layer], density: float) -> dict[str, int]:
        """Name -> number of weights kept, at least one each; they sum to ``density * total``, rounded half up.

        Raises ConfigError where the request cannot be met.
        """
        shares = [self.densities(layers, density)[layer.name] for layer in layers]
        total = nearest_count(density, sum(layer.numel for layer in layers))
        return whole_numbers(layers, shares, total, self.where)

    def score(self, slot: Slot, context: UpdateContext) -> Tensor:
        """Scores that it looks at in the place of the method's, the slot's shape, where ``own_scores`` says so.

        Args:
            slot: the layer
            context: the update at which masks are made

        Returns:
            (*weight) float, finite.
        """
        raise NotImplementedError(f"{type(self).__name__} has no scores of its own")

    def allocate_scored(self, scores: dict[str, Tensor], density: float) -> dict[str, int]:
        """Name -> number of weights kept, from the scores of all layers (any shapes); exact as :meth:`allocate`.

        Args:
            scores: (*weight) float for each layer's name
            density: the fraction kept over all of them, in (0, 1]

        Returns:
            Weights kept, by name; they sum to ``density`` times the total, rounded half up.

        Raises:
            ValueError: a score is NaN or infinite.
        """
        raise NotImplementedError(f"{type(self).__name__} does not rank scores")

    @property
    def where(self) -> str:
        return f"distribution={self.name}"


DISTRIBUTIONS: Registry[Distribution] = Registry("distribution", "sparselab.weights.distributions")


def whole_numbers(layers: list[Layer], shares: Iterable[float], total: int, where: str) -> dict[str, int]:
    """Integers nearest to ``shares`` of the layers' sizes that sum to exactly ``total``, from 1 to the size each.

    Largest remainder: everyone gets the whole part, and what is left goes one by one to the largest fractional parts
    (the earlier layer where they are equal). Raises ConfigError where ``total`` is below one weight per layer.
    """
    if total < len(layers):
        refuse(where, f"{total:,} weights in all for {len(layers)} layers", "ask for less sparsity or fewer layers")
    exact = [Fraction(share) * layer.numel for share, layer in zip(shares, layers, strict=True)]
    counts = [min(layer.numel, max(1, floor(share))) for share, layer in zip(exact, layers, strict=True)]
    step = 1 if sum(counts) < total else -1
    by_need = sorted(range(len(layers)), key=lambda i: (step * (counts[i] - exact[i]), i))
    while missing := abs(total - sum(counts)):
        able = [i for i in by_need if 1 <= counts[i] + step <= layers[i].numel]
        if not able:
            refuse(where, f"{total:,} weights do not fit into these layers", "ask for a density of at most 1")
        for i in able[:missing]:
            counts[i] += step
    return {layer.name: count for layer, count in zip(layers, counts, strict=True)}
