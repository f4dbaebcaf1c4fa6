"""Randomness is addressed, not stored.

Every random number of a run is drawn from a generator seeded by *where* it is needed (which epoch, batch, layer,
update) and not by how much was drawn before. A resumed run therefore draws what the unbroken run would have drawn,
without saving the state of any generator, and two processes that need the same numbers get the same numbers.
"""

from __future__ import annotations

import functools
import hashlib


def derive_seed(*parts: object) -> int:
    """A 63-bit seed for the place named by ``parts`` (numbers and words), the same on every machine."""
    text = "\x1f".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def seed_torch(seed: int) -> None:
    """Seed torch's global generators, for what draws from them: dropout.

    ``torch.manual_seed`` also notes each seed, with a stack trace, for devices that are not there.
    """
    import torch

    if _accelerated():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


@functools.cache
def _accelerated() -> bool:
    import torch

    return torch.accelerator.is_available()
