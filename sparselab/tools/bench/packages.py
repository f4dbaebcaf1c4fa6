"""The same work in well-kept packages, in turns: TopK auto-encoders of SAELens, SCAD and MCP of skglm.

Neither is pinned with the project: `pip install sae-lens skglm` in an environment beside it, or the rows are left out.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

from sparselab.tools.bench.timing import Row, row, turns

CODING = "An update of a TopK auto-encoder (512 vectors of width 256, 2,048 features, k 16), against SAELens's"
CONCAVE = "A fit under SCAD or MCP (200 rows of 2,050 columns, lambda 0.2, tolerance 1e-4), against skglm's"
WIDTH, FEATURES, BATCH, K = 256, 2048, 512, 16
SHAPES = {"scad": 3.7, "mcp": 3.0}


def rows(device: str) -> Iterator[Row]:
    for package, section in (("sae_lens", coding), ("skglm", concave)):
        if find_spec(package) is None:
            print(f"packages: no {package} here, so its rows are left out", file=sys.stderr)
        else:
            yield from section(device)


def coding(device: str) -> Iterator[Row]:
    """Our updates of each rule, theirs of TopK and BatchTopK, on the same vectors; each with its own optimiser and upkeep."""
    torch.manual_seed(0)
    vectors = torch.randn(BATCH, WIDTH, device=device)
    theirs = f"SAELens {version('sae-lens')}"
    things = {
        f"{theirs} TopK": of_sae_lens("TopK", {"k": K}, vectors),
        f"{theirs} BatchTopK": of_sae_lens("BatchTopK", {"k": float(K)}, vectors),
        "topk": ours("topk", vectors),
        "mutual_choice": ours("mutual_choice", vectors),
        "feature_choice": ours("feature_choice", vectors),
    }
    times = turns(things, 15, device, warm_up=3)
    for name, baseline, goal in (
        ("topk", "TopK", 1.0),
        ("mutual_choice", "BatchTopK", 1.0),
        ("feature_choice", "TopK", None),
    ):
        yield row(CODING, name, f"{theirs} {baseline}", times, goal)


def ours(rule: str, vectors: torch.Tensor) -> Callable[[], object]:
    """Return what the training loop does in an update: loss, gradients across the columns, optimiser, columns of length 1."""
    from sparselab.inputs.models.allocation import made
    from sparselab.inputs.models.autoencoders import Autoencoder, only_turning, unit_columns
    from sparselab.training.tasks.reconstruction import normalised_error

    network = Autoencoder(WIDTH, FEATURES, made({"name": rule, "k": K}), 40, by_threshold=True).to(vectors.device)
    directions = network.get_parameter("decoder.weight")
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.0)

    def update() -> None:
        optimizer.zero_grad()
        normalised_error(network(vectors), vectors).backward()
        only_turning(directions)
        optimizer.step()
        unit_columns(directions.data)

    return update


def of_sae_lens(rule: str, options: dict[str, object], vectors: torch.Tensor) -> Callable[[], object]:
    import sae_lens
    from sae_lens.config import LoggingConfig, SAETrainerConfig

    config = getattr(sae_lens, f"{rule}TrainingSAEConfig")(d_in=WIDTH, d_sae=FEATURES, **options)
    sae = getattr(sae_lens, f"{rule}TrainingSAE")(config).to(vectors.device)
    settings = SAETrainerConfig(
        total_training_samples=10_000 * BATCH, train_batch_size_samples=BATCH, lr=1e-3, lr_end=1e-3, device=vectors.device.type,
        logger=LoggingConfig(log_to_wandb=False),
    )  # fmt: skip
    theirs = sae_lens.SAETrainer(settings, sae, iter(()))
    return lambda: theirs._train_step(sae, vectors)


def concave(device: str) -> Iterator[Row]:
    for penalty in SHAPES:
        for tau in (0.1, 0.9):
            yield from fits(penalty, tau, device)


def fits(penalty: str, tau: float, device: str) -> Iterator[Row]:
    """AG from signs and from zero, against coordinate descent on working sets, which is compiled before it is timed."""
    from sparselab.estimation.estimators.concave.learner import NonconvexRegressor
    from sparselab.running.planning import plan_of

    problem = ["problem=toeplitz_regression", "problem.n=200", f"problem.tau={tau}", "problem.snr=5.0"]
    sample = plan_of(["estimator=nonconvex_linear", *problem]).parts[1].draw(100, 0)
    X, y = sample.X, sample.y - sample.y.mean()
    theirs, other = f"skglm {version('skglm')}", of_skglm(penalty)
    models = {f"AG from {start}": NonconvexRegressor(penalty, lam=0.2, start=start) for start in ("sign", "zero")}
    times = turns(
        {name: partial(one.fit, X, y) for name, one in {theirs: other, **models}.items()}, 5, device, warm_up=1
    )
    for name, model in models.items():
        ours, reached = (model.objective_.value(np.r_[0.0, fitted.coef_]) for fitted in (model, other))
        extra = f"F {ours:.3g} in {model.n_iter_} iterations, skglm's {reached:.3g}"
        label = f"{penalty.upper()}, tau {tau:g}, {name}"
        yield row(CONCAVE, label, theirs, {label: times[name], theirs: times[theirs]}, None, extra)


def of_skglm(penalty: str) -> Any:
    from skglm import GeneralizedLinearEstimator
    from skglm.datafits import Quadratic
    from skglm.penalties import SCAD, MCPenalty
    from skglm.solvers import AndersonCD

    cost = {"scad": SCAD, "mcp": MCPenalty}[penalty](0.2, SHAPES[penalty])
    return GeneralizedLinearEstimator(Quadratic(), cost, AndersonCD(tol=1e-4, fit_intercept=False))
