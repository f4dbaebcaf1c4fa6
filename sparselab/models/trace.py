"""The outline of any network, from one forward pass of one sample. Imports torch when called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sparselab.models.sketch import Sketch
from sparselab.spec.dataspec import DataSpec
from sparselab.spec.faults import refuse
from sparselab.spec.outline import Outline

if TYPE_CHECKING:
    from torch import nn

    from sparselab.models.family import Family


def traced(family: Family, model: nn.Module, data: DataSpec) -> Outline:
    """:func:`trace` of a network that ``family`` made; Refused where it cannot compute a sample of ``data``."""
    try:
        return trace(model, data)
    except Exception as error:  # whatever a network of another library does with a size that it is not for
        reason = (str(error).strip() or type(error).__name__).split("\n")[0]
        what, fix = f"{data.shape[0]} tokens", "another dataset.block"
        if data.task == "image":
            what, fix = f"pictures of {'x'.join(map(str, data.shape))}", "larger pictures"
        refuse(family.where, f"cannot compute {what}: {reason[:60]}", f"choose another network, or {fix}")


def trace(model: nn.Module, data: DataSpec, name: str = "traced") -> Outline:
    """The outline of ``model`` for ``data``: layers in the order of their first call, costs from torch's own counter.

    The model may be on any device, ``meta`` included, and is left as it was: the pass runs in evaluation mode without
    gradients and draws no random numbers. Products outside layers (attention) go to ``fixed_macs`` under the module
    that computes them. A layer that the pass does not reach is counted in ``params`` only.
    """
    import torch
    from torch import nn
    from torch.utils.flop_counter import FlopCounterMode

    from sparselab.models.kinds import kind_of

    first = next(model.parameters())
    if data.task == "image":
        sample = torch.zeros(1, *data.shape, device=first.device, dtype=first.dtype)
    else:
        sample = torch.zeros(1, *data.shape, device=first.device, dtype=torch.int64)

    sketch = Sketch(params=sum(p.numel() for p in model.parameters()))
    owner = {id(tensor): path for path, tensor in model.named_parameters()}  # a tied tensor under its first name
    paths = {module: path for path, module in model.named_modules()}
    counter = FlopCounterMode(display=False)
    open_calls: list[list[int]] = []  # per module being run: FLOPs at its start, FLOPs of the modules run inside

    def enter(module: nn.Module, args: Any) -> None:
        open_calls.append([counter.get_total_flops(), 0])

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        started, inner = open_calls.pop()
        total = counter.get_total_flops() - started
        if open_calls:
            open_calls[-1][1] += total
        macs = (total - inner) // 2
        if isinstance(module, nn.RNNBase):
            # torch's counter does not see into fused recurrent kernels: every matrix works once at every position
            positions = args[0].shape[:-1].numel()
            for key, matrix in module.named_parameters(paths[module]):
                if matrix.ndim == 2:
                    sketch.call(key, "gates", tuple(matrix.shape), matrix.numel() * positions)
            return
        kind = kind_of(module)
        if kind is None:
            if macs:
                path = paths[module] or name
                sketch.fixed_macs[path] = sketch.fixed_macs.get(path, 0) + macs
            return
        weight = module.get_parameter("weight")
        path = owner[id(weight)].removesuffix(".weight")
        sketch.call(path, kind, tuple(weight.shape), macs, getattr(module, "groups", 1))

    training = [module for module in model.modules() if module.training]
    handles = []
    try:
        model.eval()
        for module in model.modules():
            handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
        with torch.no_grad(), counter:
            model(sample)
    finally:
        for handle in handles:
            handle.remove()
        for module in training:
            module.training = True
    return sketch.outline(name)
