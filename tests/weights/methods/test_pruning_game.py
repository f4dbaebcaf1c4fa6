"""Pruning as a game: the dossier's items by hand, both steppers through whole runs, and players of every kind of pattern."""

from __future__ import annotations

import math

import pytest
import torch
from hand_slots import hand_slots, sgd, update
from torch import nn

from sparselab.core.errors import Stopped
from sparselab.inputs.models.networks import MLP
from sparselab.running.planning import plan_of
from sparselab.running.run_cell import run_cell
from sparselab.storage import record
from sparselab.tools.deploy.shrink import shrink
from sparselab.training.loop.stopping import StopFlag
from sparselab.training.runner import execute
from sparselab.training.slots import make_sparsifier
from sparselab.weights.methods.pruning_game import best_reply, marginal, norms, rivalry, spread, summed

PATTERNS = ["unit:0.5", "channel:0.5", "in_channel:0.5", "block:2x2:0.5", 0.5]
STEPPERS = ["plain", "optimiser", "reply"]
TINY = [
    "method=pruning_game", "sparsity=unit:0.5", "model=mlp", "model.hidden=[32,16]", "dataset=digits",
    "targets.exclude=[@head]",
    "trainer.max_epochs=null", "trainer.progress=none", "trainer.accelerator=cpu", "trainer.threads=1", "trainer.clip=null",
    "trainer.precision='32'", "optim.lr=0.001", "optim.warmup=0", "optim.weight_decay=0", "optim.schedule=constant",
]  # fmt: skip


def game(weights, sparsity="unit:0.5", total=12, biases=None, at=1.0, **options):
    """A sparsifier that plays, started; ``biases`` are of its layers."""
    sparsifier = hand_slots("pruning_game", weights, sparsity, "one_shot", total, options=options, at=at)
    for slot, bias in zip(sparsifier.slots, biases or [], strict=False):
        slot.bias = nn.Parameter(bias.clone())
        slot.keep_master()
    sparsifier.start()
    return sparsifier


def levels(sparsifier):
    return sparsifier.method.participation(sparsifier.slots[0])


def test_parameters_of_the_papers_network():
    """Item: 535,818 weights and biases, 536,586 with a level for each of the 768 hidden neurons."""
    words = [word for word in TINY if not word.startswith(("model.hidden", "dataset="))]
    parts = plan_of([*words, "model.hidden=[512,256]", "dataset=mnist", "trainer.max_steps=9380"]).parts
    network = parts.family.build(parts.data)
    sparsifier = make_sparsifier(parts, network)
    weights = sum(param.numel() for param in network.parameters())
    players = sum(sparsifier.method.participation(slot).numel() for slot in sparsifier.slots)
    assert (weights, players, weights + players) == (535_818, 768, 536_586)
    assert [slot.bias is network.get_submodule(slot.layer.name).bias for slot in sparsifier.slots] == [True] * 2


def test_the_quadratic_cost_alone_decays_geometrically():
    """Item: alpha = gamma = eta = 0 gives s_T = s_0 (1 - 2 lr beta n)^T, which never reaches 0."""
    torch.manual_seed(0)
    theta, lr, beta, total = torch.randn(5, 7), 0.01, 0.3, 40
    made = game(theta, total=total, alpha=0, beta=beta, gamma=0, eta=0, participation_lr=lr)
    for step in range(1, total):
        update(made, None, step, [torch.randn(5, 7)])
    expected = (1 - 2 * lr * beta * theta.square().sum(1)) ** (total - 1)
    torch.testing.assert_close(levels(made).flatten(), expected, rtol=1e-5, atol=0)
    assert (levels(made) > 0).all()


def test_the_linear_cost_alone_reaches_zero_exactly():
    """Item: alpha = beta = eta = 0: s falls by lr gamma an update, is 0 after ceil(1 / (lr gamma)), and never negative."""
    lr, gamma = 0.07, 0.9
    steps = math.ceil(1 / (lr * gamma))
    made = game(torch.randn(3, 4), total=steps + 5, alpha=0, beta=0, gamma=gamma, participation_lr=lr)
    for step in range(1, steps + 4):
        update(made, None, step, [torch.randn(3, 4)])
        expected = max(0.0, 1 - step * lr * gamma)
        torch.testing.assert_close(levels(made).flatten(), torch.full((3,), expected), rtol=0, atol=1e-6)
        assert (levels(made) == 0).all() == (step >= steps)


