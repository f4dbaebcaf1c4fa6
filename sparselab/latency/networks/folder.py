"""A folder of transformers taken apart into the matrices of :mod:`~sparselab.latency.networks.network`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sparselab.latency.networks.architectures import act_of
from sparselab.latency.networks.network import Block, Linear, Network, Norm


@torch.no_grad()
def read(folder: str | Path, longest: int, weights: str | None = None) -> Network:
    """Read a network.

    Args:
        folder: of ``save_pretrained``, one that :func:`~sparselab.latency.networks.architectures.misfit` lets pass
        longest: positions that will be needed
        weights: a safetensors file of the same network whose tensors take the place of the folder's, or None

    Returns:
        The network in float32.
    """
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, use_safetensors=True).eval()
    if weights is not None:
        _overwrite(model, weights)
    return taken_apart(model, longest)


def _overwrite(model: nn.Module, weights: str) -> None:
    from safetensors.torch import load_file

    given = load_file(weights)
    own = dict(model.named_parameters())
    strange = sorted(set(given) - set(own) - {"lm_head.weight"})
    if strange or not given:
        raise ValueError(f"{weights} has tensors that the network has not, such as {strange[:1]}")
    for name, tensor in given.items():
        if name in own:
            own[name].copy_(tensor)


@torch.no_grad()
def taken_apart(model: Any, longest: int) -> Network:
    """Take a causal language model of transformers apart.

    Args:
        model: in float32, of one of the known architectures
        longest: positions that will be needed

    Returns:
        The network; its arrays are copies where matrices were fused.
    """
    config = model.config
    kind = config.model_type
    body = {"gpt_neox": "gpt_neox", "opt": "model"}.get(kind, "model")
    trunk = getattr(model, body)
    trunk = getattr(trunk, "decoder", trunk)
    heads = config.num_attention_heads
    groups = getattr(config, "num_key_value_heads", None) or heads
    dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    layers = [TAKE.get(kind, _like_llama)(layer, config, heads, groups, dim) for layer in trunk.layers]
    cosine, sine = _turns(trunk, longest)
    last = next(m for n in ("norm", "final_layer_norm") if (m := getattr(trunk, n, None)) is not None)
    scale = getattr(config, "query_pre_attn_scalar", None) or dim
    return Network(
        blocks=layers,
        embedding=_array(model.get_input_embeddings().weight),
        last=_norm(last, kind),
        head=_linear(model.get_output_embeddings()),
        heads=heads,
        groups=groups,
        dim=dim,
        cosine=cosine,
        sine=sine,
        act=act_of(config.to_dict()),  # type: ignore[arg-type]
        eps=float(getattr(config, "rms_norm_eps", getattr(config, "layer_norm_eps", 1e-5))),
        scale=float(scale) ** -0.5,
        layer_norm=isinstance(last, nn.LayerNorm),
        parallel=bool(getattr(config, "use_parallel_residual", False)),
        positions=_array(trunk.embed_positions.weight)[2 : 2 + longest] if kind == "opt" else None,
        cap=float(getattr(config, "attn_logit_softcapping", None) or 0),
        last_cap=float(getattr(config, "final_logit_softcapping", None) or 0),
        embedded=config.hidden_size**0.5 if kind == "gemma2" else 1.0,
    )


def _array(tensor: Tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.detach().float().numpy())


def _linear(module: nn.Module) -> Linear:
    bias = getattr(module, "bias", None)
    return Linear(_array(module.weight), None if bias is None else _array(bias))  # type: ignore[arg-type]


def _split(module: nn.Module, sizes: list[int]) -> list[Linear]:
    whole = _linear(module)
    places = np.cumsum(sizes)[:-1]
    biases = [None] * len(sizes) if whole.bias is None else np.split(whole.bias, places)
    return [Linear(np.ascontiguousarray(w), b) for w, b in zip(np.split(whole.weight, places), biases, strict=True)]


def _norm(module: Any, kind: str) -> Norm:
    """A norm; Gemma keeps its gain less one."""
    gain = _array(module.weight) + (1.0 if kind == "gemma2" else 0.0)
    shift = getattr(module, "bias", None)
    return Norm(gain.astype(np.float32), None if shift is None else _array(shift))


def _turns(trunk: Any, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines as the network itself computes them, (longest, rotary / 2) each."""
    if not hasattr(trunk, "rotary_emb"):
        return np.zeros((longest, 0), np.float32), np.zeros((longest, 0), np.float32)
    cosine, sine = trunk.rotary_emb(torch.zeros(1), torch.arange(longest)[None])
    half = cosine.shape[-1] // 2
    return _array(cosine[0, :, :half]), _array(sine[0, :, :half])


def _like_llama(layer: Any, config: Any, heads: int, groups: int, dim: int) -> Block:
    kind, attention, mlp = config.model_type, layer.self_attn, layer.mlp
    if hasattr(attention, "qkv_proj"):
        q, k, v = _split(attention.qkv_proj, [heads * dim, groups * dim, groups * dim])
    else:
        q, k, v = (_linear(getattr(attention, f"{name}_proj")) for name in "qkv")
    if hasattr(mlp, "gate_up_proj"):
        gate, up = _split(mlp.gate_up_proj, [config.intermediate_size] * 2)
    else:
        gate, up = _linear(mlp.gate_proj), _linear(mlp.up_proj)
    first, after = _norm(layer.input_layernorm, kind), _norm(layer.post_attention_layernorm, kind)
    second, own = (first, after), (None, None)
    if hasattr(layer, "pre_feedforward_layernorm"):
        second = first, _norm(layer.pre_feedforward_layernorm, kind)
        own = after.gain, _norm(layer.post_feedforward_layernorm, kind).gain  # type: ignore[assignment]
    each = [_array(getattr(attention, n).weight) if hasattr(attention, n) else None for n in ("q_norm", "k_norm")]
    window = getattr(attention, "sliding_window", None)
    if window is None and not hasattr(attention, "sliding_window") and kind in ("mistral", "phi3"):
        window = getattr(config, "sliding_window", None)
    down = _linear(mlp.down_proj)
    return Block(q, k, v, _linear(attention.o_proj), gate, up, down, second, own, each[0], each[1], window or 0)


def _gpt_neox(layer: Any, config: Any, heads: int, groups: int, dim: int) -> Block:
    """Queries, keys and values of one head stand together in the fused matrix."""
    whole = _linear(layer.attention.query_key_value)
    weight = whole.weight.reshape(heads, 3, dim, -1)
    bias = None if whole.bias is None else whole.bias.reshape(heads, 3, dim)
    q, k, v = (
        Linear(
            np.ascontiguousarray(weight[:, i]).reshape(heads * dim, -1), None if bias is None else bias[:, i].ravel()
        )
        for i in range(3)
    )
    norms = _norm(layer.input_layernorm, "gpt_neox"), _norm(layer.post_attention_layernorm, "gpt_neox")
    up, down = _linear(layer.mlp.dense_h_to_4h), _linear(layer.mlp.dense_4h_to_h)
    return Block(q, k, v, _linear(layer.attention.dense), None, up, down, norms)


def _opt(layer: Any, config: Any, heads: int, groups: int, dim: int) -> Block:
    q, k, v = (_linear(getattr(layer.self_attn, f"{name}_proj")) for name in "qkv")
    norms = _norm(layer.self_attn_layer_norm, "opt"), _norm(layer.final_layer_norm, "opt")
    return Block(q, k, v, _linear(layer.self_attn.out_proj), None, _linear(layer.fc1), _linear(layer.fc2), norms)


TAKE = {"gpt_neox": _gpt_neox, "opt": _opt}
