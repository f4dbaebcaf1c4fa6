"""The parameters that a network multiplies with, and their operands, observed in torch's own operations [torch].

A layer's weight may be used without a call of the layer (``linear(x, self.qkv.weight)``), several matrices may lie in one
tensor (mixtures of experts), and what a layer multiplies with need not be its weight (weight standardisation). Hooks on
modules see none of that; the operations of torch do, and an operand that is a view of a parameter shares its storage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten


@dataclass(frozen=True)
class Use:
    """One product in which a parameter is an operand.

    name:  the parameter's. kind: how it lies there (as ``Layer.kind``), "" where it is multiplied in no way that is
           known. groups: of a convolution, or the number of matrices in one tensor.
    whole: all of the parameter takes part, or all of one of its matrices: not so of a part of a fused layer.
    rows:  makes what it is multiplied with: pairs of (group, or None for all in turn; float tensor). Tensors are
           (positions, inputs), of all groups at once (groups, positions, inputs).
    macs:  multiply-accumulates where torch's own counter knows none, else None.
    """

    name: str
    kind: str
    groups: int = 1
    whole: bool = True
    rows: Callable[[], list[tuple[int | None, Tensor]]] = list
    macs: int | None = None


class Products(TorchDispatchMode):
    """While it is entered, ``seen(uses, operation)`` is called after each operation.

    uses: of one that multiplies two matrices, those operands that are parameters (one, unless neither can be told to be
    the weight); empty where both are data, None for other operations. ``touched`` collects the parameters that any
    operation reads, ``copied`` those of three and more dimensions of which parts are gathered.
    """

    def __init__(self, parameters: Mapping[str, Tensor], seen: Callable[[list[Use] | None, Any], None]):
        super().__init__()
        self.seen = seen
        self.touched: set[str] = set()
        self.copied: set[str] = set()
        self.places: dict[int, list[tuple[int, int, str]]] = {}
        self.tensors = dict(parameters)
        for name, tensor in parameters.items():
            if tensor.layout == torch.strided:
                first = int(tensor.storage_offset())
                span = (first, first + tensor.numel(), name)
                self.places.setdefault(tensor.untyped_storage()._cdata, []).append(span)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for operand in _tensors(args):
            name = self.name(operand)
            if name is not None:
                self.touched.add(name)
                if func in GATHERS and self.tensors[name].ndim > 2 and operand is args[0]:
                    self.copied.add(name)
        reader = READERS.get(func)
        self.seen(None if reader is None else reader(self, *args), func)
        return out

    def name(self, operand: Any) -> str | None:
        """The parameter that a tensor is, or a view of."""
        if not isinstance(operand, Tensor) or operand.layout != torch.strided:
            return None
        at = operand.storage_offset()
        spans = self.places.get(operand.untyped_storage()._cdata, ())
        return next((name for first, last, name in spans if first <= at < last), None)


def _tensors(args: Any) -> Iterator[Tensor]:
    for value in args:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


def _matrices(products: Products, left: Tensor, right: Tensor, last: bool = True) -> list[Use]:
    """Return the use of ``left @ right``, batched or not; if both are parameters the right one is the weight."""
    weight = products.name(right)
    if weight is not None:
        return [_matrix(products.tensors[weight], weight, right, -2, left)]
    weight = products.name(left)
    if weight is not None:
        return [_matrix(products.tensors[weight], weight, left, -1, right.transpose(-1, -2))]
    return []


def _matrix(param: Tensor, name: str, operand: Tensor, summed: int, other: Tensor) -> Use:
    """``operand`` is a view of ``param``; its dimension ``summed`` is multiplied with ``other``'s last and added up."""
    last = -1 if summed == -2 else -2
    flat = operand[0] if operand.ndim == 3 and (len(operand) == 1 or operand.stride(0) == 0) else operand
    matrices = 1 if param.ndim == 2 else len(param)
    size = param.numel() // matrices
    if param.ndim not in (2, 3) or (flat.ndim == 3 and (param.ndim == 2 or len(flat) != matrices)):
        return Use(name, "")
    shape, strides = param.shape[-2:], param.stride()[-2:]
    turned = _lies(flat, summed, last, strides, shape)
    if turned is None:
        return Use(name, "")
    kind = ("conv1d" if turned else "linear") if param.ndim == 2 else ("experts1d" if turned else "experts")
    if flat.ndim == 3:
        return Use(name, kind, matrices, flat.numel() == param.numel(), lambda: [(None, other)])
    index, rest = divmod(int(flat.storage_offset()) - int(param.storage_offset()), size)
    if matrices == 1:
        return Use(name, kind, 1, flat.numel() == param.numel(), lambda: [(0, other.flatten(0, -2))])
    if rest or flat.numel() != size:
        return Use(name, "")
    return Use(name, kind, matrices, True, lambda: [(index, other.flatten(0, -2))])


