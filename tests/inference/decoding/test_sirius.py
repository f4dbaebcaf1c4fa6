"""Sirius on networks of a few thousand weights: the exact checks of its dossier, and the loop against one written plainly."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from sparselab.cli import application
from sparselab.core.errors import ConfigError
from sparselab.inference.activation.frozen.contextual import prompt_statistic
from sparselab.inference.activation.frozen.masking import Masking
from sparselab.inference.activation.frozen.network import Network
from sparselab.inference.activation.rule import ACTIVATIONS
from sparselab.inference.decoding.cached import correcting
from sparselab.inference.decoding.cached.correcting import accepted, extended
from sparselab.inference.decoding.cached.reader import Reader, Rules
from sparselab.inference.decoding.cached.writing import Writing, write_all
from sparselab.inference.decoding.decoding import DECODINGS
from sparselab.inputs.data.prompts import Prompt
from sparselab.running.planning import plan_of
from sparselab.storage import record as records

DRAWN = torch.Generator().manual_seed(1)
PROMPTS = [Prompt(torch.randint(60, (length,), generator=DRAWN)) for length in (7, 12)]
FF = 50


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    sizes = {"vocab_size": 60, "hidden_size": 32, "intermediate_size": FF, "num_hidden_layers": 2}
    config = LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2, bos_token_id=None, eos_token_id=None)
    made = LlamaForCausalLM(config)
    for parameter in made.parameters():
        if parameter.ndim > 1:
            parameter.data.mul_(4)
    return made.eval().requires_grad_(False)


def loop(name="sirius", **options):
    cls = DECODINGS[name]
    return cls(cls.Options(tokens=20, **({"period": 4} if name == "sirius" else {}) | options))


@contextmanager
def ruled(model, name, level):
    """The network under a rule on its neurons."""
    cls = ACTIVATIONS[name]
    rule = cls(cls.Options())
    windows = [torch.randint(60, (1, 16), generator=torch.Generator().manual_seed(2))]
    network = Network(model, lambda t: model(t).logits, lambda purpose, size: windows, level, lambda where: None)
    with torch.no_grad():
        active = rule.prepare(network)
        with Masking(rule, active.places, active.gates, rule.options.dense_prefix) as masking:
            yield Rules(masking)


def texts(model, rules, prompts=PROMPTS, seed=0, **options):
    found, passes = write_all(loop(**options), model, rules, prompts, seed, lambda where: None)
    return found, passes


def plain(model, rules=None, **options):
    found, _ = write_all(loop("plain", **options), model, rules or Rules(), PROMPTS, 0, lambda where: None)
    return [text.tokens for text in found]


RULES = pytest.mark.parametrize("rule", ["cats_topk", "griffin"])


@RULES
def test_without_zeros_everything_is_accepted_and_the_text_is_the_dense_one(model, rule):
    """Dossier: spr = 1, r <= 1/V, w = 1."""
    with ruled(model, rule, 0.0) as rules:
        found, passes = texts(model, rules, threshold=1 / 60)
    assert [text.tokens for text in found] == plain(model)
    for text in found:
        assert (
            text.counts["whole_advanced"] == 4 * text.counts["whole_checks"] == 20 and text.counts["corrections"] == 0
        )
    assert passes.sparse == 2 * 5 * 3 and passes.dense == 2 * 5 * 4


@RULES
@pytest.mark.parametrize("temperature", [0.0, 1.0], ids=["greedy", "sampled"])
@pytest.mark.parametrize("width", [1, 3])
def test_a_threshold_above_one_gives_the_dense_text_token_by_token(model, rule, temperature, width):
    """Dossier: r > 1: a = 0 always, AAL = 1, whatever the rule leaves; also where tokens are drawn."""
    if temperature and width > 1:
        return
    with ruled(model, rule, 0.8) as rules:
        found, _ = texts(model, rules, threshold=1.5, temperature=temperature, width=width)
    assert [text.tokens for text in found] == plain(model, temperature=temperature)
    for text in found:
        assert text.counts["whole_advanced"] == text.counts["whole_checks"] == text.counts["corrections"] == 19
        assert text.counts["rejected"] == text.counts["whole_drafted"] == 3 * 19


@RULES
@pytest.mark.parametrize("width", [1, 3])
def test_a_threshold_of_zero_rejects_nothing(model, rule, width):
    """Dossier: r = 0: AAL = P."""
    with ruled(model, rule, 0.8) as rules:
        found, _ = texts(model, rules, threshold=0.0, width=width)
    for text in found:
        assert text.counts["whole_advanced"] == 4 * text.counts["whole_checks"] and len(text.tokens) == 20
        assert text.counts["corrections"] == 0


def test_drafts_that_are_drawn_are_the_dense_ones_where_nothing_is_zero(model):
    with ruled(model, "griffin", 0.0) as rules:
        found, _ = texts(model, rules, threshold=0.0, temperature=1.0)
    assert [text.tokens for text in found] == plain(model, temperature=1.0)


@torch.no_grad()
def by_hand(model, rules, prompt, period, threshold, count):
    """The loop for one branch with no cache at all: every pass reads the whole text (and sparse keys never come to it)."""

    def read(ids, mode):
        rules.set(mode)
        return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]

    ids = prompt.tokens.tolist()
    begun = len(ids)
    ids.append(int(read(ids, "watch")[-1].argmax()))
    while len(ids) - begun < count:
        chunk = ids[:]
        for _ in range(period - 1):
            chunk.append(int(read_sparsely(model, rules, ids[:-1], chunk[len(ids) - 1 :]).argmax()))
        logits = read(chunk, "off")
        a = 0
        while a < period - 1:
            q = (logits[len(ids) - 1 + a] / 0.6).softmax(-1)[chunk[len(ids) + a]]
            if q < threshold:
                break
            a += 1
        kept = chunk[: len(ids) + a]
        ids = [*kept, int(logits[len(kept) - 1].argmax())]
    return ids[begun : begun + count]


def read_sparsely(model, rules, dense, sparse):
    """Logits after ``sparse``, read token by token under the rules behind a densely read beginning."""
    reader = Reader(model, rules)
    rules.set("off")
    model(input_ids=torch.tensor([dense]), past_key_values=reader.cache, use_cache=True)
    for token in sparse:
        logits = reader.read([[token]])
    return logits[0, -1]


@RULES
def test_one_branch_is_the_plain_loop_token_for_token(model, rule):
    """Dossier: w = 1 tree code == the plain loop; and the rewritten cache is that of dense passes."""
    corrections = 0
    for threshold in (0.3, 0.9):
        with ruled(model, rule, 0.7) as rules:
            found, _ = texts(model, rules, threshold=threshold)
            corrections += sum(text.counts["corrections"] for text in found)
            hand = []
            for prompt in PROMPTS:
                reader = Reader(model, rules)
                reader.start(prompt.tokens, "watch")  # what GRIFFIN chooses
                hand.append(by_hand(model, rules, prompt, 4, threshold, 20))
        assert [text.tokens for text in found] == hand
    assert corrections > 0


@pytest.mark.parametrize(("rewrite", "width"), [(True, 1), (True, 3), (False, 1), (False, 3)])
@torch.no_grad()
def test_after_a_check_the_cache_is_a_dense_one(model, monkeypatch, rewrite, width):
    """Dossier: the rows of accepted positions equal those of a dense forward, and their number is len(ids) - 1."""
    seen = []
    whole = correcting.draft

    def draft(rules, writing, options, tokens, pending):
        rules.set("off")
        seen.append(len(tokens))
        ids = torch.cat((writing.prompt, torch.tensor(tokens)))
        reader = writing.reader
        assert reader.length == len(ids) - len(pending) and (len(pending) == 1 or not rewrite)
        dense = Reader(model, Rules())
        dense.start(ids[: reader.length], "off")
        same = all(
            torch.allclose(own.keys, other.keys, atol=1e-4) and torch.allclose(own.values, other.values, atol=1e-4)
            for own, other in zip(reader.cache.layers, dense.cache.layers, strict=True)
        )
        assert same == (rewrite or len(tokens) == 1)
        return whole(writing, options, tokens, pending)

    with ruled(model, "cats_topk", 0.8) as rules:
        monkeypatch.setattr(correcting, "draft", partial(draft, rules))
        texts(model, rules, threshold=0.05, width=width, rewrite=rewrite)
    assert len(seen) > 8


def test_effective_density_of_the_papers_rows():
    """Dossier: ((P - 1) rho + 1) / AAL."""
    of = loop(period=16)
    for rho, advance, density in ((0.65, 15.22, 0.7063), (0.76, 15.37, 0.8068), (0.58, 14.76, 0.6572), (1.0, 16, 1.0)):
        counts = {"whole_checks": 100, "whole_advanced": 100 * advance, "whole_drafted": 1500, "corrections": 10}
        found = of.metrics(counts, rho)
        assert found["effective_density"] == pytest.approx(density, abs=5e-5)
        assert found["advance"] == pytest.approx(advance) and found["advance_share"] == pytest.approx(advance / 16)
        assert found["corrected_share"] == pytest.approx(10 / (100 * advance))


def test_densities_of_llama_3():
    """Dossier: rho_C = 1 - (1 - spr) F and rho_F = 1 - (1 - spr) 2/3 F with F = .702."""
    ff, all_params = 3 * 32 * 4096 * 14336, 8.030e9
    for keep, c, f in ((0.5, 0.649, 0.766), (0.4, 0.579, 0.719)):
        assert 1 - (1 - keep) * ff / all_params == pytest.approx(c, abs=1e-3)
        assert 1 - (1 - keep) * 2 / 3 * ff / all_params == pytest.approx(f, abs=1e-3)


def test_griffins_statistic():
    """Dossier: Z = [[3, 4], [0, 5]] gives (.6, 1.2806), and half of the neurons is neuron 1."""
    z = torch.tensor([[3.0, 4.0], [0.0, 5.0]])
    torch.testing.assert_close(prompt_statistic(z), torch.tensor([0.6, 1.280625]))
    assert prompt_statistic(torch.zeros(3, 2)).tolist() == [0, 0]


@torch.no_grad()
def test_griffin_is_the_network_with_its_neurons_cut_out(model):
    """Dossier, method: rows of gate and up and columns of down are physically cut, once, by the prompt."""
    prompt = PROMPTS[1].tokens
    with ruled(model, "griffin", 0.5) as rules:
        reader = Reader(model, rules)
        reader.start(prompt, "watch")
        reader.read([[5]])
        under = reader.read([[9]])[0, -1]
        again = Reader(model, rules)
        again.start(prompt[:1], "watch")  # one token: nothing to choose by, and all stays dense
        short = again.read([[9]])[0, -1]
    torch.testing.assert_close(
        short, model(input_ids=torch.tensor([[int(prompt[0]), 9]])).logits[0, -1], atol=1e-4, rtol=1e-4
    )
    products, downs = [], [layer.mlp.down_proj for layer in model.model.layers]
    handles = [down.register_forward_pre_hook(lambda m, args: products.append(args[0][0])) for down in downs]
    cached = model(input_ids=prompt[None], use_cache=True).past_key_values
    for handle in handles:
        handle.remove()
    kept = [(z / z.norm(dim=-1, keepdim=True)).norm(dim=0).topk(FF // 2).indices for z in products]

    def cut(mlp, rows):
        gate, up, down = mlp.gate_proj.weight[rows], mlp.up_proj.weight[rows], mlp.down_proj.weight[:, rows]
        return lambda m, args, output: (torch.nn.functional.silu(args[0] @ gate.T) * (args[0] @ up.T)) @ down.T

    handles = [layer.mlp.register_forward_hook(cut(layer.mlp, rows))
               for layer, rows in zip(model.model.layers, kept, strict=True)]  # fmt: skip
    for token in (5, 9):
        expected = model(input_ids=torch.tensor([[token]]), past_key_values=cached, use_cache=True).logits[0, -1]
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(under, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_text_of_one_token_knows_nothing_of_the_one_before(model):
    """``decoding.prompt=sparse``: GRIFFIN has nothing to choose by, and everything stays dense."""
    with ruled(model, "griffin", 0.5) as rules:
        Reader(model, rules).start(PROMPTS[1].tokens, "on")
        again = Reader(model, rules)
        again.start(PROMPTS[0].tokens[:1], "on")
        short = again.read([[9]])[0, -1]
    dense = model(input_ids=torch.tensor([[int(PROMPTS[0].tokens[0]), 9]])).logits[0, -1]
    torch.testing.assert_close(short, dense, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("level", [0.5, 0.33])
@torch.no_grad()
def test_so_many_zeros_of_every_token(model, level):
    """Dossier: exactly int(d_ff (1 - spr)) zeros per token; the gate itself is not skipped in the density."""
    zeros = []
    with ruled(model, "cats_topk", level) as rules:
        handle = model.model.layers[0].mlp.down_proj.register_forward_pre_hook(
            lambda m, args: zeros.append((args[0] == 0).sum(-1))
        )
        model(input_ids=PROMPTS[1].tokens[None])
        handle.remove()
        place = rules.masking.places[0]
    assert set(zeros[0].flatten().tolist()) == {int(FF * level)}
    assert place.params == 2 * FF * 32
    with ruled(model, "griffin", level) as rules:
        assert rules.masking.places[0].params == 3 * FF * 32


@torch.no_grad()
def test_branches_share_a_mask(model):
    zeros = {}
    with ruled(model, "cats_topk", 0.5) as rules:
        handle = model.model.layers[0].mlp.down_proj.register_forward_pre_hook(
            lambda m, args: zeros.update({rules.masking.shared: args[0] == 0})
        )
        for shared in (False, True):
            rules.share(shared)
            model(input_ids=torch.tensor([[3], [8], [40]]))
        handle.remove()
    assert (zeros[True] == zeros[True][:1]).all() and not (zeros[False] == zeros[False][:1]).all()
    assert (zeros[True].sum(-1) == FF // 2).all()


@RULES
def test_several_tokens_at_once_are_all_under_the_rules(model, rule):
    """Without rewriting a draft may begin with two tokens; neither stays dense, and GRIFFIN's choice stays the prompt's."""
    with ruled(model, rule, 0.5) as rules:
        found, _ = texts(model, rules, threshold=0.0, rewrite=False)
        counts = rules.masking.counts.values()
    assert all(text.counts["whole_checks"] > 2 for text in found)
    assert all(count.gated == count.read and count.gated_sparsity == 0.5 for count in counts)


def test_acceptance_ends_at_the_first_unlikely_token():
    likelihoods = torch.tensor([[[0.5, 0.4, 0.1]] * 4, [[0.05, 0.9, 0.05]] * 4])
    tokens = torch.tensor([[0, 1, 2, 0], [1, 1, 1, 0]])
    assert accepted(likelihoods.log(), tokens, 0.2).tolist() == [2, 3]
    assert accepted(likelihoods.log(), tokens, 0.4).tolist() == [2, 3] and accepted(
        likelihoods.log(), tokens, 0
    ).tolist() == [4, 4]


def test_branches_go_on_by_their_rank():
    scores = torch.tensor([[0.6, 0.3, 0.1], [0.5, 0.2, 0.3]]).log()
    found = extended(scores, [0.0, 0.5], 2, None, ())
    assert [(row, token) for _, row, token in found] == [(1, 0), (0, 0)]
    found = extended(scores, [0.0, 0.0], 2, None, {0})  # of the two likeliest one ends, and offers nothing in its place
    assert [(row, token) for _, row, token in found] == [(0, 1), (1, 2)]
    found = extended(scores, [0.0, -9.0], 2, 0.55, ())  # the first branch's best is likely enough to stand alone
    assert [(row, token) for _, row, token in found] == [(0, 0), (1, 0)]
    assert extended(scores, [0.0, 0.0], 1, None, {0}) == []


def test_only_the_dense_network_ends_a_text(model):
    """Dossier, pitfalls: drafts that want to end are checked at once, and the dense network decides."""
    dense = plain(model)
    end = dense[0][9]
    ends = frozenset([end])
    until = dense[0][: dense[0].index(end) + 1]
    for width in (1, 3):
        with ruled(model, "cats_topk", 0.0) as rules:
            one = loop(threshold=0.0 if width == 1 else 1.5, width=width)
            reader = Reader(model, rules)
            found = one.write(Writing(one.options, reader, PROMPTS[0].tokens, (0, 0), ends))
        assert found.tokens == until
        assert all(token not in ends for token in found.tokens[:-1])


@pytest.fixture
def cell(tmp_path):
    def run(*overrides):
        words = [
            "dataset=stdlib",
            "dataset.max_bytes=100000",
            "dataset.block=16",
            "engine.windows=2",
            "decoding.prompts=2",
        ]
        words += ["decoding.tokens=12", "model=llama_tiny", "model.width=32", "model.depth=2", "model.heads=4"]
        words += ["model.context=64", *overrides, f"runs_dir={tmp_path}", "trainer.threads=1"]
        plan = plan_of(words)
        assert application.main(words) == 0
        return records.read(plan.folder, plan.id)["metrics"]

    return run


@pytest.mark.parametrize(
    "rule",
    [
        ["activation=griffin", "sparsity=0.5", "decoding.width=3", "decoding.branch_stop=0.5"],
        ["activation=wina", "sparsity=0.5"],
        ["attention=streaming", "sparsity=0.5", "attention.block_k=4", "engine.phase=decode"],
    ],
    ids=lambda rule: rule[0],
)
def test_a_strict_threshold_makes_any_rule_the_dense_network(cell, rule):
    metrics = cell("decoding=sirius", "decoding.period=4", "decoding.threshold=2", *rule)
    assert metrics["test.agreement"] == metrics["test.identical"] == 1 and metrics["test.advance"] == 1
    assert metrics["test.effective_density"] == pytest.approx(3 * metrics["test.density"] + 1)
    assert metrics["test.corrected_share"] == metrics["test.taken_back"] == 1
    assert abs(metrics["test.loss_rise"]) < 1e-5


@pytest.mark.parametrize("rule", ["griffin", "cats_topk"])
def test_windows_of_text_are_scored_under_both_rules(tmp_path, rule):
    words = ["dataset=stdlib", "dataset.max_bytes=100000", "dataset.block=16", "engine.windows=2", "engine.tokens=64"]
    words += ["model=llama_tiny", "model.width=32", "model.depth=2", "model.heads=4", f"runs_dir={tmp_path}"]
    words += [f"activation={rule}", "sparsity=0.5", "trainer.threads=1"]
    assert application.main(words) == 0
    plan = plan_of(words)
    metrics = records.read(plan.folder, plan.id)["metrics"]
    assert metrics["activation.gated_sparsity"] == pytest.approx(0.5)
    assert metrics["activation.sparsity"] == pytest.approx(0.25 if rule == "griffin" else 0.5)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["decoding=sirius"], "decoding=sirius: needs a rule under which the network drafts — add activation=griffin"),
        (
            ["decoding=sirius", "activation=griffin", "sparsity=0.5", "decoding.width=2", "decoding.temperature=0.5"],
            "decoding.width=2: branches are ranked by likelihood, and drawn tokens are not",
        ),
        (["decoding=sirius", "activation=griffin", "decoding.period=1"], "decoding.period=1: input should be greater"),
        (
            ["activation=griffin", "activation.dense_prefix=0"],
            "activation.dense_prefix=0: input should be greater than 0",
        ),
        (["activation=griffin", "sparsity=0.5", "model=gpt_tiny"], "activation=griffin: has gates to rank only where"),
    ],
)
def test_bad_requests_are_refused_before_anything_is_loaded(words, line):
    with pytest.raises(ConfigError) as refused:
        plan_of(["dataset=stdlib", "dataset.max_bytes=100000", "dataset.block=32", "model=llama_tiny", *words])
    assert any(str(issue).startswith(line) for issue in refused.value.issues), list(map(str, refused.value.issues))
