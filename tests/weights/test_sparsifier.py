"""The sparsifier's own bookkeeping: swaps, skipped updates, the ledger, and what it saves."""

from __future__ import annotations

import copy

import pytest
import torch
from recipes import plain
from torch import nn

from sparselab.core.errors import RunFailed
from sparselab.core.model_spec import Layer
from sparselab.core.options import Options
from sparselab.core.sparsity import Sparsity
from sparselab.weights.method import METHODS, Method
from sparselab.weights.patterns.pattern import Pattern
from sparselab.weights.schedules import SCHEDULES
from sparselab.weights.slot import Slot, UpdateContext
from sparselab.weights.sparsifier import Sparsifier

TOTAL = 8


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make(
    method="ste", sparsity=0.5, schedule="constant", shapes=((4, 8), (2, 8)), allocate=None, ranked=False, **times
):
    method = method if isinstance(method, Method) else METHODS[method](METHODS[method].Options())
    asked, slots = Sparsity.parse(sparsity), []
    for i, shape in enumerate(shapes):
        param = nn.Parameter(normal(*shape, seed=i))
        layer = Layer(f"layer{i}", "linear", shape, param.numel())
        slots.append(Slot(layer, param, Pattern.of(asked), torch.ones(shape, dtype=torch.bool)))
    sizes = {slot.layer.name: slot.mask.numel() for slot in slots}

    def uniform(level, scores):
        return {name: size - round(level * (1 - asked.density) * size) for name, size in sizes.items()}

    cls = SCHEDULES[schedule]
    return Sparsifier(method, slots, cls(cls.Options(**times), asked), allocate or uniform, TOTAL, 3, ranked)


def backward(sparsifier, step, value=None):
    for i, slot in enumerate(sparsifier.slots):
        gradient = normal(*slot.param.shape, seed=100 * step + i)
        slot.param.grad = gradient if value is None else torch.full_like(gradient, value)


def update(sparsifier, optimizer, step, value=None):
    backward(sparsifier, step, value)
    sparsifier.before_step(step)
    optimizer.step()
    sparsifier.after_step(step, optimizer)


def momentum(sparsifier):
    return torch.optim.SGD([slot.param for slot in sparsifier.slots], lr=0.1, momentum=0.9, weight_decay=0.1)


def test_before_the_start_nothing_is_masked_and_masters_are_copies():
    sparsifier = make()
    for slot in sparsifier.slots:
        assert slot.mask.all() and torch.equal(slot.master, slot.param.data)
        assert slot.master.data_ptr() != slot.param.data_ptr()


def test_a_method_without_a_master_keeps_none():
    assert all(slot.master is None and slot.dense is not None for slot in make("random").slots)


def test_the_optimiser_sees_the_dense_weights_and_everyone_else_the_sparse_ones():
    sparsifier = make()
    sparsifier.start()
    slot = sparsifier.slots[0]
    master, effective = slot.master.clone(), slot.param.data.clone()
    assert torch.equal(effective, master * slot.mask)
    backward(sparsifier, 1)
    sparsifier.before_step(1)
    assert sparsifier.swapped and torch.equal(slot.param.data, master) and torch.equal(slot.master, effective)
    sparsifier.after_step(1, momentum(sparsifier))
    assert not sparsifier.swapped and torch.equal(slot.master, master) and torch.equal(slot.param.data, effective)


def test_storage_stays_where_it_was():
    """Whoever keeps a pointer to the parameter (a compiled graph, a view) finds it there after every update."""
    sparsifier = make()
    sparsifier.start()
    optimizer, places = momentum(sparsifier), [slot.param.data_ptr() for slot in sparsifier.slots]
    for step in range(1, 4):
        update(sparsifier, optimizer, step)
        assert [slot.param.data_ptr() for slot in sparsifier.slots] == places


