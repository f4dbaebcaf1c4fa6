"""Tokens that skip blocks, on networks of a few thousand weights; each item of the paper's exact checks is one of these."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from sparselab.core.errors import ConfigError, RunFailed
from sparselab.inference.routing.rule import ROUTINGS, kept_count, static_order
from sparselab.inference.routing.tokens.attention import among, causal, received
from sparselab.inference.routing.tokens.cell import score_windows
from sparselab.inference.routing.tokens.chance import ByChance
from sparselab.inference.routing.tokens.decider import ByPosition, Removing, largest, static_keep
from sparselab.inference.routing.tokens.frozen import Frozen, last_loss
from sparselab.inference.routing.tokens.genetic import Settings, child, evolve, project
from sparselab.inference.routing.tokens.influence import influence, influences
from sparselab.inference.routing.tokens.learning import losses
from sparselab.inference.routing.tokens.ledger import Ledger, ratio
from sparselab.inference.routing.tokens.routed import Routed, check_applies, check_halves
from sparselab.inference.routing.tokens.router import Learned, make_router, ranks, straight_through
from sparselab.inference.routing.tokens.shorter import Shorter
from sparselab.inference.routing.tokens.trunk import Trunk
from sparselab.inference.windows import draw

SMALL = {"vocab_size": 60, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
LAYERS = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
DRAWN = torch.Generator().manual_seed(1)
TOKENS = torch.randint(60, (2, 12), generator=DRAWN)
TARGETS = torch.randint(60, (2, 12), generator=DRAWN)


def llama(**more):
    return shaken(LlamaForCausalLM(LlamaConfig(**SMALL, **LAYERS, num_key_value_heads=2, **more)))


def qwen():
    return shaken(Qwen2ForCausalLM(Qwen2Config(**SMALL, **LAYERS, num_key_value_heads=2)))


def gpt2():
    return shaken(GPT2LMHeadModel(GPT2Config(**SMALL, n_positions=64, n_embd=32, n_layer=3, n_head=4)))


def opt(**more):
    config = OPTConfig(
        **SMALL, hidden_size=32, ffn_dim=48, num_hidden_layers=3, num_attention_heads=4, word_embed_proj_dim=32, **more
    )
    return shaken(OPTForCausalLM(config))


def shaken(model):
    """Far enough from uniform outputs that attention is no mean."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.2)
    return model.eval().requires_grad_(False)


def trunk_of(model):
    stack = next(m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == 3)
    norms = [
        module for name, module in model.named_modules() if name.endswith(("model.norm", "ln_f", "final_layer_norm"))
    ]
    norm = norms[-1] if norms and norms[-1] not in set(stack.modules()) else None
    trunk = Trunk(model, lambda tokens: model(input_ids=tokens, use_cache=False).logits, list(stack), norm)
    check_applies(trunk, "routing=static_tokens", TOKENS)
    return trunk


@pytest.fixture(scope="module")
def networks():
    return {"llama": trunk_of(llama()), "qwen": trunk_of(qwen()), "gpt2": trunk_of(gpt2()), "opt": trunk_of(opt())}


@pytest.fixture(params=["llama", "qwen", "gpt2", "opt"])
def trunk(request, networks):
    return networks[request.param]


def frozen_of(trunk, target=0.3, seed=0):
    windows = [(TOKENS, TARGETS)]
    return Frozen(
        trunk, lambda purpose: windows, lambda purpose, number: (TOKENS[number % 2 :][:1], TARGETS[:1]), target, seed,
        lambda where: None, f"{id(trunk)} {seed}",
    )  # fmt: skip


def rule(name, **options):
    cls = ROUTINGS[name]
    return cls(cls.Options(**options))


def logits(trunk, decider, tokens=TOKENS):
    with torch.no_grad(), Routed(trunk, decider) as routed:
        return routed.logits(tokens)


def states(trunk, decider, tokens=TOKENS):
    """What every block reads and puts out, where tokens are routed."""
    kept = []
    with Routed(trunk, decider) as routed, torch.no_grad():
        handles = [
            block.register_forward_hook(
                lambda m, a, k, o: kept.append(
                    (a[0] if a else k["hidden_states"], o[0] if isinstance(o, tuple) else o)
                ),
                with_kwargs=True,
            )
            for block in trunk.blocks
        ]
        routed.logits(tokens)
        for handle in handles:
            handle.remove()
    return kept


# The static router, exact check 1.


def test_the_order_of_six_tokens_and_what_a_third_skips():
    assert static_order(6) == [0, 5, 4, 3, 2, 1]
    assert kept_count(6, 1 / 3) == 4
    assert static_keep(6, 4).tolist() == [True, False, False, True, True, True]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.9, 0.999])
def test_a_single_token_stays(share):
    assert static_order(1) == [0]
    assert kept_count(1, share) == 1
    assert kept_count(1, 1.0) == 0


def test_a_share_of_zero_is_the_dense_network(trunk):
    with torch.no_grad():
        dense = trunk.logits(TOKENS)
    assert torch.equal(logits(trunk, ByPosition([0.0] * 3)), dense)
    assert torch.equal(trunk.logits(TOKENS), dense)  # and the network is as it was


# Exact check 4.


def test_equal_shares_are_a_shorter_input_at_the_last_position(trunk):
    with torch.no_grad(), Shorter(trunk, 0.4) as shorter:
        short = shorter.logits(TOKENS)
    routed, keep = logits(trunk, ByPosition([0.4] * 3)), static_keep(12, kept_count(12, 0.4))
    assert (routed[:, keep] - short[:, keep]).abs().max() < 1e-5
    assert (routed[:, -1] - short[:, -1]).abs().max() < 1e-5
    assert not short[:, ~keep].any()
    assert (trunk.logits(TOKENS)[:, -1] - short[:, -1]).abs().max() > 1e-2  # and it is not the dense network


# Exact check 5.


def test_a_skipped_token_leaves_as_it_came_bit_for_bit(trunk):
    decider = ByPosition([0.25, 0.5, 0.75])
    for share, (came, left) in zip(decider.shares, states(trunk, decider), strict=True):
        keep = static_keep(12, kept_count(12, share))
        assert torch.equal(came[:, ~keep], left[:, ~keep])
        assert not torch.isclose(came[:, keep], left[:, keep]).all()


def test_a_block_that_all_skip_is_the_identity(trunk):
    came, left = states(trunk, ByPosition([0.0, 1.0, 0.0]))[1]
    assert torch.equal(came, left)
    came, left = states(trunk, Removing({2: ("block",)}))[2]
    assert torch.equal(came, left)


def test_tokens_that_stay_do_not_see_skipped_ones(trunk):
    """A skipped token is no key: what it holds changes nothing for others in that block."""
    decider = ByPosition([0.5] * 3)
    keep = static_keep(12, 6)
    other = TOKENS.clone()
    other[:, 1] = (other[:, 1] + 7) % 60
    assert not keep[1]
    assert torch.equal(logits(trunk, decider)[:, keep], logits(trunk, decider, other)[:, keep])


def test_windows_of_a_batch_may_keep_other_tokens(networks):
    trunk = networks["llama"]
    both = logits(trunk, ByChance([0.5] * 3, ("block",), 3, False))
    assert not torch.equal(both, logits(trunk, ByChance([0.5] * 3, ("block",), 4, False)))
    decider = ByChance([0.5] * 3, ("block",), 3, False)
    choices = [decider.choose(i, torch.zeros(2, 12, 4), None) for i in range(3)]
    assert all(choice.keep.sum(-1).tolist() == [6, 6] for choice in choices)

    class Given(ByPosition):
        def choose(self, block, hidden, scores):
            return type(choices[0])(choices[block].keep[self.row])

    for row in (slice(0, 1), slice(1, 2)):
        given = Given([0.5] * 3)
        given.row = row
        assert torch.allclose(both[row], logits(trunk, given, TOKENS[row]), atol=1e-5)


def test_random_tokens_are_other_ones_in_every_block_and_the_last_may_be_held():
    decider = ByChance([0.5, 1.0, 0.0], ("block",), 3, True)
    choices = [decider.choose(0, torch.zeros(9, 12, 4), None).keep for _ in range(2)]
    assert all(keep[:, -1].all() and (keep.sum(-1) == 6).all() for keep in choices)
    assert not torch.equal(*choices)
    assert not decider.choose(1, torch.zeros(9, 12, 4), None).keep.any()
    assert decider.choose(2, torch.zeros(9, 12, 4), None) is None


# Halves of blocks.


def test_without_both_halves_a_block_is_the_identity(trunk):
    check_halves(trunk, "routing=blockpruner", TOKENS)
    came, left = states(trunk, Removing({0: ("attention", "mlp")}))[0]
    assert torch.equal(came, left)


