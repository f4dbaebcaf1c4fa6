"""transformers folders: outlined from config.json, loaded from safetensors only."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM

from sparselab.models.family import MODELS, Family
from sparselab.models.trace import trace
from sparselab.spec.dataspec import DataSpec
from sparselab.spec.faults import WIDTH, Refused
from sparselab.spec.options import validate

torch.set_num_threads(1)

TEXT = DataSpec("words", "text", (12,), 60, 8, 8, 8, "0" * 64, "local")


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
    assert member.outline(TEXT) == trace(model, TEXT, "hf")
    batch = torch.randint(60, (2, 12))
    assert torch.equal(member.logits(model.eval(), batch), source.eval()(batch).logits)
    assert model.state_dict().keys() == source.state_dict().keys()


def test_other_architectures_are_traced(tmp_path: Path) -> None:
    config = OPTConfig(
        vocab_size=64, hidden_size=32, ffn_dim=48, num_hidden_layers=1, num_attention_heads=4, word_embed_proj_dim=32
    )
    OPTForCausalLM(config).save_pretrained(tmp_path)
    member = hf(tmp_path)
    assert member.outline(TEXT) is None
    outline = trace(member.build(TEXT), TEXT)
    assert outline["model.decoder.layers.0.self_attn.k_proj"].roles == {"k"}
    assert outline["model.decoder.embed_tokens"].roles == {"embedding", "head"}


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
        (lambda f: damage_config(f, hidden_size="wide"), "its config.json lacks a size, or has one that is no number"),
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
    with pytest.raises(Refused) as refused:
        hf(tmp_path).outline(TEXT)
    assert problem in refused.value.faults[0].problem
    assert all(len(str(fault)) <= WIDTH for fault in refused.value.faults)


def test_files_decide_what_a_folder_means(tmp_path: Path) -> None:
    llama().save_pretrained(tmp_path)
    assert hf(tmp_path).files() == {"path": [str(tmp_path / "config.json"), str(tmp_path / "model.safetensors")]}
    assert hf("owner/model").files() == {}


def test_weights_of_another_size(tmp_path: Path) -> None:
    llama().save_pretrained(tmp_path)
    damage_config(tmp_path, intermediate_size=40)
    with pytest.raises(Refused):
        hf(tmp_path).build(TEXT)


@pytest.mark.parametrize("path", ["/no/such/folder", "./none", "a/b/c", "nobody-here/no-such-model"])
def test_paths_that_lead_nowhere(path: str) -> None:
    with pytest.raises(Refused) as refused:
        hf(path).build(TEXT)
    (fault,) = refused.value.faults
    assert str(fault).startswith(f"model.path={path}: ") and len(str(fault)) <= WIDTH


@pytest.mark.skipif("SPARSELAB_DATA" not in os.environ, reason="needs SPARSELAB_DATA")
def test_a_real_language_model() -> None:
    folder = Path(os.environ["SPARSELAB_DATA"]) / "weights" / "stories260k"
    if not folder.is_dir():
        pytest.skip("no stories260k in SPARSELAB_DATA")
    data = DataSpec("words", "text", (64,), 512, 8, 8, 8, "0" * 64, "local")
    member = hf(folder)
    assert member.outline(data) == trace(member.build(data), data, "hf")
