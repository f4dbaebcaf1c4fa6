"""A penalty on the scales of batch normalisation, on all of them or only where a mask removes units."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from sparselab.core.errors import Issue, refuse
from sparselab.running.parts import pending
from sparselab.training.given_masks import file_issues
from sparselab.training.losses.extra_loss import LOSSES, ExtraLoss

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from sparselab.core.model_spec import Layer, ModelSpec
    from sparselab.training.losses.context import StepContext


@LOSSES.register("norm_scales")
class NormScales(ExtraLoss):
    """``lambda * sum |gamma|`` over scales of batch norms: the gradient gains lambda * sign(gamma), with sign(0) = 0.

    Without ``masks`` it is network slimming (Liu et al. 2017, arXiv 1708.06519), which shrinks the scales of all channels. With
    the masks of a cell only units that they remove are penalised (MaskSparsity, arXiv 2201.06776, section 3), so what stays
    keeps its scale. ``weight`` is lambda: under SGD with momentum mu a scale that nothing opposes moves by about
    lambda * sum of learning rates / (1 - mu), which has to exceed what it starts from.
    """

    class Options(ExtraLoss.Options):
        weight: float = Field(ge=0, description="lambda, at least 0")
        penalty: Literal["l1", "l2", "smooth_l1"] = Field(
            description="l1, l2 (half the square), or smooth_l1 (l2 below rate x lambda, against chatter around 0)",
        )
        norms: Literal["units", "all"] = Field(
            description="without masks: units (norms behind layers whose units can be taken out) or all"
        )
        masks: str | None = Field(
            description="a masks.safetensors of this network, or {cell: …}: only what it removes is penalised"
        )

    options: Options

    def mask_files(self) -> dict[str, str]:
        return {"masks": self.options.masks} if self.options.masks is not None else {}

    def against(self, model_spec: ModelSpec, dependencies: Mapping[str, str]) -> list[Issue]:
        where, layers, masks = f"loss.{self.name}", normed(model_spec), self.options.masks
        if not layers and self.options.norms == "units":
            fix = "leave it out, or choose a network with batch normalisation"
            return [Issue(where, "no layer of this network has a norm whose units can be taken out", fix)]
        if masks is None or pending(masks, dependencies):
            return []
        from safetensors import safe_open

        with safe_open(str(Path(masks).expanduser()), framework="np") as file:
            there = set(file.keys())
        if issues := file_issues(
            masks, f"{where}.masks", [layer for layer in model_spec.layers if layer.tensor in there]
        ):
            return issues
        bare = next((layer.name for layer in model_spec.layers if layer.tensor in there and not layer.norm), None)
        problem, fix = f"masks {bare}, behind which no norm is known", "give masks of units (sparsity=unit:0.5)"
        return [Issue(f"{where}.masks", problem, fix)] if bare else []

    def prepare(self, context: StepContext) -> None:
        import torch

        from sparselab.storage.tensors import load_masks
        from sparselab.weights.whole_units import kept_units

        self.parts: list[tuple[nn.Parameter, Tensor | None]] = []
        network, masks = context.network, self.options.masks
        spec = context.family.model_spec(context.data)
        if spec is None and (masks is not None or self.options.norms == "units"):
            problem = f"model={context.family.name} does not say which norm is behind which layer"
            refuse(f"loss.{self.name}", problem, "write loss.norm_scales.norms=all, without masks")
        if spec is not None and masks is not None:
            there = load_masks(Path(masks).expanduser())
            self.parts = [
                (_scale(network, layer.norm), (~kept_units(there[layer.tensor])).float().to(context.device))
                for layer in spec.layers
                if layer.tensor in there
            ]
        elif spec is not None and self.options.norms == "units":
            self.parts = [(_scale(network, layer.norm), None) for layer in normed(spec)]
        else:
            kinds = torch.nn.modules.batchnorm._BatchNorm
            self.parts = [
                (module.weight, None) for module in network.modules() if isinstance(module, kinds) and module.affine
            ]

    def loss(self, context: StepContext, batch: tuple[Tensor, ...], logits: Tensor) -> Tensor:
        rate = context.optim.options.lr * context.optim.factor(context.global_step, context.steps)
        sizes: Any = 0.0
        for scale, removed in self.parts:
            each = penalised(scale.float(), self.options.penalty, rate * self.options.weight)
            sizes = sizes + (each if removed is None else each * removed).sum()
        loss: Tensor = sizes
        return loss


def penalised(scale: Tensor, penalty: str, near: float) -> Tensor:
    """Return what each scale (units,) is charged.

    Its derivative is the sign (l1), the scale itself (l2), or for smooth_l1 the scale where that is below ``near`` and else the
    sign.
    """
    size, half = scale.abs(), scale.square() / 2
    return {"l1": size, "l2": half, "smooth_l1": half.where(size < near, size)}[penalty]


def normed(model_spec: ModelSpec) -> list[Layer]:
    """The layers with units that can be taken out and a norm of their own behind them."""
    return [layer for layer in model_spec.layers if layer.norm and layer.readers and not layer.adds]


def _scale(network: nn.Module, norm: str) -> Any:
    return network.get_submodule(norm).weight
