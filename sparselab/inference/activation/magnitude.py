"""Entries of an input by their size, alone or weighed by what the layer makes of them: TEAL and WINA."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from sparselab.inference.activation.rule import ACTIVATIONS, InputRule, InputRuleOptions

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.inference.activation.frozen.sites import Site


@ACTIVATIONS.register("teal")
class TEAL(InputRule):
    """Score |x_i| (Liu et al. 2024, arXiv 2408.14690)."""


@ACTIVATIONS.register("wina")
class WINA(InputRule):
    """Score |x_i| times the norm of the weight's i-th column (Chen et al. 2025, arXiv 2505.19427, eq. 4).

    Of all masks of one size it has the least output error where the columns are orthogonal, which ``transform`` makes
    true of the pivots. As in the released code, the others are scored by |x_i| unless ``informed`` is ``all``.
    """

    class Options(InputRuleOptions):
        informed: Literal["pivots", "all"] = Field(description="pivots or all: layers scored by weights")

    options: Options

    def factor(self, place: Site) -> Tensor | None:  # type: ignore[override]  # its places are sites
        weighed = place.pivot or self.options.informed == "all"
        return place.column_norms() if weighed else None
