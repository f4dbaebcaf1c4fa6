"""Activations of a language model as data: what is recorded, how it is scaled, what stands in its place, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sparselab.core.data_types import Activations
from sparselab.core.errors import ConfigError
from sparselab.inputs.data import recorded
from sparselab.inputs.data.dataset import DATASETS
from sparselab.inputs.data.recorded import Scale
from sparselab.running.planning import plan_of

torch.set_num_threads(1)

NET = {"name": "gpt", "width": 8, "depth": 3, "heads": 2}
TEXT = {"name": "tinyshakespeare", "block": 16}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A text, and a cache that begins empty."""
    (tmp_path / "data" / "text").mkdir(parents=True)
    (tmp_path / "data" / "text" / "tinyshakespeare.txt").write_text("To be, or not to be: that is the question.\n" * 60)
    monkeypatch.setenv("SPARSELAB_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("SPARSELAB_CACHE", str(tmp_path / "cache"))
    return tmp_path


def dataset(**options):
    cls = DATASETS["activations"]
    return cls(cls.Options(**{"model": NET, "text": TEXT, "layer": 2, **options}))


def outputs(made, inputs):
    """The second block's output for windows, by the library itself."""
    network = made.recorder.network
    with torch.no_grad():
        return network(input_ids=inputs, output_hidden_states=True).hidden_states[2].flatten(0, 1)


def test_what_is_recorded_is_what_the_block_puts_out():
    made = dataset(normalise="none", test=40).load()
    inputs, targets = made.recorder.windows("test", 40)
    assert inputs.shape == (3, 16) and torch.equal(inputs[:, 1:], targets[:, :-1])
    assert torch.allclose(made.parts["test"], outputs(made, inputs)[:40], atol=1e-6)
    text = bytes(made.recorder.splits.test.tolist())
    assert all(bytes(row.tolist()) in text for row in inputs)


def test_the_spec_says_what_is_loaded():
    one = dataset(train=100, val=20)
    spec, made = one.spec(), one.load()
    assert spec.inputs == spec.targets == Activations(8) and spec.title == "tinyshakespeare, block 2"
    assert {part: len(vectors) for part, vectors in made.parts.items()} == {
        "train": spec.train, "val": spec.val, "test": spec.test,
    }  # fmt: skip
    assert (spec.train, spec.val) == (100, 20) and spec.test % 16 == 0
    assert dataset(layer=1).spec().fingerprint != spec.fingerprint


def test_windows_are_drawn_once_and_differ_between_splits_and_sizes():
    made = dataset().load().recorder
    whole, few = made.windows("train", 320)[0], made.windows("train", 32)[0]
    assert len(few) == 2 and all(any(torch.equal(a, b) for b in whole) for a in few)
    assert torch.equal(made.windows("train", 320)[0], whole)


@pytest.mark.parametrize("normalise", ["each", "all", "none"])
def test_scaling_and_back(normalise):
    raw = torch.randn(50, 8) * torch.arange(1, 9) + 3
    scale = Scale.of(raw, normalise)
    there, *own = scale.there(raw)
    assert torch.allclose(scale.back(there, *own), raw, atol=1e-4)
    if normalise != "none":
        assert torch.allclose(there.mean(0), torch.zeros(8), atol=1e-5)
        assert float(there.square().mean()) == pytest.approx(1, rel=1e-5)
    if normalise == "each":
        centred = raw - raw.mean(1, keepdim=True)
        steady = centred / centred.square().mean(1, keepdim=True).sqrt()
        assert torch.allclose(there * scale.size + scale.mean, steady, atol=1e-5)


def test_the_cache_gives_the_same_vectors_and_the_network_is_not_asked_again(monkeypatch):
    first = dataset().load()
    monkeypatch.setattr(recorded.Recorder, "record", lambda *_: pytest.fail("recorded again"))
    again = dataset().load()
    assert again.content == first.content
    with pytest.raises(pytest.fail.Exception, match="recorded again"):
        dataset(layer=3).load()


def test_a_network_without_weights_is_drawn_by_numbers_of_its_own():
    torch.manual_seed(1)
    one = dataset().load().content
    state = torch.get_rng_state()
    torch.manual_seed(2)
    assert dataset(layer=2).load().content == one
    dataset().load()
    torch.manual_seed(1)
    dataset().load()
    assert torch.equal(torch.get_rng_state(), state)


def test_what_is_put_in_the_place_of_the_block():
    """The vectors themselves change nothing, zeros are those of the library's own network without what came before."""
    made = dataset().load()
    clean = made.nats("test", 40)
    inputs, targets = made.recorder.windows("test", 40)
    with torch.no_grad():
        logits = made.recorder.network(input_ids=inputs).logits
    assert clean == pytest.approx(
        float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())), rel=1e-5
    )
    assert made.nats("test", 40, lambda vectors: vectors) == pytest.approx(clean, rel=1e-5)
    assert made.nats("test", 40, lambda vectors: -vectors) != pytest.approx(clean, rel=1e-3)
    network, seen = made.recorder.network, []
    network.transformer.h[2].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    made.recorder.nats("test", 40, torch.zeros_like)
    assert not torch.cat(seen).any()


