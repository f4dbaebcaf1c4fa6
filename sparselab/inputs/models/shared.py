"""A batch that several processes share, each as many examples: what all of them together know [torch]."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


class Shared:
    """One process, which has the whole batch."""

    world = 1

    def total(self, tensor: Tensor) -> Tensor:
        """Sum over processes.

        Args:
            tensor: of one shape in all processes

        Returns:
            The same shape.
        """
        return tensor

    def least(self, tensor: Tensor) -> Tensor:
        """Take the smallest over processes, element by element.

        Args:
            tensor: of one shape in all processes

        Returns:
            The same shape.
        """
        return tensor

    def best(self, values: Tensor, count: int | Tensor) -> Tensor:
        """Bool, as ``values`` (c, …), which fall along the first axis: those among the ``count`` largest of all processes.

        count: a number, or one for each column. Of equal values those of the first process, and there of the first place.
        """
        place = torch.arange(len(values), device=values.device).view(-1, *[1] * (values.ndim - 1))
        return (place < count).expand_as(values)


class SharedByRanks(Shared):
    """The processes of a run."""

    @property
    def world(self) -> int:  # type: ignore[override]
        return dist.get_world_size()

    def total(self, tensor: Tensor) -> Tensor:
        summed = tensor.clone()
        dist.all_reduce(summed)
        return summed

    def least(self, tensor: Tensor) -> Tensor:
        smallest = tensor.clone()
        dist.all_reduce(smallest, dist.ReduceOp.MIN)
        return smallest

    def best(self, values: Tensor, count: int | Tensor) -> Tensor:
        everywhere = [torch.empty_like(values) for _ in range(self.world)]
        dist.all_gather(everywhere, values.contiguous())
        order = torch.cat(everywhere).argsort(dim=0, descending=True, stable=True)
        places = torch.arange(len(order), device=order.device).view(-1, *[1] * (order.ndim - 1))
        place = torch.empty_like(order).scatter_(0, order, places.expand_as(order).contiguous())
        first = dist.get_rank() * len(values)
        return place[first : first + len(values)] < count


def of_run() -> Shared:
    """The processes of this run; one process where there are no others."""
    many = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    return SharedByRanks() if many else Shared()
