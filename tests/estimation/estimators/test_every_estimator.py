"""What a scikit-learn user does wrong, on every estimator there is: one line each time, and none is left out."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys

import numpy as np
import pytest
from bad_data import cases
from sklearn.base import BaseEstimator, clone

from sparselab import estimation
from sparselab.estimation.estimators.codes.learner import SparseCoding
from sparselab.estimation.estimators.concave.learner import NonconvexClassifier, NonconvexRegressor
from sparselab.estimation.estimators.dag.learners import DAGMA, CoLiDE, SortNRegress
from sparselab.estimation.estimators.heavy_tails.learner import TsallisMixedRegressor
from sparselab.estimation.estimators.information.screened import ScreenedRidgeRegressor
from sparselab.estimation.estimators.information.selector import MIScreen
from sparselab.estimation.estimators.linear.greedy import BestSubset, LeastSquares, MatchingPursuit
from sparselab.estimation.estimators.linear.preconditioned import PreconditionedLasso
from sparselab.estimation.estimators.penalised.ridge import BilevelPenaltyRegressor
from sparselab.estimation.estimators.privacy.base import Clipped, Linear, Private
from sparselab.estimation.estimators.privacy.closed import (
    CentralDPRegressor,
    LDPSparseRegressor,
    SoftThresholdRegressor,
)
from sparselab.estimation.estimators.privacy.iterative import IHTRegressor, LDPIHTRegressor, MomentsLasso
from sparselab.estimation.estimators.surrogates.conservative import ConservativeRegressor
from sparselab.estimation.estimators.surrogates.learner import SurrogateRegressor
from sparselab.estimation.estimators.surrogates.optimizer import OfflineOptimizer

SMALL = {"width": 8, "epochs": 2, "random_state": 0}
ALL: tuple[BaseEstimator, ...] = (
    SparseCoding(8, batch=20, random_state=0),
    NonconvexRegressor(),
    NonconvexClassifier(),
    DAGMA(),
    CoLiDE(),
    SortNRegress(),
    TsallisMixedRegressor(),
    ScreenedRidgeRegressor(),
    MIScreen(grid=32),
    MatchingPursuit(),
    LeastSquares(),
    BestSubset(),
    PreconditionedLasso(),
    BilevelPenaltyRegressor(),
    LDPSparseRegressor(),
    CentralDPRegressor(),
    SoftThresholdRegressor(),
    LDPIHTRegressor(),
    IHTRegressor(),
    MomentsLasso(),
    ConservativeRegressor(**SMALL),
    SurrogateRegressor(**SMALL),
    OfflineOptimizer(SurrogateRegressor(**SMALL)),
)
BASES = (Linear, Clipped, Private)
GRAPHS = (DAGMA, CoLiDE, SortNRegress)
WORDS = {  # of a case of bad_data, what each says
    "sparse": "[Ss]parse",
    "NaN": "contains NaN",
    "one sample": "1 sample|minimum of",
    "lengths differ": "inconsistent",
    "one column as a list": "2D array",
    "infinite target": "infinity",
}


def one_line(estimator: BaseEstimator, given: tuple, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words) as refused:
        clone(estimator).fit(*given)
    assert "\n" not in str(refused.value)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 5))
    return X, (X[:, 0] + 0.1 * rng.normal(size=60) > 0).astype(float)


def test_none_is_left_out():
    for module in pkgutil.walk_packages(estimation.__path__, "sparselab.estimation."):
        importlib.import_module(module.name)
    found = {
        member
        for name, module in list(sys.modules.items())
        if name.startswith("sparselab.estimation.")
        for member in vars(module).values()
        if inspect.isclass(member) and issubclass(member, BaseEstimator) and member.__module__ == name
    }
    public = {c for c in found if hasattr(c, "fit") and not c.__name__.startswith("_") and c not in BASES}
    assert public == {type(estimator) for estimator in ALL}


@pytest.mark.parametrize("case", WORDS)
@pytest.mark.parametrize("estimator", ALL, ids=lambda estimator: type(estimator).__name__)
def test_bad_data_are_one_line(estimator, case, data):
    given, kind, words = cases(*data)[list(WORDS).index(case)]
    assert words == WORDS[case]
    if isinstance(estimator, (SparseCoding, *GRAPHS)):  # no target
        if case in ("lengths differ", "infinite target"):
            return
        given = given[:1]
    if isinstance(estimator, SparseCoding) and case == "one sample":  # one signal is a batch
        assert clone(estimator).fit(*given).components_.shape == (8, 5)
        return
    one_line(estimator, given, kind, words)


@pytest.mark.parametrize(
    "estimator",
    [
        MatchingPursuit(k=6), BestSubset(k=6), PreconditionedLasso(k=6),
        IHTRegressor(k=6), LDPIHTRegressor(k=6), IHTRegressor(k_prime=6), LDPIHTRegressor(k_prime=6),
    ],
    ids=repr,
)  # fmt: skip
def test_more_non_zeros_than_features_are_one_line(estimator, data):
    one_line(estimator, data, ValueError, "=6: more non-zeros than n_features=5$")


def test_more_columns_than_there_are_keep_them_all(data):
    """``keep`` is a cap: its default of 50 is for tables of thousands."""
    assert MIScreen("pearson", keep=6).fit(*data).get_support().all()


@pytest.mark.parametrize("estimator", [LDPSparseRegressor(), CentralDPRegressor(), LDPIHTRegressor()], ids=repr)
@pytest.mark.parametrize("option", ["epsilon=0", "epsilon=-1", "delta=1", "delta=1.5", "delta=0"])
def test_no_budget_is_one_line(estimator, option, data):
    name, value = option.split("=")
    words = "above 0" if name == "epsilon" else "above 0 and below 1"
    if isinstance(estimator, LDPIHTRegressor) and name == "delta":
        estimator = clone(estimator).set_params(mechanism="gaussian")  # the mechanism of epsilon alone has no delta
    one_line(clone(estimator).set_params(**{name: float(value)}), data, ValueError, f"^{name}=.*{words}")