def test_a_skipped_update_changes_nothing():
    sparsifier = make()
    sparsifier.start()
    before = [(s.param.data.clone(), s.master.clone(), s.mask.clone()) for s in sparsifier.slots]
    backward(sparsifier, 1, float("inf"))
    sparsifier.before_step(1)
    sparsifier.unswap()
    sparsifier.unswap()  # at the end of every batch, skipped or not
    for slot, (param, master, mask) in zip(sparsifier.slots, before, strict=True):
        assert torch.equal(slot.param.data, param) and torch.equal(slot.master, master) and torch.equal(slot.mask, mask)


def test_a_mask_whose_update_was_skipped_is_made_at_the_next_one():
    sparsifier = make("gmp", schedule="one_shot", at=0.5)
    sparsifier.start()
    optimizer = momentum(sparsifier)
    for step in (1, 2, 3):
        update(sparsifier, optimizer, step)
    backward(sparsifier, 4)
    sparsifier.before_step(4)
    sparsifier.unswap()
    assert sparsifier.slots[0].mask.all()
    update(sparsifier, optimizer, 5)
    assert sparsifier.slots[0].kept == 16 and sparsifier.ledger[-1][0] == 5


def test_a_mask_whose_update_was_the_last_and_skipped_is_made_at_the_finish():
    sparsifier = make("gmp", schedule="one_shot", at=1.0)
    sparsifier.start()
    sparsifier.finish()
    slot = sparsifier.slots[0]
    assert slot.kept == int(slot.mask.sum()) == 16
    assert torch.equal(slot.param.data, slot.master * slot.mask)
    assert sparsifier.ledger[-1] == (TOTAL, {"layer0": 16, "layer1": 8})


def test_an_exchange_by_gradient_is_not_made_up_for_at_the_finish():
    sparsifier = make("rigl", schedule="periodic", every=7, stop=1.0)
    sparsifier.start()
    mask = sparsifier.slots[0].mask.clone()
    backward(sparsifier, 7, float("inf"))
    sparsifier.before_step(7)
    sparsifier.finish()
    assert torch.equal(sparsifier.slots[0].mask, mask)


def test_the_ledger_holds_every_change_of_the_counts_once():
    sparsifier = make("gmp", 0.75, "linear", begin=0.25, end=0.75, every=2)
    sparsifier.start()
    optimizer = momentum(sparsifier)
    for step in range(1, TOTAL + 1):
        update(sparsifier, optimizer, step)
    sparsifier.finish()
    assert sparsifier.ledger == [
        (0, {"layer0": 32, "layer1": 16}),
        (4, {"layer0": 20, "layer1": 10}),
        (6, {"layer0": 8, "layer1": 4}),
    ]


def test_counts_follow_a_ranking_over_layers_at_every_update():
    """Where the ranking moves weights from layer to layer, counts and the end of the ledger say so."""

    def ranked(level, scores):
        ranks = torch.cat([score.flatten() for score in scores.values()]).argsort(descending=True)
        first = int((ranks[:24] < 32).sum())
        return {"layer0": first, "layer1": 24 - first}

    sparsifier = make("ste", allocate=ranked, ranked=True)
    sparsifier.start()
    optimizer, seen = momentum(sparsifier), set()
    for step in range(1, TOTAL + 1):
        update(sparsifier, optimizer, step)
        counts = {slot.layer.name: int(slot.mask.sum()) for slot in sparsifier.slots}
        assert counts == {slot.layer.name: slot.kept for slot in sparsifier.slots} and sum(counts.values()) == 24
        seen.add(counts["layer0"])
    sparsifier.finish()
    assert len(seen) > 1 and sparsifier.ledger[-1][1] == counts


def test_only_due_updates_keep_the_dense_gradient():
    sparsifier = make("rigl", schedule="periodic", every=3, stop=1.0)
    sparsifier.start()
    optimizer = momentum(sparsifier)
    for step in range(1, 5):
        backward(sparsifier, step)
        dense = sparsifier.slots[0].param.grad.clone()
        sparsifier.before_step(step)
        kept = sparsifier.slots[0].dense_grad
        assert (kept is not None) == (step == 3)
        assert kept is None or torch.equal(kept, dense)
        optimizer.step()
        sparsifier.after_step(step, optimizer)


