"""A router: which experts of a mixture a token goes to, and with what factors [no torch at import]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from sparselab.core import options as spec_options
from sparselab.core.errors import Issue
from sparselab.core.registry import Registry, build

if TYPE_CHECKING:
    from torch import Tensor

WHERE = "model.router"
GUARD = 1e-5
"""Added to a sum of scores before it divides (thunlp/BlockFFN, blockffn.py)."""


class Router:
    """A rule. Options are those of the registered class.

    A linear layer without bias scores experts; the rule makes gates of the scores. An expert is active for a token where its
    gate is not 0, whatever the rule.

    gained: each expert has a trained factor of its gate, which starts at 1.
    """

    class Options(spec_options.Options):
        pass

    name: ClassVar[str]
    gained: ClassVar[bool] = False
    options: Any

    def __init__(self, options: Any):
        self.options = options

    def issues(self, experts: int) -> list[Issue]:
        """Why it does not fit a mixture of so many experts."""
        return []

    def scored(self, experts: int) -> int:
        """Experts that the linear layer scores: the last ones of the mixture."""
        return experts

    def used(self, experts: int) -> int:
        """Experts that a token uses; where that depends on the token, all that it may use."""
        return experts

    def gates(self, scores: Tensor, gain: Tensor | None, training: bool) -> Tensor:
        """Decide on the factors of all experts' outputs.

        Args:
            scores: (…, scored) float32
            gain: (scored,) float32 of a rule that is gained, else None
            training: whether the network trains

        Returns:
            (…, experts) float32, 0 for an expert that is not active.
        """
        raise NotImplementedError

    def shares(self, scores: Tensor) -> Tensor:
        """How a token divides its weight among the experts that are scored, for losses.

        Args:
            scores: (…, scored) float32

        Returns:
            The same shape, at least 0, of a sum of 1; of 0 where a token has no expert.
        """
        raise NotImplementedError


class Rectified(Router):
    """Base of rules by which an expert is active where its score is above 0."""

    def shares(self, scores: Tensor) -> Tensor:
        positive = scores.relu()
        return positive / (positive.sum(-1, keepdim=True) + GUARD)


class Counted(Router):
    """Base of rules by which a token has ``k`` experts, by the softmax of its scores."""

    class Options(Router.Options):
        k: int = Field(5, ge=1, description="experts of a token, at least 1")

    options: Options

    def issues(self, experts: int) -> list[Issue]:
        if self.options.k <= experts:
            return []
        return [Issue(f"{WHERE}.k={self.options.k}", f"there are {experts} experts", f"write at most {experts}")]

    def used(self, experts: int) -> int:
        return self.options.k

    def shares(self, scores: Tensor) -> Tensor:
        return scores.softmax(-1)


def largest(shares: Tensor, k: int) -> Tensor:
    """Keep the ``k`` largest of each row, divided by their sum.

    Args:
        shares: (…, experts) float
        k: how many

    Returns:
        The same shape, 0 elsewhere.
    """
    import torch

    values, at = shares.topk(k, dim=-1)
    return torch.zeros_like(shares).scatter(-1, at, values / values.sum(-1, keepdim=True))


ROUTERS: Registry[Router] = Registry("router", "sparselab.inputs.models.routers")


def made(values: dict[str, Any]) -> Router:
    """The rule of ``model.router``. Raises ConfigError."""
    rule: Router = build(ROUTERS, values, WHERE)
    return rule
