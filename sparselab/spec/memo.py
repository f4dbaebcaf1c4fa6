"""What many plans of one pass have in common is worked out once. Outside of :func:`sharing` nothing is kept."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar, cast

T = TypeVar("T")

_shared: ContextVar[dict[Hashable, Any] | None] = ContextVar("shared", default=None)


@contextmanager
def sharing() -> Iterator[None]:
    """Inside, :func:`once` remembers. A pass inside a pass is the same pass."""
    if _shared.get() is not None:
        yield
        return
    token = _shared.set({})
    try:
        yield
    finally:
        _shared.reset(token)


def once(key: Hashable, make: Callable[[], T]) -> T:
    """``make()``, or inside :func:`sharing` what it gave for an equal ``key``. What it raises is not kept.

    The result is shared: whoever gets it must not change it.
    """
    shared = _shared.get()
    if shared is None:
        return make()
    if key not in shared:
        shared[key] = make()
    return cast(T, shared[key])
