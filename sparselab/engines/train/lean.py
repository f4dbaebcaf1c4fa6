"""Lightning, imported without what it does not need here.

Lightning imports torchmetrics, and that loads transformers and matplotlib wherever they are installed, for metrics that
no run uses: two seconds of each start. Every module of the engine that needs Lightning takes it from here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from lightning_utilities.core.imports import RequirementCache

UNWANTED = {"transformers", "matplotlib"}


@contextmanager
def _without_extras() -> Iterator[None]:
    """Inside, optional imports of what is UNWANTED are told that it is not installed. Nothing is remembered of it."""
    asked = RequirementCache.__bool__

    def answer(cache: RequirementCache) -> bool:
        name = re.split(r"[<>=!~\[ ]", cache.requirement or cache.module)[0]
        return name not in UNWANTED and asked(cache)

    RequirementCache.__bool__ = answer  # type: ignore[method-assign]
    try:
        yield
    finally:
        RequirementCache.__bool__ = asked  # type: ignore[method-assign]


with _without_extras():
    import pytorch_lightning as pl
    from lightning_fabric.plugins import environments

__all__ = ["environments", "pl"]