def test_the_printed_linear_cost_is_too_small_for_the_papers_run():
    """Cost alone: gamma = 0.1 at a rate of 0.001 needs 10,000 updates, and the paper's run has 9,380."""
    made = game(torch.ones(2, 3), total=10_002, alpha=0, beta=0.001, gamma=0.1, participation_lr=1e-3)
    (slot,) = made.slots
    slot.param.grad = torch.zeros(2, 3)
    with torch.no_grad():
        for _ in range(9_380):
            levels(made).copy_(made.method.moved(slot))
    assert (levels(made) > made.method.options.eps).all(), "nothing is pruned"


def test_best_replies():
    """Items: g = 0.3 gives 0.2, g = 0.05 gives 0; without a bend it is all or nothing; it is the best of a fine grid."""
    ones = torch.ones(2)
    found = best_reply(torch.tensor([0.3, 0.05]), torch.zeros(2), ones, 1.0, 0.5, 0.1, 0.0)
    torch.testing.assert_close(found, torch.tensor([0.2, 0.0]))
    assert best_reply(torch.tensor([0.3, 0.05]), 0 * ones, ones, 1.0, 0.0, 0.1, 0.0).tolist() == [1, 0]
    torch.manual_seed(0)
    g, c, n = torch.randn(3, 50, dtype=torch.float64)
    n = n.abs() + 0.1
    grid = torch.linspace(0, 1, 20_001, dtype=torch.float64)[:, None]
    utility = grid * 0.7 * g - 0.4 * n * grid**2 - 0.2 * grid - 0.3 * grid * c
    best = grid[utility.argmax(0), 0]
    torch.testing.assert_close(best_reply(g, c, n, 0.7, 0.4, 0.2, 0.3), best, rtol=0, atol=1e-4)


def test_two_players_and_their_equilibrium():
    """Item: n = 1, <theta_1, theta_2> = 0.5, g = (0.5, 0.2): alternating best replies lead from (1, 1) to (0.4, 0)."""
    theta = torch.tensor([[1.0, 0.0], [0.5, math.sqrt(0.75)]])
    made = game(theta, eta=1.0, beta=0.5, gamma=0.1)
    (slot,) = made.slots
    g, s = torch.tensor([0.5, 0.2]), levels(made)
    for _ in range(5):
        for player in range(2):
            reply = best_reply(g, rivalry(slot, s).flatten(), norms(slot).flatten(), 1.0, 0.5, 0.1, 1.0)
            s.view(-1)[player] = reply[player]
    torch.testing.assert_close(s.flatten(), torch.tensor([0.4, 0.0]))
    reply = best_reply(g, rivalry(slot, s).flatten(), norms(slot).flatten(), 1.0, 0.5, 0.1, 1.0)
    torch.testing.assert_close(reply, s.flatten()), "nobody gains by leaving it"


def test_the_gradient_in_the_parameters_is_the_level_times_the_gradient_in_the_level():
    """Item: g_i = <dL/dtheta_i, theta_i> = s_i dL/ds_i to 1e-6, biases included, against autograd; so is the loss gradient."""
    torch.manual_seed(0)
    theta, bias, out = torch.randn(6, 4), torch.randn(6), torch.randn(3, 6)
    made = game(theta, biases=[bias])
    (slot,) = made.slots
    s = levels(made)
    s.copy_(torch.rand(6).view_as(s))
    made.refresh()
    x, y = torch.randn(20, 4), torch.randint(3, (20,))

    def loss(weight, b):
        return nn.functional.cross_entropy((x @ weight.T + b).relu() @ out.T, y)

    loss(slot.param, slot.bias).backward()
    own = s.flatten().clone().requires_grad_()
    w, b = theta.clone().requires_grad_(), bias.clone().requires_grad_()
    loss(own[:, None] * w, own * b).backward()
    torch.testing.assert_close(marginal(slot).flatten(), own.grad, rtol=0, atol=1e-6)
    g = (w.grad * w).sum(1) + b.grad * b
    torch.testing.assert_close(s.flatten() * own.grad, g.detach(), rtol=0, atol=1e-6)
    torch.testing.assert_close(made.method.benefit(slot).flatten(), g.detach(), rtol=0, atol=1e-6)
    made.method.pullback(slot)
    torch.testing.assert_close(slot.param.grad, w.grad, rtol=0, atol=1e-6)
    torch.testing.assert_close(slot.bias.grad, b.grad, rtol=0, atol=1e-6)


