"""Whether a sparsity fits a layer, told from the shape alone."""

from __future__ import annotations

from sparselab.sparsity.count import nearest_count
from sparselab.sparsity.layout import AXES, EXPERTS, grouped, matrix, n_of_m, tile
from sparselab.spec.faults import Fault
from sparselab.spec.outline import Layer
from sparselab.spec.sparsity import Sparsity

EXCLUDE = "exclude it (targets.exclude) or use another pattern"
UNITS = {"block": "block", "channel": "channel", "in_channel": "input channel"}


def misfit(layer: Layer, sparsity: Sparsity, axis: str = "in") -> Fault | None:
    """Why ``sparsity`` cannot be put on ``layer`` with N:M groups along ``axis`` (in, out, kernel); None if it can."""
    where = f"sparsity={sparsity}"
    if sparsity.kind == "dense":
        return None
    if len(layer.shape) < 2:
        return Fault(where, f"{layer.name} is 1-D and sparsity needs at least 2-D", "exclude it (targets.exclude)")
    problem = _off_axis(layer, sparsity, axis) if sparsity.kind == "nm" else _off_grid(layer, sparsity)
    return None if problem is None else Fault(where, problem, EXCLUDE)


def _off_axis(layer: Layer, sparsity: Sparsity, axis: str) -> str | None:
    if axis == "kernel" and layer.kind != "conv":
        return f"{layer.name} is no convolution and has no kernel axis"
    length, m = grouped(layer.kind, layer.shape, axis)[1], n_of_m(sparsity)[1]
    if length % m == 0:
        return None
    noun = AXES[axis] if length != 1 else AXES[axis].replace("puts", "put").replace("weights", "weight")
    depthwise = " (a depthwise convolution)" if "depthwise" in layer.roles else ""
    return f"{layer.name} has {length} {noun}{depthwise}, not a multiple of {m}"


def _off_grid(layer: Layer, sparsity: Sparsity) -> str | None:
    if sparsity.kind == "in_channel" and layer.groups > 1 and layer.kind == "conv":
        return f"{layer.name} is a convolution in {layer.groups} groups, each with input channels of its own"
    (outputs, inputs), (rows, columns) = matrix(layer.kind, layer.shape), tile(sparsity, layer.kind, layer.shape)
    if layer.kind in EXPERTS:
        outputs = layer.outputs  # a block lies in one expert
    if outputs % rows or inputs % columns:
        return f"{layer.name} is {outputs} outputs x {inputs} inputs, not a whole number of {rows}x{columns} blocks"
    units = layer.numel // (rows * columns)
    if sparsity.kind in UNITS and nearest_count(sparsity.density, units) == 0:
        plural = "" if units == 1 else "s"
        return f"{layer.name} has {units} {UNITS[sparsity.kind]}{plural} and would keep none"
    return None