def test_skipped_feed_forward_still_attends(trunk):
    decider = ByPosition([0.5] * 3, ("mlp",))
    with torch.no_grad(), Routed(trunk, decider) as routed:
        found = routed.logits(TOKENS)
        assert routed.ledger.shares("attention") == [1.0] * 3
        assert routed.ledger.shares("mlp") == [0.5] * 3
    assert not torch.allclose(found, trunk.logits(TOKENS))


def test_blocks_that_are_no_sum_of_halves_are_refused():
    trunk = trunk_of(opt(do_layer_norm_before=False))  # norms after the sums
    with pytest.raises(RunFailed, match="are not attention and feed-forward added to what comes in"):
        check_halves(trunk, "routing=blockpruner", TOKENS)
    with pytest.raises(RunFailed, match="are not attention and feed-forward"):
        rule("static_tokens", scope="mlp").prepare(frozen_of(trunk))
    rule("static_tokens").prepare(frozen_of(trunk))  # whole blocks can be skipped


def test_a_network_without_positions_is_not_shortened(networks):
    trunk = networks["llama"]

    class Bare(nn.Module):
        def forward(self, input_ids, use_cache):
            raise AssertionError

    bare = Trunk(Bare(), trunk.logits, trunk.blocks, trunk.norm)
    with pytest.raises(RunFailed, match="takes no positions"), Shorter(bare, 0.4) as shorter:
        shorter.logits(TOKENS)


def test_blocks_that_do_not_attend_through_the_interface_are_refused():
    model = llama()
    trunk = trunk_of(model)
    model.model.layers[1].self_attn.forward = lambda hidden_states, **others: (hidden_states, None)
    with pytest.raises(RunFailed, match="1 of 3 blocks do not attend through transformers' interface"):
        check_applies(trunk, "routing=ftp", TOKENS)


# Attention that tokens get.


def test_received_attention_is_that_of_a_plain_softmax():
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 4, 5, 3, generator=generator), torch.randn(2, 2, 5, 3, generator=generator)
    keep = torch.tensor([[True, False, True, True, False], [True, True, True, True, True]])
    mask = among(None, keep, 5)
    weight = (query @ key.repeat_interleave(2, 1).transpose(-1, -2) * 0.5).masked_fill(~mask, -torch.inf).softmax(-1)
    last = received(query, key, 0.5, mask, keep, "last")
    assert torch.allclose(last[0], weight[0, :, 3].mean(0)) and torch.allclose(last[1], weight[1, :, 4].mean(0))
    mean = received(query, key, 0.5, mask, keep, "mean")
    assert torch.allclose(mean[0], weight[0, :, [0, 2, 3]].mean((0, 1)))
    assert torch.allclose(received(query, key, 0.5, mask, keep, "causal"), weight.diagonal(dim1=-2, dim2=-1).mean(1))
    every = keep | True
    plain = received(query, key, 0.5, causal(5, torch.device("cpu")), every, "mean")
    assert torch.equal(received(query, key, 0.5, None, every, "mean"), plain)


def test_skipped_tokens_keep_the_score_of_the_block_that_last_computed_them(networks):
    trunk, seen = networks["llama"], []

    class Watching(ByPosition):
        reads = "last"

        def choose(self, block, hidden, scores):
            seen.append(scores.clone())
            return super().choose(block, hidden, scores)

    logits(trunk, Watching([0.0, 0.5, 0.0]))
    skipped = ~static_keep(12, 6)
    assert torch.allclose(seen[0], torch.full((2, 12), 1 / 12))
    assert torch.allclose(seen[1].sum(-1), torch.ones(2))
    assert torch.equal(seen[2][:, skipped], seen[1][:, skipped])
    assert not torch.isclose(seen[2][:, ~skipped], seen[1][:, ~skipped]).any(-1).all()


# The search, exact check 6.


def test_children_have_the_mean_and_stay_in_bounds():
    rng, upper = np.random.default_rng(0), [0.0, 1.0, 1.0, 1.0, 0.5]
    for mean in (0.1, 0.3, 0.6):
        mother, father = (project(rng.normal(mean, 1, 5), mean, upper) for _ in range(2))
        for sd in (0.05, 2.0):
            shares = np.array(child(mother, father, mean, upper, sd, rng))
            assert abs(shares.mean() - mean) < 1e-12
            assert (shares >= 0).all() and (shares <= upper).all()