@pytest.mark.parametrize("sparsity", PATTERNS)
def test_the_utility_has_that_gradient(sparsity):
    """Equation 18 against autograd of equations 9 and 10, the competition as the sum over all pairs of players."""
    torch.manual_seed(0)
    theta, bias = torch.randn(6, 8), torch.randn(6)
    made = game(
        theta, sparsity, biases=[bias] if sparsity == "unit:0.5" else None, alpha=0.7, beta=0.3, gamma=0.2, eta=0.4
    )
    (slot,) = made.slots
    s = levels(made)
    s.copy_(torch.rand_like(s) * 0.8 + 0.1)
    slot.param.grad = torch.randn(6, 8)
    rows = [[theta[spread(slot, one) > 0], slot.param.grad[spread(slot, one) > 0]] for one in one_hot(s)]
    if slot.bias is not None:
        slot.bias.grad = torch.randn(6)
        rows = [
            [torch.cat([w, bias[i : i + 1]]), torch.cat([g, slot.bias.grad[i : i + 1]])]
            for i, (w, g) in enumerate(rows)
        ]
    players = torch.stack([w for w, _ in rows])
    own = s.flatten().clone().requires_grad_()
    g = torch.stack([(w * grad).sum() for w, grad in rows]) * s.flatten()  # held constant in s
    pairs = players @ players.T
    pairs.fill_diagonal_(0)
    utility = 0.7 * own * g - 0.3 * pairs.new_tensor([w @ w for w in players]) * own**2 - 0.2 * own
    utility = (utility - 0.4 * own * (pairs @ s.flatten())).sum()
    utility.backward()
    torch.testing.assert_close(made.method.ascent(slot).flatten(), own.grad, rtol=1e-4, atol=1e-5)


def one_hot(s):
    for i in range(s.numel()):
        one = torch.zeros_like(s)
        one.view(-1)[i] = 1
        yield one


@pytest.mark.parametrize("sparsity", PATTERNS)
def test_players_are_the_units_of_the_pattern(sparsity):
    made = game(torch.randn(6, 8), sparsity)
    (slot,) = made.slots
    s = levels(made)
    assert s.numel() == slot.mask.numel() // slot.pattern.sparsity.unit_size("linear", (6, 8))
    torch.testing.assert_close(summed(slot, spread(slot, s)), torch.full_like(s, slot.mask.numel() / s.numel()))


@pytest.mark.parametrize("benefit", ["literal", "descent", "loss", "none"])
def test_signs_of_the_benefit(benefit):
    """Literal rewards what raises the loss, descent its opposite; ``loss`` is descent without the factor s."""
    made = game(torch.ones(2, 2), benefit=benefit, beta=0, gamma=0)
    (slot,) = made.slots
    levels(made).fill_(0.5)
    slot.param.grad = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])  # dL/ds = (2, -2)
    expected = {"literal": [1, -1], "descent": [-1, 1], "loss": [-2, 2], "none": [0, 0]}[benefit]
    assert made.method.ascent(slot).flatten().tolist() == expected


@pytest.mark.parametrize("benefit", ["literal", "descent", "loss"])
@pytest.mark.parametrize("stepper", STEPPERS)
def test_levels_stay_in_range_and_who_is_out_gets_no_gradient(stepper, benefit):
    """Item: no step leaves [0, 1]; weights and bias of a neuron with s = 0 have a loss gradient of zero."""
    torch.manual_seed(0)
    total = 30
    options = {"stepper": stepper, "benefit": benefit, "participation_lr": 0.4, "eta": 0.3}
    made = game(torch.randn(8, 5), total=total, biases=[torch.randn(8)], **options)
    (slot,) = made.slots
    optimizer = torch.optim.Adam([slot.param, slot.bias], lr=0.05)
    for group in made.groups():
        optimizer.add_param_group({"params": group["params"], "lr": group["lr"]})
    seen_out = False
    for step in range(1, total):
        slot.param.grad, slot.bias.grad = 3 * torch.randn(8, 5), 3 * torch.randn(8)
        out = levels(made).flatten() == 0
        made.before_step(step, optimizer)
        assert not slot.param.grad[out].any() and not slot.bias.grad[out].any()
        optimizer.step()
        made.after_step(step, optimizer)
        s = levels(made).flatten()
        assert ((s >= 0) & (s <= 1)).all() and s.isfinite().all()
        torch.testing.assert_close(slot.param.data, s[:, None] * slot.dense)
        torch.testing.assert_close(slot.bias.data, s * slot.dense_bias)
        seen_out = seen_out or bool(out.any())
    assert seen_out


