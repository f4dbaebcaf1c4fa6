"""Spiking neurons: every exact item of the dossier of UltraLIF (arXiv 2602.11206), and gradients against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import tensor

from sparselab.core.errors import ConfigError
from sparselab.inputs.models.neuron import NEURONS, complete, made
from sparselab.inputs.models.neurons.torch_side.membrane import hardened
from sparselab.inputs.models.neurons.torch_side.scalars import Tau
from sparselab.inputs.models.neurons.torch_side.ultra import around, lse

torch.set_num_threads(1)
RELEASED = {
    "ultralif": {"threshold": 0.0},
    "ultraplif": {"threshold": 0.0, "tau_map": "exp"},
    "ultradlif": {"threshold": 0.0, "order": "input_first", "leak": "all"},
    "ultradplif": {"threshold": 0.0, "order": "input_first", "leak": "all", "tau_map": "sigmoid_raw"},
}
ULTRA = [
    *[(name, {}) for name in RELEASED],
    *RELEASED.items(),
    ("ultraplif", {"tau_map": "exp_clamped", "spike_scale": 2.0}),
    ("ultradlif", {"leak": "centre"}),
    ("ultradplif", {"leak": "all"}),
]
SOFT = [*ULTRA, *[(name, {"spike": "soft"}) for name in ("lif", "plif", "adalif", "fullplif")], ("sigmalif", {})]


def membrane(name, **options):
    return made({"name": name, **options}).make().double()


def step(name, current, state=None, **options):
    """(spikes, potentials after the reset) of one step from 0, or from ``state``."""
    neuron, current = membrane(name, **options), tensor([current], dtype=torch.float64)
    spike, (after, *_) = neuron.step(current, neuron.begin(current) if state is None else (tensor([state]).double(),))
    return spike[0], after[0]


def currents(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# -- log-sum-exp -------------------------------------------------------------------------------------------------------


def test_item_1_log_sum_exp_by_hand():
    assert float(lse(1.0, tensor(0.0), tensor(0.0))) == pytest.approx(0.693147, abs=1e-6)
    assert float(lse(0.1, tensor(1.0).double(), tensor(0.0).double())) == pytest.approx(1.00000454, abs=1e-8)
    assert float(lse(1.0, tensor(1.0), tensor(2.0), tensor(3.0))) == pytest.approx(3.407606, abs=1e-6)


def test_log_sum_exp_lies_between_the_maximum_and_eps_log_n_above_it_and_does_not_overflow():
    terms = currents(3, 1000) * 5
    for eps in (0.1, 1.0, 20.0):
        found, largest = lse(eps, *terms), terms.max(0).values
        assert (found >= largest - 1e-12).all() and (found <= largest + eps * math.log(3) + 1e-12).all()
    assert float(lse(0.1, tensor(3e4), tensor(-3e4))) == 3e4


# -- one step ----------------------------------------------------------------------------------------------------------


def test_item_2_a_step_of_ultralif_as_the_paper_writes_it():
    spike, after = step("ultralif", [1.0])
    assert float(lse(1.0, tensor(math.log(0.9)), tensor(1.0))) == pytest.approx(1.285999, abs=1e-6)
    assert (float(spike), float(after)) == pytest.approx((0.686972, 0.402554), abs=1e-6)


def test_item_3_a_step_of_the_released_ultralif_and_ultradlif():
    spike, after = step("ultralif", [1.0], **RELEASED["ultralif"])
    assert (float(spike), float(after)) == pytest.approx((0.783469, 0.278458), abs=1e-6)
    kept = tensor([1.0, 0.0, 0.0])
    assert around(1.0, kept, kept).tolist() == pytest.approx([1.551445] * 3, abs=1e-6)
    spike, after = step("ultradlif", [1.0, 0.0, 0.0], **RELEASED["ultradlif"])
    assert spike.tolist() == pytest.approx([0.825122] * 3, abs=1e-6)
    assert after.tolist() == pytest.approx([0.174878, 0, 0], abs=1e-6)


def test_at_the_first_step_the_papers_ring_couples_nothing():
    spike, _ = step("ultradlif", [1.0, 0.0, -2.0])
    assert torch.allclose(spike, torch.sigmoid(tensor([1.0, 0.0, -2.0]).double() + math.log(3) - 0.5), atol=1e-14)


@pytest.mark.parametrize("reading", [{}, {"threshold": 0.0, "order": "input_first", "leak": "all"}])
def test_item_6_at_one_step_a_trained_tau_of_the_ring_changes_nothing_and_learns_nothing(reading):
    x = currents(4, 1, 6)
    assert torch.equal(membrane("ultradlif", **reading)(x), membrane("ultradplif", **reading)(x))
    neuron = membrane("ultradplif", **reading)
    neuron(x).sum().backward()
    assert neuron.tau.raw.grad == 0 and neuron.eps.raw.grad != 0
    moved = membrane("ultradplif", tau=0.2, **reading)
    assert torch.equal(moved(x), neuron(x))
    assert not torch.equal(moved(x.expand(4, 2, 6)), neuron(x.expand(4, 2, 6)))


def test_item_6_the_released_ultralif_never_spikes_below_nine_nineteenths_at_the_first_step():
    """In exact arithmetic; s(-30) is the bound to rounding."""
    spikes = membrane("ultralif", **RELEASED["ultralif"])(tensor([[[-30.0, -5.0, 0.0, 5.0]]]).double())[0, 0]
    assert (spikes >= 0.9 / 1.9 - 1e-12).all() and float(spikes[0]) == pytest.approx(0.473684, abs=1e-6)


def test_taus_start_where_their_forms_say():
    found = {form: float(Tau(0.9, form)()) for form in ("", "sigmoid", "sigmoid_raw", "exp", "exp_clamped")}
    assert found == pytest.approx({"": 0.9, "sigmoid": 0.9, "sigmoid_raw": 0.7109495, "exp": 0.9, "exp_clamped": 0.9})
    for form in ("", "sigmoid", "sigmoid_raw", "exp", "exp_clamped"):
        tau = Tau(0.3, form)
        assert float(torch.as_tensor(tau.log())) == pytest.approx(math.log(float(tau())), abs=1e-6)
    free, held = Tau(0.9, "exp"), Tau(0.9, "exp_clamped")
    with torch.no_grad():
        free.raw.fill_(1.0)
        held.raw.fill_(1.0)
    assert float(free()) == pytest.approx(math.e) and float(held()) == pytest.approx(0.99)


# -- gradients ---------------------------------------------------------------------------------------------------------


def test_item_4_the_slope_of_a_spike_at_the_threshold_is_a_quarter_over_eps_and_nowhere_more():
    for eps in (0.1, 0.5, 1.0, 4.0):
        potential = torch.linspace(-3, 4, 701, dtype=torch.float64, requires_grad=True)
        torch.sigmoid((potential - 0.5) / eps).sum().backward()
        spike = membrane("ultralif", eps=eps, learn_eps=False)
        again = torch.linspace(-3, 4, 701, dtype=torch.float64, requires_grad=True)
        spike.spikes(again, eps).sum().backward()
        slope = again.grad
        assert torch.equal(slope, potential.grad)
        assert float(slope[350]) == pytest.approx(1 / (4 * eps)) and bool((slope <= 1 / (4 * eps) + 1e-12).all())
        assert bool((slope[(again - 0.5).abs() < 30 * eps] > 0).all())


@pytest.mark.parametrize(("name", "options"), [*SOFT, ("dspike", {}), ("dspike_plus", {})], ids=str)
def test_item_4_autograd_equals_finite_differences(name, options):
    """The exactness claim: of inputs over four time steps, and of every trained scalar."""
    neuron = membrane(name, **options)
    x = (currents(2, 4, 5) * 0.3 + 0.4).requires_grad_()
    names, values = zip(*neuron.named_parameters(), strict=True) if list(neuron.parameters()) else ((), ())

    def spikes(x, *values):
        return torch.func.functional_call(neuron, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(spikes, (x, *values), eps=1e-7, atol=1e-5)


def test_item_4_a_hard_spike_is_flat_and_its_surrogate_is_not():
    """What UltraLIF sets itself apart from: forward a step, backward the slope of a sigmoid."""
    neuron = membrane("lif")
    x = tensor([[[0.4, 0.7]]]).double().requires_grad_()
    spikes = neuron(x)
    spikes.sum().backward()
    assert spikes.flatten().tolist() == [0.0, 1.0]
    soft = torch.sigmoid(10 * (x.detach() - 0.5))
    assert torch.allclose(x.grad, 10 * soft * (1 - soft))
    apart = tensor([[[0.4, 0.7]]]).double().requires_grad_()
    assert not torch.autograd.gradcheck(neuron, (apart,), raise_exception=False)


def test_gradients_of_ultralif_are_those_of_the_closed_form():
    """By hand through four steps: ds/dm = s (1 - s) / eps, dm/dI = the softmax weight of I, and likewise of eps."""
    eps, theta, x = 0.7, 0.5, currents(4)
    weights = currents(4, seed=1)
    potential, by_eps = 0.0, 0.0  # v and its derivative by eps
    gradient, total = torch.zeros(4).double(), 0.0
    inner = torch.zeros(4).double()  # derivatives of v by the currents so far
    for t in range(4):
        a, b = potential + math.log(0.9), float(x[t])
        m = eps * math.log(math.exp(a / eps) + math.exp(b / eps))
        share = math.exp((b - m) / eps)
        m_eps = (m - (1 - share) * a - share * b) / eps + (1 - share) * by_eps
        of_m = (1 - share) * inner
        of_m[t] += share
        s = 1 / (1 + math.exp(-(m - theta) / eps))
        slope = s * (1 - s) / eps
        s_eps = slope * (m_eps - (m - theta) / eps)
        gradient += float(weights[t]) * slope * of_m
        total += float(weights[t]) * s_eps
        inner, by_eps = (1 - s - m * slope) * of_m, (1 - s) * m_eps - m * s_eps
        potential = m * (1 - s)
    neuron = membrane("ultralif", eps=eps)
    given = x.clone().view(1, 4, 1).requires_grad_()
    (neuron(given).flatten() * weights).sum().backward()
    assert torch.allclose(given.grad.flatten(), gradient, atol=1e-12)
    assert float(neuron.eps.raw.grad) == pytest.approx(
        total * eps, abs=1e-7
    )  # raw is the logarithm, of single precision


def test_the_clamp_of_eps_ends_its_gradient():
    neuron = membrane("ultralif", eps=0.1)
    with torch.no_grad():
        neuron.eps.raw.fill_(math.log(0.05))
    neuron(currents(1, 2, 3)).sum().backward()
    assert float(neuron.eps()) == pytest.approx(0.1) and neuron.eps.raw.grad == 0


# -- limits ------------------------------------------------------------------------------------------------------------


def test_item_5_at_the_floor_of_eps_a_spike_is_within_an_exponential_of_the_step():
    potential = torch.linspace(-2, 3, 501, dtype=torch.float64)
    for eps in (0.1, 0.3, 1.0):
        spike = membrane("ultralif", eps=eps, learn_eps=False).spikes(potential, eps)
        far = (potential - 0.5).abs()
        assert bool(((spike - (potential >= 0.5).double()).abs() <= torch.exp(-far / eps) + 1e-12).all())


def test_potentials_are_within_t_eps_log_n_of_the_tropical_ones():
    """Of the recursions without a reset: two terms log 2, three terms log 3."""
    x, eps = currents(20, 6), 0.3
    soft = hard = ring = ring_hard = torch.zeros(6).double()
    for t in range(20):
        soft, hard = lse(eps, soft + math.log(0.9), x[t]), torch.maximum(hard + math.log(0.9), x[t])
        ring = around(eps, ring, ring) + x[t]
        ring_hard = torch.stack([ring_hard.roll(1), ring_hard, ring_hard.roll(-1)]).amax(0) + x[t]
        assert bool(((soft - hard).abs() <= (t + 1) * eps * math.log(2) + 1e-12).all())
        assert bool(((ring - ring_hard).abs() <= (t + 1) * eps * math.log(3) + 1e-12).all())


# -- baselines ---------------------------------------------------------------------------------------------------------


def test_hard_lif_and_plif_are_those_of_spikingjelly():
    """Its LIFNode without decay of the input: v (1 - 1 / tau) + x, v >= v_threshold, v (1 - spike); PLIF: w = -log(tau - 1)."""
    x = currents(3, 8, 5)
    for name, options in (("lif", {}), ("plif", {})):
        neuron, potential, tau = membrane(name, **options), torch.zeros(3, 5).double(), 1 / (1 - 0.9)
        found = neuron(x)
        for t in range(8):
            potential = potential * (1 - 1 / tau) + x[:, t]
            spike = (potential >= 0.5).double()
            potential = (1 - spike) * potential
            assert torch.equal(found[:, t], spike)
    assert float(torch.sigmoid(-membrane("plif").tau.raw)) == pytest.approx(1 / tau, abs=1e-6)


def test_the_threshold_of_adalif_rises_with_spikes():
    neuron = membrane("adalif")
    x = torch.full((1, 3, 1), 0.55).double()
    raised, seen = 0.0, []
    for _ in range(3):
        spike = float(0.5 + 0.1 * raised <= 0.55)
        raised = 0.9 * raised + 0.1 * spike
        seen.append(spike)
    assert neuron(x).flatten().tolist() == seen
    assert membrane("adalif", adapt=10.0)(x).flatten().tolist() == [1, 0, 0]


def test_dspike_by_hand():
    """s = (tanh(k (v / 2 theta - 1/2)) + tanh(k/2)) / (2 tanh(k/2)), with k the softplus of 4: 4.018."""
    k, x = math.log(1 + math.exp(4.0)), 0.3
    want = (math.tanh(k * (x / 1.0 - 0.5)) + math.tanh(k / 2)) / (2 * math.tanh(k / 2))
    assert float(step("dspike", [x])[0]) == pytest.approx(want, abs=1e-6)
    assert step("dspike", [-5.0, 0.5, 9.0])[0].tolist() == pytest.approx([0, 0.5, 1], abs=1e-6)


def test_fullplif_starts_where_its_forms_say():
    assert float(step("fullplif", [0.5], spike="soft")[0]) == pytest.approx(0.5, abs=1e-6)
    raw = float(step("fullplif", [0.5], spike="soft", threshold_map="sigmoid_raw")[0])
    assert raw == pytest.approx(1 / (1 + math.exp(10 * (1 / (1 + math.exp(-0.5)) - 0.5))), abs=1e-6)


def test_sigmalif_at_one_step_is_a_perceptron_of_sigmoids():
    x = currents(3, 1, 5)
    assert torch.equal(membrane("sigmalif", learn_eps=False)(x), torch.sigmoid(x))


def test_a_spike_scale_is_a_slope_of_its_own():
    x = currents(3, 1, 5)
    one, other = membrane("ultralif", eps=2.0), membrane("ultralif", eps=2.0, spike_scale=0.5)
    assert torch.allclose(one(x), other(x))
    assert not torch.allclose(one(x), membrane("ultralif", eps=2.0, spike_scale=3.0)(x))


# -- all of them -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(NEURONS))
def test_every_neuron_spikes_from_0_to_1_and_begins_each_pass_at_0(name):
    member = made({"name": name})
    neuron = member.make()
    x = torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(0))
    spikes = neuron(x)
    assert spikes.shape == x.shape and spikes.dtype == torch.float32
    assert bool(((spikes >= 0) & (spikes <= 1)).all())
    assert torch.equal(neuron(x), spikes)
    assert torch.equal(neuron(x[:, :3]), spikes[:, :3])  # what comes later changes nothing that was
    assert sum(p.numel() for p in neuron.parameters()) == member.learned
    assert len(neuron.numbers()) == member.learned
    alone = neuron(x[..., [0]])[..., 0]
    assert torch.allclose(alone, spikes[..., 0]) != member.coupled
    with hardened(neuron):
        assert set(neuron(x).unique().tolist()) <= {0.0, 1.0}
    assert torch.equal(neuron(x), spikes)


@pytest.mark.parametrize("name", list(NEURONS))
def test_a_hard_first_spike_is_where_the_soft_one_is_from_one_half(name):
    neuron = made({"name": name, **({"spike": "soft"} if "spike" in NEURONS[name].Options.model_fields else {})}).make()
    x = torch.linspace(-2, 2, 400)[:, None, None]
    soft = neuron(x)
    with hardened(neuron):
        hard = neuron(x)
    sure = (soft - 0.5).abs() > 1e-5
    assert torch.equal(hard[sure], (soft[sure] > 0.5).float())


def test_neurons_compute_in_single_precision_whatever_is_around_them():
    neuron = made({"name": "ultradlif"}).make()
    x = torch.randn(2, 3, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(neuron(x.bfloat16()), neuron(x.bfloat16().float()))


def test_options_that_mean_nothing_are_refused():
    for values, line in (
        ({"name": "lif", "tau": 1.0}, "neuron.tau=1.0: input should be less than 1"),
        ({"name": "ultralif", "eps": 0.05}, "neuron.eps=0.05: input should be greater than or equal to 0.1"),
        ({"name": "ultradlif", "order": "input_first"}, "order=input_first multiplies every potential by tau"),
        ({"name": "ultradplif", "leak": "none"}, "neuron.leak=none: input should be 'centre' or 'all'"),
        ({"name": "dspike", "threshold": 0.0}, "neuron.threshold=0.0: input should be greater than 0"),
        ({"tau": 0.5}, "model.neuron: has no name"),
    ):
        with pytest.raises(ConfigError) as refused:
            made(values)
        assert line in str(refused.value)
    assert complete({"name": "lif"}) == complete({"name": "lif", "tau": 0.9})
