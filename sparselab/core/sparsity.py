"""The value after ``sparsity=``: how much is kept, and in what shape. Patterns are classes in a registry [no torch]."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from sparselab.core.errors import ConfigError, Issue, refuse, short, spell
from sparselab.core.model_spec import Layer
from sparselab.core.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor


class Placed(Protocol):
    """How a pattern lies on one weight: :class:`~sparselab.weights.patterns.pattern.Pattern` explains the three."""

    @property
    def kind(self) -> str: ...
    @property
    def axis(self) -> str: ...
    @property
    def parts(self) -> int: ...


@dataclass(frozen=True)
class Sparsity(ABC):
    """A requested sparsity. ``density`` is the fraction of weights KEPT. Each pattern is a registered subclass.

    A pattern says how it is written (:meth:`read`, ``str``), which layers it does not fit (:meth:`misfit`), which weights
    it keeps (:meth:`mask`), and whether a mask or a weight has it (:meth:`holds`). Modules that define one import torch
    inside functions only: planning loads them all.

    form:          the pattern's name in messages, as in "is not defined for N:M".
    example:       a value that is read, for messages.
    order:         its place among the examples in messages, lowest first.
    prunes:        False for the pattern that keeps every weight.
    free:          each weight is kept or dropped by itself, wherever it lies.
    single:        weights are ranked one by one; False where several are kept or dropped as one.
    grouped:       N of every M consecutive weights along ``targets.axis`` are kept; :attr:`n_of_m` says how many.
    fixed_count:   the pattern itself says how many weights are kept (:meth:`own_count`): it takes no density from a
                   distribution, and a schedule has nothing between dense and it.
    whole:         what is dropped goes with all that is its own: its bias, its part of a norm, what reads it
                   (:mod:`sparselab.weights.whole_units`). Methods that take such patterns say so.
    shared:        layers whose outputs are added to each other keep the same units. Methods that see to it say so.
    matches_cost:  a plan replaces it by the unstructured sparsity at which a transformed network costs what the plain
                   one does.
    """

    density: float

    name: ClassVar[str]
    form: ClassVar[str]
    example: ClassVar[str]
    order: ClassVar[int] = 50
    prunes: ClassVar[bool] = True
    free: ClassVar[bool] = False
    single: ClassVar[bool] = False
    grouped: ClassVar[bool] = False
    fixed_count: ClassVar[bool] = False
    whole: ClassVar[bool] = False
    shared: ClassVar[bool] = False
    matches_cost: ClassVar[bool] = False

    @property
    def kind(self) -> str:
        """The name that the pattern is registered by."""
        return self.name

    @property
    def sparsity(self) -> float:
        """The fraction of weights removed."""
        return float(1 - Fraction(str(self.density)))

    @property
    def n_of_m(self) -> tuple[int, int] | None:
        """(N, M) of a grouped pattern; None for any other."""
        return None

    @property
    def removed(self) -> str:
        """The fraction of weights removed, as it is written: ``0.9``."""
        return f"{self.sparsity:.10g}"

    # -- how it is written ------------------------------------------------------------------------------------------

    @abstractmethod
    def __str__(self) -> str:
        """The pattern as it is written; :meth:`parse` reads it back."""

    @classmethod
    @abstractmethod
    def read(cls, value: int | float | str, at: str) -> Sparsity | None:
        """Parse a number or a stripped text; None where it is not written like this pattern.

        Raises ConfigError at ``at`` where it is written like it and is wrong.
        """

    @classmethod
    def fix(cls, text: str) -> str | None:
        """The fix for a text that no pattern reads and that is nearly this one; None where it is not."""
        return None

    @classmethod
    def parse(cls, value: Any, where: str = "sparsity") -> Sparsity:
        """Parse ``0.9``, ``2:4``, ``block:4x1:0.8`` or what else a registered pattern reads.

        Raises ConfigError where none reads it.
        """
        if isinstance(value, Sparsity):
            return value
        at = short(f"{where}={spell(value)}")
        if isinstance(value, bool) or value is None or isinstance(value, (list, dict)):
            refuse(at, "not a sparsity", examples())
        given = value if isinstance(value, (int, float)) else str(value).strip()
        patterns = in_order()
        for pattern in patterns:
            if (found := pattern.read(given, at)) is not None:
                return found
        fixes = [fix for pattern in patterns if (fix := pattern.fix(str(given)))]
        raise ConfigError([Issue(at, "not a sparsity", fixes[0] if fixes else examples())])

    # -- on one weight ----------------------------------------------------------------------------------------------

    def misfit(self, layer: Layer, axis: str) -> str | None:
        """Why the pattern cannot be put on a layer of at least two dimensions; None if it can."""
        return None

    def require_fit(self, on: Placed, shape: tuple[int, ...]) -> None:
        """Raise ValueError where the pattern cannot be put on a weight of this shape."""
        if problem := self.misfit(Layer("the weight", on.kind, shape, 0), on.axis):
            raise ValueError(problem)

    def unit_size(self, kind: str, shape: tuple[int, ...]) -> int:
        """Number of weights that are kept or dropped as one."""
        return 1

    def own_count(self, shape: tuple[int, ...]) -> int | None:
        """Number of weights kept where the pattern itself says so; None where a density does."""
        return None

    def mask(self, on: Placed, score: Tensor, density: float, *, checked: bool, magnitude: bool) -> Tensor:
        """The weights to keep: bool, the shape of ``score``.

        Args: as of :meth:`Pattern.mask <sparselab.weights.patterns.pattern.Pattern.mask>`, with the scores known to be
        finite and to fit; ``checked`` says whether sums of them are, too.
        """
        raise NotImplementedError(f"{self} has no masks")

    def in_one_pass(self, on: Placed, score: Tensor, magnitude: bool, out: Tensor | None) -> Tensor | None:
        """:meth:`mask` by a kernel that checks scores and writes ``out`` in the same pass; None where none serves."""
        return None

    def holds(self, on: Placed, there: Tensor, is_mask: bool, density: float | None) -> bool:
        """Tell whether a mask, or the non-zeros of a weight, have the pattern.

        Args: as of :meth:`Pattern.holds <sparselab.weights.patterns.pattern.Pattern.holds>`; ``there`` is bool.
        """
        raise NotImplementedError(f"{self} has no masks")

    def broken(self, on: Placed, there: Tensor) -> tuple[int, int]:
        """Count the groups of weights that break the pattern.

        Args:
            on: the kind of weight and its axis
            there: (*weight) bool, True where a weight is not zero

        Returns:
            (broken, all) groups; all are broken where the pattern does not say which.
        """
        total = there.numel() // self.unit_size(on.kind, tuple(there.shape))
        return (0 if self.holds(on, there, True, None) else total), total


PATTERNS: Registry[Sparsity] = Registry("pattern", "sparselab.weights.patterns.kinds")


def in_order() -> list[type[Sparsity]]:
    """The registered patterns in the order of messages."""
    return sorted((PATTERNS[name] for name in PATTERNS), key=lambda pattern: (pattern.order, pattern.name))


def examples() -> str:
    """The fix for a value that is no sparsity: one example of each pattern."""
    shown = [pattern.example for pattern in in_order() if not pattern.matches_cost]
    # YAML 1.1 reads an unquoted 2:4 as a number.
    *first, last = [f'"{text}"' if re.fullmatch(r"\d+:\d+", text) else text for text in shown]
    return f"write {', '.join(first)} or {last}"


def density_of(removed: int | float | str, at: str) -> float:
    """The density that a fraction of weights removed leaves, exact in decimals; ConfigError where it is none."""
    try:
        gone = float(removed)
    except ValueError:
        refuse(at, f"{removed!r} is not a fraction", examples())
    if not 0 <= gone < 1:
        hint = f"for {gone:g} % write {gone / 100:g}" if 1 < gone < 100 else "for 50 % write 0.5"
        refuse(at, "must be in [0, 1)", hint)
    return float(1 - Fraction(str(float(removed) if isinstance(removed, str) else removed)))
