"""transformers folders: outlined from config.json, loaded from safetensors only."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from data_specs import text_data
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertLMHeadModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from sparselab.core.errors import WIDTH, ConfigError
from sparselab.core.options import validate
from sparselab.inference.runner import without_experts
from sparselab.inputs.models.family import MODELS, Family
from sparselab.inputs.models.trace import trace

TEXT = text_data(12, 60)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # the variable is read at import only


def hf(path: Path | str) -> Family:
    return MODELS["hf"](validate(MODELS["hf"].Options, {"path": str(path)}, "model"))


def llama(**extra: object) -> LlamaForCausalLM:
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    return LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4, max_position_embeddings=32, **extra))


NETWORKS = {
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=32, n_embd=32, n_layer=2, n_head=4)),
    "llama": llama,
    "llama_grouped": lambda: llama(num_key_value_heads=2, head_dim=10, tie_word_embeddings=True, attention_bias=True),
}


@pytest.mark.parametrize("kind", sorted(NETWORKS))
def test_local_folder(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(0)
    source = NETWORKS[kind]()
    source.save_pretrained(tmp_path)
    member = hf(tmp_path)
    model = member.build(TEXT)
    assert member.model_spec(TEXT) == trace(model, TEXT, "hf")
    batch = torch.randint(60, (2, 12))
    assert torch.equal(member.logits(model.eval(), batch), source.eval()(batch).logits)
    assert model.state_dict().keys() == source.state_dict().keys()


def test_how_many_tokens_are_read_is_told(tmp_path: Path) -> None:
    NETWORKS["gpt2"]().save_pretrained(tmp_path)
    assert hf(tmp_path).longest(TEXT) == 32


def test_other_architectures_are_traced(tmp_path: Path) -> None:
    config = OPTConfig(
        vocab_size=64, hidden_size=32, ffn_dim=48, num_hidden_layers=1, num_attention_heads=4, word_embed_proj_dim=32
    )
    OPTForCausalLM(config).save_pretrained(tmp_path)
    member = hf(tmp_path)
    assert member.model_spec(TEXT) is None
    model_spec = trace(member.build(TEXT), TEXT)
    assert model_spec["model.decoder.layers.0.self_attn.k_proj"].roles == {"k"}
    assert model_spec["model.decoder.embed_tokens"].roles == {"embedding", "head"}


def damage_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    for key, value in changes.items():
        config[key] = value
    (folder / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda f: (f / "config.json").unlink(), "has no readable config.json"),
        (lambda f: (f / "config.json").write_text("{"), "its config.json is not valid JSON"),
        (lambda f: (f / "config.json").write_text("[]"), "its config.json names no model_type"),
        (lambda f: damage_config(f, hidden_size=None), "its config.json lacks a size, or has one that is no number"),
        (lambda f: damage_config(f, hidden_size="wide"), 'its config.json has hidden_size="wide", which is no size'),
        (lambda f: damage_config(f, vocab_size=59), "knows 59 tokens and words has 60"),
        (lambda f: damage_config(f, max_position_embeddings=8), "reads at most 8 tokens and words's window has 12"),
        (
            lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
            "holds no .safetensors file, and pickles are never opened",
        ),
        (lambda f: (f / "adapter_config.json").write_text("{}"), "holds an adapter (adapter_config.json)"),
        (lambda f: (f / "adapter_model.safetensors").write_bytes(b"x"), "holds an adapter (adapter_model.safetensors)"),
        (lambda f: os.truncate(f / "model.safetensors", 5000), "bytes of tensors where its header promises"),
    ],
)
def test_bad_folders_are_refused_without_torch(tmp_path: Path, spoil: object, problem: str) -> None:
    llama().save_pretrained(tmp_path)
    spoil(tmp_path)
    with pytest.raises(ConfigError) as refused:
        hf(tmp_path).model_spec(TEXT)
    assert problem in refused.value.issues[0].problem
    assert all(len(str(issue)) <= WIDTH for issue in refused.value.issues)


def test_files_decide_what_a_folder_means(tmp_path: Path) -> None:
    llama().save_pretrained(tmp_path)
    assert hf(tmp_path).files() == {"path": [str(tmp_path / "config.json"), str(tmp_path / "model.safetensors")]}
    assert hf("owner/model").files() == {}


def test_weights_of_another_size(tmp_path: Path) -> None:
    llama().save_pretrained(tmp_path)
    damage_config(tmp_path, intermediate_size=40)
    with pytest.raises(ConfigError):
        hf(tmp_path).build(TEXT)


@pytest.mark.parametrize("path", ["/no/such/folder", "./none", "a/b/c", "nobody-here/no-such-model"])
def test_paths_that_lead_nowhere(path: str) -> None:
    with pytest.raises(ConfigError) as refused:
        hf(path).build(TEXT)
    (issue,) = refused.value.issues
    assert str(issue).startswith(f"model.path={path}: ") and len(str(issue)) <= WIDTH


@pytest.mark.skipif("SPARSELAB_DATA" not in os.environ, reason="needs SPARSELAB_DATA")
def test_a_real_language_model() -> None:
    folder = Path(os.environ["SPARSELAB_DATA"]) / "weights" / "stories260k"
    if not folder.is_dir():
        pytest.skip("no stories260k in SPARSELAB_DATA")
    data = text_data(64, 512)
    member = hf(folder)
    assert member.model_spec(data) == trace(member.build(data), data, "hf")


SMALL = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}


def test_experts_count_by_what_a_token_uses(tmp_path: Path) -> None:
    """Two of eight experts a token; every matrix of every expert is in a layer, and nothing is left over."""
    config = MixtralConfig(**SMALL, num_key_value_heads=2, num_local_experts=8, num_experts_per_tok=2)
    MixtralForCausalLM(config).save_pretrained(tmp_path)
    model_spec = trace(hf(tmp_path).build(TEXT), TEXT)
    experts = [layer for layer in model_spec.layers if layer.kind == "experts"]
    assert [layer.shape for layer in experts] == [(8, 96, 32), (8, 32, 48)] * 2
    assert sum(layer.numel for layer in experts) == 2 * 8 * 3 * 32 * 48
    assert sum(layer.macs for layer in experts) == 12 * 2 * 2 * 3 * 32 * 48  # tokens, experts, blocks
    attention = 12 * 2 * (2 * 32 * 32 + 2 * 16 * 32) + 2 * 2 * 12 * 12 * 32
    assert model_spec.macs == sum(layer.macs for layer in experts) + attention + 12 * (2 * 8 * 32 + 64 * 32)
    with pytest.raises(ConfigError, match=r"model\.layers\.0\.mlp\.experts\.gate_up_proj is a stack of experts"):
        without_experts(model_spec)  # rules on activations hook modules
    without_experts(trace(llama(), TEXT))
    assert model_spec.loose == () and [layer.name for layer in model_spec.layers if "router" in layer.roles] == [
        "model.layers.0.mlp.gate",
        "model.layers.1.mlp.gate",
    ]


@pytest.mark.parametrize("decoder", [False, True])
def test_a_model_that_looks_ahead_is_no_decoder(tmp_path: Path, decoder: bool) -> None:
    torch.manual_seed(0)
    BertLMHeadModel(BertConfig(**SMALL, is_decoder=decoder)).save_pretrained(tmp_path)
    if decoder:
        hf(tmp_path).build(TEXT)
        return
    with pytest.raises(ConfigError, match="is no decoder: its logits change with later tokens"):
        hf(tmp_path).build(TEXT)


def test_an_encoder_and_decoder_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    sizes = {"vocab_size": 64, "d_model": 32, "d_ff": 48, "num_layers": 1, "num_heads": 4, "d_kv": 8}
    T5ForConditionalGeneration(T5Config(**sizes)).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"is an encoder and a decoder \(t5\)"):
        hf(tmp_path).model_spec(TEXT)


def test_a_folder_that_ties_what_its_file_keeps_apart_is_refused(tmp_path: Path) -> None:
    """The library then keeps both tensors, and the spec of config.json would count one (transformers#41038)."""
    llama(tie_word_embeddings=False).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    with pytest.raises(ConfigError, match="ties embedding and head, its file has two"):
        hf(tmp_path).build(TEXT)


def test_a_tied_folder_may_hold_the_head_alone(tmp_path: Path) -> None:
    """As facebook/opt-125m's file does (transformers#43159)."""
    made = llama(tie_word_embeddings=True)
    made.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    loaded = hf(tmp_path).build(TEXT)
    assert torch.equal(loaded.get_input_embeddings().weight, made.get_input_embeddings().weight)
    assert loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight
