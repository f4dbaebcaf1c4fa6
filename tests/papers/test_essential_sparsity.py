"""Essential sparsity (arXiv 2306.03805): what its dossier says can be checked exactly, on tensors and on whole cells.

The eps rule is tested with its claim (test_essential_claim.py), the cosine with its metric (test_weight_metrics.py).
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import tensor

from sparselab.cli import application
from sparselab.core.model_spec import Layer
from sparselab.core.sparsity import Sparsity
from sparselab.running.planning import engine_of, plan_of
from sparselab.storage.tensors import load_masks
from sparselab.weights.distributions import DISTRIBUTIONS
from sparselab.weights.patterns.pattern import Pattern

W = tensor([[0.1, -0.5, 0.2, 0.9], [-0.05, 0.3, -0.7, 0.4]])


TEXT = {
    "model": "llama_tiny", "model.width": 16, "model.depth": 1, "model.heads": 2, "model.ff": 24, "dataset": "stdlib",
    "dataset.max_bytes": 60000, "dataset.block": 16, "dataset.limit_test": 200, "optim": "adamw", "optim.lr": 1e-2,
    "trainer.max_epochs": "null", "trainer.batch_size": 4, "trainer.evals": 0, "trainer.threads": 1,
    "trainer.precision": '"32"', "trainer.progress": "none",
}  # fmt: skip


def masked(sparsity, weight=W):
    pattern = Pattern.of(Sparsity.parse(sparsity))
    density = 0.0 if pattern.sparsity.fixed_count else pattern.sparsity.density
    return weight * pattern.mask(weight.abs(), density)


def ranked(weights, sparsity):
    """The masks of one ranking over all layers."""
    rule = DISTRIBUTIONS["global"]
    kept = rule(rule.Options()).allocate_scored({name: w.abs() for name, w in weights.items()}, 1 - sparsity)
    pattern = Pattern.of(Sparsity.parse(0.5))
    return {name: pattern.mask(w.abs(), kept[name] / w.numel()) for name, w in weights.items()}


def test_omp_and_n_of_m_by_hand():
    """Dossier: at 50 % {.1, .2, -.05, .3} go; 2:4 keeps [-.5, .9] and [-.7, .4]; removing 1 of 4 drops .1 and -.05."""
    kept = [[0, -0.5, 0, 0.9], [0, 0, -0.7, 0.4]]
    assert torch.equal(masked(0.5), tensor(kept))
    assert torch.equal(masked("2:4"), tensor(kept))
    assert torch.equal(masked("3:4"), tensor([[0, -0.5, 0.2, 0.9], [0, 0.3, -0.7, 0.4]]))


def test_omp_is_global_and_not_by_layer():
    """Dossier: of [1, 2] and [3, 4] at 50 % the first layer is emptied, the second untouched."""
    masks = ranked({"a": tensor([[1.0, 2.0]]), "b": tensor([[3.0, 4.0]])}, 0.5)
    assert not masks["a"].any() and masks["b"].all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.01, 0.98), st.floats(0.01, 0.98), st.booleans())
def test_masks_are_nested(seed, one, other, tied):
    """Dossier: the mask of a higher sparsity is a subset of a lower one's, also where magnitudes tie."""
    generator = torch.Generator().manual_seed(seed)
    weights = {n: torch.randn(s, generator=generator) for n, s in (("a", (6, 5)), ("b", (4, 9)), ("c", (7, 3)))}
    if tied:
        weights = {name: weight.round() for name, weight in weights.items()}
    low, high = (ranked(weights, sparsity) for sparsity in sorted((one, other)))
    assert all(bool((high[name] <= low[name]).all()) for name in weights)


BERT = {"model_type": "bert", "is_decoder": True, "hidden_size": 768, "num_hidden_layers": 2, "num_attention_heads": 12,
        "intermediate_size": 3072, "vocab_size": 30522}  # fmt: skip
