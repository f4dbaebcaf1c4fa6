"""Every method x every trait: between two updates the parameters are the sparse model.

The registry is iterated, so a method that is added is tested by being there. Each trait runs the real plan, loop and
trainer for a dozen updates; what is asserted after every batch stands in :func:`matrix_cells.check`.
"""

from __future__ import annotations

import functools

import pytest
import torch
from matrix_cells import (
    ANYWHERE,
    UPDATES,
    Row,
    Watch,
    check,
    composed,
    config_of,
    configured_methods,
    first_rows,
    fit,
    rows,
    rows_by_chance,
)  # fmt: skip

from sparselab.inputs.data.dataset import DATASETS
from sparselab.training.tasks.task import TASKS
from sparselab.weights.method import METHODS, Method
from sparselab.weights.methods.straight_through import STE

SGD = {"optim": {"weight_decay": 0.01, "momentum": 0.9, "nesterov": True, "lr": 0.05}}
SKIP = frozenset({4, 5, UPDATES - 1})  # two in a row, one of them where a mask is due, and the last

TRAITS = {
    "accumulate": {"trainer": {"accumulate": 4}},
    "bf16": {"trainer": {"precision": "bf16"}},
    "fp16_skipped": {"trainer": {"precision": "16"}, "watch": Watch(SKIP)},
    "clip": {"trainer": {"clip": 0.01}},
    "ema": {"trainer": {"ema": 0.7}},
    "sgd": {"overrides": ("optim=sgd",), **SGD},
    "sgd_fp16_skipped_accumulate_clip_ema": {
        "overrides": ("optim=sgd",),
        **SGD,
        "trainer": {"precision": "16", "accumulate": 2, "clip": 0.5, "ema": 0.7},
        "watch": Watch(frozenset({9, 23})),
    },
    "masked": {"text": "llama_tiny", "overrides": ("task=masked_diffusion",), "trainer": {"accumulate": 2},
               "model": {"width": 8, "depth": 1, "heads": 2, "ff": 8}, "dataset": {"block": 8}},
    "tied": {"text": "gpt_tiny", "model": {"width": 8, "depth": 1, "heads": 2}, "dataset": {"block": 8}},
    "compile": {"trainer": {"compile": True}},
    "distill": {"distill": True},
    "batch_norm_dropout": {"model": {"batch_norm": True, "dropout": 0.5}},
    "recurrent": {"text": "lstm", "model": {"width": 8, "depth": 2, "dropout": 0.2, "carry": True},
                  "dataset": {"block": 8, "windows": "streams"}, "trainer": {"accumulate": 2}},
    "sentences": {"local": "glue", "overrides": ("model=gpt_tiny", "dataset.subset=rte"),
                  "model": {"width": 8, "depth": 1, "heads": 2}, "trainer": {"accumulate": 2},
                  "dataset": {"block": 8, "limit_train": 24, "limit_test": 8}},
    "spiking": {"overrides": ("model=snn", "neuron=ultradplif", "loss=[spike_rate]"),
                "model": {"hidden": [16, 8], "timesteps": 2}, "trainer": {"accumulate": 2}},
    "experts": {"text": "llama_moe", "trainer": {"accumulate": 2}, "dataset": {"block": 8},
                "overrides": ("loss=[activation_locality,chunk_sparsification]", "loss.chunk_sparsification.length=4"),
                "model": {"width": 8, "depth": 1, "heads": 2, "experts": 4, "expert_width": 4}},
    "restoration": {"local": "bsd400", "overrides": ("model=dncnn",), "model": {"width": 8, "depth": 4},
                    "dataset": {"patch": 12, "patches": 8, "limit_test": 1}, "optim": {"lr": 0.02}},
    "taken": {"local": "movielens", "overrides": ("model=multvae", "loss=[latent_kl]", "targets.exclude=[]"),
              "model": {"hidden": [8, 8]}, "dataset": {"examples": "users", "min_item": 1}, "optim": {"lr": 0.02},
              "task": {"loss": "softmax", "k": [5]}, "trainer": {"accumulate": 2}},
    "codes": {"local": "activations", "overrides": ("model=sae", "loss=[aux_zipf]"),
              "trainer": {"accumulate": 2, "batch_size": 16},
              "model": {"features": 16, "window": 2, "allocation": {"name": "feature_choice", "k": 2, "rerank": 3}},
              "dataset": {"model": {"name": "gpt", "width": 8, "depth": 1, "heads": 2},
                          "text": {"name": "tinyshakespeare", "block": 16}, "train": 64, "val": 16, "test": 16},
              "optim": {"lr": 0.02}},
}  # fmt: skip


