"""One token as a graph of ONNX Runtime, with its own fused attention: for networks like Llama, in float32."""

from __future__ import annotations

from typing import Any

import numpy as np

from sparselab.latency.networks.network import Linear, Network

OPSET, IR, OWN = 14, 8, "com.microsoft"


def misfit(network: Network) -> str | None:
    """Why a network is not drawn as a graph, None where it is."""
    odd = network.layer_norm or network.parallel or network.positions is not None or network.cap or network.last_cap
    blocks = network.blocks
    odd = odd or any(b.gate is None or b.window or b.q_norm is not None or b.after[0] is not None for b in blocks)
    biased = any(one.bias is not None for block in blocks for one in block.matrices().values())
    if odd or biased or network.act != "silu" or 2 * network.cosine.shape[1] != network.dim:
        return "onnx_decode draws networks like Llama only (RMS norms, SiLU gates, no biases, heads of sixteens)"
    return None


class OnnxDecoder:
    """As :class:`~sparselab.latency.kernels.decoding.decoder.Decoder`, without skips; the cache is written where it lies."""

    def __init__(self, network: Network, threads: int = 1, longest: int | None = None):
        from onnxruntime import OrtValue

        self.network, self.longest, self.threads = network, longest or network.longest, threads
        self.session = self._graph().session(threads)
        self.binding = self.session.io_binding()
        shape = (1, network.groups, self.longest, network.dim)
        self.cache = {name: OrtValue.ortvalue_from_numpy(np.zeros(shape, np.float32)) for name in self._caches()}
        for name, value in self.cache.items():
            self.binding.bind_ortvalue_input(name, value)
            self.binding.bind_ortvalue_output(f"{name}_out", value)
        self.given: dict[str, np.ndarray] = {
            "token": np.zeros((1, 1), np.int64), "position": np.zeros(1, np.int32), "total": np.zeros((), np.int32),
        }  # fmt: skip
        self.logits = np.zeros((1, 1, len(network.head.weight)), np.float32)
        self.binding.bind_output(
            "logits", "cpu", 0, np.float32, self.logits.shape, self.logits.__array_interface__["data"][0]
        )
        self.products: Any = None

    @property
    def weight_bytes(self) -> int:
        return 4 * self.network.weights

    def step(self, token: int, position: int) -> np.ndarray:
        """Read a token at a position, after all before it; logits (vocabulary,)."""
        self.given["token"][0, 0], self.given["position"][0] = token, position
        self.given["total"][...] = position + 1
        for name, value in self.given.items():
            self.binding.bind_cpu_input(name, value)
        self.session.run_with_iobinding(self.binding)
        return self.logits[0, 0]

    def replaying(self, last: np.ndarray) -> None:
        """Take ``last`` (layers, sites, widest) float32 as the inputs of :meth:`replay`."""
        n = self.network
        graph = _Graph()
        self.feeds = {}
        for number, block in enumerate(n.blocks):
            groups = (("a", [block.q, block.k, block.v], 0), ("b", [block.o], 1), ("c", [block.gate, block.up], 2))
            for letter, ones, site in (*groups, ("d", [block.down], 3)):
                made = [one for one in ones if one is not None]
                size = made[0].weight.shape[1]
                name = f"read_{letter}{number}"
                self.feeds[name] = np.ascontiguousarray(last[number, site, :size].reshape(1, size))
                graph.input(name, (1, size))
                graph.output(graph.matmul(name, made))
        self.products = graph.session(self.threads)

    def replay(self) -> None:
        """Compute the products of all blocks alone."""
        self.products.run(None, self.feeds)

    def _caches(self) -> list[str]:
        return [f"{kind}{number}" for number in range(len(self.network.blocks)) for kind in ("k", "v")]

    def _graph(self) -> _Graph:
        n, graph = self.network, _Graph()
        graph.input("token", (1, 1), np.int64)
        graph.input("position", (1,), np.int32)
        graph.input("total", (), np.int32)
        cosine, sine = (graph.constant(t[: self.longest]) for t in (n.cosine, n.sine))
        x = graph.node("Gather", [graph.constant(n.embedding), "token"])
        if n.embedded != 1:
            x = graph.node("Mul", [x, graph.constant(np.float32(n.embedded))])
        norm = graph.norm
        for number, block in enumerate(n.blocks):
            assert block.gate is not None
            h = norm(x, block.norms[0].gain, n.eps)
            qkv = graph.matmul(h, [block.q, block.k, block.v])
            outs = [f"read{number}", f"k{number}_out", f"v{number}_out"]
            for name in (f"k{number}", f"v{number}"):
                graph.input(name, (1, n.groups, self.longest, n.dim))
                graph.outputs.append((f"{name}_out", np.float32))
            graph.node(
                "GroupQueryAttention", [qkv, "", "", f"k{number}", f"v{number}", "position", "total", cosine, sine],
                outs, OWN, num_heads=n.heads, kv_num_heads=n.groups, do_rotary=1, scale=n.scale,
            )  # fmt: skip
            x = graph.node("Add", [x, graph.matmul(outs[0], [block.o])])
            h = norm(x, block.norms[1].gain, n.eps)
            gate, up = graph.matmul(h, [block.gate]), graph.matmul(h, [block.up])
            mid = graph.node("Mul", [graph.node("QuickGelu", [gate], None, OWN, alpha=1.0), up])
            x = graph.node("Add", [x, graph.matmul(mid, [block.down])])
        graph.node(
            "MatMul", [norm(x, n.last.gain, n.eps), graph.constant(np.ascontiguousarray(n.head.weight.T))], ["logits"]
        )
        graph.outputs.append(("logits", np.float32))
        return graph


class _Graph:
    """Nodes, constants and ends."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[tuple[str, Any]] = []

    def node(
        self, kind: str, inputs: list[str], outputs: list[str] | None = None, domain: str = "", **more: Any
    ) -> str:
        from onnx import helper

        outs = outputs or [f"t{len(self.nodes)}"]
        self.nodes.append(helper.make_node(kind, inputs, outs, domain=domain, **more))
        return outs[0]

    def norm(self, x: str, gain: np.ndarray, eps: float) -> str:
        return self.node("SimplifiedLayerNormalization", [x, self.constant(gain)], axis=-1, epsilon=eps)

    def matmul(self, x: str, ones: list[Linear]) -> str:
        weight = np.ascontiguousarray(np.concatenate([one.weight for one in ones]).T)
        return self.node("MatMul", [x, self.constant(weight)])

    def constant(self, value: Any) -> str:
        from onnx import numpy_helper

        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def input(self, name: str, shape: tuple[int, ...], kind: Any = np.float32) -> None:
        from onnx import helper

        self.inputs.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(kind)), shape))

    def output(self, name: str) -> None:
        self.outputs.append((name, np.float32))

    def session(self, threads: int) -> Any:
        from onnx import helper
        from onnxruntime import InferenceSession, SessionOptions

        kinds = [(name, helper.np_dtype_to_tensor_dtype(np.dtype(kind))) for name, kind in self.outputs]
        outs = [helper.make_tensor_value_info(name, kind, None) for name, kind in kinds]
        graph = helper.make_graph(self.nodes, "token", self.inputs, outs, self.constants)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(OWN, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR)
        options = SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        return InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
