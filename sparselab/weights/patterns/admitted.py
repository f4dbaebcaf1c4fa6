"""The patterns that a plug-in is defined for, told by what they are [no torch]."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sparselab.core.sparsity import Sparsity, in_order


class _Admitted:
    def __init__(self, test: Callable[[type[Sparsity]], bool]):
        self.test = test

    def __get__(self, instance: object, owner: type | None = None) -> tuple[str, ...]:
        return tuple(one.name for one in in_order() if not one.matches_cost and self.test(one))


def patterns_where(test: Callable[[type[Sparsity]], bool]) -> Any:
    """A class attribute ``patterns``: names of the registered patterns that pass ``test``, in the order of messages.

    Patterns that are registered later are among them, so a plug-in need not know them.
    """
    return _Admitted(test)