TASK_OF = {
    "sentences": "text_classification",
    "restoration": "image_to_image",
    "tied": "language_modeling",
    "masked": "masked_diffusion",
    "codes": "reconstruction",
    "taken": "recommendation",
}


def test_every_task_is_in_the_matrix():
    usual = DATASETS[composed("model=mlp")["dataset"]["name"]].task
    assert {usual, *TASK_OF.values()} == set(TASKS)


def fit_trait(row, trait, run, text, teacher, monkeypatch):
    settings = dict(TRAITS[trait])
    overrides, watch = settings.pop("overrides", ()), settings.pop("watch", Watch())
    watch = Watch(watch.skip, after=under_average)
    if model := settings.pop("text", None):
        overrides += (f"model={model}", "dataset=tinyshakespeare", "trainer=text", "targets.exclude=[]")
        monkeypatch.setenv("SPARSELAB_DATA", str(text))
    if local := settings.pop("local", None):
        overrides += (f"dataset={local}",)
        monkeypatch.setenv("SPARSELAB_DATA", str(text))
    if settings.pop("distill", False):
        overrides += ("loss=[distill]", f"loss.distill.teacher='{teacher}'")
    if settings.get("trainer", {}).get("compile"):
        torch._dynamo.reset()
        monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    return run(row, *overrides, watch=watch, **settings), watch


def under_average(loop):
    """Where there is an average, it has the masks' zeros, and looking at it leaves the network as it was."""
    if loop.ema is None:
        return
    before = {name: tensor.clone() for name, tensor in loop.task.network.state_dict().items()}
    with loop.ema.applied():
        for slot in loop.sparsifier.slots:
            assert torch.count_nonzero(slot.param[~slot.mask]) == 0
    for name, tensor in loop.task.network.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("method", ANYWHERE)
def test_each_of_its_patterns_and_schedules(method, tmp_path, monkeypatch):
    seen = list(rows(method))
    for row in seen:
        fit(config_of(row, tmp_path / str(row)), monkeypatch)
    assert {row.kind for row in seen} == set(METHODS[method].patterns)


@pytest.mark.parametrize("trait", TRAITS)
@pytest.mark.parametrize("method", ANYWHERE)
def test_traits(method, trait, run, text, teacher, monkeypatch):
    finished, watch = fit_trait(first_rows(method)[0], trait, run, text, teacher, monkeypatch)
    if trait == "tied":
        network = finished.task.network
        assert network.lm_head.weight is network.transformer.wte.weight
        names = [slot.name for slot in finished.sparsifier.slots]
        assert names.count("transformer.wte.weight") == (METHODS[method].patterns != ("dense",))
        assert torch.equal(finished.state["lm_head.weight"], finished.state["transformer.wte.weight"])
    if trait in TASK_OF:
        assert finished.task.task.name == TASK_OF[trait]
    if trait == "recurrent":
        names = [slot.name for slot in finished.sparsifier.slots]
        gates = [f"rnns.{i}.weight_{kind}_l0" for i in range(2) for kind in ("ih", "hh")]
        assert names == ["encoder.weight", *gates] * (METHODS[method].patterns != ("dense",))
        assert torch.equal(finished.state["decoder.weight"], finished.state["encoder.weight"])
    if finished.sparsifier.slots and finished.sparsifier.method.every_step:
        assert any(not torch.equal(a, b) for m, n in zip(watch.masks, watch.masks[1:], strict=False)
                   for a, b in zip(m.values(), n.values(), strict=True)), "the masks never moved"  # fmt: skip


@pytest.mark.parametrize("row", [r for m in METHODS for r in first_rows(m)[1:]], ids=str)
def test_other_patterns(row, run, text, teacher, monkeypatch):
    fit_trait(row, "sgd_fp16_skipped_accumulate_clip_ema", run, text, teacher, monkeypatch)


