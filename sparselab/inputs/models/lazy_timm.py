"""timm, imported without the experiment tracker that it takes along wherever one is installed: half a second of each start."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

UNWANTED = ("wandb",)


def timm(module: str = "timm") -> ModuleType:
    """``timm`` or one of its modules."""
    with without(*UNWANTED):
        importlib.import_module("timm")
    return importlib.import_module(module)


@contextmanager
def without(*names: str) -> Iterator[None]:
    """Inside, importing these fails as where they are not installed; what is loaded already stays."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None is how Python marks what cannot be had
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)