def test_who_is_out_stays_out_under_the_literal_rule_and_may_return_by_the_gradient_of_the_loss():
    """The benefit has a factor s: 0 is final. With ``loss`` a player returns where it gains more than gamma, not before."""
    for benefit, slope, returns in (("literal", 5.0, False), ("loss", -0.09, False), ("loss", -0.2, True)):
        made = game(torch.ones(1, 1), benefit=benefit, gamma=0.1, beta=0.0, participation_lr=0.5)
        levels(made).zero_()
        made.refresh()
        update(made, None, 1, [torch.full((1, 1), slope)])
        assert bool(levels(made) > 0) == returns


def test_scale_is_free():
    """s -> c s and theta -> theta / c leave the network as it was: a limit for s alone says nothing about outputs."""
    made = game(torch.randn(4, 3), biases=[torch.randn(4)])
    (slot,) = made.slots
    before = slot.param.detach().clone()
    levels(made).mul_(0.125)
    slot.master.mul_(8)
    slot.bias_master.mul_(8)
    made.refresh()
    assert torch.equal(before, slot.param.data)


def test_a_limit_cuts_at_the_end_and_the_sparsity_is_an_outcome():
    made = game(torch.randn(4, 3), total=2, biases=[torch.ones(4)], alpha=0, beta=0, gamma=0)
    (slot,) = made.slots
    levels(made).copy_(torch.tensor([0.009, 0.01, 0.0, 1.0]).view_as(levels(made)))
    update(made, None, 1, [torch.zeros(4, 3)])
    assert slot.mask.all()
    update(made, None, 2, [torch.zeros(4, 3)])
    assert slot.mask.any(1).tolist() == [False, True, False, True] and slot.kept == 6
    assert (slot.bias.data != 0).tolist() == [False, True, False, True]
    found = made.method.measures(made.slots)
    assert (found["players"], found["pruned"], found["kept_1"]) == (4, 0.5, 2)
    assert (found["undecided"], found["taking_part"]) == (0, 0.25)


def test_least_keeps_the_largest_of_a_layer_that_would_be_empty():
    made = game(torch.randn(4, 3), total=1, least=1, alpha=0, beta=0, gamma=0)
    levels(made).copy_(torch.tensor([0.001, 0.004, 0.002, 0.0]).view_as(levels(made)))
    update(made, None, 1, [torch.zeros(4, 3)])
    assert made.slots[0].mask.any(1).tolist() == [False, True, False, False]


def test_the_bias_may_stay_outside_the_group():
    words = [*TINY, "trainer.max_steps=2", "method.bias_in_group=false"]
    parts = plan_of(words).parts
    sparsifier = make_sparsifier(parts, parts.family.build(parts.data))
    assert [slot.bias for slot in sparsifier.slots] == [None, None]


def test_levels_of_one_train_the_dense_network(tmp_path):
    """Without costs and benefits s stays 1, and the run is that of ``method=dense`` bit for bit."""
    words = [word for word in TINY if not word.startswith(("method", "sparsity"))]
    free = ["method.alpha=0", "method.beta=0", "method.gamma=0", "method.eps=0"]
    one = execute(plan_of([*TINY, *free, "trainer.max_steps=6", f"runs_dir={tmp_path / 'game'}"]))
    other = execute(plan_of([*words, "method=dense", "trainer.max_steps=6", f"runs_dir={tmp_path / 'dense'}"]))
    assert all(torch.equal(value, other.state[name]) for name, value in one.state.items())


CUTS = {
    "plain": ["method.alpha=0", "method.gamma=0", "method.beta=1", "method.participation_lr=0.01", "method.eps=0.35"],
    "optimiser": ["method.benefit=loss", "method.gamma=0.005", "method.participation_lr=0.005", "method.eps=0.5"],
}