@pytest.mark.parametrize("trait", ["sgd", "sgd_fp16_skipped_accumulate_clip_ema"])
@pytest.mark.parametrize(("row", "options"), list(rows_by_chance()), ids=str)
def test_counts_by_chance(row, options, trait, run, text, teacher, monkeypatch):
    """Masks of independent draws, with momentum and weight decay: drawn once, and never another."""
    drawn = functools.partial(run, method=options)
    finished, watch = fit_trait(row, trait, drawn, text, teacher, monkeypatch)
    last = finished.sparsifier.masks()
    made = watch.masks[finished.sparsifier.made * (len(watch.masks) // UPDATES) :]  # masks are seen by micro-batch
    assert made and all(torch.equal(mask, seen[name]) for seen in made for name, mask in last.items())
    exact, _ = fit_trait(row, trait, run, text, teacher, monkeypatch)
    assert finished.sparsifier.ledger[-1][1] != exact.sparsifier.ledger[-1][1], "the counts are not left to chance"


@pytest.mark.slow
@pytest.mark.parametrize("trait", TRAITS)
@pytest.mark.parametrize("row", [r for m in METHODS for r in rows(m)], ids=str)
def test_whole_matrix(row, trait, run, text, teacher, monkeypatch):
    fit_trait(row, trait, run, text, teacher, monkeypatch)


@pytest.mark.parametrize("row", [r for m in METHODS for r in first_rows(m) if r.kind == "unstructured"], ids=str)
def test_a_ranking_over_all_layers(row, run):
    finished = run(row, "distribution=global")
    sparsifier = finished.sparsifier
    assert sparsifier.ledger[-1][1] == {slot.layer.name: int(slot.mask.sum()) for slot in sparsifier.slots}


def test_every_method_has_a_config_and_the_other_way_round():
    assert configured_methods() == set(METHODS)


# -- a method found by itself, and methods that the matrix must find wanting -------------------------------------------


def test_a_registered_method_is_found(methods, tmp_path, monkeypatch):
    @methods.register("smallest")
    class Smallest(Method):
        """Keeps the smallest weights."""

        patterns = ("unstructured", "nm")
        schedules = ("one_shot", "constant")

        def score(self, slot, context):
            return -slot.dense.abs()

    assert "smallest" in list(METHODS)
    found = list(rows("smallest"))
    assert {(row.kind, row.schedule) for row in found} == {
        (kind, schedule) for kind in Smallest.patterns for schedule in Smallest.schedules
    }
    for row in found:
        finished = fit(config_of(row, tmp_path / str(row)), monkeypatch)
        assert type(finished.sparsifier.method) is Smallest


class GradientMaskOnly(Method):
    """Zeroes weights once, masks gradients, and trusts that nothing else moves a weight. Momentum does."""

    clears_state = False

    def effective(self, slot, out):
        pass

    def remask(self, slot, kept, context):
        mask = super().remask(slot, kept, context)
        slot.param.data.mul_(mask)
        return mask


class DenseForward(STE):
    """Forgets the mask where the network computes."""

    def effective(self, slot, out):
        out.copy_(slot.dense)


class OneTooMany(Method):
    """Miscounts by one."""

    def remask(self, slot, kept, context):
        return super().remask(slot, kept + 1, context)


@pytest.mark.parametrize("cls", [GradientMaskOnly, DenseForward, OneTooMany])
def test_the_matrix_fails_a_wrong_method(cls, methods, run):
    methods.register("wrong")(type("Wrong", (cls,), {"schedules": ("one_shot",), "patterns": ("unstructured",)}))
    with pytest.raises(AssertionError):
        run(Row("wrong", "unstructured", "one_shot"), "optim=sgd", **SGD)


def test_the_matrix_fails_a_loop_that_forgets_skipped_updates(run, monkeypatch):
    from sparselab.weights.sparsifier import Sparsifier

    row = next(r for m in METHODS for r in rows(m) if METHODS[m].every_step)
    monkeypatch.setattr(Sparsifier, "unswap", lambda self: None)
    with pytest.raises(AssertionError):
        run(row, trainer={"precision": "16"}, watch=Watch(SKIP))


def test_the_matrix_fails_an_average_that_is_not_projected(run):
    def density(loop):
        live = dict(loop.task.network.named_parameters())
        for slot in loop.sparsifier.slots:
            average = loop.ema.shadow[slot.name]
            assert average.shape == live[slot.name].shape
            assert torch.count_nonzero(average[~slot.mask]) == 0

    row = next(r for m in METHODS for r in rows(m) if METHODS[m].every_step)
    with pytest.raises(AssertionError):
        run(row, trainer={"ema": 0.7}, watch=Watch(after=density))


def test_the_check_tells_a_broken_network(run):
    def breaks(loop):
        slot = loop.sparsifier.slots[0]
        slot.param.data[~slot.mask] = 1e-30
        with pytest.raises(AssertionError):
            check(loop)
        loop.watch.checks -= 1
        slot.param.data[~slot.mask] = 0
        loop.sparsifier.method.effective(slot, out=slot.param.data)

    row = next(r for m in METHODS for r in rows(m) if METHODS[m].every_step)
    run(row, watch=Watch(after=breaks))
