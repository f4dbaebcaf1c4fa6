"""Training of a head on features that are computed once. Imports torch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sparselab.core.errors import RunFailed
from sparselab.inputs.data.loader import Batch, InMemory, Job, Source, sent
from sparselab.training.adapts.torch_side.adapter import Adapter, Adapting

FIX = "write adapt.cache=false"


class OnFeatures(Adapter):
    """The head reads kept features; its outputs are the network's."""

    def __init__(self, adapting: Adapting):
        super().__init__(adapting)
        names = {name.rpartition(".")[0] for name in adapting.head}
        if len(names) != 1:
            raise RunFailed(f"adapt.cache=true: the network has {len(names)} layers that are its head — {FIX}")
        self.head: nn.Module = adapting.network.get_submodule(names.pop())

    def source(self, source: Source) -> Source:
        return Features(self, len(source))

    def outputs(self, inputs: Tensor) -> Tensor:
        return self.head(inputs)

    @torch.no_grad()
    def features(self) -> tuple[Tensor, Tensor]:
        """The inputs of the head for every training example, (n, width), and the labels (n,)."""
        read: list[Tensor] = []
        labels: list[Tensor] = []
        hook = self.head.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
        try:
            for inputs, targets in self.adapting.train():
                out = self.adapting.logits(inputs)
                labels.append(targets)
                if len(read) != len(labels) or not torch.equal(self.head.forward(read[-1]), out):
                    raise RunFailed(f"adapt.cache=true: the head's outputs are not the network's — {FIX}")
        finally:
            hook.remove()
        return torch.cat(read), torch.cat(labels)


class Features(InMemory):
    """The features of the training examples in the place of these, in the same order; computed when the first is asked for."""

    def __init__(self, probe: OnFeatures, count: int):
        self.probe = probe
        self.count = count
        self.kept: tuple[Tensor, Tensor] | None = None

    def __len__(self) -> int:
        return self.count

    def batch(self, job: Job) -> Batch:
        if self.kept is None:
            self.kept = self.probe.features()
        features, labels = self.kept
        rows = sent(job.rows[job.mine], features.device)
        return features[rows], labels[rows]
