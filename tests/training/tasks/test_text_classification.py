"""Heads on encoders and decoders of transformers, GLUE's scores by hand, and what is refused."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    MixtralConfig,
    MixtralForCausalLM,
)

from sparselab.core.data_spec import DataSpec
from sparselab.core.data_types import Classes, Sentences
from sparselab.core.errors import ConfigError
from sparselab.core.options import Options
from sparselab.core.sparsity import Sparsity
from sparselab.inputs.models.family import MODELS
from sparselab.inputs.models.trace import trace, traced
from sparselab.training.calibrate import calibration
from sparselab.training.tasks.task import TASKS
from sparselab.weights.calibration import Calibration
from sparselab.weights.patterns.pattern import Pattern
from sparselab.weights.slot import Slot

torch.set_num_threads(1)

DATA = DataSpec("set", Sentences(6, 20, 0), Classes(3), 8, 8, 8, "", "local")


def scores(predicted, labels, classes=2):
    task = TASKS["text_classification"](Options())
    data = DataSpec("set", Sentences(6, 20), Classes(classes), 8, 8, 8, "", "local")
    metrics = task.metrics(data)
    outputs = nn.functional.one_hot(torch.tensor(predicted), classes).float()
    for part in (slice(0, 3), slice(3, None)):
        task.score(metrics, outputs[part], (None, torch.tensor(labels)[part]), None)
    return task.numbers({name: float(metric.compute()) for name, metric in metrics.items()}, "test", None)


def test_f1_and_matthews_by_hand():
    """Predicted 1,1,1,0,0 of 1,1,0,1,0: 2 true and 1 false positive, 1 true and 1 false negative."""
    found = scores([1, 1, 1, 0, 0], [1, 1, 0, 1, 0])
    assert found["accuracy"] == 0.6 and found["n"] == 5
    assert found["f1"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert found["matthews"] == pytest.approx((2 * 1 - 1 * 1) / (3 * 3 * 2 * 2) ** 0.5)


def test_a_network_that_says_the_same_of_all_scores_nothing():
    found = scores([0, 0, 0, 0], [0, 1, 0, 1])
    assert (found["accuracy"], found["f1"], found["matthews"]) == (0.5, 0, 0)


def test_of_more_classes_f1_is_the_mean_of_theirs():
    assert scores([0, 1, 2, 2], [0, 1, 2, 1], 3)["f1"] == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)


BERT = BertConfig(
    vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12, max_position_embeddings=8
)  # fmt: skip
GPT = GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=2, n_positions=8)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("models")
    for name, network in {"bert": BertModel(BERT), "gpt": GPT2LMHeadModel(GPT)}.items():
        network.save_pretrained(root / name)
    return root


def hf(folder, **options):
    return MODELS["hf"](MODELS["hf"].Options(path=str(folder), **options))


@pytest.mark.parametrize("name", ["bert", "gpt"])
def test_a_trained_trunk_gets_a_new_head(folders, name):
    network = hf(folders / name).build(DATA)
    assert network.config.num_labels == 3 and network.config.pad_token_id == 0
    trunk = {"bert": BertModel, "gpt": GPT2LMHeadModel}[name].from_pretrained(folders / name).base_model.state_dict()
    own = network.base_model.state_dict()
    assert all(torch.equal(own[key], tensor) for key, tensor in trunk.items())


def test_from_a_config_all_weights_are_drawn(folders, tmp_path):
    (tmp_path / "config.json").write_bytes((folders / "bert" / "config.json").read_bytes())
    family = hf(tmp_path, start="config")
    assert not family.issues(DATA) and not family.starts_trained
    assert family.files()["path"] == [str(tmp_path / "config.json")]
    assert family.build(DATA).config.model_type == "bert"
    with pytest.raises(ConfigError, match=r"holds no \.safetensors file"):
        hf(tmp_path).build(DATA)


@pytest.mark.parametrize("name", ["bert", "gpt"])
def test_padding_plays_no_part(folders, name):
    family = hf(folders / name)
    network = family.build(DATA).eval()
    row = torch.tensor([[[5, 7, 9, 0, 0, 0], [1, 1, 1, 0, 0, 0], [0, 0, 1, 0, 0, 0]]])
    with torch.no_grad():
        torch.testing.assert_close(family.logits(network, row), family.logits(network, row[:, :, :3]))
    assert torch.equal(TASKS["text_classification"](Options()).present((row,)), row[:, 1] == 1)


@pytest.mark.parametrize("name", ["bert", "gpt"])
def test_what_calibrates_is_no_padding(folders, name):
    """Wanda and SparseGPT took the inputs at padded positions for data (as neuralmagic/sparseml did before its #1974)."""
    family = hf(folders / name)
    network = family.build(DATA).eval()
    task = TASKS["text_classification"](Options())
    long = torch.tensor(
        [[[5, 7, 9, 0, 0, 0], [1, 1, 1, 0, 0, 0], [0] * 6], [[3, 8, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [0] * 6]]
    )
    layers = [layer for layer in traced(family, network, DATA).layers if layer.kind in ("linear", "conv1d")]
    assert len(layers) >= 5
    slots = [
        Slot(layer, param, Pattern.of(Sparsity.parse(0.5), layer.kind), torch.ones_like(param, dtype=torch.bool))
        for layer in layers
        for param in [network.get_parameter(layer.tensor)]
    ]

    def moments(batches):
        blocks = family.blocks(network) if family.has_blocks else []
        forward = lambda batch: family.logits(network, batch[0])  # noqa: E731
        known = Calibration(network, forward, slots, blocks, lambda: batches, task.present)
        return [known.moments(slot) for slot in slots]

    for padded, cut in zip(moments([(long,)]), moments([(long[:1, :, :3],), (long[1:, :, :2],)]), strict=True):
        torch.testing.assert_close(padded, cut, rtol=1e-4, atol=1e-6)


def test_experts_calibrate_on_no_padding(tmp_path):
    """A router mixes the positions of a batch; so sentences come one by one, each cut behind its last token."""
    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=20, hidden_size=8, intermediate_size=12, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, num_local_experts=2, num_experts_per_tok=2,
    )  # fmt: skip
    MixtralForCausalLM(config).save_pretrained(tmp_path)
    family = hf(tmp_path)
    network, task = family.build(DATA).eval(), TASKS["text_classification"](Options())
    rows = [[[5, 7, 9, 0, 0, 0], [1, 1, 1, 0, 0, 0], [0] * 6], [[3, 8, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [0] * 6]]
    long, labels = torch.tensor(rows), torch.tensor([0, 2])
    layers = [layer for layer in traced(family, network, DATA).layers if layer.kind != "embedding"]
    assert "experts" in {layer.kind for layer in layers}
    slots = [
        Slot(layer, param, pattern, torch.ones_like(param, dtype=torch.bool))
        for layer in layers
        for param in [network.get_parameter(layer.tensor)]
        for pattern in [Pattern.of(Sparsity.parse(0.5), layer.kind, parts=layer.groups)]
    ]
    splits = SimpleNamespace(loader=lambda *_, **__: Batches([(long, labels)]))
    trainer = SimpleNamespace(batch_size=2, workers=0)
    parts = SimpleNamespace(cell=SimpleNamespace(trainer=trainer, seed=0), task=task, family=family)
    reader = SimpleNamespace(options=SimpleNamespace(samples=2))
    padded = calibration(parts, reader, network, SimpleNamespace(slots=slots), splits, torch.device("cpu"))
    blocks = family.blocks(network) if family.has_blocks else []
    cut = [(long[:1, :, :3], labels[:1]), (long[1:, :, :2], labels[1:])]
    alone = Calibration(network, lambda batch: family.logits(network, batch[0]), slots, blocks, lambda: cut)
    for slot in slots:
        torch.testing.assert_close(padded.moments(slot), alone.moments(slot))


class Batches(list):
    """A loader of given batches."""

    def position(self, epoch, index):
        assert (epoch, index) == (0, 0)


def test_an_encoder_reads_which_sentence_a_token_is_of(folders):
    family = hf(folders / "bert")
    network = family.build(DATA).eval()
    row = DATA.inputs.sample(1, torch.Generator().manual_seed(0))
    other = row.clone()
    other[:, 2, 3:] = 1
    with torch.no_grad():
        assert not torch.allclose(family.logits(network, row), family.logits(network, other))


@pytest.mark.parametrize("name", ["gpt", "llama"])
def test_closed_form_equals_trace(name):
    family = MODELS[name](MODELS[name].Options(width=16, depth=1))
    network = family.build(DATA)
    assert family.model_spec(DATA) == trace(network, DATA, name, lambda sample: family.logits(network, sample))
    assert "head" in family.model_spec(DATA)["score"].roles


def test_the_layers_of_an_encoder_are_known_once_it_is_built(folders):
    family = hf(folders / "bert")
    assert family.model_spec(DATA) is None
    layers = traced(family, family.build(DATA), DATA).layers
    assert layers[-1].name == "classifier" and "head" in layers[-1].roles
    assert {"q", "k", "v"} <= set().union(*(layer.roles for layer in layers))


def test_what_is_exported_loads_into_plain_transformers(folders, tmp_path):
    import json

    from safetensors.torch import save_file

    for name in ("bert", "gpt"):
        family = hf(folders / name)
        network = family.build(DATA).eval()
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(family.library_config(network)))
        save_file(network.state_dict(), tmp_path / name / "model.safetensors", {"format": "pt"})
        again, told = AutoModelForSequenceClassification.from_pretrained(tmp_path / name, output_loading_info=True)
        assert not any(told[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        row = DATA.inputs.sample(2)
        with torch.no_grad():
            assert torch.equal(family.logits(again.eval(), row), family.logits(network, row))


def test_a_vocabulary_or_a_length_that_does_not_fit_is_one_line(folders):
    wide = DataSpec("set", Sentences(9, 21), Classes(2), 8, 8, 8, "", "local")
    lines = [str(issue) for issue in hf(folders / "bert").issues(wide)]
    assert any("knows 20 tokens and set has 21" in line for line in lines)
    assert any("reads at most 8 tokens" in line for line in lines)
