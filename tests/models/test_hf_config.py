"""What a folder of transformers may not ask for, from its config.json alone."""

from __future__ import annotations

import pytest

from sparselab.models.hf_config import ADAPTER, config_faults

GOOD = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 256,
}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "its weights are quantised (gptq)"),
        ({"compression_config": {"format": "pack-quantized"}}, "its weights are quantised (config.json says so)"),
        ({"_attn_implementation": "flash_attention_2"}, "its config.json asks for flash_attention_2"),
        ({"attn_implementation": "flex_attention"}, "its config.json asks for flex_attention"),
        ({"num_attention_heads": 6, "num_key_value_heads": 3}, "hidden_size=32, which num_attention_heads=6 does not"),
        ({"num_key_value_heads": 3}, "num_attention_heads=4, which num_key_value_heads=3 does not divide"),
        ({"num_attention_heads": 0}, "num_attention_heads=0, which is no size"),
        ({"hidden_size": "32"}, 'hidden_size="32", which is no size'),
        ({"vocab_size": True}, "vocab_size=true, which is no size"),
    ],
)
def test_what_ends_in_loading_is_a_fault(change, problem, tmp_path):
    (fault,) = config_faults(tmp_path, {**GOOD, **change}, "model.path=x")
    assert problem in fault.problem and len(str(fault)) <= 160 and "…" not in str(fault)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"attn_implementation": "sdpa"},
        {"head_dim": 16, "num_attention_heads": 6, "num_key_value_heads": 3},  # heads of a width of their own
        {"num_key_value_heads": None, "quantization_config": None},
        {"model_type": "mamba", "num_attention_heads": None, "num_key_value_heads": None},
    ],
)
def test_what_can_be_loaded_is_none(change, tmp_path):
    assert config_faults(tmp_path, {**GOOD, **change}, "model.path=x") == []


def test_an_adapter_beside_a_network_would_be_ignored(tmp_path):
    (tmp_path / ADAPTER).write_text("{}")
    (fault,) = config_faults(tmp_path, GOOD, "model.path=x")
    assert "adapter" in fault.problem
