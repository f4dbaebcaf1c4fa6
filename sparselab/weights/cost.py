"""The cost of a sparse network: parameters, multiply-accumulates, FLOPs; to run it once and to train it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sparselab.core.model_spec import Layer, ModelSpec

FLOPS_PER_MAC = 2  # a multiplication and an addition


@dataclass(frozen=True)
class LayerAccount:
    """The part of one weight in a network's cost.

    ``params`` counts its numbers without the bias. MACs and FLOPs are of one sample's forward pass.
    """

    name: str
    params: int
    params_nonzero: int
    macs_dense: int
    macs: int
    flops_dense: int
    flops: int


@dataclass(frozen=True)
class Cost:
    """A network's cost per sample (an image; a full window of text), forward.

    ``params`` and ``params_nonzero`` count the whole network. Zeros are those of the layers' weights: foreseen from masks,
    of a finished network counted in its weights, masked or not. Biases, norms and tables are counted as nonzero.
    ``*_dense`` is the same network without masks. ``flops`` is always ``2 * macs``. Biases, norms, activations and
    other elementwise work are not counted; attention products are, in full, in both.
    """

    params: int
    params_nonzero: int
    macs_dense: int
    macs: int
    flops_dense: int
    flops: int
    layers: tuple[LayerAccount, ...]

    def record(self) -> dict[str, Any]:
        """Plain numbers, lists and dicts, for a record."""
        plain = asdict(self)
        return {**plain, "layers": list(plain["layers"])}


def plain_cost(model_spec: ModelSpec) -> dict[str, int]:
    """Multiply-accumulates of the dense network that a transformed ``model_spec`` replaces, for a record; else nothing."""
    return {} if model_spec.plain_macs is None else {"macs_plain": model_spec.plain_macs}


def cost_of(model_spec: ModelSpec, kept: Mapping[str, int] | None = None) -> Cost:
    """The cost of ``model_spec`` where layer ``name`` keeps ``kept[name]`` weights; a layer not named keeps all.

    A weight works once at every position of a sample, so a layer's multiply-accumulates are proportional to what it
    keeps, exactly. Raises ValueError for a name that is no layer and for a number outside [0, size].
    """
    counts = _counts(model_spec, kept or {})
    layers = tuple(
        LayerAccount(
            layer.name,
            layer.numel,
            counts[layer.name],
            layer.macs,
            _macs(layer, counts[layer.name]),
            FLOPS_PER_MAC * layer.macs,
            FLOPS_PER_MAC * _macs(layer, counts[layer.name]),
        )
        for layer in model_spec.layers
    )
    macs = sum(layer.macs for layer in layers) + sum(model_spec.fixed_macs.values())
    return Cost(
        params=model_spec.params,
        params_nonzero=model_spec.params - sum(layer.params - layer.params_nonzero for layer in layers),
        macs_dense=model_spec.macs,
        macs=macs,
        flops_dense=FLOPS_PER_MAC * model_spec.macs,
        flops=FLOPS_PER_MAC * macs,
        layers=layers,
    )


def train_flops(
    model_spec: ModelSpec,
    ledger: Sequence[tuple[int, Mapping[str, int]]],
    samples_per_step: int,
    weight_grad: Literal["dense", "kept"],
    *,
    steps: int,
    dense_steps: Collection[int] = (),
    moved: Mapping[str, int] | None = None,
) -> int:
    """FLOPs of ``steps`` optimiser updates by the sparse-forward/dense-growth rule (RigL, arXiv 1911.11134, app. H).

    With F_l the dense forward FLOPs of layer l and D_l the fraction it keeps, one sample costs

    - forward: sum of D_l F_l, and the gradient of the inputs: the same again;
    - gradient of the weights: sum of F_l where the method reads it for pruned weights too (``weight_grad="dense"``:
      straight-through estimators, SR-STE, dense training), sum of D_l F_l where pruned weights get none
      (``weight_grad="kept"``: static masks, SET), and F_l at the updates in ``dense_steps`` only for methods that grow
      by the dense gradient now and then (RigL);
    - what no mask saves (``fixed_macs``): three times in full.

    So dense training costs 3 F a sample. As in the papers, the first layer's input gradient is counted although nobody
    needs it; the optimiser's arithmetic and the making of masks are not counted.

    ledger:      (first, kept) segments: ``kept``, as for :func:`cost_of`, is in force from after update ``first`` (0:
                 from the start) until the next segment. The first one starts at 0, later ones further on.
    dense_steps: numbers of updates, counted from 1.
    moved:       weights of a layer that get a gradient, by name, where a method moves fewer than its masks keep.

    Raises ValueError for a ledger out of order, and for what :func:`cost_of` refuses.
    """
    starts = [first for first, _ in ledger]
    if starts[:1] != [0] or starts != sorted(set(starts)):
        raise ValueError(f"a ledger starts at 0 and rises, this one has {starts[:8]}")
    if weight_grad not in ("dense", "kept"):
        raise ValueError(f"weight_grad is 'dense' or 'kept', not {weight_grad!r}")
    ends = [*starts[1:], steps]
    fixed = sum(model_spec.fixed_macs.values())
    asking = sorted(set(dense_steps))
    macs = 0
    for (start, kept), end in zip(ledger, ends, strict=True):
        updates = range(start + 1, min(end, steps) + 1)
        counts = _counts(model_spec, kept)
        sparse = sum(_macs(layer, counts[layer.name]) for layer in model_spec.layers) + fixed
        if weight_grad == "dense":
            dense = len(updates)
        else:
            dense = bisect_left(asking, updates.stop) - bisect_left(asking, updates.start) if updates else 0
        taken = {name: min(count, counts[name]) for name, count in (moved or {}).items()}
        spared = sum(_macs(x, counts[x.name]) - _macs(x, taken[x.name]) for x in model_spec.layers if x.name in taken)
        macs += len(updates) * (3 * sparse - spared) + dense * (model_spec.macs - sparse)
    return FLOPS_PER_MAC * macs * samples_per_step


def forward_flops(
    model_spec: ModelSpec, ledger: Sequence[tuple[int, Mapping[str, int]]], samples_per_step: int, steps: int
) -> int:
    """FLOPs of the forward passes of ``steps`` updates alone; arguments as :func:`train_flops` has them."""
    return train_flops(model_spec, ledger, samples_per_step, "kept", steps=steps) // 3


def train_flops_dense(model_spec: ModelSpec, samples_per_step: int, steps: int) -> int:
    """FLOPs of ``steps`` updates of dense training: three forward passes a sample."""
    return train_flops(model_spec, [(0, {})], samples_per_step, "dense", steps=steps)


def _counts(model_spec: ModelSpec, kept: Mapping[str, int]) -> dict[str, int]:
    sizes = {layer.name: layer.numel for layer in model_spec.layers}
    for name, count in kept.items():
        if name not in sizes:
            raise ValueError(f"{name} is no layer of {model_spec.name}")
        if not 0 <= count <= sizes[name]:
            raise ValueError(f"{name} has {sizes[name]} weights and cannot keep {count}")
    return {**sizes, **kept}


def _macs(layer: Layer, kept: int) -> int:
    return layer.macs * kept // layer.numel