@pytest.mark.parametrize("stepper", CUTS)
def test_a_pruned_network_is_the_smaller_one(tmp_path, stepper):
    """Item: taking pruned neurons out gives the same logits as masking them; the record says how many went."""
    words = [f"method.stepper={stepper}", *CUTS[stepper]]
    plan = plan_of([*TINY, *words, "trainer.max_steps=150", f"runs_dir={tmp_path}"])
    assert run_cell(plan) == 0
    found = record.read(plan.folder, plan.id)
    kept = [int(found["metrics"][f"train.kept_{i}"]) for i in (1, 2)]
    assert 0 < sum(kept) < 48 and found["metrics"]["train.pruned"] == pytest.approx(1 - sum(kept) / 48)
    assert found["sparsity"]["kept"] == kept[0] * 64 + kept[1] * 32
    network = plan.parts.family.network(plan.parts.data)
    plan.parts.family.load(network, f"{plan.folder}/model.safetensors")
    small = shrink(network.eval(), lambda net, x: net(x), torch.randn(8, 1, 8, 8)).network
    assert [len(layer.weight) for layer in small.layers] == kept
    x = torch.randn(100, 1, 8, 8)
    torch.testing.assert_close(small(x), network(x), rtol=0, atol=1e-6)
    by_hand = MLP(64, kept, False, 0.0, 10).eval()
    stay = [network.layers[i].weight.data.any(1) for i in range(2)]
    state = network.state_dict()
    by_hand.load_state_dict({
        "layers.0.weight": state["layers.0.weight"][stay[0]], "layers.0.bias": state["layers.0.bias"][stay[0]],
        "layers.1.weight": state["layers.1.weight"][stay[1]][:, stay[0]], "layers.1.bias": state["layers.1.bias"][stay[1]],
        "head.weight": state["head.weight"][:, stay[1]], "head.bias": state["head.bias"],
    })  # fmt: skip
    torch.testing.assert_close(by_hand(x), network(x), rtol=0, atol=1e-6)


def test_a_network_without_players_is_a_result(tmp_path):
    """Every level falls below the limit: the cut leaves the head's bias, and the cell says so in place of failing."""
    words = ["method.alpha=0", "method.gamma=1", "method.participation_lr=0.5", "trainer.max_steps=4"]
    plan = plan_of([*TINY, *words, f"runs_dir={tmp_path}"])
    assert run_cell(plan) == 0
    found = record.read(plan.folder, plan.id)
    assert found["metrics"]["train.pruned"] == 1 and found["sparsity"]["kept"] == 0
    assert found["metrics"]["test.accuracy"] < 0.2


@pytest.mark.parametrize("stepper", STEPPERS)
def test_a_cut_in_the_middle_of_a_run_resumes_bit_for_bit(tmp_path, stepper):
    """Micro-batches, loss scaling and an average: stopped behind the cut and run again, the same network and levels."""
    words = [
        *TINY, f"method.stepper={stepper}", "method.benefit=loss", "method.gamma=2", "method.participation_lr=0.2",
        "method.eps=0.3", "schedule.at=0.5", "trainer.max_steps=8", "trainer.batch_size=16", "trainer.accumulate=2",
        "trainer.precision='16'", "trainer.ema=0.9", "trainer.evals=1",
    ]  # fmt: skip
    whole = execute(plan_of([*words, f"runs_dir={tmp_path / 'whole'}"]))

    class Late(StopFlag):
        looks = 0

        def __bool__(self):
            self.looks += 1
            return self.looks > 5

    flag = Late()
    flag.name = "test"
    stopped = [*words, f"runs_dir={tmp_path / 'stopped'}"]
    with pytest.raises(Stopped):
        execute(plan_of(stopped), flag)
    resumed = execute(plan_of(stopped))
    assert resumed.resumed_from
    assert all(torch.equal(value, resumed.state[name]) for name, value in whole.state.items())
    for one, other in zip(whole.sparsifier.slots, resumed.sparsifier.slots, strict=True):
        method, again = whole.sparsifier.method, resumed.sparsifier.method
        assert torch.equal(method.participation(one), again.participation(other))
        assert torch.equal(one.bias_master, other.bias_master)
        gone = ~one.mask.any(1)
        assert gone.any() and not method.participation(one).flatten()[gone].any()
        assert not whole.state[f"{one.layer.name}.bias"][gone].any()


def test_a_skipped_update_moves_no_level():
    """A loss scaler skips the step after levels were worked out: they wait for an update that happens."""
    made = game(torch.randn(4, 3), biases=[torch.randn(4)])
    (slot,) = made.slots
    slot.param.grad, slot.bias.grad = torch.full((4, 3), float("inf")), torch.zeros(4)
    stored = slot.param.data.clone(), slot.bias.data.clone()
    made.before_step(1, sgd(made))
    made.unswap()
    assert (levels(made) == 1).all()
    assert torch.equal(stored[0], slot.param.data) and torch.equal(stored[1], slot.bias.data)
    slot.param.grad, slot.bias.grad = torch.zeros(4, 3), torch.zeros(4)
    made.before_step(1, sgd(made))
    made.after_step(1, None)
    assert levels(made).isfinite().all() and (levels(made) < 1).all()
