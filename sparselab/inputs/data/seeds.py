"""numpy generators at an address: none lives from one batch to the next, so none has a state to save [no torch]."""

from __future__ import annotations

import numpy as np

from sparselab.core.seeds import derive_seed


def generator(*parts: object) -> np.random.Generator:
    """The generator of the place named by ``parts``. The algorithm is named, because numpy may change its default."""
    return np.random.Generator(np.random.PCG64(derive_seed(*parts)))