def test_a_search_finds_what_is_best_and_is_never_worse_than_its_start():
    goal = project([0.0, 0.9, 0.3, 0.0], 0.3, [1.0] * 4)

    def fitness(shares):
        return -sum((a - b) ** 2 for a, b in zip(shares, goal, strict=True))

    start = [(0.3,) * 4]
    settings = Settings(population=12, generations=25, elite=2, mutation=0.05)
    found, value = evolve(fitness, start, 0.3, [1.0] * 4, settings, np.random.default_rng(0))
    assert value == fitness(found) and value > 0.05 * fitness(start[0])
    short = Settings(population=2, generations=1, elite=1, mutation=0.05)
    assert evolve(fitness, [goal], 0.3, [1.0] * 4, short, np.random.default_rng(0))[1] >= fitness(
        project(goal, 0.3, [1.0] * 4)
    )


def test_the_network_is_searched_at_its_last_position(networks):
    frozen = frozen_of(networks["llama"])
    options = {"allocation": "genetic", "population": 4, "generations": 2, "elite": 1}
    routes = rule("static_tokens", **options).prepare(frozen)
    windows = frozen.windows("")
    assert abs(sum(routes.shares) / 3 - 0.3) < 1e-12
    assert last_loss(frozen, ByPosition(routes.shares), windows) <= last_loss(frozen, ByPosition([0.3] * 3), windows)
    protected = rule("static_tokens", **options, protect_first=1).prepare(frozen_of(networks["llama"], seed=1))
    assert protected.shares[0] == 0.0


# Removal, exact check 9.


def test_the_influence_of_an_identity_is_zero(networks):
    x = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    assert influence(x, x).abs().max() < 1e-12
    assert torch.allclose(influence(x, -x), torch.full((2, 5), 2.0, dtype=torch.float64))
    trunk = networks["gpt2"]
    with Routed(trunk, Removing({1: ("block",)})):
        found = influences(trunk.blocks, trunk.logits, [TOKENS])
    assert found[1] < 1e-12 < found[0]


def test_shortgpt_removes_the_block_of_least_influence(networks):
    frozen = frozen_of(networks["gpt2"])
    found = influences(frozen.trunk.blocks, frozen.trunk.logits, [TOKENS])
    routes = rule("shortgpt").prepare(frozen)
    assert routes.shares == [float(i == found.index(min(found))) for i in range(3)]


def test_blockpruner_removes_the_half_that_costs_least(networks):
    frozen = frozen_of(networks["gpt2"], target=0.3)  # 2 of 6 halves
    routes = rule("blockpruner").prepare(frozen)
    assert sum(routes.shares) == 1.0
    one = rule("blockpruner", remove=1).prepare(frozen_of(networks["gpt2"], target=0.0))

    def without(half):
        with torch.no_grad(), Routed(frozen.trunk, Removing({half[0]: (half[1],)})) as routed:
            return score_windows(routed.logits, [(TOKENS, TARGETS)]).every.loss

    halves = [(i, part) for i in range(3) for part in ("attention", "mlp")]
    best = min(halves, key=without)
    assert one.shares == [0.5 * (i == best[0]) for i in range(3)]
    with one.at_end() as applied:
        assert score_windows(applied.logits, [(TOKENS, TARGETS)]).every.loss == pytest.approx(without(best))


# Costs, exact check 8.


def test_the_cost_of_a_block_is_linear_in_the_share_and_square_in_attention():
    assert ratio(0.7, 100.0, 0.0) == pytest.approx(0.7)
    assert ratio(0.7, 0.0, 50.0) == pytest.approx(0.49)
    assert ratio(0.7, 100.0, 50.0) == pytest.approx((0.7 * 100 + 0.49 * 50) / 150)
    ledger = Ledger(1)
    ledger.count(0, 2, ByPosition([0.25]).choose(0, torch.zeros(2, 4, 1), None))
    assert ledger.shares("attention") == ledger.shares("mlp") == [0.75]
    assert ledger.shares("products") == [0.75**2] and ledger.skipped() == [0.25]


# The router, exact checks 2, 3 and 7.


def test_only_too_few_skipped_tokens_cost():
    """L_s of s = (.5, .25) and actual (.4, .3) is 0.1."""
    stays = {0: torch.full((1, 4), 0.6), 1: torch.full((1, 4), 0.7)}
    outputs = (torch.zeros(1, 4, 3), torch.zeros(1, 4, 5))
    found = losses(stays, [0.5, 0.25], outputs, outputs, False)
    assert float(found["sparsity"]) == pytest.approx(0.1)
    assert float(found["distill"]) == 0.0
    # the static router keeps 2 of 4 tokens in block 0 and 3 of 4 in block 1
    guide = [-(2 * np.log(0.6) + 2 * np.log(0.4)) / 4, -(3 * np.log(0.7) + np.log(0.3)) / 4]
    assert float(found["guide"]) == pytest.approx(np.mean(guide), rel=1e-5)