def _lies(view: Tensor, summed: int, last: int, strides: Any, shape: Any) -> bool | None:
    """Return True for a matrix stored as (inputs, outputs); False: (outputs, inputs), None: not as it is multiplied with."""
    by = {name: (view.stride(axis), view.shape[axis]) for name, axis in (("summed", summed), ("last", last))}

    def along(name: str, axis: int) -> bool:
        stride, size = by[name]
        return size <= shape[axis] and (stride == strides[axis] or size == 1)

    if along("summed", 1) and along("last", 0):
        return False
    return True if along("summed", 0) and along("last", 1) else None


def _grouped(products: Products, left: Tensor, right: Tensor, offs: Tensor | None = None, *rest: Any) -> list[Use]:
    """Return the use of a grouped product: the rows of ``left`` up to each of ``offs`` times their own matrix of ``right``."""
    name = products.name(right)
    if name is None or left.ndim != 2 or right.ndim != 3 or offs is None:
        uses = _matrices(products, left, right) if left.ndim == right.ndim == 3 else []
        return uses or [Use(found, "") for found in (products.name(left), name) if found]
    use = _matrix(products.tensors[name], name, right, -2, left)
    rows = len(left) if offs.device.type == "meta" else int(offs[-1])
    parts = partial(_parts, left, offs)
    return [Use(name, use.kind, use.groups, use.whole, parts, rows * right.shape[1] * right.shape[2])]


def _parts(left: Tensor, offs: Tensor) -> list[tuple[int | None, Tensor]]:
    ends = [0, *offs.tolist()]
    return [(i, left[first:last]) for i, (first, last) in enumerate(pairwise(ends))]


def _convolution(
    products: Products, x: Tensor, weight: Tensor, bias: Any, stride: Any, padding: Any, dilation: Any,
    transposed: bool, output_padding: Any, groups: int,
) -> list[Use]:  # fmt: skip
    name = products.name(weight)
    if name is None:
        return []
    if transposed or weight.shape != products.tensors[name].shape:
        return [Use(name, "")]

    def rows() -> list[tuple[int | None, Tensor]]:
        return [(None, patches(x, tuple(weight.shape[2:]), stride, padding, dilation, groups))]

    return [Use(name, "conv", groups, True, rows)]


def _embedding(products: Products, weight: Tensor, *rest: Any) -> list[Use]:
    name = products.name(weight)
    return [] if name is None else [Use(name, "embedding" if weight.ndim == 2 else "", macs=0)]


GATHERS = frozenset({aten.index.Tensor, aten.index_select.default, aten.gather.default})

READERS: dict[Any, Callable[..., list[Use]]] = {
    aten.mm.default: _matrices,
    aten.bmm.default: _matrices,
    aten.addmm.default: lambda products, bias, left, right, *rest: _matrices(products, left, right),
    aten.baddbmm.default: lambda products, bias, left, right, *rest: _matrices(products, left, right),
    aten.convolution.default: _convolution,
    aten.embedding.default: _embedding,
    **({aten._grouped_mm.default: _grouped} if hasattr(aten, "_grouped_mm") else {}),
}


def patches(x: Tensor, kernel: tuple[int, ...], stride: Any, padding: Any, dilation: Any, groups: int) -> Tensor:
    """Return the matrix that a convolution's filters multiply.

    x: (n, channels, *size). Returns (positions, inputs), with ``groups`` above 1 (groups, positions, inputs); an input is a
    group's channels times the kernel, as a filter is stored.
    """
    if len(kernel) == 2 and groups == 1:
        return F.unfold(x, kernel, dilation, padding, stride).transpose(1, 2).flatten(0, 1)
    around = [side for pad in reversed(padding) for side in (pad, pad)]
    found = F.pad(x, around)
    for axis, (width, step, gap) in enumerate(zip(kernel, stride, dilation, strict=True), start=2):
        found = found.unfold(axis, gap * (width - 1) + 1, step)[..., ::gap]
    n, channels = x.shape[:2]
    found = found.reshape(n, groups, channels // groups, -1, *kernel).transpose(2, 3)  # positions before channels
    found = found.transpose(0, 1).reshape(groups, -1, channels // groups * kernel_size(kernel))
    return found[0] if groups == 1 else found


def kernel_size(kernel: tuple[int, ...]) -> int:
    """Number of positions of a kernel."""
    return torch.Size(kernel).numel()


@contextmanager
def plain_attention() -> Iterator[None]:
    """Take torch's attention module off its fused path, which hides its products, inside the context."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
