"""Accuracy on images that were changed to mislead the network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from sparselab.core.options import Options as AnyOptions
from sparselab.training.metrics.metric import METRICS, Metric, Subject

if TYPE_CHECKING:
    from torch import Tensor


@METRICS.register("adversarial")
class Adversarial(Metric):
    """Accuracy under attack by the gradient of the cross-entropy in the pixels, which are counted from 0 to 1.

    ``fgsm_accuracy``: one step of ``eps`` along its sign (Goodfellow et al. 2015, arXiv 1412.6572, section 4).
    ``pgd_accuracy``: ``steps`` steps of ``step``, each projected to within ``eps`` of the image (Madry et al. 2018, arXiv
    1706.06083, section 2.1), from the image itself, so that nothing is drawn at random. ``steps: 0`` leaves it out.
    Pixels stay in [0, 1].
    """

    class Options(AnyOptions):
        eps: float = Field(gt=0, lt=1, description="largest change of a pixel, in (0, 1)")
        steps: int = Field(ge=0, description="steps of projected gradient descent; 0 leaves it out")
        step: float = Field(gt=0, lt=1, description="change of a pixel in a step, in (0, 1)")

    def measure(self, subject: Subject) -> dict[str, float]:
        from torchmetrics import MeanMetric

        device = next(subject.network.parameters()).device
        attacks = {"fgsm_accuracy": (1, self.options.eps), "pgd_accuracy": (self.options.steps, self.options.step)}
        hits = {name: MeanMetric().to(device) for name, (steps, _) in attacks.items() if steps}
        for inputs, labels in subject.batches():
            pixels = subject.pixels(inputs)
            for name, hit in hits.items():
                moved = attack(subject, pixels, labels, self.options.eps, *attacks[name])
                hit.update((subject.logits(subject.inputs(moved)).argmax(-1) == labels).float())
        return {name: float(hit.compute()) for name, hit in hits.items()}


def attack(subject: Subject, pixels: Tensor, labels: Tensor, eps: float, steps: int, step: float) -> Tensor:
    """Move pixels uphill on the loss (projected gradients in the largest norm).

    Args:
        subject: the network
        pixels: (n, c, h, w) in [0, 1]
        labels: (n,) int64
        eps: largest change of a pixel
        steps: how many
        step: change of a pixel in a step

    Returns:
        (n, c, h, w) in [0, 1].
    """
    import torch
    from torch.nn import functional as F

    low, high = (pixels - eps).clamp(min=0), (pixels + eps).clamp(max=1)
    moved = pixels
    for _ in range(steps):
        moved = moved.detach().requires_grad_()
        with torch.enable_grad():
            loss = F.cross_entropy(subject.logits(subject.inputs(moved)), labels, reduction="sum")
            (slope,) = torch.autograd.grad(loss, moved)
        moved = torch.minimum(torch.maximum(moved.detach() + step * slope.sign(), low), high)
    return moved