def test_batches_are_pairs_of_the_same_vectors():
    made = dataset(train=64).load()
    loader = made.loader("train", 16, 0)
    batches = list(loader)
    assert all(given is wanted for given, wanted in batches) and len(batches) == 4
    rows = np.concatenate([given.numpy() for given, _ in batches])
    assert sorted(map(tuple, rows)) == sorted(map(tuple, made.parts["train"].numpy()))
    test = torch.cat([given for given, _ in made.loader("test", 16, 0)])
    assert torch.equal(test, made.parts["test"])


def said(*more):
    return [
        "model=sae", "method=dense", "dataset=activations", "model.allocation={name: topk, k: 2}", "model.features=16",
        *more,
    ]  # fmt: skip


def words(net="{name: gpt, width: 8, depth: 3, heads: 2}", text="{name: tinyshakespeare, block: 16}"):
    return [f"dataset.model={net}", f"dataset.text={text}", "trainer.batch_size=8", "trainer.max_steps=2"]


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["dataset.text={name: tinyshakespeare}"], "dataset.model: is required and has no value"),
        (words()[:1], "dataset.text: is required and has no value"),
        (words(net="{name: mlp}"), "dataset.model.name=mlp: is no language model with known blocks"),
        (words(net="{width: 8}"), "dataset.model: has no name"),
        (words(net="{name: gpt, widht: 8}"), "dataset.model.widht: no such key"),
        (words(text="{name: digits}"), "dataset.text.name=digits: is no text"),
        (words(text="{name: tinyshakespeare, block: 5000}"), "dataset.text.block=5000"),
        ([*words(), "dataset.layer=4"], "dataset.layer=4: the network has 3 blocks — write at most 3"),
        ([*words(), "dataset.test=1000000"], "dataset.test=1000000: whole windows of the text have"),
        ([*words(), "dataset.width=7"], "dataset.width=7: the network's vectors have 8 numbers"),
        (
            words("{name: hf, path: owner/model, tokenizer: any}", "{name: tinyshakespeare, tokenizer: bytes}"),
            "dataset.width: is known once the network is loaded",
        ),
        ([*words(net="{name: gpt, heads: 3, width: 8}")], "dataset.model.heads=3: does not divide width 8"),
        ([*words(), "model.allocation.k=17"], "model.allocation.k=17: there are 16 features"),
        (
            words("{name: gpt, width: 8, depth: 3, heads: 2, weights: nowhere.safetensors}"),
            "dataset.model.weights=nowhere.safetensors: no such file",
        ),
    ],
)
def test_what_is_refused(more, line):
    with pytest.raises(ConfigError) as refused:
        plan_of(said(*more))
    assert any(str(issue).startswith(line) for issue in refused.value.issues), refused.value
    assert all("\n" not in str(issue) for issue in refused.value.issues)


def test_other_data_and_other_models_are_told_what_fits():
    with pytest.raises(ConfigError, match="model=autoencoder: is for activations → activations"):
        plan_of(["model=sae", "method=dense"])
    with pytest.raises(ConfigError, match="model=mlp: is for images → classes"):
        plan_of(["model=mlp", "method=dense", "dataset=activations", *words()])
    with pytest.raises(ConfigError, match=r"loss.aux_k: is for activations → activations, and dataset digits is"):
        plan_of(["model=mlp", "method=dense", "loss=[aux_k]"])
    with pytest.raises(ConfigError, match=r"metric=spliced: is for activations → activations"):
        plan_of(["model=mlp", "method=dense", "metric=[spliced]"])


LM = (
    "{method: dense, model: gpt_tiny, model.width: 8, model.depth: 3, model.heads: 2, dataset: tinyshakespeare, "
    "dataset.block: 16, trainer.max_steps: 2, trainer.batch_size: 4}"
)


def test_the_weights_of_another_cell_and_of_a_file_are_part_of_the_id(folder):
    """A parent counts by its id, a file by its content, and where either lies by nothing."""
    inside = f"{{name: gpt, width: 8, depth: 3, heads: 2, weights: {{cell: {LM}}}}}"
    plan = plan_of(said(*words(net=inside), f"runs_dir={folder}/runs"))
    assert len(plan.dependencies) == 1 and plan.id == plan_of(said(*words(net=inside), f"runs_dir={folder}/b")).id
    assert plan.id != plan_of(said(*words())).id
    other = inside.replace("max_steps: 2", "max_steps: 3")
    assert plan.id != plan_of(said(*words(net=other))).id
