"""Draws the model spec of a network call by call: the closed forms of the families and :func:`trace` share this pencil."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import prod

from sparselab.core.model_spec import Layer, Loose, ModelSpec

# The last part of a module path, to what it is. Words that are in both halves of a block are left to `word_roles`.
ROLE_OF_WORD = {
    **dict.fromkeys(("qkv", "c_attn", "query_key_value", "in_proj", "qkv_proj", "Wqkv"), "qkv"),
    **dict.fromkeys(("q_proj", "q_lin", "query", "q"), "q"),
    **dict.fromkeys(("k_proj", "k_lin", "key", "k"), "k"),
    **dict.fromkeys(("v_proj", "v_lin", "value", "v"), "v"),
    **dict.fromkeys(("o_proj", "out_proj", "out_lin"), "proj"),
    **dict.fromkeys(("router", "gate"), "router"),
    **dict.fromkeys(("fc1", "fc2", "c_fc", "gate_proj", "up_proj", "down_proj", "gate_up_proj"), "ff"),
}
ATTENTION = frozenset({"attn", "self_attn", "attention", "self_attention"})
FEED_FORWARD = frozenset({"mlp", "ffn", "feed_forward", "ff"})
SHORTCUT = frozenset({"downsample", "shortcut"})


def word_roles(name: str) -> set[str]:
    """Return the roles that the module path ``name`` implies.

    They are ``qkv``, ``q``, ``k``, ``v``, ``proj``, ``ff``, ``router``, ``downsample`` or nothing.
    """
    *parents, word = name.split(".")
    if word in ROLE_OF_WORD:
        return {ROLE_OF_WORD[word]}
    if not SHORTCUT.isdisjoint((*parents, word)):
        return {"downsample"}
    if not FEED_FORWARD.isdisjoint(parents):
        return {"ff"}
    if word in {"proj", "c_proj", "dense", "wo"} and not ATTENTION.isdisjoint(parents):
        return {"proj"}
    return set()


@dataclass
class SpecBuilder:
    """The layers called so far, in forward order, for ONE sample (an image; a full window of text).

    ``params`` counts every parameter once. Weights, biases and norms add to it as they are drawn; of a ``bare`` network weights
    alone.
    """

    params: int = 0
    bare: bool = False
    fixed_macs: dict[str, int] = field(default_factory=dict)
    loose: list[Loose] = field(default_factory=list)
    _layers: dict[str, Layer] = field(default_factory=dict)
    _read: dict[str, tuple[str, str]] = field(default_factory=dict)
    _added: dict[str, tuple[str, str]] = field(default_factory=dict)
    _of_stream: dict[str, list[str]] = field(default_factory=dict)
    _calls: list[tuple[str, int]] = field(default_factory=list)

    def call(
        self, name: str, kind: str, shape: Sequence[int], macs: int, groups: int = 1, own_path: bool = False
    ) -> None:
        """The network uses ``<name>.weight``. A weight used again (tied, shared) adds to its multiply-accumulates.

        groups: of a convolution; with one input channel in each it is depthwise. Does not touch ``params``.
        own_path: ``name`` is the tensor's, which is not called weight.
        """
        self._calls.append((name, macs))
        seen = self._layers.get(name)
        if seen is not None:
            self._layers[name] = replace(seen, macs=seen.macs + macs)
            return
        roles = word_roles(name.removesuffix("_weight"))
        if kind in ("embedding", "gates"):
            roles = {kind}
        if kind == "conv" and groups > 1 and shape[1] == 1:
            roles.add("depthwise")
        self._layers[name] = Layer(name, kind, tuple(shape), macs, frozenset(roles), groups, own_path)

    def linear(self, name: str, outputs: int, inputs: int, positions: int = 1, bias: bool = True) -> None:
        """A linear layer applied at ``positions`` places of a sample (tokens)."""
        self.params += outputs * inputs + (bias and not self.bare) * outputs
        self.call(name, "linear", (outputs, inputs), outputs * inputs * positions)

    def conv1d(self, name: str, outputs: int, inputs: int, positions: int) -> None:
        """transformers' GPT-2 layer: a linear layer that stores (in, out), always with a bias."""
        self.params += outputs * inputs + outputs
        self.call(name, "conv1d", (inputs, outputs), outputs * inputs * positions)

    def conv(
        self,
        name: str,
        outputs: int,
        inputs: int,
        kernel: int,
        size: Sequence[int],
        stride: int = 1,
        padding: int | None = None,
        bias: bool = False,
        groups: int = 1,
        dilation: int = 1,
    ) -> tuple[int, int]:
        """Add a square convolution over ``size`` (height, width), padded by ``kernel // 2`` unless told.

        inputs: of each group. Returns its output's size. Multiplications with the padding count, as they do in
        ``torch.utils.flop_counter``.
        """
        moved = pooled(size, dilation * (kernel - 1) + 1, stride, kernel // 2 if padding is None else padding)
        shape = (outputs, inputs, kernel, kernel)
        self.params += prod(shape) + (bias and not self.bare) * outputs
        self.call(name, "conv", shape, prod(shape) * prod(moved), groups)
        return moved

    def embedding(self, name: str, rows: int, width: int) -> None:
        """A table of vectors: looked up, so it multiplies nothing."""
        self.params += rows * width
        self.call(name, "embedding", (rows, width), 0)

    def lstm(self, name: str, hidden: int, inputs: int, positions: int) -> None:
        """Add torch's nn.LSTM of one layer with biases, over ``positions`` tokens.

        At each, all gates multiply what comes in and the hidden state before it. The four gates' rows follow each other in
        both matrices.
        """
        self.params += 2 * 4 * hidden  # a bias for either matrix
        for matrix, columns in (("weight_ih_l0", inputs), ("weight_hh_l0", hidden)):
            self.params += 4 * hidden * columns
            self.call(f"{name}.{matrix}", "gates", (4 * hidden, columns), 4 * hidden * columns * positions)

    def table(self, name: str, *shape: int) -> None:
        """A parameter that is added to what passes, such as positions: no layer."""
        self.params += prod(shape)
        self.loose.append(Loose(name, shape))

    def norm(self, width: int, parameters: int = 2) -> None:
        """A normalisation over ``width`` channels with ``parameters`` vectors (2: scale and shift; 1: scale)."""
        self.params += 0 if self.bare else parameters * width

    def reads(self, name: str, reader: str, norm: str = "") -> None:
        """Layer ``reader`` alone reads the outputs of layer ``name``, through the normalisation ``norm`` where there is one."""
        self._read[name] = (reader, norm)

    def adds(self, name: str, stream: str, norm: str = "") -> None:
        """The outputs of layer ``name`` are added to the residual ``stream``, through ``norm`` where there is one."""
        self._added[name] = (stream, norm)

    def reads_stream(self, name: str, stream: str) -> None:
        """Layer ``name`` reads the residual ``stream``; all that reads or writes it has to be told."""
        self._of_stream.setdefault(stream, []).append(name)

    def products(self, name: str, heads: int, tokens: int, width: int) -> None:
        """The two attention products of module ``name``, q@k and att@v, over all pairs of ``tokens``.

        A causal mask saves nothing here: kernels may skip the upper triangle, the count does not.
        """
        self.fixed_macs[name] = 2 * heads * tokens * tokens * width

    def model_spec(self, name: str) -> ModelSpec:
        """The finished model spec: a first layer that is a convolution is the ``stem``, the last to multiply the ``head``.

        A fully connected first layer is no stem: in a perceptron it holds most of the weights, and papers prune it.
        """
        weighted = [called for called, macs in self._calls if macs]
        positions: dict[str, set[str]] = {}
        if weighted:
            positions.setdefault(weighted[-1], set()).add("head")
        if weighted and self._calls[0][0] == weighted[0] and self._layers[weighted[0]].kind == "conv":
            positions.setdefault(weighted[0], set()).add("stem")
        layers = [
            replace(layer, roles=layer.roles | positions.get(layer.name, set())) for layer in self._layers.values()
        ]
        for i, layer in enumerate(layers):
            reader, norm = self._read.get(layer.name, ("", ""))
            if reader in self._layers:
                layers[i] = replace(layer, norm=norm, readers=(reader,))
        broken = {stream for name, (stream, _) in self._added.items() if name not in self._layers}
        broken |= {stream for stream, names in self._of_stream.items() if not self._layers.keys() >= set(names)}
        for i, layer in enumerate(layers):
            stream, norm = self._added.get(layer.name, ("", ""))
            if stream and stream not in broken:
                readers = tuple(self._of_stream.get(stream, ()))
                layers[i] = replace(layer, norm=norm, readers=readers, adds=stream)
        return ModelSpec(name, tuple(layers), self.params, dict(self.fixed_macs), loose=tuple(self.loose))


def pooled(size: Sequence[int], kernel: int, stride: int, padding: int) -> tuple[int, int]:
    """(height, width) after a square window of ``kernel`` has moved over a padded ``size`` in strides."""
    height, width = ((side + 2 * padding - kernel) // stride + 1 for side in size)
    return height, width