def test_on_mask_change_is_told_of_scheduled_masks():
    sparsifier = make("gmp", schedule="periodic", every=3, stop=1.0)
    told = []
    sparsifier.start()
    sparsifier.on_mask_change = lambda: told.append(step)
    optimizer = momentum(sparsifier)
    for step in range(1, TOTAL + 1):
        update(sparsifier, optimizer, step)
    assert told == [3, 6]


class Bad(Method):
    """Scores that are not numbers, in the second layer."""

    Options = Options

    def score(self, slot, context):
        return slot.dense.abs() / (slot.layer.name != "layer1")


@pytest.mark.parametrize("ranked", [False, True])
def test_a_score_that_is_not_finite_is_named(ranked):
    def allocate(level, scores):
        if scores and not all(score.isfinite().all() for score in scores.values()):
            raise ValueError("scores hold NaN or infinite values")
        return {"layer0": 16, "layer1": 8}

    with pytest.raises(RunFailed, match=r"step 0: layer1\.weight: scores hold NaN"):
        make(Bad(Options()), allocate=allocate, ranked=ranked).start()


def test_a_slot_without_a_gradient_is_named():
    sparsifier = make("random")
    sparsifier.start()
    backward(sparsifier, 1)
    sparsifier.slots[1].param.grad = None
    with pytest.raises(RunFailed, match=r"layer1\.weight: has no gradient"):
        sparsifier.before_step(1)


@pytest.mark.parametrize("method", ["ste", "gmp", "rigl", "set", "random", "magnitude"])
def test_a_saved_state_goes_on_bit_for_bit(method):
    schedule = {
        "ste": ("constant", {}), "random": ("constant", {}), "gmp": ("linear", {"end": 0.75, "every": 2}),
        "rigl": ("periodic", {"every": 2}), "set": ("periodic", {"every": 2}), "magnitude": ("one_shot", {"at": 0.5}),
    }[method]  # fmt: skip

    def fresh():
        sparsifier = make(method, 0.5, schedule[0], **schedule[1])
        return sparsifier, torch.optim.AdamW([slot.param for slot in sparsifier.slots], lr=0.05)

    for stop in range(1, TOTAL):
        unbroken, optimizer = fresh()
        unbroken.start()
        for step in range(1, TOTAL + 1):
            update(unbroken, optimizer, step)
            if step == stop:
                state = copy.deepcopy((unbroken.state_dict(), optimizer.state_dict()))
                params = [slot.param.data.clone() for slot in unbroken.slots]
        resumed, optimizer = fresh()
        with torch.no_grad():
            for slot, param in zip(resumed.slots, params, strict=True):
                slot.param.copy_(param)
        resumed.load_state_dict(state[0])
        optimizer.load_state_dict(state[1])
        resumed.verify()
        for step in range(stop + 1, TOTAL + 1):
            update(resumed, optimizer, step)
        assert resumed.ledger == unbroken.ledger and resumed.carried_out == unbroken.carried_out
        for a, b in zip(unbroken.slots, resumed.slots, strict=True):
            assert torch.equal(a.param.data, b.param.data) and torch.equal(a.mask, b.mask) and a.kept == b.kept
            assert a.master is None or torch.equal(a.master, b.master)


@pytest.mark.parametrize("what", ["param", "mask", "master"])
def test_a_state_that_does_not_fit_together_is_refused(what):
    sparsifier = make()
    sparsifier.start()
    slot = sparsifier.slots[1]
    tensor = {"param": slot.param.data, "mask": slot.mask, "master": slot.master}[what]
    place = slot.mask.nonzero()[0]
    tensor[tuple(place)] = False if what == "mask" else 9.0
    with pytest.raises(RunFailed, match=r"layer1\.weight is not what its mask gives"):
        sparsifier.verify()


