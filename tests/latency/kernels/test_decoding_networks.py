"""Whole networks, token by token: logits are those of transformers, whatever the architecture, the kernel, the threads."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sparselab.core import native_build as native
from sparselab.latency.kernels.decoding.calibrating import skips_of, smallest
from sparselab.latency.kernels.decoding.onnx import OnnxDecoder, misfit
from sparselab.latency.kernels.decoding.plain import TorchDecoder
from sparselab.latency.kernels.decoding.skips import Skips
from sparselab.latency.kernels.decoding.traffic import active_share, bytes_of_products
from sparselab.latency.networks import architectures
from sparselab.latency.networks.folder import taken_apart
from sparselab.latency.networks.pruned import rounded

needs_compiler = pytest.mark.skipif(native.compiler() is None, reason="no C compiler is here")
SIZES = {
    "vocab_size": 50, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
GROUPED = {**SIZES, "num_key_value_heads": 2}
MADE = {
    "llama": ("LlamaConfig", {**GROUPED, "head_dim": 16}),
    "qwen2": ("Qwen2Config", GROUPED),
    "qwen3": ("Qwen3Config", {**GROUPED, "head_dim": 16}),
    "mistral": ("MistralConfig", {**GROUPED, "sliding_window": 5}),
    "phi3": ("Phi3Config", {**GROUPED, "sliding_window": 6}),
    "gemma2": ("Gemma2Config", {**GROUPED, "head_dim": 16, "query_pre_attn_scalar": 24, "sliding_window": 5}),
    "gpt_neox": ("GPTNeoXConfig", SIZES),
    "opt": ("OPTConfig", {**SIZES, "ffn_dim": 40, "word_embed_proj_dim": 32}),
}
TOKENS = [7, 3, 41, 0, 12, 12, 9, 30, 48, 5, 22, 17]
TOLERANCE = 1e-4  # of logits of size 5


def model_of(kind, seed=0):
    import transformers

    name, options = MADE[kind]
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, name)(**options)).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn_like(parameter)
            parameter.copy_(0.3 * noise) if parameter.ndim > 1 else parameter.add_(0.2 * noise)
    return model


def read(decoder):
    return np.stack([decoder.step(token, place).copy() for place, token in enumerate(TOKENS)])


@pytest.mark.parametrize("kind", MADE)
def test_logits_are_those_of_transformers(kind, tmp_path):
    model = model_of(kind)
    with torch.no_grad():
        expected = model(torch.tensor([TOKENS])).logits[0].numpy()
    network = taken_apart(model, 16)
    model.save_pretrained(tmp_path)
    assert architectures.misfit(tmp_path, "model.path=x") is None
    np.testing.assert_allclose(read(TorchDecoder(network)), expected, atol=TOLERANCE)
    if native.compiler():
        from sparselab.latency.kernels.decoding.decoder import Decoder

        none = Skips.none(network)
        for more in ({}, {"isa": "avx2"}, {"coded": True}):
            try:
                np.testing.assert_allclose(read(Decoder(network, none, **more)), expected, atol=TOLERANCE)
            except native.Unavailable:
                assert more  # this processor has not this one


@needs_compiler
@pytest.mark.parametrize("kind", MADE)
@pytest.mark.parametrize("skip", ["inputs", "gate", "gate_and_attention"])
def test_skipping_is_the_same_natively_and_plainly(kind, skip):
    """The same survivors, the same logits, the same counts; and bytes that fall with them."""
    from sparselab.latency.kernels.decoding.decoder import Decoder

    network = taken_apart(model_of(kind), 16)
    plain = TorchDecoder(network, records=True)
    found = np.stack([(plain.step(token, place), plain.last.copy())[1] for place, token in enumerate(TOKENS)])
    if network.blocks[0].gate is None and skip != "inputs":
        with pytest.raises(Exception, match="has no gate — write"):
            skips_of(network, found, 0.5, skip)
        return
    skips = skips_of(network, found, 0.5, skip)
    skips.limits *= 1.0001  # a threshold is an entry that was seen: rounding decides whether it is larger than itself
    if skips.gates is not None:
        skips.gates *= 1.0001
    own, other = Decoder(network, skips), TorchDecoder(network, skips)
    np.testing.assert_allclose(read(own), read(other), atol=TOLERANCE)
    np.testing.assert_array_equal(own.active[:, :4], other.active[:, :4])
    share = active_share(own, own.active / len(TOKENS))
    assert share < 0.95 and bytes_of_products(own, own.active / len(TOKENS)) == pytest.approx(
        4 * network.weights * share
    )
    if skip != "inputs":  # keys, values and gates are whole
        assert {own.packed[0][name].form for name in ("k", "v", "gate", "up")} == {"dots"}


@needs_compiler
def test_nothing_is_lost_below_the_smallest_entry_and_recording_is_of_the_sites():
    from sparselab.latency.kernels.decoding.decoder import Decoder

    network = taken_apart(model_of("opt"), 16)
    zero = Skips(np.zeros((2, 4), np.float32))
    own, dense = Decoder(network, zero, records=True), TorchDecoder(network, records=True)
    np.testing.assert_allclose(read(own), read(dense), atol=TOLERANCE)
    assert own.active[0, 3] < 0.8 * 40 * len(TOKENS)  # ReLU's zeros cost nothing and are not read
    for site, size in enumerate((32, 32, 32, 40)):
        np.testing.assert_allclose(own.last[:, site, :size], dense.last[:, site, :size], atol=TOLERANCE)


@needs_compiler
def test_two_threads_and_half_weights():
    from sparselab.latency.kernels.decoding.decoder import Decoder

    network = taken_apart(model_of("llama"), 16)
    none = Skips.none(network)
    np.testing.assert_array_equal(read(Decoder(network, none, threads=2)), read(Decoder(network, none)))
    whole, half = read(Decoder(network, none)), read(Decoder(network, none, half=True))
    assert 0 < abs(whole - half).max() < 0.05 * abs(whole).max()


@needs_compiler
@pytest.mark.parametrize("coded", [False, True])
@pytest.mark.parametrize("skip", ["inputs", "gate"])
def test_half_weights_are_float32_on_rounded_ones(coded, skip):
    """With skips, too: what bfloat16 changes is the weights alone, so a difference beyond rounding is a fault of the kernel."""
    from sparselab.latency.kernels.decoding.decoder import Decoder

    network = taken_apart(model_of("llama"), 16)
    plain = TorchDecoder(network, records=True)
    found = np.stack([(plain.step(token, place), plain.last.copy())[1] for place, token in enumerate(TOKENS)])
    skips = Skips.none(network) if coded else skips_of(network, found, 0.5, skip)
    half = read(Decoder(network, skips, half=True, coded=coded))
    np.testing.assert_allclose(half, read(TorchDecoder(rounded(network), skips)), atol=TOLERANCE)


@needs_compiler
def test_what_the_native_code_would_read_out_of_bounds_is_refused():
    from sparselab.latency.kernels.decoding.decoder import Decoder

    network = taken_apart(model_of("llama"), 16)
    own = Decoder(network, Skips.none(network), longest=8)
    for token, position in ((50, 0), (-1, 0), (0, 8), (0, -1)):
        with pytest.raises(IndexError, match="50 tokens and 8 positions"):
            own.step(token, position)
    with pytest.raises(ValueError, match="taken apart for 16 positions, and 17"):
        Decoder(network, Skips.none(network), longest=17)


@needs_compiler
def test_an_instruction_set_that_is_not_there_is_refused_and_not_replaced_by_torch(monkeypatch):
    from sparselab.core.errors import RunFailed
    from sparselab.latency.kernels.decoders import KERNELS, Setting
    from sparselab.latency.kernels.decoding import decoder

    def missing(isa):
        raise native.Unavailable(f"this processor has no {isa}")

    network = taken_apart(model_of("llama"), 16)
    monkeypatch.setattr(decoder, "library", missing)
    kind = KERNELS["rows"]
    with pytest.raises(RunFailed, match=r"kernel\.isa=avx512: this processor has no avx512 — write kernel\.isa=auto"):
        kind(kind.Options(isa="avx512")).decoder(network, Skips.none(network), Setting(False, 1, 16))
    assert isinstance(
        kind(kind.Options(isa="auto")).decoder(network, Skips.none(network), Setting(False, 1, 16)), TorchDecoder
    )


def test_onnx_runtime_writes_the_same():
    pytest.importorskip("onnxruntime"), pytest.importorskip("onnx")
    network = taken_apart(model_of("llama"), 16)
    assert misfit(network) is None
    graph = OnnxDecoder(network)
    np.testing.assert_allclose(read(graph), read(TorchDecoder(network)), atol=TOLERANCE)
    graph.replaying(np.ones((2, 6, 64), np.float32))
    graph.replay()
    assert all(misfit(taken_apart(model_of(kind), 16)) for kind in MADE if kind not in ("llama",))


def test_thresholds_by_hand():
    """The k-th smallest with k = int(n s); the dossier of CHESS: |g| U = [[2, .2, .5, .4], [.4, .1, 3, 1.6]], T = .4."""
    assert smallest(np.array([3.0, 1.0, 2.0, 4.0]), 0.5) == 2.0
    assert smallest(np.array([3.0, 1.0]), 0.2) == -1.0
    network = taken_apart(model_of("llama"), 16)
    for block in network.blocks:
        block.up.weight, block.gate.weight = block.up.weight[:4], block.gate.weight[:4]
        block.down.weight = block.down.weight[:, :4]
    found = np.zeros((2, 2, 6, 32), np.float32)
    found[:, :, 4, :4] = np.array([[1, -2, 0.5, 0.1], [0.2, 1, -3, 0.4]], np.float32)[:, None]
    found[:, :, 5, :4] = np.array([[2, 0.1, 1, 4], [2, 0.1, -1, -4]], np.float32)[:, None]
    np.testing.assert_allclose(skips_of(network, found, 0.5, "gate").gates[0], [0.2, 4, 0.4, 0.1], rtol=1e-6)


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({"model_type": "gpt2"}, "networks of model_type gpt2 are not taken apart here — take a network of llama"),
        (
            {"model_type": "opt", "do_layer_norm_before": False},
            "has its norms after the layers (OPT-350m) — take another OPT",
        ),
        ({"model_type": "opt", "word_embed_proj_dim": 8, "hidden_size": 16}, "has embeddings of another width"),
        (
            {"model_type": "llama", "rope_scaling": {"rope_type": "dynamic"}},
            "its rotations change as the text grows (dynamic)",
        ),
        ({"model_type": "llama", "hidden_act": "tanh"}, "has the activation tanh — known are gelu"),
        ({"model_type": "llama", "quantization_config": {}}, "has quantised weights — give plain weights"),
        ({}, "has no readable config.json with a model_type — give a folder made by save_pretrained"),
    ],
)
def test_what_is_not_taken_apart_is_refused_in_one_line(config, line, tmp_path):
    import json

    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_text("")
    assert str(architectures.misfit(tmp_path, "model.path=x")).startswith(f"model.path=x: {line}")
