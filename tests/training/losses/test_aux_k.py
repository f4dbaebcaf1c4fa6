"""aux_k and aux_zipf: by hand, and the one as the other."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from sparselab.core.data_spec import DataSpec
from sparselab.core.data_types import Activations
from sparselab.inputs.models.family import MODELS
from sparselab.inputs.models.zipf import fitted
from sparselab.training.losses.extra_loss import LOSSES
from sparselab.training.tasks.reconstruction import normalised_error

torch.set_num_threads(1)

DATA = DataSpec("vectors", Activations(6), Activations(6), 64, 8, 8, "", "local")


def context(seed=0):
    """A network that has seen a few batches, and a batch with the states of its blocks."""
    torch.manual_seed(seed)
    cls = MODELS["autoencoder"]
    net = cls(cls.Options(features=12, allocation={"name": "topk", "k": 2})).build(DATA).train()
    x = torch.randn(9, 6)
    before = net.encoder(x - net.decoder.bias)
    codes = net.select(before)
    made = SimpleNamespace(network=net, states=SimpleNamespace(blocks=[before, codes]))
    return made, (x, x), net.decoder(codes)


def loss(name, **options):
    return LOSSES[name](LOSSES[name].Options(**options))


def kill(made, *features):
    made.network.select.idle[:] = 0
    made.network.select.idle[list(features)] = 1000


def test_without_dead_features_it_is_nothing():
    made, batch, out = context()
    kill(made)
    assert loss("aux_k").loss(made, batch, out) == 0


@pytest.mark.parametrize("k", [1, 2, None])
def test_the_error_that_dead_features_restore_by_hand(k):
    made, batch, out = context()
    dead = [1, 5, 6]
    kill(made, *dead)
    found = loss("aux_k", k=k).loss(made, batch, out)
    before, error = made.states.blocks[0].detach(), (batch[0] - out).detach()
    want = torch.zeros(9, 6)
    for row in range(9):
        ranked = sorted(dead, key=lambda f: -before[row, f])[: k or 3]
        for feature in ranked:
            want[row] += before[row, feature].clamp(min=0) * made.network.decoder.weight[:, feature].detach()
    assert float(found) == pytest.approx(float(normalised_error(want, error)), rel=1e-5)


def test_only_dead_features_learn_from_it_and_the_error_is_held():
    made, batch, out = context()
    kill(made, 1, 5)
    loss("aux_k").loss(made, batch, out).backward()
    moved = made.network.decoder.weight.grad.abs().sum(0) > 0
    assert set(moved.nonzero().flatten().tolist()) <= {1, 5} and moved.any()
    rows = made.network.encoder.weight.grad.abs().sum(1) > 0
    assert set(rows.nonzero().flatten().tolist()) <= {1, 5} and rows.any()


def test_nothing_to_restore_is_no_loss():
    made, (x, _), _ = context()
    kill(made, 3)
    assert loss("aux_k").loss(made, (x, x), x.clone()) == 0


def test_aux_zipf_with_dead_features_alone_is_aux_k(monkeypatch):
    """With a law that nothing is below of, what is used too little is what is dead."""
    made, batch, out = context()
    kill(made, 1, 5, 6)
    select = made.network.select
    select.density[:] = fitted(torch.linspace(1, 0.1, 12))
    zipf = loss("aux_zipf", share=0.1)
    assert torch.equal(zipf.idle(made), select.dead)
    assert float(zipf.loss(made, batch, out)) == float(loss("aux_k").loss(made, batch, out)) > 0


def test_aux_zipf_takes_what_is_far_below_the_law_too():
    made, _, _ = context()
    kill(made, 6)
    law = 0.3 / torch.arange(1, 13)
    made.network.select.density[:] = law
    made.network.select.density[11] = law[11] / 100
    assert loss("aux_zipf").idle(made).nonzero().flatten().tolist() == [6, 11]
    assert loss("aux_zipf", share=0.001).idle(made).nonzero().flatten().tolist() == [6]


def test_what_is_left_of_a_dead_feature_s_density_is_no_point_of_the_law():
    """Its average decays and is not 0: as a point far below the others it would draw the whole law down."""
    made, _, _ = context()
    density = made.network.select.density
    density[:] = 0.3 / torch.arange(1, 13)
    density[9] /= 300  # used too little by the law of the others
    kill(made, 10, 11)
    never = loss("aux_zipf").idle(made)
    density[10:] = 1e-9
    assert torch.equal(loss("aux_zipf").idle(made), never)
    assert never.nonzero().flatten().tolist() == [9, 10, 11]


def test_the_penalty_of_codes_by_hand():
    made, batch, out = context()
    x, codes = batch[0], made.states.blocks[1]
    want = sum(float(codes[i].sum() / x[i].norm()) for i in range(9)) / 9
    assert float(loss("code_l1").loss(made, batch, out)) == pytest.approx(want, rel=1e-5)
