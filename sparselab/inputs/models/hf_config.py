"""Settings in a transformers config.json that no network here can have [no torch]."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sparselab.core.errors import Issue

WIDTH = ("hidden_size", "n_embd", "d_model")
DEPTH = ("num_hidden_layers", "n_layer")
HEADS = ("num_attention_heads", "n_head")
KEY_HEADS = ("num_key_value_heads",)
VOCABULARY = ("vocab_size",)
ADAPTER = "adapter_config.json"
PLAIN_ATTENTION = (None, "eager", "sdpa")


def config_faults(folder: Path, config: dict[str, Any], where: str) -> list[Issue]:
    """Faults of a folder's config.json, and of an adapter beside it, that would end in loading or in wrong numbers."""
    issues = []
    if (folder / ADAPTER).exists():
        issues.append(Issue(where, "holds an adapter, which would not be applied", "merge it first (merge_and_unload)"))
    quantised = config.get("quantization_config") or config.get("compression_config")
    if quantised:
        method = quantised.get("quant_method") if isinstance(quantised, dict) else None
        problem = f"its weights are quantised ({method or 'config.json says so'})"
        issues.append(Issue(where, problem, "give the network from before, or a dequantised copy"))
    attention = config.get("attn_implementation") or config.get("_attn_implementation")
    if attention not in PLAIN_ATTENTION:
        problem = f"its config.json asks for {attention}, and networks are scored with sdpa or eager"
        issues.append(Issue(where, problem, "remove attn_implementation there"))
    sizes = {}
    for names in (WIDTH, DEPTH, HEADS, KEY_HEADS, VOCABULARY):
        name = next((name for name in names if config.get(name) is not None), None)
        if name is None:
            continue
        value = config[name]
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            problem = f"its config.json has {name}={str(json.dumps(value))[:20]}, which is no size"
            issues.append(Issue(where, problem, "write a whole number from 1"))
        else:
            sizes[names] = (name, value)
    for whole, part in ((WIDTH, HEADS), (HEADS, KEY_HEADS)):
        if not {whole, part} <= sizes.keys() or (whole is WIDTH and config.get("head_dim") is not None):
            continue
        (name, value), (divisor, number) = sizes[whole], sizes[part]
        if value % number:
            problem = f"its config.json has {name}={value}, which {divisor}={number} does not divide"
            issues.append(Issue(where, problem, "correct the config"))
    return issues
