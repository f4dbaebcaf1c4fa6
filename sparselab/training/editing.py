"""The inputs of an edit: the network in evaluation mode and the data's parts, whole on every rank."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from sparselab.training.edits.edit import Batches, Editing

if TYPE_CHECKING:
    from sparselab.training.parts import Parts
    from sparselab.weights.sparsifier import Sparsifier


def make_edit(
    parts: Parts, network: torch.nn.Module, sparsifier: Sparsifier, splits: Any, device: torch.device
) -> Callable[[], None]:
    """The cell's edit, to be called once the first masks are made; nothing where it has none."""
    edit, model_spec = parts.edit, parts.model_spec
    if edit is None:
        return lambda: None
    assert model_spec is not None
    names = ("train", *getattr(splits, "others", ()))
    loaders = {
        name: splits.loader(name, parts.cell.trainer.batch_size, parts.cell.seed, train=False, device=str(device))
        for name in names
    }
    heads = [layer for layer in model_spec.layers if "head" in layer.roles]

    def batches(name: str) -> Batches:
        for inputs, labels in loaders[name]:
            yield inputs.to(device), labels.to(device)

    @torch.no_grad()
    def apply() -> None:
        editing = Editing(
            network=network,
            logits=parts.family.logits,
            parts={name: partial(batches, name) for name in names},
            sizes={name: len(loader.source) for name, loader in loaders.items()},
            head=frozenset(name for layer in heads for name in (layer.tensor, f"{layer.name}.bias")),
            seed=parts.cell.seed,
            masks=sparsifier.masks(),
        )
        was_training = network.training
        network.eval()
        edit.apply(editing)
        network.train(was_training)
        sparsifier.refresh()

    return apply
