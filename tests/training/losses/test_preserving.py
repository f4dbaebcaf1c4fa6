"""Losses against the network without masks: divergences by hand, both ways, and gradients through draws."""

from __future__ import annotations

import types
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from sparselab.core.data_types import Classes
from sparselab.core.errors import ConfigError
from sparselab.running.planning import plan_of
from sparselab.training.losses.extra_loss import LOSSES
from sparselab.training.losses.preserving import distance, divergence


def made(name, **options):
    return LOSSES[name](LOSSES[name].Options(**options))


def test_the_two_divergences_by_hand():
    """Reverse KL of (.9, .1) against (.5, .5) is 0.368064, forward 0.510826; in torch the reverse one has its log of the
    dense first."""
    sparse, dense = torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.5, 0.5]]).log()
    reverse, forward = (float(divergence(sparse, dense, way)) for way in ("reverse", "forward"))
    assert reverse == pytest.approx(0.368064, abs=1e-6) and forward == pytest.approx(0.510826, abs=1e-6)
    kl = nn.functional.kl_div
    assert reverse == pytest.approx(float(kl(dense, sparse, reduction="batchmean", log_target=True)))
    assert forward == pytest.approx(float(kl(sparse, dense, reduction="batchmean", log_target=True)))


def test_what_does_not_count_is_left_out():
    logits = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    dense = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1))
    counted = torch.tensor([[True, False, True], [False, False, True]])
    torch.testing.assert_close(
        divergence(logits, dense, "reverse", counted), divergence(logits[counted], dense[counted], "reverse")
    )


def test_features_are_compared_after_they_are_standardised():
    """A shift or a factor of an example is no distance; a change of sign is one of 4 (n - 1) / n."""
    x = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    assert float(distance([x], [5 * x + 2])) == pytest.approx(0.0, abs=1e-9)
    assert float(distance([x, x], [-x, x])) == pytest.approx(0.5 * 4 * 49 / 50, rel=1e-5)


class Step:
    """A network of one layer theta * m with a bias, as a loss sees it in the middle of an update."""

    def __init__(self, theta, m, x, y):
        self.theta, self.x, self.y = theta, x, y
        self.network = nn.Linear(theta.shape[1], theta.shape[0], dtype=theta.dtype)
        self.network.bias.data.fill_(0.1)
        self.network.weight.data = theta * m
        self.data = types.SimpleNamespace(targets=Classes(theta.shape[0]))

    @property
    def masked(self):
        return [(self.network.weight, self.theta)]

    def again(self, inputs):
        return self.network(inputs)

    def criterion(self, logits, batch):
        return nn.functional.cross_entropy(logits, batch[1])

    def aside(self, dense):
        return self._dense() if dense else nullcontext()

    def _dense(self):
        import contextlib

        @contextlib.contextmanager
        def swapped():
            drawn, self.network.weight.data = self.network.weight.data, self.theta
            yield
            self.network.weight.data = drawn

        return swapped()


def example(seed=0):
    generator = torch.Generator().manual_seed(seed)
    theta, m = torch.randn(3, 4, generator=generator).double(), torch.rand(3, 4, generator=generator).double()
    x, y = torch.randn(6, 4, generator=generator).double(), torch.randint(0, 3, (6,), generator=generator)
    return theta, m, x, y


def by_definition(name, theta, m, x, y):
    """The loss as a function of the gates, with theta as the variable of its gradients."""

    def gradients(gates):
        weight, bias = theta.clone().requires_grad_(), torch.full((3,), 0.1).double().requires_grad_()
        value = nn.functional.cross_entropy(x @ (weight * gates).T + bias, y)
        return torch.autograd.grad(value, (weight, bias))

    weight, bias = gradients(m)
    if name == "gradient_norm":
        return -(weight.square().sum() + bias.square().sum()).sqrt()
    a, b = ((g - g.mean()) / g.std() for g in (weight, gradients(torch.ones_like(m))[0]))
    return (a - b).square().mean()


@pytest.mark.parametrize("name", ["gradient_norm", "dense_gradients"])
def test_losses_of_gradients_and_their_derivative_in_the_gates(name):
    """Both factors of m dL/d(m theta) depend on m. The derivative is taken in the drawn weights, as a method sees it."""
    theta, m, x, y = example()
    step = Step(theta, m, x, y)
    value = made(name).loss(step, (x, y), step.again(x))
    assert float(value) == pytest.approx(float(by_definition(name, theta, m, x, y)), rel=1e-4)
    value.backward()
    found, nudge = step.network.weight.grad * theta, 1e-4
    for i in range(12):
        e = torch.zeros(12).double().index_fill_(0, torch.tensor(i), nudge).view(3, 4)
        up, down = (by_definition(name, theta, m + sign * e, x, y) for sign in (1, -1))
        assert float(found.flatten()[i]) == pytest.approx(float((up - down) / (2 * nudge)), rel=2e-2, abs=2e-4)