OPT = {"model_type": "opt", "hidden_size": 1024, "num_hidden_layers": 2, "num_attention_heads": 16, "ffn_dim": 4096,
       "vocab_size": 50272, "word_embed_proj_dim": 1024}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "selector", "depth", "weights"),
    [(BERT, "*.layer.*", 12, 84_934_656), (OPT, "*.layers.*", 24, 301_989_888)],
    ids=["bert", "opt"],
)
def test_the_number_of_prunable_weights(config, selector, depth, weights, tmp_path):
    """Dossier: 12 (4 x 768^2 + 2 x 768 x 3072) of BERT-base, 24 (4 x 1024^2 + 2 x 1024 x 4096) of OPT-350M's shape.

    Counted in networks of two of their blocks, six matrices each, which are traced sooner than twelve or twenty-four.
    """
    (tmp_path / "config.json").write_text(json.dumps(config))
    plan = plan_of(
        ["model=hf", f"model.path={tmp_path}", "model.start=config", "model.tokenizer=any", "dataset=stdlib",
         "dataset.max_bytes=60000", "dataset.tokenizer=bytes", "dataset.block=32", "method=magnitude", "sparsity=0.5",
         f"targets.include=['{selector}']"]
    )  # fmt: skip
    engine_of(plan.config).trace(plan)
    layers = plan.parts.layers
    assert sum(layer.numel for layer in layers) * depth == 2 * weights and len(layers) == 12


def test_pruned_weights_stay_zero_under_adamw_with_decay(tmp_path):
    """Dossier: after masked fine-tuning with AdamW pruned weights are exactly 0, and the mask is the one-shot one."""
    words = [
        "model=mlp", "model.hidden=[32]", "targets.exclude=[]", "optim=adamw", "optim.weight_decay=0.1", "distribution=global",
        "method=magnitude", "schedule.at=0", "sparsity=0.6", "trainer.max_epochs=null", 'trainer.precision="32"',
        f"runs_dir={tmp_path}",
    ]  # fmt: skip
    found = []
    for steps in (0, 5):
        asked = [*words, f"trainer.max_steps={steps}"]
        assert application.main(asked) == 0
        folder = Path(plan_of(asked).folder)
        found.append((load_masks(folder / "masks.safetensors"), load_file(folder / "model.safetensors")))
        assert json.loads((folder / "record.json").read_text())["sparsity"]["realised"] == pytest.approx(0.6, abs=1e-4)
    (before, untrained), (after, trained) = found
    for name, mask in after.items():
        assert torch.equal(mask, before[name]) and not trained[name][~mask].any()
        assert not torch.equal(trained[name], untrained[name])


def test_exempt_are_embeddings_head_norms_and_biases():
    """Dossier: only the matrices of the blocks are pruned (stories260K's shape: 226,560 weights)."""
    plan = plan_of(
        ["model=llama_tiny", "model.width=64", "model.depth=5", "model.heads=8", "model.kv_heads=4", "model.ff=172",
         "dataset=stdlib", "dataset.max_bytes=60000", "dataset.block=64", "method=magnitude", "sparsity=0.5"]
    )  # fmt: skip
    layers: list[Layer] = plan.parts.layers
    assert sum(layer.numel for layer in layers) == 226_560
    assert all(".layers." in layer.name for layer in layers)


def test_a_lottery_ticket_returns_to_the_pretrained_weights_before_each_round(tmp_path):
    """Dossier, LTP: survivors are reset to theta_p, and with them all that has no mask; the masks are nested."""
    parent = {**TEXT, "method": "dense", "trainer.max_steps": 3}
    pretrained = f"{{cell: {{{', '.join(f'{key}: {value}' for key, value in parent.items())}}}}}"
    words = [
        *(f"{key}={value}" for key, value in TEXT.items()), f"runs_dir={tmp_path}", f"model.weights={pretrained}", "method=imp",
        "schedule=rounds", "schedule.rounds=2", "optim.cycles=3", "distribution=global", "method.rewind=0.0", "sparsity=0.5",
        "trainer.max_steps=9", "trainer.keep_at=[0,3,6]",
    ]  # fmt: skip
    assert application.main(words) == 0
    folder = Path(plan_of(words).folder)
    start, *rounds = (load_file(folder / f"model@{at}.safetensors") for at in (0, 3, 6))
    masks = load_masks(folder / "masks.safetensors")
    kept = [{name: weights[name] != 0 for name in masks} for weights in rounds]
    for weights, live in zip(rounds, kept, strict=True):
        for name, values in weights.items():
            assert torch.equal(values, start[name] * live[name] if name in live else start[name])
    assert all(bool((masks[name] <= kept[0][name]).all()) and torch.equal(masks[name], kept[1][name]) for name in masks)
    assert sum(int(m.sum()) for m in kept[0].values()) > sum(int(m.sum()) for m in kept[1].values())
