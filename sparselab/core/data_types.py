"""Types of what an example holds: what a network reads, and what it is to predict [no torch at import].

A dataset declares a pair of them, a family the pairs that its networks are for, a task the pair that it trains on. Classes are
compared, never names: a new kind of data is one class here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor


class DataType:
    """Base. ``noun`` is the plural that messages print; an instance prints with its sizes.

    shape:      of one example's tensor, without the batch.
    classes:    how many a prediction tells apart; 0 where it is no choice among classes.
    vocabulary: how many tokens there are; 0 where there are none, or only loading tells.
    length:     places of a sequence; 0 where it is none.
    ordered:    whether examples follow each other from batch to batch, so that a network may carry a state on.
    """

    noun: ClassVar[str] = ""
    classes: int = 0
    vocabulary: int = 0
    length: int = 0
    ordered: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        raise NotImplementedError(f"{type(self).__name__} has no shape")

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """``count`` random examples on the CPU, (count, *shape): what a network can be tried on."""
        raise NotImplementedError(f"{type(self).__name__} has no samples")

    def zeros(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        """One example of zeros, (1, *shape); ``dtype`` is the network's, for those that are numbers and no tokens."""
        import torch

        return torch.zeros(1, *self.shape, device=device, dtype=dtype)


@dataclass(frozen=True)
class Images(DataType):
    """(c, h, w) float32."""

    channels: int
    height: int
    width: int
    noun: ClassVar[str] = "images"

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.height, self.width

    def __str__(self) -> str:
        return f"images of {'x'.join(map(str, self.shape))}"

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        import torch

        return torch.randn(count, *self.shape, generator=generator)


@dataclass(frozen=True)
class Tokens(DataType):
    """(t,) int64: a window of a running text."""

    length: int
    vocabulary: int
    ordered: bool = False
    noun: ClassVar[str] = "tokens"

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.length,)

    def __str__(self) -> str:
        return f"{self.length} tokens"

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        import torch

        return torch.randint(self.vocabulary, (count, *self.shape), generator=generator)

    def zeros(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        import torch

        return super().zeros(device, torch.int64)


@dataclass(frozen=True)
class Sentences(DataType):
    """(3, t) int64: a sentence or a pair of them.

    Row 0 has the tokens, row 1 a 1 where there is one and a 0 where there is padding, row 2 whether it is of the first or the
    second (0, 1). One tensor, so that whatever takes a batch takes these.

    pad: the token that padding has; it stands at the end.
    """

    length: int
    vocabulary: int
    pad: int = 0
    noun: ClassVar[str] = "sentences"

    @property
    def shape(self) -> tuple[int, int]:
        return 3, self.length

    def __str__(self) -> str:
        return f"sentences of {self.length} tokens"

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        import torch

        tokens = torch.randint(self.vocabulary, (count, self.length), generator=generator)
        return torch.stack([tokens, torch.ones_like(tokens), torch.zeros_like(tokens)], 1)

    def zeros(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        """As the base's, without padding."""
        import torch

        one = super().zeros(device, torch.int64)
        one[:, 1] = 1
        return one


@dataclass(frozen=True)
class Classes(DataType):
    """One of ``classes`` labels, an int64, or a mixture of them, (classes,) float32."""

    classes: int
    noun: ClassVar[str] = "classes"

    @property
    def shape(self) -> tuple[int, ...]:
        return ()

    def __str__(self) -> str:
        return f"{self.classes} classes"

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        import torch

        return torch.randint(self.classes, (count,), generator=generator)


@dataclass(frozen=True)
class NextTokens(DataType):
    """(t,) int64: the inputs one token on; -100 is not counted. classes: the vocabulary."""

    length: int
    classes: int
    noun: ClassVar[str] = "next tokens"

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.length,)

    def __str__(self) -> str:
        return "next tokens"

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        import torch

        return torch.randint(self.classes, (count, *self.shape), generator=generator)


@dataclass(frozen=True)
class MaskedTokens(DataType):
    """(t,) int64: the tokens that the inputs hide behind a mask; -100 where they hide none. classes: the vocabulary.

    Both sides of a place tell of it, so a network for them attends in both directions.
    """

    length: int
    classes: int
    noun: ClassVar[str] = "masked tokens"

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.length,)

    def __str__(self) -> str:
        return "masked tokens"

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        import torch

        return torch.randint(self.classes, (count, *self.shape), generator=generator)


@dataclass(frozen=True)
class Activations(DataType):
    """(width,) float32: what a layer of a network put out at one place of a text."""

    width: int
    noun: ClassVar[str] = "activations"

    @property
    def shape(self) -> tuple[int]:
        return (self.width,)

    def __str__(self) -> str:
        return f"activations of width {self.width}"

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        import torch

        return torch.randn(count, *self.shape, generator=generator)


def no_history() -> np.ndarray:
    """Refuse to tell what users took: the data came without it."""
    raise RuntimeError("nothing is known of what these users took")


@dataclass(frozen=True)
class Users(DataType):
    """(1 + candidates,) int64: the number of a user, and those of the items that are to be scored for him.

    Where there are no candidates, as in evaluation always, all items are scored.

    users, items: how many there are. interactions: how many of them :attr:`history` has.
    history: gives what is known of the users, (2, interactions) int64, a user and an item each: graphs and rows are made of it.
    """

    users: int
    items: int
    interactions: int
    candidates: int = 0
    history: Callable[[], np.ndarray] = field(default=no_history, compare=False, repr=False)
    noun: ClassVar[str] = "users"

    @property
    def shape(self) -> tuple[int]:
        return (1 + self.candidates,)

    def __str__(self) -> str:
        return f"{self.users:,} users of {self.items:,} items"

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        import torch

        users = torch.randint(self.users, (count, 1), generator=generator)
        return torch.cat([users, torch.randint(self.items, (count, self.candidates), generator=generator)], 1)

    def zeros(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        import torch

        return super().zeros(device, torch.int64)


@dataclass(frozen=True)
class Taken(DataType):
    """(items,) float32: 1 for an item that the user took, else 0; of the candidates only, where there are any.

    ranked: how many items a ranking of evaluation orders at least; no list of the best is longer.
    """

    items: int
    ranked: int
    noun: ClassVar[str] = "taken items"

    @property
    def shape(self) -> tuple[int]:
        return (self.items,)

    def __str__(self) -> str:
        return f"{self.items:,} items, taken or not"

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        import torch

        return torch.randint(2, (count, self.items), generator=generator).float()


Pair = tuple[type[DataType], type[DataType]]
"""Types of inputs and of targets."""


def spoken(pair: Pair) -> str:
    """A pair in words: ``images → classes``."""
    return " → ".join(part.noun for part in pair)