def test_the_distillation_loss_is_of_the_last_state_and_the_next_token():
    generator = torch.Generator().manual_seed(0)
    got = (torch.randn(1, 4, 3, generator=generator), torch.randn(1, 4, 5, generator=generator))
    wanted = (torch.randn(1, 4, 3, generator=generator), torch.randn(1, 4, 5, generator=generator))
    p, q = wanted[1].softmax(-1), got[1].softmax(-1)
    kl = (p * (p / q).log()).sum(-1)
    square = (got[0] - wanted[0]).square().mean(-1)
    assert float(losses({}, [], got, wanted, False)["distill"]) == pytest.approx(float((kl + square).mean()), rel=1e-5)
    assert float(losses({}, [], got, wanted, True)["distill"]) == pytest.approx(float((kl + square)[0, -1]), rel=1e-5)


def test_the_router_has_450_parameters():
    router = make_router(["position", "score", "rank", "share"], 4096, 64)
    assert sum(p.numel() for p in router.parameters()) == 4 * 64 + 64 + 64 * 2 + 2 == 450
    assert router(torch.zeros(2, 7, 4)).shape == (2, 7, 2)


def test_a_hard_decision_has_the_gradient_of_its_probability():
    p = torch.tensor([[0.2, 0.8]], requires_grad=True)
    gate = straight_through(p > 0.5, p)
    assert gate.tolist() == [[0.0, 1.0]]
    (gate * torch.tensor([[3.0, 5.0]])).sum().backward()
    assert p.grad.tolist() == [[3.0, 5.0]]


def test_ranks_count_larger_scores_and_the_earlier_of_equal_ones():
    scores = torch.tensor([[0.1, 0.5, 0.5, 0.2]])
    assert ranks(scores, True).tolist() == [[3.0, 0.0, 1.0, 2.0]]
    assert ranks(scores, False).tolist() == [[0.0, 0.0, 1.0, 2.0]]


def test_the_largest_are_exactly_as_many_and_the_last_is_one_of_them():
    p = torch.tensor([[0.9, 0.8, 0.7, 0.1], [0.5, 0.5, 0.5, 0.5]])
    assert largest(p, 2, True).tolist() == [[True, False, False, True], [True, False, False, True]]
    assert largest(p, 2, False).tolist() == [[True, True, False, False], [True, True, False, False]]


def learned(trunk, reads, exact=False, **options):
    torch.manual_seed(3)
    one = rule("ftp", **{"keep_last": False, **options})
    router = make_router(one.options.inputs, 32, 64)
    for layer in (router[0], router[2]):
        nn.init.normal_(layer.weight, std=2.0)
    return Learned(one, router, [0.3, 0.5, 0.4], reads, exact)


def kept_by(trunk, decider, tokens):
    choices = []

    class Watching(type(decider)):
        def choose(self, block, hidden, scores):
            choices.append(super().choose(block, hidden, scores))
            return choices[-1]

    watching = copy.copy(decider)
    watching.__class__ = Watching
    found = logits(trunk, watching, tokens)
    return torch.stack([choice.keep.expand(tokens.shape) for choice in choices]), found


@pytest.mark.parametrize("inputs", [["position", "score", "rank", "share"], ["hidden", "score", "rank"]])
def test_positions_before_the_last_are_decided_without_later_tokens(trunk, inputs):
    """With its own attention a token's way, and what follows it, are the same whatever comes later."""
    later = TOKENS.clone()
    later[:, 7:] = (later[:, 7:] + 11) % 60
    decider = learned(trunk, "causal", inputs=inputs)
    (keep, found), (other_keep, other) = (kept_by(trunk, decider, tokens) for tokens in (TOKENS, later))
    assert torch.equal(keep[..., :7], other_keep[..., :7])
    assert torch.allclose(found[:, :7], other[:, :7], atol=1e-5)
    assert 0 < keep.float().mean() < 1


def test_with_the_last_query_early_decisions_depend_on_the_end(networks):
    """Allowed for what follows a whole window; so perplexities of all positions never use it."""
    trunk, later = networks["llama"], TOKENS.clone()
    later[:, -1] = (later[:, -1] + 11) % 60
    decider = learned(trunk, "last", exact=True, keep_last=True, inputs=["score", "rank"])
    probabilities = []
    for tokens in (TOKENS, later):
        decider.watched = {}
        logits(trunk, decider, tokens)
        probabilities.append(decider.watched[1][:, :-1])
    assert not torch.equal(*probabilities)


