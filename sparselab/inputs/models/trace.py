"""The model spec of any network, from one forward pass of one sample. Imports torch when called."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from sparselab.core.data_spec import DataSpec
from sparselab.core.errors import refuse
from sparselab.core.model_spec import ADDED, FUNCTION, PRODUCT, UNSEEN, Loose, ModelSpec
from sparselab.inputs.models.spec_builder import SpecBuilder

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from sparselab.core.products import Products

WEIGHTED = ("linear", "conv", "conv1d")
"""Kinds of module that multiply with their weight and nothing else."""


class Reader(Protocol):
    """The part of a family that a trace asks for."""

    @property
    def where(self) -> str:
        """Return the key of an issue of the network itself."""

    def logits(self, model: nn.Module, batch: Tensor) -> Tensor:
        """Do one forward pass.

        Args:
            model: the network
            batch: (n, *inputs)

        Returns:
            (n, *outputs).
        """


def traced(family: Reader, model: nn.Module, data: DataSpec) -> ModelSpec:
    """:func:`trace` of a network that ``family`` made; ConfigError where it cannot compute a sample of ``data``."""
    try:
        return trace(model, data, call=lambda sample: family.logits(model, sample))
    except Exception as error:  # whatever a network of another library does with a size that it is not for
        reason = (str(error).strip() or type(error).__name__).split("\n")[0]
        refuse(family.where, f"cannot compute {data.inputs}: {reason[:60]}", "choose another network, or another size")


def trace(
    model: nn.Module, data: DataSpec, name: str = "traced", call: Callable[[Tensor], Any] | None = None
) -> ModelSpec:
    """The spec of ``model`` for ``data``: layers in the order of their first use, costs from torch's own counter.

    The model may be on any device, ``meta`` included, and is left as it was: the pass runs in evaluation mode without
    gradients and draws no random numbers. A layer is a parameter that is multiplied with as it is stored, whichever
    module does it; experts of a mixture are charged for the tokens that reach them. Products of two activations
    (attention) go to ``fixed_macs`` under the module that computes them. Parameters of two and more dimensions that are
    no layer stand in ``loose``, with what is known of their use. call: how ``model`` reads a sample, where not as its argument.
    """
    import torch
    from torch import nn
    from torch.nn.modules.batchnorm import _BatchNorm
    from torch.utils.flop_counter import FlopCounterMode

    from sparselab.core.products import Products, Use, plain_attention
    from sparselab.inputs.models.kinds import kind_of

    first = next(model.parameters())
    sample = data.inputs.zeros(first.device, first.dtype)

    parameters = dict(model.named_parameters())  # a tied tensor under its first name
    builder = SpecBuilder(params=sum(p.numel() for p in parameters.values()))
    paths = {module: path for path, module in model.named_modules()}
    counter = FlopCounterMode(display=False)
    running: list[nn.Module] = []
    counted = 0  # FLOPs so far
    lone: list[str] = []  # batch normalisations that see one value a channel
    odd: dict[str, str] = {}  # parameters that are multiplied with in a way that no mask is defined for

    def seen(uses: list[Use] | None, operation: Any) -> None:
        nonlocal counted
        total = counter.get_total_flops()
        macs, counted = (total - counted) // 2, total
        if (uses is None and not macs) or any(isinstance(module, nn.RNNBase) for module in running):
            return
        layer = next((use for use in uses or () if use.kind), None)
        if layer is not None:
            cost = macs if layer.macs is None else layer.macs
            own = layer.name.rpartition(".")[2] != "weight"
            path = layer.name if own else layer.name.removesuffix(".weight")
            builder.call(path, layer.kind, tuple(parameters[layer.name].shape), cost, layer.groups, own)
            return
        odd.update({use.name: PRODUCT for use in uses or ()})
        module = running[-1] if running else model
        if macs:
            path = paths[module] or name
            builder.fixed_macs[path] = builder.fixed_macs.get(path, 0) + macs
        if uses == [] and (kind_of(module) in WEIGHTED or operation is torch.ops.aten.convolution.default):
            # What such a module multiplies with is made of its parameters: of its own and, where torch parametrises the
            # weight, of those in modules below it.
            made = module.named_parameters(paths[module], recurse=kind_of(module) in WEIGHTED)
            odd.update({key: FUNCTION for key, parameter in made if parameter.ndim > 1})

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        running.pop()
        if isinstance(module, _BatchNorm) and args[0].numel() == args[0].shape[1]:
            lone.append(paths[module])
        if isinstance(module, nn.RNNBase):
            # torch's counter does not see into fused recurrent kernels: every matrix works once at every position
            positions = args[0].shape[:-1].numel()
            for key, matrix in module.named_parameters(paths[module]):
                if matrix.ndim == 2:
                    builder.call(key, "gates", tuple(matrix.shape), matrix.numel() * positions)

    products = Products(parameters, seen)
    training = [module for module in model.modules() if module.training]
    handles = []
    try:
        model.eval()
        for module in model.modules():
            handles += [
                module.register_forward_pre_hook(lambda module, args: running.append(module)),
                module.register_forward_hook(leave),
            ]
        with torch.no_grad(), plain_attention(), counter, products:
            (call or model)(sample)
    finally:
        for handle in handles:
            handle.remove()
        for module in training:
            module.training = True
    model_spec = builder.model_spec(name)
    layers = {layer.tensor for layer in model_spec.layers}
    loose = tuple(
        Loose(key, tuple(tensor.shape), odd.get(key) or _use(key, products))
        for key, tensor in parameters.items()
        if tensor.ndim > 1 and key not in layers
    )
    return replace(model_spec, loose=loose, lone_norm=next(iter(lone), ""))


def _use(parameter: str, products: Products) -> str:
    """Return the known use of a parameter in no product."""
    if parameter in products.copied:
        return PRODUCT
    return ADDED if parameter in products.touched else UNSEEN