def test_divergence_counts_entries_that_differ_from_the_mask_before():
    """Two of [1 1 0 0] and [0 1 1 0] differ, half of four weights; a mask and itself in nothing; the second half apart."""
    sparsifier = make(shapes=((1, 4),))
    slot = sparsifier.slots[0]
    slot.master.copy_(torch.tensor([[4.0, 3.0, 2.0, 1.0]]))
    sparsifier.track = True
    sparsifier.start()
    nothing = {"sad": 0.0, "sad_late": 0.0, "sad_count": 0}
    assert sparsifier.divergence() == nothing, "the first mask is compared with nothing"
    masks = {1: [4.0, 3.0, 2.0, 1.0], 2: [1.0, 3.0, 4.0, 2.0], 3: [1.0, 3.0, 4.0, 2.0], 7: [4.0, 3.0, 1.0, 2.0]}
    found = []
    for step in range(1, TOTAL + 1):
        backward(sparsifier, step)
        sparsifier.before_step(step)
        if step in masks:
            slot.param.data.copy_(torch.tensor([masks[step]]))
        sparsifier.after_step(step, None)
        found.append(tuple(sparsifier.divergence().values()))
    assert found == [(0.0, 0.0, 0)] + [(0.5, 0.0, 2)] * 5 + [(1.0, 0.5, 4)] * 2


@pytest.mark.parametrize(("sparsity", "most"), [("2:4", 1.0), ("1:4", 0.5), ("3:4", 0.5), ("2:8", 0.5), ("1:8", 0.25)])
def test_divergence_is_symmetric_and_at_most_twice_the_rarer_of_kept_and_pruned(sparsity, most):
    """No more than 2 min(N, M - N) of M entries can differ, and where every group is turned over they do."""

    def between(one, two):
        sparsifier = make(sparsity=sparsity, shapes=((4, 8),), allocate=lambda level, scores: {"layer0": 0})
        sparsifier.track = True
        sparsifier.slots[0].master.copy_(one)
        sparsifier.start()
        sparsifier.slots[0].master.copy_(two)
        sparsifier.after_step(1, None)
        return sparsifier.divergence()["sad"]

    one, two = normal(4, 8, seed=1), normal(4, 8, seed=2)
    assert between(one, one) == 0
    assert 0 < between(one, two) == between(two, one) <= most
    ascending = torch.arange(1.0, 9.0).expand(4, 8)
    assert between(ascending, ascending.flip(1)) == most


def test_divergence_is_counted_on_request():
    sparsifier = make()
    sparsifier.start()
    assert sparsifier.divergence() == {}


def test_random_numbers_are_addressed():
    sparsifier = make()
    slot, other = sparsifier.slots
    first = UpdateContext(3, TOTAL, 0.1, 7).random(slot)
    torch.rand(5)
    assert torch.equal(first, UpdateContext(3, 99, 0.5, 7).random(slot))
    assert first.shape == slot.param.shape and float(first.min()) >= 0 and float(first.max()) < 1
    for another in (UpdateContext(4, TOTAL, 0.1, 7).random(slot), UpdateContext(3, TOTAL, 0.1, 8).random(slot)):
        assert not torch.equal(first, another)
    assert not torch.equal(first[:2], UpdateContext(3, TOTAL, 0.1, 7).random(other))


def test_no_slots_is_nothing_to_do():
    sparsifier = make("dense", shapes=())
    sparsifier.start()
    sparsifier.before_step(1)
    sparsifier.after_step(1, None)
    sparsifier.unswap()
    sparsifier.finish()
    assert sparsifier.ledger == [(0, {})] and sparsifier.masks() == {} and sparsifier.updates == []


@pytest.mark.parametrize("method, most", [("srste", 1.3), ("ste", 1.3), ("gmp", 1.3), ("random", 0.3), ("rigl", 0.3)])
def test_what_sparse_training_holds_beside_the_weights(method, most):
    """Bytes of masters, masks and what a method remembers, between two updates, as a share of the sparse weights'."""
    sparsifier = make(method, sparsity="2:4" if method.endswith("ste") else 0.5, shapes=((64, 64), (32, 64)))
    optimizer = momentum(sparsifier)
    sparsifier.start()
    for step in range(1, 4):
        update(sparsifier, optimizer, step)
    held = [[slot.master, slot.mask, slot.dense_grad, *slot.state.values()] for slot in sparsifier.slots]
    share = sum(tensor.nbytes for tensors in held for tensor in tensors if tensor is not None)
    assert share <= most * sum(slot.param.nbytes for slot in sparsifier.slots)


