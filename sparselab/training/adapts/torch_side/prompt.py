"""The border around an image, the mapping of labels behind the network, and how both are found. Imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import pad

from sparselab.core.errors import RunFailed
from sparselab.core.seeds import derive_seed
from sparselab.training.adapts.torch_side.adapter import Adapter, Adapting
from sparselab.training.adapts.visual_prompt import MAPPING, PROMPT

if TYPE_CHECKING:
    from sparselab.core.data_spec import DataSpec
    from sparselab.training.adapts.visual_prompt import VisualPrompt


class Border(nn.Module):
    """Images (n, c, h, w) in the middle of a canvas (n, c, canvas, canvas), whose border is learned.

    Images come normalised, (pixel - mean) / std, and are not touched; the border is sigmoid(delta), normalised likewise. So the
    result is the normalised pad(x) + sigmoid(delta) B of arXiv 2211.11635, where the image keeps every bit.

    delta: (c, canvas, canvas), as the authors have it; what lies under the image is never read and gets no gradient.
    """

    border: Tensor
    mean: Tensor
    std: Tensor

    def __init__(
        self, shape: Sequence[int], canvas: int, mean: Sequence[float], std: Sequence[float], init: str = "zero"
    ):
        super().__init__()
        channels, height, width = shape
        start = torch.zeros(channels, canvas, canvas)
        self.delta = nn.Parameter(start if init == "zero" else torch.randn_like(start))
        self.pads = [*pads(width, canvas), *pads(height, canvas)]
        self.register_buffer("border", pad(torch.zeros(height, width), self.pads, value=1.0), persistent=False)
        for name, numbers in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(numbers).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        shown = (self.delta.sigmoid() - self.mean) / self.std
        return torch.where(self.border > 0, shown, pad(images, self.pads))

    @property
    def free(self) -> int:
        """Numbers of delta that lie on the border."""
        return self.delta.shape[0] * int(self.border.sum())


def pads(side: int, canvas: int) -> tuple[int, int]:
    """Pixels before and after ``side`` pixels in the middle of ``canvas``; the odd one goes before."""
    return (canvas - side + 1) // 2, (canvas - side) // 2


class LabelMapping(nn.Module):
    """Logits of the network (n, its classes) to logits of the data (n, classes): target class t is read at ``sources[t]``."""

    sources: Tensor

    def __init__(self, classes: int):
        super().__init__()
        self.register_buffer("sources", torch.arange(classes))

    def forward(self, logits: Tensor) -> Tensor:
        return logits[:, self.sources]


def attach(
    network: nn.Module, data: DataSpec, options: VisualPrompt.Options, mean: Sequence[float], std: Sequence[float]
) -> None:
    """Put a border before ``network`` and a mapping behind it; its own tensors keep their names."""
    if isinstance(network, nn.Sequential):  # it would run what is put into it
        raise RunFailed("adapt=visual_prompt: the network is a mere sequence of parts — choose another model")
    for name in (PROMPT, MAPPING):
        if hasattr(network, name):
            raise RunFailed(f"adapt=visual_prompt: the network has a part called {name} already — choose another model")
    network.add_module(PROMPT, Border(data.shape, options.canvas, mean, std, options.init))
    network.add_module(MAPPING, LabelMapping(data.classes))
    network.register_forward_pre_hook(_prompted)
    network.register_forward_hook(_mapped)


def _prompted(network: nn.Module, inputs: tuple[Tensor]) -> Tensor:
    return getattr(network, PROMPT)(inputs[0])


def _mapped(network: nn.Module, inputs: tuple[Tensor], logits: Tensor) -> Tensor:
    return getattr(network, MAPPING)(logits)


def frequencies(taken: Tensor, labels: Tensor, sources: int, targets: int) -> Tensor:
    """Return counts D (sources, targets) int64: how often an example of class t is taken for s. taken, labels: (n,)."""
    return torch.bincount(taken * targets + labels, minlength=sources * targets).view(sources, targets)


def greedy(counts: Tensor) -> Tensor:
    """The source class of each target, (targets,) int64, all distinct: the largest of D (sources, targets) first.

    Of equal counts the first in row-major order is taken, as in the authors' code. ValueError with fewer sources than targets.
    """
    sources, targets = counts.shape
    if sources < targets:
        raise ValueError(f"{targets} target classes need as many source classes, there are {sources}")
    left, found = counts.clone(), torch.empty(targets, dtype=torch.int64)
    for _ in range(targets):
        row, column = divmod(int(left.argmax()), targets)
        found[column] = row
        left[row] = -1
        left[:, column] = -1
    return found


class Prompting(Adapter):
    """Keeps the mapping up to date; delta is the optimiser's."""

    def __init__(self, adapting: Adapting, options: VisualPrompt.Options):
        super().__init__(adapting)
        self.options = options
        self.border: Border = adapting.network.get_submodule(PROMPT)  # type: ignore[assignment]
        self.mapping: LabelMapping = adapting.network.get_submodule(MAPPING)  # type: ignore[assignment]

    def begin(self, resumed: bool) -> None:
        if resumed:
            return
        if self.options.mapping == "rlm":
            generator = torch.Generator().manual_seed(derive_seed(self.adapting.seed, "label_mapping"))
            self._set(torch.randperm(self.options.classes, generator=generator)[: self.adapting.classes])
        else:
            self._count()

    def before_batch(self, index: int) -> None:
        due = index and index % (self.adapting.per_epoch * self.options.interval) == 0
        if self.options.mapping == "ilm" and due:
            self._count()

    def trained(self) -> int:
        return self.border.free

    def _set(self, sources: Tensor) -> None:
        self.mapping.sources.copy_(sources)

    @torch.no_grad()
    def _count(self) -> None:
        """Map by what the network takes the training examples for, with the border as it is."""
        network, targets = self.adapting.network, self.adapting.classes
        counts = torch.zeros(self.options.classes, targets, dtype=torch.int64, device=self.border.delta.device)
        seen: list[Tensor] = []
        hook = self.mapping.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].argmax(-1)))
        try:
            for inputs, labels in self.adapting.train(share=True):
                if len(labels):
                    network(inputs)
                    counts += frequencies(seen.pop(), labels, self.options.classes, targets)
        finally:
            hook.remove()
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(counts)
        self._set(greedy(counts.cpu()))
