"""Estimators of a dictionary: `sparse_coding`. The arithmetic is in :mod:`sparselab.estimators.codes`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from sparselab.estimators.estimator import ESTIMATORS, Estimator
from sparselab.spec.faults import Fault
from sparselab.spec.options import Options as AnyOptions

if TYPE_CHECKING:
    from sparselab.estimators.codes.learner import SparseCoding as Learner

SHOWN = 64  # units in a picture


@ESTIMATORS.register("sparse_coding")
class SparseCoding(Estimator):
    """Sparse coding under a choice of thresholds (Rentzeperis et al. 2023, arXiv 2301.10002)."""

    class Options(AnyOptions):
        penalty: Literal["soft", "hard", "hard_prox", "half", "cel0", "lq"] = Field(
            description="soft, hard (as released), hard_prox, half, cel0 or lq"
        )
        q: float = Field(gt=0, lt=1, description="the exponent of lq, in (0, 1)")
        lam: float = Field(gt=0, description="weight of the penalty, above 0")
        target_active: float | None = Field(
            gt=0, lt=1, description="share of units that a signal shall use, in (0, 1), or null: lam stays"
        )
        units: int = Field(ge=1, description="rows of the dictionary, at least 1")
        solver: Literal["pg", "fista", "lca"] = Field(description="pg, fista or lca")
        step_r: float = Field(gt=0, description="step in the codes, above 0")
        step_phi: float = Field(gt=0, description="step in the dictionary, above 0")
        decay: float | None = Field(gt=0, description="rates fall as 1 / (1 + rate t / decay), or null")
        inner_max: int = Field(ge=1, description="most steps in the codes, at least 1")
        inner_tol: float = Field(gt=0, description="relative change at which codes rest, above 0")
        batch: int = Field(ge=1, description="signals a dictionary step, at least 1")
        passes: int = Field(ge=1, description="passes over the data, at least 1")

    takes = ("set of patches",)
    options: Options

    def faults(self, problem: Any) -> list[Fault]:
        o = self.options
        if o.target_active is not None and o.target_active * o.units < 0.1:
            where = f"estimator.target_active={o.target_active:g}"
            said = f"of {o.units} units that is {o.target_active * o.units:g} units a signal"
            return [Fault(where, said, f"write at least {0.1 / o.units:g}, or more units")]
        return []

    def work(self, problem: Any) -> float:
        return float(problem.options.patches) * self.options.passes * self.options.units * problem.size()

    def build(self, seed: int) -> Learner:
        from sparselab.estimators.codes.learner import SparseCoding as Learner

        return Learner(**self.options.model_dump(), random_state=seed % 2**32)

    def report(self, fitted: Learner) -> dict[str, float]:
        return {
            "lam": fitted.lam_,
            "steps": fitted.n_iter_ / fitted.n_batches_,
            "batches": float(fitted.n_batches_),
            "unsettled": float(fitted.unsettled_),
        }

    def pictures(self, fitted: Learner) -> dict[str, bytes]:
        """``fields.png``: the first 64 units, where signals are square patches."""
        from sparselab.estimators.codes.mosaic import mosaic
        from sparselab.store.png import grey

        tiles = mosaic(fitted.components_[:SHOWN])
        return {} if tiles is None else {"fields.png": grey(tiles)}
