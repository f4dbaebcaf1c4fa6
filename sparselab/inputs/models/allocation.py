"""An allocation: which pairs of a token and a feature of a sparse auto-encoder fire [no torch at import]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from sparselab.core import options as spec_options
from sparselab.core.errors import Issue
from sparselab.core.registry import Registry, build

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.inputs.models.shared import Shared

WHERE = "model.allocation"


class Allocation:
    """A rule. Options are those of the registered class.

    It sees the magnitudes z' (n, features) of a batch, the positive parts of what the encoder puts out, and keeps some of
    them. A pair whose magnitude is 0 never fires.

    thresholds: what stands for the batch where one token is looked at alone: None, the rule needs no other token;
                ``one`` number for all features, or one for ``each``. A pair fires where its magnitude reaches it.
    """

    class Options(spec_options.Options):
        pass

    name: ClassVar[str]
    thresholds: ClassVar[str | None] = None
    options: Any

    def __init__(self, options: Options):
        self.options = options

    def issues(self, features: int) -> list[Issue]:
        """Why it does not fit a dictionary of so many features."""
        return []

    def least_batch(self, features: int) -> int:
        """Tokens that a training batch must have, over all processes, for the rule to keep its budget."""
        return 1

    def state(self, features: int) -> dict[str, Tensor]:
        """Tensors by name that it keeps from batch to batch, as they are before the first; checkpoints hold them."""
        return {}

    def kept(self, magnitudes: Tensor, state: dict[str, Tensor], shared: Shared) -> Tensor:
        """Choose the pairs of token and feature that fire.

        Args:
            magnitudes: (n, features) float, at least 0: what each token gives each feature
            state: what :meth:`state` gave, as it is now; not to be changed
            shared: the processes among which the batch is divided; each has as many tokens

        Returns:
            (n, features) bool.
        """
        raise NotImplementedError

    def learn(self, magnitudes: Tensor, state: dict[str, Tensor], batch: int, shared: Shared) -> None:
        """Take what a training batch teaches into ``state``.

        Args:
            magnitudes: (n, features) float of the batch
            state: changed in place
            batch: its number, from 0
            shared: as for :meth:`kept`
        """


class Budgeted(Allocation):
    """Base of rules with a budget of ``k`` features a token, on average over the batch or exactly."""

    class Options(Allocation.Options):
        k: int = Field(32, ge=1, description="features that fire for a token, on average over a batch; at least 1")

    options: Options

    def issues(self, features: int) -> list[Issue]:
        if self.options.k <= features:
            return []
        return [Issue(f"{WHERE}.k={self.options.k}", f"there are {features} features", f"write at most {features}")]


ALLOCATIONS: Registry[Allocation] = Registry("allocation", "sparselab.inputs.models.allocations")


def best_pairs(magnitudes: Tensor, budget: int, shared: Shared) -> Tensor:
    """Bool (n, features): the ``budget`` largest magnitudes of all processes' tokens, wherever they are."""
    import torch

    flat = magnitudes.flatten()
    if budget < len(flat) and quick(magnitudes, shared):
        reached = magnitudes >= nth_largest(flat[None], torch.tensor([budget]))
        if int(torch.count_nonzero(reached)) == budget:  # else some are equal
            return reached
    values, at = flat.topk(min(budget, len(flat)))
    chosen = torch.zeros_like(flat, dtype=torch.bool).scatter_(0, at, shared.best(values, budget))
    return chosen.view_as(magnitudes)


def quick(magnitudes: Tensor, shared: Shared) -> bool:
    """Tell whether numpy's sorts, several times faster than torch's selections on a processor, can be used.

    Args:
        magnitudes: (n, features)
        shared: the processes among which the batch is divided
    """
    return shared.world == 1 and magnitudes.device.type == "cpu"


def nth_largest(values: Tensor, place: Tensor) -> Tensor:
    """(rows,): the number at ``place`` (rows,), from 1, of each row of ``values`` (rows, n) in falling order. On the CPU."""
    import numpy as np
    import torch

    numbers, last = values.detach().float().numpy(), values.shape[1] - int(place[0])
    if len(values) == 1:
        return torch.from_numpy(np.partition(numbers, last)[:, last])
    rising = torch.from_numpy(np.sort(numbers))
    return rising.gather(1, (values.shape[1] - place)[:, None])[:, 0]


def made(values: dict[str, Any]) -> Allocation:
    """The rule of ``model.allocation``. Raises ConfigError."""
    rule: Allocation = build(ALLOCATIONS, values, WHERE)
    return rule
