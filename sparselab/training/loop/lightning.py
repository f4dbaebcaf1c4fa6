"""Lightning, imported without what it does not need here.

Lightning imports torchmetrics, and that loads transformers, matplotlib and scipy wherever they are installed, for metrics
that no run uses: seconds of each start. Every module of the engine that needs Lightning takes it from here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from lightning_utilities.core import imports

UNWANTED = {"transformers", "matplotlib", "scipy", "torchvision"}


@contextmanager
def _without_extras() -> Iterator[None]:
    """Inside, who asks whether something UNWANTED is installed hears that it is not. Afterwards all is as it was."""
    requirement_met, package_available = imports.RequirementCache.__bool__, imports.package_available

    def met(cache: imports.RequirementCache) -> bool:
        name = re.split(r"[<>=!~\[ ]", cache.requirement or cache.module)[0]
        return name not in UNWANTED and requirement_met(cache)

    def available(name: str) -> bool:
        return name not in UNWANTED and package_available(name)

    imports.RequirementCache.__bool__ = met  # type: ignore[method-assign]
    imports.package_available = available
    try:
        yield
    finally:
        imports.RequirementCache.__bool__ = requirement_met  # type: ignore[method-assign]
        imports.package_available = package_available


with _without_extras():
    import pytorch_lightning as pl
    import torchmetrics
    from lightning_fabric.plugins import environments

__all__ = ["environments", "pl", "torchmetrics"]
