"""Drills N2 and R4, equalities over whole runs: micro-batches, loss scales, skipped updates, masks of ones, gradients."""

from __future__ import annotations

import contextlib
import copy
import functools
from dataclasses import replace

import pytest
import torch
from matrix_cells import SPARSITIES, UPDATES, Row, Watch, composed, config_of, first_rows, later, rows
from pytorch_lightning.plugins.precision import MixedPrecision

from sparselab.core.errors import ConfigError
from sparselab.core.sparsity import Sparsity
from sparselab.running.planning import engine_of
from sparselab.weights.capabilities import Alternates, ChangesMoments, KnowsTasks, TakesBiases, alternating_update
from sparselab.weights.method import METHODS
from sparselab.weights.patterns.kinds.n_of_m import NOfM

SGD = {"optim": {"weight_decay": 0.01, "momentum": 0.9, "nesterov": False, "lr": 0.1, "schedule": "constant"}}
ROWS = [row for method in METHODS for row in first_rows(method)[:1]]
SPARSE = [row for row in ROWS if row.kind != "dense"]
LAMBDA = 0.3  # so large that a term that is missing, doubled or divided stands out


def same(a, b, tolerance=0.0):
    """The two finished runs hold the same network and masks."""
    for name, tensor in a.state.items():
        torch.testing.assert_close(b.state[name], tensor, rtol=0, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")
    for name, mask in a.sparsifier.masks().items():
        assert torch.equal(b.sparsifier.masks()[name], mask), name


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_micro_batches_equal_one_batch(row, run):
    whole = run(row, "optim=sgd", **SGD)
    # An optimiser of a method's own divides by the size of gradients, and small ones carry the rounding of sums.
    tolerance = 1e-4 if issubclass(METHODS[row.method], ChangesMoments) else 1e-6
    for k in (2, 8):
        same(whole, run(row, "optim=sgd", **SGD, trainer={"accumulate": k}), tolerance)


@pytest.mark.parametrize("carry", [False, True])
def test_micro_batches_of_a_recurrent_network_equal_one_batch(carry, run, text, monkeypatch):
    """Each micro-batch goes on from the state of its own streams, over the end of an epoch too."""
    monkeypatch.setenv("SPARSELAB_DATA", str(text))
    words = ("model=lstm", "dataset=tinyshakespeare", "trainer=text", "targets.exclude=[]", "optim=sgd")
    model = {"width": 8, "depth": 2, "dropout": 0.0, "carry": carry}
    data = {"block": 48, "windows": "streams" if carry else "drawn"}
    row = Row("gmp", "unstructured", "cubic")
    finished = {k: run(row, *words, **SGD, model=model, dataset=data, trainer={"accumulate": k}) for k in (1, 2, 8)}
    for k in (2, 8):
        same(finished[1], finished[k], 1e-6)
    assert len(finished[1].task.carry.states if carry else [0]) == 1


@pytest.mark.parametrize(("row", "optim"), [(r, "adamw") for r in ROWS] + later((r, "sgd") for r in ROWS), ids=str)
def test_the_loss_scale_does_not_matter(row, optim, run, monkeypatch):
    """In single precision, where a power of two changes no digit, so that only the scaling itself is seen."""
    monkeypatch.setattr(MixedPrecision, "forward_context", lambda self: contextlib.nullcontext())
    scaler = torch.amp.GradScaler

    def scaled(scale):
        monkeypatch.setattr(torch.amp, "GradScaler", functools.partial(scaler, init_scale=scale, growth_interval=999))
        return run(row, f"optim={optim}", trainer={"precision": "16", "clip": 1.0, "accumulate": 2})

    unscaled = run(row, f"optim={optim}", trainer={"clip": 1.0, "accumulate": 2})
    same(unscaled, scaled(2.0**16), 1e-6)
    same(unscaled, scaled(1.0), 1e-6)


def test_a_decay_added_in_the_backward_pass_fails_both(run):
    """The control: the term of SR-STE where a custom autograd function puts it, into every micro-batch's gradient."""

    def decays(loop):
        for slot in loop.sparsifier.slots:
            slot.param.grad.add_(slot.master * ~slot.mask, alpha=LAMBDA)

    def finished(**trainer):
        row = Row("ste", "nm", "constant")
        return run(row, "optim=sgd", **SGD, trainer=trainer, watch=Watch(gradients=decays))

    whole = finished()
    for trainer in ({"accumulate": 2}, {"precision": "16"}):
        decayed = finished(**trainer)
        masters = zip(whole.sparsifier.slots, decayed.sparsifier.slots, strict=True)
        assert max(float((a.master - b.master).abs().max()) for a, b in masters) > 0.01


@pytest.mark.parametrize("row", [r for m in METHODS for r in rows(m) if r.schedule == "constant"], ids=str)
def test_a_skipped_update_did_not_happen(row, run):
    """A run whose last update is skipped ends as the run without it."""
    settings = {"optim": SGD["optim"] | {"schedule": "constant", "warmup": 0.0}}
    shorter = run(row, "optim=sgd", **settings, trainer={"precision": "16", "max_steps": UPDATES - 1})
    skipped = Watch(frozenset({UPDATES - 1}))
    same(shorter, run(row, "optim=sgd", **settings, trainer={"precision": "16"}, watch=skipped))


EVERY_STEP = [row for row in ROWS if METHODS[row.method].every_step]


@pytest.mark.parametrize("row", EVERY_STEP + later(r for r in SPARSE if r not in EVERY_STEP), ids=str)
def test_a_compiled_network_trains_alike(row, run, monkeypatch):
    """Traced and differentiated ahead of time, it must still read what the sparsifier writes between updates."""
    plain = run(row, "optim=sgd", **SGD)
    torch._dynamo.reset()
    monkeypatch.setattr(
        torch.nn.Module, "compile", functools.partialmethod(torch.nn.Module.compile, backend="aot_eager")
    )
    same(plain, run(row, "optim=sgd", **SGD, trainer={"compile": True}), 1e-6)


# -- sparsity 0 is the dense network -----------------------------------------------------------------------------------


def all_ones(sparsity):
    def change(parts):
        parts.sparsity = sparsity
        parts.kept = {layer.name: layer.numel for layer in parts.layers}

    return change


ONES = {name: replace(Sparsity.parse(text), density=1.0) for name, text in SPARSITIES.items() if text is not None} | {
    "nm": NOfM.of(4, 4)
}


# Methods with a rule of their own for kept weights: inside the optimiser, by levels that scale units with their biases, or with
# connections that begin at zero although they were dropped in the same exchange.
EACH_KIND = [
    r
    for m in METHODS
    if not issubclass(METHODS[m], (ChangesMoments, TakesBiases, KnowsTasks))
    for r in first_rows(m)
    if r.kind != "dense"
]


@pytest.mark.parametrize(
    ("row", "optim"), [(r, "adamw") for r in EACH_KIND] + later((r, "sgd") for r in EACH_KIND), ids=str
)
def test_a_mask_of_ones_is_dense_training_bit_for_bit(row, optim, run, tmp_path):
    """Drill R4, for every method: nothing that a method does to kept weights differs from doing nothing.

    Updates in which a method moves something else than the weights are none of the dense run's either.
    """

    def takes_turns(parts):
        config = config_of(row, tmp_path)
        turns = functools.partial(alternating_update, engine_of(config).plan(config, []).parts.method)
        parts.method = type("InTurns", (Alternates, type(parts.method)), {"alternating_update": staticmethod(turns)})(
            None
        )

    recipe = {"optim": {"cycles": 1}, "trainer": {"clip": 1.0, "accumulate": 2, "ema": 0.5}}
    dense = run(Row("dense", "dense", "constant"), f"optim={optim}", **recipe, change=takes_turns)
    same_state = run(row, f"optim={optim}", **recipe, change=all_ones(ONES[row.kind])).state
    for name, tensor in dense.state.items():
        assert torch.equal(tensor, same_state[name]), name


def test_no_sparsity_is_a_request_for_the_dense_cell(tmp_path):
    """``sparsity=0`` with method=dense is the dense cell itself; any other method says what to write instead."""
    dense = composed("method=dense", "model=mlp")
    zero = composed("method=dense", "model=mlp", "sparsity=0.0")
    ids = {engine_of(config).plan(config | {"runs_dir": str(tmp_path)}, []).id for config in (dense, zero)}
    assert len(ids) == 1
    for method in METHODS:
        if "dense" not in METHODS[method].patterns:
            config = composed(f"method={method}", "model=mlp", "sparsity=0.0")
            with pytest.raises(ConfigError, match="use method=dense"):
                engine_of(config).plan(config, [])


# -- gradients: of the sparse network, whole, unscaled, averaged; and what a method makes of them ----------------------

TRAITS = {
    "plain": {},
    "accumulate": {"trainer": {"accumulate": 4}},
    "bf16": {"trainer": {"precision": "bf16"}},
    "fp16_skipped": {"trainer": {"precision": "16"}, "watch": Watch(frozenset({3}))},
    "clip": {"trainer": {"clip": 0.01}},
    "ema": {"trainer": {"ema": 0.7}},
    "sgd": {"overrides": ("optim=sgd",), **SGD},
    "tied": {"overrides": ("model=gpt_tiny", "dataset=tinyshakespeare", "trainer=text", "targets.exclude=[]"),
             "model": {"width": 8, "depth": 1, "heads": 2}, "dataset": {"block": 8}},
    "recurrent": {"overrides": ("model=lstm", "dataset=tinyshakespeare", "trainer=text", "targets.exclude=[]"),
                  "model": {"width": 8, "depth": 1, "dropout": 0.0}, "dataset": {"block": 8}},
    "compile": {"trainer": {"compile": True}},
    "distill": {"overrides": ("loss=[distill]",)},
}  # fmt: skip


def settings(trait, text, teacher, monkeypatch):
    """Overrides, watch and groups of a trait."""
    groups = dict(TRAITS[trait])
    overrides, watch = groups.pop("overrides", ()), groups.pop("watch", Watch())
    if "dataset" in groups:
        monkeypatch.setenv("SPARSELAB_DATA", str(text))
    if trait == "compile":
        torch._dynamo.reset()
        monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    if trait == "distill":
        overrides += (f"loss.distill.teacher='{teacher}'",)
    return overrides, Watch(watch.skip), groups


class Gradients:
    """The gradient of each update from its examples alone: one batch, one backward, no scale, nobody's hooks."""

    def __init__(self, watch):
        self.batches = []
        self.compared = 0
        watch.before = lambda loop, batch: self.batches.append([part.clone() for part in batch])

    def of_update(self, loop):
        """Name of each slot -> gradient of the loss in the effective weights, dense."""
        task = loop.task
        batch = tuple(torch.cat(parts) for parts in zip(*self.batches, strict=True))
        self.batches = []
        network, loss = task.network, task.last_loss
        task.network = copy.deepcopy(network)
        task.network.zero_grad()
        with torch.enable_grad():
            with loop.trainer.precision_plugin.forward_context():
                value = task.training_step(batch, 0)
            value.backward()
        gradients = {slot.name: task.network.get_parameter(slot.name).grad for slot in loop.sparsifier.slots}
        task.network, task.last_loss = network, loss
        return gradients

    def check(self, loop):
        """The gradient that the method is about to see is that one, pruned weights included."""
        exact = loop.trainer.precision_plugin.precision == "32-true"
        for name, want in self.of_update(loop).items():
            slot = next(slot for slot in loop.sparsifier.slots if slot.name == name)
            if torch.isfinite(slot.grad).all():
                largest = float(want.abs().max())
                torch.testing.assert_close(slot.grad, want, rtol=0, atol=1e-6 if exact else 0.02 * largest)
                assert torch.count_nonzero(slot.grad[~slot.mask]), "the gradient is masked already"
                self.compared += 1


KINDS = METHODS["srste"].patterns


@pytest.mark.parametrize(
    ("kind", "trait"),
    [(kind, trait) for kind in KINDS for trait in TRAITS if kind == "nm" or trait == "accumulate"]
    + later((kind, trait) for kind in KINDS for trait in TRAITS if kind != "nm" and trait != "accumulate"),
)
def test_srste_adds_its_term_once_to_the_whole_gradient(trait, kind, run, text, teacher, monkeypatch):
    """dL/dW = g + lambda (1 - E) W with E the N largest of each group of the dense W, whatever surrounds the update."""
    overrides, watch, groups = settings(trait, text, teacher, monkeypatch)
    gradients = Gradients(watch)

    def pulled(loop):
        gradients.check(loop)
        before = [(slot.grad.clone(), slot.master.clone()) for slot in loop.sparsifier.slots]

        def then():
            for slot, (g, w) in zip(loop.sparsifier.slots, before, strict=True):
                assert torch.equal(slot.param.data, w), "the optimiser must see the dense weights"
                keep = slot.pattern.mask(w.abs(), slot.kept / slot.mask.numel())
                finite = g.isfinite()
                want = (g.double() + LAMBDA * torch.where(keep, 0.0, w.double()))[finite]
                torch.testing.assert_close(slot.grad[finite].double(), want, rtol=1e-6, atol=1e-8)

        return then

    watch.pulled = pulled
    run(Row("srste", kind, "constant"), *overrides, watch=watch, method={"lambda_w": LAMBDA}, **groups)
    assert gradients.compared >= (UPDATES - 1) * (2 if trait != "tied" else 4)


def as_shipped(name):
    """A method with the options of its YAML: what it needs may depend on them."""
    kind = METHODS[name]
    return kind(kind.Options())


@pytest.mark.parametrize("trait", TRAITS)
@pytest.mark.parametrize("row", [row for row in ROWS if as_shipped(row.method).needs_dense_grad], ids=str)
def test_growth_uses_the_true_dense_gradient(row, trait, run, text, teacher, monkeypatch):
    """Averaged, unscaled, before clipping and masking; kept for the updates at which a mask is due and for no other."""
    overrides, watch, groups = settings(trait, text, teacher, monkeypatch)
    gradients = Gradients(watch)
    seen = []

    def pulled(loop):
        gradients.check(loop)
        before = [slot.grad.clone() for slot in loop.sparsifier.slots]

        def then():
            for slot, g in zip(loop.sparsifier.slots, before, strict=True):
                if slot.dense_grad is not None:
                    assert torch.equal(slot.dense_grad, g) or not torch.isfinite(g).all()
                    seen.append(loop.trainer.global_step + 1)
                left = g if loop.sparsifier.method.weight_grad == "dense" else torch.zeros_like(g)
                assert torch.equal(slot.grad[~slot.mask], left[~slot.mask]) or not g.isfinite().all()

        return then

    watch.pulled = pulled
    finished = run(row, *overrides, watch=watch, **groups)
    due = set(finished.sparsifier.updates) - {0}
    assert due <= set(seen)
    assert set(seen) == due | {step + 1 for step in due if step - 1 in watch.skip}


@pytest.mark.parametrize("trait", TRAITS)
def test_srste_without_its_term_is_ste_bit_for_bit(trait, run, text, teacher, monkeypatch):
    def finished(method, **options):
        overrides, watch, groups = settings(trait, text, teacher, monkeypatch)
        return run(Row(method, "nm", "constant"), *overrides, watch=watch, method=options, **groups)

    same(finished("ste"), finished("srste", lambda_w=0.0))


@pytest.mark.parametrize("clip", [0.01, 100.0])
def test_clipping_acts_on_what_the_method_made_of_the_gradient(clip, run):
    """The norm that is clipped has the term of SR-STE in it, and pruned weights' gradients only where they are used."""
    norms = []

    def pulled(loop):
        def then():
            grads = [p.grad for p in loop.task.parameters()]
            norms.append(torch.nn.utils.get_total_norm(grads))

        return then

    def after(loop):
        grads = [p.grad for p in loop.task.parameters()]
        assert torch.allclose(torch.nn.utils.get_total_norm(grads), norms[-1].clamp(max=clip), rtol=1e-4)

    watch = Watch(pulled=pulled, after=after)
    run(Row("srste", "nm", "constant"), watch=watch, trainer={"clip": clip}, method={"lambda_w": LAMBDA})
    assert len(norms) == UPDATES
