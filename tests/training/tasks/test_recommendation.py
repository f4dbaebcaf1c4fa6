"""Recommendation: losses and rankings by hand and beside torchmetrics, and cells of the frame's methods on it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torchmetrics.retrieval import RetrievalNormalizedDCG, RetrievalRecall

from sparselab.core.data_spec import DataSpec
from sparselab.core.data_types import Taken, Users
from sparselab.core.errors import ConfigError
from sparselab.running.planning import plan_of
from sparselab.running.run_cell import run_cell
from sparselab.training.losses.recommending import LatentKL, LookedUpL2
from sparselab.training.tasks.recommendation import Recommendation, pairwise, ranking


def task(**options):
    return Recommendation(Recommendation.Options(**options))


def scored(made, *batches):
    metrics = made.metrics(None)
    for outputs, wanted, unranked in batches:
        made.score(metrics, outputs, (torch.zeros(len(outputs), 1), wanted, unranked), None)
    values = {name: float(metric.compute()) for name, metric in metrics.items()}
    return made.numbers(values, "test", None)


def test_recall_by_either_definition():
    """Dossier: three items to find, k = 2, two hits: hits / m = 2/3, hits / min(k, m) = 1."""
    scores, wanted = torch.tensor([[5.0, 4.0, 3.0, 2.0]]), torch.tensor([[1.0, 1.0, 0.0, 1.0]])
    numbers = scored(task(k=[2]), (scores, wanted, torch.zeros(1, 4, dtype=torch.bool)))
    assert numbers["recall"] == pytest.approx(2 / 3) and numbers["recall_truncated"] == 1 and numbers["ndcg"] == 1


def test_ndcg_of_a_hit_at_rank_two():
    """Dossier: hit at rank 2 only, one item to find: 1 / log2(3) = 0.6309."""
    recall, truncated, ndcg = ranking(torch.tensor([[False, True]]), torch.tensor([1]))
    assert (float(recall), float(truncated)) == (1, 1) and float(ndcg) == pytest.approx(1 / math.log2(3))
    assert float(ndcg) == pytest.approx(0.6309, abs=1e-4)


def test_the_values_are_those_of_torchmetrics():
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(40, 30, generator=generator)
    wanted = (torch.rand(40, 30, generator=generator) < 0.2).float()
    wanted[:, 0] = 1
    unranked = (torch.rand(40, 30, generator=generator) < 0.3) & ~wanted.bool()
    made = task(k=[5, 20])
    halves = [(scores[part], wanted[part], unranked[part]) for part in (slice(0, 17), slice(17, 40))]
    numbers = scored(made, *halves)
    seen = ~unranked
    index = torch.arange(40)[:, None].expand(40, 30)[seen]
    for k, suffix in ((5, ""), (20, "_20")):
        for metric, name in ((RetrievalRecall(top_k=k), "recall"), (RetrievalNormalizedDCG(top_k=k), "ndcg")):
            metric.update(scores[seen], wanted[seen].long(), index)
            assert numbers[name + suffix] == pytest.approx(float(metric.compute()), abs=1e-6)
    sizes = wanted.sum(1)
    order = scores.masked_fill(unranked, -1).argsort(1, descending=True)[:, :5]
    truncated = wanted.gather(1, order).sum(1) / sizes.clamp(max=5)
    assert numbers["recall_truncated"] == pytest.approx(float(truncated.mean()))
    nats = -(scores.masked_fill(unranked, -math.inf).log_softmax(1).masked_fill(~wanted.bool(), 0)).sum(1).mean()
    assert numbers["loss"] == pytest.approx(float(nats)) and numbers["n"] == 40


def test_losses_by_hand():
    """Dossier: BPR loss at equal scores = ln 2."""
    assert float(pairwise(torch.tensor([[1.5, 1.5], [-2.0, -2.0]]))) == pytest.approx(math.log(2))
    outputs, wanted = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    batch = torch.zeros(1, 4), wanted
    expected = (F.softplus(torch.tensor(-2.0)) + F.softplus(torch.tensor(-3.0))) / 2
    assert float(task(loss="bpr").criterion(outputs, batch, None)) == pytest.approx(float(expected))
    both = torch.tensor([[1.0, 0.0, 1.0]])
    nats = -(outputs.log_softmax(1)[0, 0] + outputs.log_softmax(1)[0, 2])
    assert float(task(loss="softmax").criterion(outputs, (batch[0], both), None)) == pytest.approx(float(nats))
    bce = F.binary_cross_entropy(outputs.sigmoid(), wanted)
    assert float(task(loss="bce").criterion(outputs, batch, None)) == pytest.approx(float(bce))


def test_the_factor_of_the_divergence():
    """Dossier: KL anneal at update u: min(cap, u / total)."""
    loss = LatentKL(LatentKL.Options(weight=0.2, updates=2000))
    assert [loss.factor(u) for u in (0, 200, 400, 2000)] == [0, 0.1, 0.2, 0.2]
    context = SimpleNamespace(network=SimpleNamespace(divergence=torch.tensor(3.0)), global_step=100)
    assert float(loss.options.weight * loss.loss(context, (), None)) == pytest.approx(0.05 * 3)
    assert LatentKL(LatentKL.Options(weight=0.2, updates=0)).factor(0) == 0.2


def test_the_penalty_of_what_is_looked_up():
    loss = LookedUpL2(LookedUpL2.Options(weight=1e-4))
    network = SimpleNamespace(looked_up=lambda batch: torch.full((2, 3, 4), 2.0))
    value = loss.loss(SimpleNamespace(network=network), (torch.zeros(2, 3),), torch.zeros(2, 2))
    assert float(value) == 2 * 3 * 4 * 4 / 2 / 2


def test_what_does_not_fit_is_one_line():
    def spec(candidates, ranked):
        return DataSpec("set", Users(3, 9, 5, candidates), Taken(candidates or 9, ranked), 5, 3, 3, "", "local")

    assert not task(k=[9]).issues(spec(2, 9))
    (issue,) = task(k=[5, 20]).issues(spec(2, 9))
    assert str(issue) == "task.k=[5, 20]: recommends 20 items, and set ranks 9 — write at most 9"
    (issue,) = task(k=[5, 5]).issues(spec(2, 9))
    assert "names a number twice" in str(issue)
    (issue,) = task(k=[5], loss="bpr").issues(spec(0, 9))
    assert str(issue).startswith("task.loss=bpr: compares an item that was taken with one that was not")


@pytest.fixture
def taken(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    rows = [f"{u},{i},3,{n}" for u in range(16) for n, i in enumerate(rng.choice(24, 8, replace=False))]
    (tmp_path / "movielens_small").mkdir()
    (tmp_path / "movielens_small" / "ratings.csv").write_text("\n".join(["userId,movieId,rating,timestamp", *rows]))
    monkeypatch.setenv("SPARSELAB_DATA", str(tmp_path))
    return tmp_path


SHORT = ["dataset=movielens", "dataset.min_item=1", "trainer.max_epochs=null", "trainer.max_steps=6", "trainer.batch_size=8",
         "trainer.progress=none", "trainer.accelerator=cpu", 'trainer.precision="32"', "trainer.evals=1", "task.k=[5,10]",
         "targets.exclude=[]"]  # fmt: skip
MODELS = {
    "lightgcn": ["model=lightgcn", "model.width=8", "model.depth=2", "loss=[looked_up_l2]"],
    "multvae": ["model=multvae", "model.hidden=[8,4]", "dataset.examples=users", "task.loss=softmax", "loss=[latent_kl]"],
    "neumf": ["model=neumf", "model.width=8", "model.hidden=[8,4]", "task.loss=bce", "dataset.split=last", "dataset.among=10"],
}  # fmt: skip


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    "method",
    [
        ["method=dense"],
        ["method=srste", "sparsity=2:4"],
        ["method=gmp", "sparsity=0.5", "schedule.every=2", "distribution=uniform"],
        ["method=random", "sparsity=0.5", "distribution=uniform"],
        ["method=rigl", "sparsity=0.5", "schedule.every=2"],
    ],
    ids=lambda words: words[0],
)
def test_any_method_runs_on_it(model, method, taken):
    plan = plan_of([*SHORT, *MODELS[model], *method, f"runs_dir={taken}/runs"])
    assert run_cell(plan) == 0
    record = json.loads(Path(plan.folder, "record.json").read_text())
    metrics = record["metrics"]
    assert 0 <= metrics["test.recall"] <= metrics["test.recall_truncated"] <= 1
    assert metrics["test.recall"] <= metrics["test.recall_10"] <= 1 and 0 <= metrics["test.ndcg_10"] <= 1
    assert metrics["test.n"] == 16
    if method[0] != "method=dense":
        assert record["account"]["params_nonzero"] < record["account"]["params"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["model=lightgcn", "loss=[latent_kl]"],
            "loss.latent_kl: reads what model=lightgcn has not — write model=multvae",
        ),
        (
            ["model=lightgcn", "task.k=[25]"],
            "task.k=[25]: recommends 25 items, and movielens ranks 24 — write at most 24",
        ),
        (["model=neumf", "dataset.examples=users"], "task.loss=bpr: compares an item that was taken"),
        (["model=mlp"], "model=mlp: is for images → classes, and dataset movielens is users → taken items"),
    ],
)
def test_bad_requests_are_answered_while_planning(words, line, taken):
    with pytest.raises(ConfigError) as refused:
        plan_of([*SHORT, "method=dense", *words])
    assert any(str(issue).startswith(line) for issue in refused.value.issues), refused.value.issues
