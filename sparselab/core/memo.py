"""Work that many plans of one pass share, done once. Outside of :func:`sharing` nothing is kept."""

from __future__ import annotations

import gc
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from sparselab.core.errors import ConfigError

T = TypeVar("T")

_shared: ContextVar[dict[Hashable, Any] | None] = ContextVar("shared", default=None)


@contextmanager
def uncollected() -> Iterator[None]:
    """Switch Python's search for reference cycles off inside the context: among many containers that all stay it costs much.

    Not for generators: one that is never finished would leave it switched off.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@contextmanager
def sharing() -> Iterator[None]:
    """Inside, :func:`once` remembers. A pass inside a pass is the same pass."""
    if _shared.get() is not None:
        yield
        return
    token = _shared.set({})
    try:
        with uncollected():
            yield
    finally:
        _shared.reset(token)


def once(key: Hashable, make: Callable[[], T]) -> T:
    """``make()``, or inside :func:`sharing` what it gave for an equal ``key``: a result, or a refusal.

    The result is shared: whoever gets it must not change it. What else it raises is not kept.
    """
    shared = _shared.get()
    if shared is None:
        return make()
    if key not in shared:
        try:
            shared[key] = make()
        except ConfigError as refused:
            shared[key] = _No(refused)
            raise
    found = shared[key]
    if isinstance(found, _No):
        raise found.refused.with_traceback(None)
    return cast(T, found)


@dataclass(frozen=True)
class _No:
    """The place of a result that was refused."""

    refused: ConfigError