def test_the_ratio_of_losses():
    theta, m, x, y = example()
    step = Step(theta, m, x, y)
    step.look_dense = lambda inputs: (inputs @ theta.T + 0.1, None)
    value = made("dense_loss").loss(step, (x, y), step.again(x))
    sparse, dense = (nn.functional.cross_entropy(z, y) for z in (step.again(x), x @ theta.T + 0.1))
    assert float(value) == pytest.approx(abs(float(sparse / dense) - 1))


@pytest.mark.parametrize(
    ("overrides", "match"),
    [
        (["method=magnitude", "loss=[dense_kl]"], "keeps no dense weights"),
        (["method=srste", "sparsity=2:4", "loss=[gradient_norm]"], "draws no masks"),
        (["method=cts", "schedule.at=0.5", "loss=[gradient_norm]", "trainer.compile=true"], "second derivatives"),
        (["method=cts", "schedule.at=0"], "searches in the updates before its mask"),
    ],
)
def test_what_it_cannot_look_at_is_refused(overrides, match):
    with pytest.raises(ConfigError, match=match):
        plan_of(["sparsity=0.9", "model=mlp", *overrides])


@pytest.mark.parametrize(("drawing", "due"), [(True, True), (False, False), (None, True)])
def test_it_is_the_loss_of_a_search_and_not_of_what_follows(drawing, due):
    assert made("dense_kl").due(types.SimpleNamespace(drawing=drawing)) is due


SEARCH = ["method=cts", "sparsity=0.5", "model=mlp", "model.hidden=[16,8]", "trainer.max_epochs=null", "trainer.max_steps=10",
          "trainer.batch_size=32"]  # fmt: skip
F = 2 * (64 * 16 + 16 * 8 + 8 * 10)  # a forward pass of one example


@pytest.mark.parametrize(
    ("losses", "passes"),
    [([], 0), (["dense_kl"], 1), (["dense_kl", "dense_features"], 1), (["gradient_norm"], 9), (["dense_gradients"], 12),
     (["dense_kl", "dense_gradients"], 13)],
)  # fmt: skip
def test_what_the_losses_compute_is_in_the_account_of_the_search(losses, passes):
    """Of 10 updates the search has 4. One look at the dense network serves all losses; gradients are nobody else's."""
    asked = [*SEARCH, f"loss=[{','.join(losses)}]"]
    assert plan_of([*asked, "schedule.at=0.4"]).cost["flops_teacher"] == passes * F * 32 * 4
    assert plan_of([*asked, "schedule.at=1.0"]).cost["flops_teacher"] == passes * F * 32 * 10


def test_without_draws_the_dense_network_is_looked_at_in_every_update():
    asked = ["method=ste", "sparsity=2:4", *SEARCH[2:], "loss=[dense_kl]"]
    assert plan_of(asked).cost["flops_teacher"] == F * 32 * 10


@pytest.mark.parametrize(("name", "passes", "first"), [("gradient_norm", 9, 4), ("dense_gradients", 12, 6)])
def test_the_account_of_losses_of_gradients_is_what_torch_counts(name, passes, first):
    """Every product of the passes, counted as they are computed; of the first layer those for its inputs are left out."""
    from torch.utils.flop_counter import FlopCounterMode

    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(*(layer for a, b in ((64, 16), (16, 8)) for layer in (nn.Linear(a, b), nn.Tanh())),
                            nn.Linear(8, 10))  # fmt: skip
    x, y = torch.randn(32, 64, generator=generator), torch.randint(0, 10, (32,), generator=generator)
    theta = {name: weight.data.clone() for name, weight in network.named_parameters() if weight.ndim == 2}
    context = types.SimpleNamespace(
        network=network,
        masked=[(network.get_parameter(name), values) for name, values in theta.items()],
        again=network,
        criterion=lambda logits, batch: nn.functional.cross_entropy(logits, batch[1]),
        aside=lambda dense: nullcontext(),
    )
    with FlopCounterMode(display=False) as counter:
        made(name).loss(context, (x, y), None).backward()
    per_layer = [2 * 64 * 16 * 32, 2 * 16 * 8 * 32, 2 * 8 * 10 * 32]
    assert counter.get_total_flops() == first * per_layer[0] + passes * sum(per_layer[1:])
    assert LOSSES[name].own_passes == passes
