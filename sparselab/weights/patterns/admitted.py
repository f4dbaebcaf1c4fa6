"""The patterns that a plug-in is defined for, told by what they are [no torch]."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sparselab.core.sparsity import Sparsity, in_order


class _Admitted:
    def __init__(self, test: Callable[[type[Sparsity]], bool], whole: bool, shared: bool):
        self.test, self.whole, self.shared = test, whole, shared

    def __get__(self, instance: object, owner: type | None = None) -> tuple[str, ...]:
        able = (
            one
            for one in in_order()
            if not one.matches_cost and (self.whole or not one.whole) and (self.shared or not one.shared)
        )
        return tuple(one.name for one in able if self.test(one))


def patterns_where(test: Callable[[type[Sparsity]], bool], whole: bool = False, shared: bool = False) -> Any:
    """A class attribute ``patterns``: names of the registered patterns that pass ``test``, in the order of messages.

    Patterns that are registered later are among them, so a plug-in need not know them. whole: also those whose units go with
    all that is their own, and so cannot come back: for what never returns a unit. shared: of these also those that are the
    same for all layers of a residual stream: for what gives them one mask, or does not choose.
    """
    return _Admitted(test, whole, shared)
