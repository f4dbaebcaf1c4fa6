"""ONNX Runtime: the fastest dense network that a package of today gives; it has no kernels for unstructured zeros."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from sparselab.core.errors import Issue
from sparselab.latency.kernels.kernel import KERNELS, Kernel
from sparselab.latency.kernels.layers import Layer, Network, Pointwise

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from sparselab.latency.workloads.weights import Weighted

OPSET, IR = 13, 8  # old enough for every runtime of the last years


@KERNELS.register("onnxruntime")
class OnnxRuntime(Kernel):
    """The whole network as one graph, optimised by the runtime, on one thread."""

    sparse = False

    def issues(self) -> list[Issue]:
        missing = [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]
        fix = f"pip install {' '.join(missing)}, or leave it out"
        return [Issue("kernel=onnxruntime", f"{' and '.join(missing)} cannot be imported", fix)] if missing else []

    def layer(self, pointwise: Pointwise) -> Layer:
        weight = pointwise.weight[:, :, None, None]
        graph = _Graph((1, weight.shape[1], 1, pointwise.pixels))
        graph.conv(weight, pointwise.bias, pointwise.clamp)
        run = graph.session()
        return lambda x: run(x.view(1, weight.shape[1], 1, pointwise.pixels)).view(weight.shape[0], -1)

    def network(self, layers: list[Weighted]) -> Network:
        first = layers[0].step
        graph = _Graph((1, first.inputs, *first.size))
        for one in layers:
            if one.step.kind == "head":
                graph.node("GlobalAveragePool")
            groups = one.step.outputs if one.step.kind == "depthwise" else 1
            graph.conv(one.weight, one.bias, one.clamp, one.step.stride, groups)
            if one.step.residual:
                graph.node("Add", [graph.narrow])
            if one.step.narrow:
                graph.narrow = graph.last
        return graph.session()


class _Graph:
    """A chain of nodes; ``narrow`` remembers the last linear bottleneck, which residuals add."""

    def __init__(self, shape: tuple[int, ...]):
        self.shape = shape
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.last = self.narrow = "x"

    def node(self, kind: str, more: list[str] | None = None, **attributes: Any) -> None:
        from onnx import helper

        out = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, [self.last, *(more or [])], [out], **attributes))
        self.last = out

    def constant(self, value: np.ndarray) -> str:
        from onnx import numpy_helper

        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def conv(
        self, weight: np.ndarray, bias: np.ndarray, clamp: tuple[float, float], stride: int = 1, groups: int = 1
    ) -> None:
        import numpy as np

        pad = weight.shape[-1] // 2
        names = [self.constant(weight), self.constant(bias)]
        self.node("Conv", names, strides=[stride, stride], pads=[pad] * 4, group=groups)
        if np.isfinite(clamp[0]):
            self.node("Clip", [self.constant(np.array(end, np.float32)) for end in clamp])

    def session(self) -> Network:
        import torch
        from onnx import TensorProto, helper
        from onnxruntime import InferenceSession, SessionOptions

        ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, self.shape)]
        outs = [helper.make_tensor_value_info(self.last, TensorProto.FLOAT, None)]
        graph = helper.make_graph(self.nodes, "network", ends, outs, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
        options = SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

        def run(x: Tensor) -> Tensor:
            return torch.from_numpy(session.run(None, {"x": x.numpy()})[0])

        return run
