"""Which networks of transformers can be taken apart, read from their config.json [no torch]."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparselab.core.errors import Issue, short

LIKE_LLAMA = ("llama", "mistral", "qwen2", "qwen3", "phi3", "gemma2")
KNOWN = (*LIKE_LLAMA, "gpt_neox", "opt")
ACTS = {
    "silu": "silu", "swish": "silu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh",
    "relu": "relu",
}  # fmt: skip
TURNING_WITH_LENGTH = ("dynamic", "longrope")  # rotations that change as the text grows


def act_of(config: Mapping[str, Any]) -> str | None:
    """The activation of a config, None for one that is not known here."""
    name = config.get("hidden_activation") or config.get("hidden_act") or config.get("activation_function")
    return ACTS.get(str(name))


def misfit(folder: Path, where: str) -> Issue | None:
    """Why the network in ``folder`` cannot be decoded here, in one line; None where it can."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind = config["model_type"]
    except (OSError, ValueError, KeyError, TypeError):
        return Issue(where, "has no readable config.json with a model_type", "give a folder made by save_pretrained")
    fix = f"take a network of {', '.join(KNOWN[:-1])} or {KNOWN[-1]}"
    if kind not in KNOWN:
        return Issue(where, f"networks of model_type {short(str(kind))} are not taken apart here", fix)
    if "quantization_config" in config:
        return Issue(where, "has quantised weights", "give plain weights")
    if not sorted(folder.glob("*.safetensors")):
        return Issue(where, "holds no .safetensors file, and pickles are never opened", "convert to safetensors")
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    turning = rope.get("rope_type", rope.get("type"))
    if turning in TURNING_WITH_LENGTH:
        return Issue(where, f"its rotations change as the text grows ({turning})", "take one with fixed rotations")
    if act_of(config) is None and (config.get("hidden_act") or config.get("activation_function")):
        name = config.get("hidden_act") or config.get("activation_function")
        return Issue(where, f"has the activation {short(str(name))}", f"known are {', '.join(sorted(set(ACTS)))}")
    if config.get("do_layer_norm_before") is False or config.get("_remove_final_layer_norm"):
        return Issue(where, "has its norms after the layers (OPT-350m)", "take another OPT")
    if config.get("word_embed_proj_dim", config.get("hidden_size")) != config.get("hidden_size"):
        return Issue(where, "has embeddings of another width than its layers", "take another OPT")
    return None