@pytest.mark.parametrize("method, passes", [("srste", 1), ("random", 2), ("asp", 2)])
def test_an_update_is_a_few_passes_over_all_layers(method, passes, monkeypatch):
    """On a GPU each is one launch, however many layers there are. (Masks of N:M are one more: n_of_m_on_device.)"""
    from sparselab.weights import sparsifier as slots
    from sparselab.weights.kernels import dispatch as kernels

    calls = []
    for name in ("masked", "add_pruned"):
        real = getattr(kernels, name)

        def counted(*args, real=real, name=name):
            calls.append((name, len(args[0])))
            return real(*args)

        monkeypatch.setattr(kernels, name, counted)
        if name == "masked":
            monkeypatch.setattr(slots, name, counted)
    sparsifier = make(method, sparsity="2:4", shapes=((8, 8),) * 5)
    optimizer = momentum(sparsifier)
    sparsifier.start()
    update(sparsifier, optimizer, 1)
    calls.clear()
    update(sparsifier, optimizer, 2)
    assert len(calls) == passes and all(layers == 5 for _, layers in calls), calls


RECIPES = [
    ("adamw", {}),
    ("adamw", {"weight_decay": 0.1}),
    ("sgd", {"momentum": 0.9, "nesterov": True}),
    ("sgd", {"maximise": True}),
]


@pytest.mark.parametrize(("name", "options"), RECIPES)
@pytest.mark.parametrize(
    ("method", "times"), [("random", {}), ("set", {"every": 2, "stop": 1.0}), ("rigl", {"every": 2, "stop": 1.0})]
)
def test_what_an_optimiser_leaves_alone_is_not_written(method, times, name, options, monkeypatch):
    """Between two masks nobody has to put zeros back, with any recipe that says so; the run is the same to the bit."""
    from sparselab.training.optim.optim import OPTIMS
    from sparselab.weights import sparsifier as slots
    from sparselab.weights.kernels import dispatch as kernels

    assert OPTIMS[name].keeps_zeros
    schedule = "periodic" if times else "constant"

    def weights(trusting):
        sparsifier = make(method, schedule=schedule, **times)
        sparsifier.start()
        network = nn.Module()
        for i, slot in enumerate(sparsifier.slots):
            network.register_parameter(f"p{i}", slot.param)
        optimizer = plain(name, **options).build(network)
        optimizer.keeps_zeros = trusting
        writes = 0

        def counting(dense, masks, outs):
            nonlocal writes
            writes += any(
                out is slot.param.data or out.data_ptr() == slot.param.data_ptr()
                for slot in sparsifier.slots
                for out in outs
            )
            kernels.masked(dense, masks, outs)

        monkeypatch.setattr(slots, "masked", counting)
        seen = []
        for step in range(1, TOTAL + 1):
            update(sparsifier, optimizer, step)
            for slot in sparsifier.slots:
                pruned = slot.param.data[~slot.mask]
                assert pruned.numel() and not pruned.any()
                seen.append(slot.param.data.clone())
        return seen, writes

    (mine, few), (theirs, many) = weights(True), weights(False)
    assert all(torch.equal(a.view(torch.int32), b.view(torch.int32)) for a, b in zip(mine, theirs, strict=True))
    assert few == 0 if method == "random" else few < many


@pytest.mark.parametrize("method", ["ste", "srste", "bip", "cast"])
def test_where_weights_have_a_master_or_a_decay_they_are_written_after_every_update(method):
    assert not make(method).stays


def test_after_a_checkpoint_everything_is_written_once():
    sparsifier = make("random")
    sparsifier.start()
    sparsifier.load_state_dict(copy.deepcopy(sparsifier.state_dict()))
    optimizer = momentum(sparsifier)
    optimizer.keeps_zeros = True
    with torch.no_grad():
        sparsifier.slots[0].param.fill_(1.0)  # whatever was loaded
    update(sparsifier, optimizer, 1)
    assert not sparsifier.slots[0].param.data[~sparsifier.slots[0].mask].any()