def test_ftp_scores_other_positions_causally(networks):
    frozen = frozen_of(networks["llama"])
    options = {"steps": 2, "population": 3, "generations": 1, "elite": 1, "refine": 1}
    before = {name: value.clone() for name, value in frozen.trunk.model.state_dict().items()}
    routes = rule("ftp", **options, select="topk").prepare(frozen)
    with routes.at_end() as applied:
        assert applied.decider.reads == "last" and applied.decider.exact
    with routes.everywhere() as applied:
        assert applied.decider.reads == "causal" and not applied.decider.exact
    assert routes.measures["router_parameters"] == 450
    assert abs(sum(routes.shares) / 3 - 0.3) < 1e-12
    assert all(torch.equal(value, before[name]) for name, value in frozen.trunk.model.state_dict().items())
    assert rule("ftp", **options, score_from="causal", select="threshold").prepare(frozen).everywhere is None


def test_the_router_learns_the_static_order(networks):
    """With the guide alone, and its weight held by many steps, it decides as the static router does."""
    frozen = frozen_of(networks["llama"], target=0.5)
    one = rule(
        "ftp", steps=150, lr=1e-2, sparsity_loss=0.0, distill=0.0, allocation="uniform", inputs=["position", "share"],
        keep_last=False,
    )  # fmt: skip
    routes = one.prepare(frozen)
    with routes.at_end() as applied:
        keep, _ = kept_by(frozen.trunk, applied.decider, TOKENS)
    assert (keep == static_keep(12, 6)).float().mean() > 0.9


def test_exact_choices_are_as_many_as_asked(networks):
    trunk = networks["llama"]
    keep, _ = kept_by(trunk, learned(trunk, "last", exact=True), TOKENS)
    assert keep.sum(-1).tolist() == [[kept_count(12, share)] * 2 for share in (0.3, 0.5, 0.4)]


# Faults.


@pytest.mark.parametrize(
    ("name", "options", "depth", "target", "words"),
    [
        ("shortgpt", {"remove": 3}, 3, None, "asks for 3 of 3 blocks"),
        ("blockpruner", {"remove": 9}, 3, None, "asks for 9 of 6 halves of blocks"),
        ("shortgpt", {}, 3, 0.1, "rounds to none of 3 blocks"),
        ("static_tokens", {"shares": [0.1, 0.2]}, 3, None, "names 2 blocks, and the network has 3"),
        ("static_tokens", {"shares": [0.1, 0.2, 0.0], "protect_first": 1}, 3, None, "block 0, which routing.protect_first"),
        ("static_tokens", {"shares": [0.0, 0.2, 0.1], "protect_last": 1}, 3, None, "block 2, which routing.protect_last"),
        ("ftp", {"protect_first": 2, "protect_last": 1}, 3, 0.3, "3 of 3 blocks: none is left to skip"),
        ("ftp", {"protect_first": 1}, 3, 0.7, "more than the 2 of 3 blocks that may be skipped can give"),
    ],
)  # fmt: skip
def test_what_does_not_fit_a_network_is_said(name, options, depth, target, words):
    found = rule(name, **options).unfit(depth, target)
    assert len(found) == 1 and words in str(found[0])


def test_what_does_not_fit_is_said_where_only_the_network_tells(networks):
    with pytest.raises(ConfigError, match="names 2 blocks"):
        rule("static_tokens", shares=[0.1, 0.2]).prepare(frozen_of(networks["opt"], target=0.0))
    with pytest.raises(ConfigError, match="asks for 5 of 3"):
        rule("shortgpt", remove=5).prepare(frozen_of(networks["opt"], target=0.0))


def test_a_search_reads_its_first_generation_again_with_the_router():
    once, again = (rule("ftp", population=6, generations=2, elite=2, refine=n).read(10, 3) for n in (0, 3))
    assert again - once == 10 * (6 + 3 * (6 - 2))


def test_windows_may_overlap():
    text = torch.arange(21)
    assert draw(text, 8, None, 0, "test").tolist() == [0, 8]
    assert draw(text, 8, None, 0, "test", 4).tolist() == [0, 4, 8, 12]
    assert draw(text, 8, None, 0, "test", 30).tolist() == [0]
    assert draw(text, 21, None, 0, "test").tolist() == []
