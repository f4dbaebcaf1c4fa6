"""A finished cell's network at inference: dense beside the forms that skip its zeros."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sparselab.core.errors import Issue, refuse
from sparselab.running.planning import plan_of
from sparselab.storage import record as records
from sparselab.storage.atomic import shown
from sparselab.storage.export import MODEL
from sparselab.tools.deploy.form import FORMS, Form, convert, misfits
from sparselab.tools.deploy.shrink import shrink

if TYPE_CHECKING:
    from sparselab.core.data_spec import DataSpec
    from sparselab.inputs.models.family import Family


SHRUNK = "shrunk"
"""The name, beside those of forms, of the network without superfluous channels."""


@dataclass(frozen=True)
class Subject:
    """A network to be timed, and the names of its sparse layers."""

    family: Family
    data: DataSpec
    network: nn.Module
    sparse: list[str]


def subject(folder: Path) -> Subject:
    """The network of a run folder, as its record says it was made. ConfigError where there is none, or nothing sparse."""
    record = records.read(folder)
    if not (folder / MODEL).exists():
        refuse(shown(folder), f"no {MODEL} in this folder", "give the folder of a cell that trained a network")
    # It may have been trained in a precision that this machine has not; the network is the same in each.
    parts: Any = plan_of([*record["overrides"], f"runs_dir={folder.parent}", "trainer.precision=32"]).parts
    network = parts.family.network(parts.network_data)
    parts.family.load(network, str(folder / MODEL))
    sparse = [layer["name"].removesuffix(".weight") for layer in record["sparsity"]["layers"]]
    if not sparse:
        refuse(shown(folder), "its network is dense", "give the folder of a sparse cell")
    return Subject(parts.family, parts.network_data, network.eval(), sparse)


@dataclass(frozen=True)
class Pair:
    """The dense network and the same one with ``layers`` sparse layers in a form, as calls.

    left: the sparse layers that stayed dense, and why.
    """

    dense: Callable[[], Tensor]
    sparse: Callable[[], Tensor]
    layers: int
    left: list[Issue]

    def difference(self) -> float:
        """By how much outputs differ, as a share of the largest."""
        ours, theirs = self.sparse().float(), self.dense().float()
        return float((ours - theirs).abs().max() / theirs.abs().max())


def pair(subject: Subject, form: Form, batch: int, device: str) -> Pair:
    """Both networks on one batch. ConfigError where not one sparse layer fits."""
    dense = copy.deepcopy(subject.network).to(device, form.dtype)
    inputs = sample(subject.data, batch, device, form.dtype)
    logits = subject.family.logits
    left = misfits(dense, subject.sparse, form)
    left += bypassed(
        dense, [name for name in subject.sparse if name not in {i.where for i in left}], lambda: logits(dense, inputs)
    )
    names = [name for name in subject.sparse if name not in {issue.where for issue in left}]
    if not names:
        refuse(f"form={form.name}", f"{left[0].where}: {left[0].problem}", left[0].fix)
    sparse = copy.deepcopy(dense)
    convert(sparse, names, form)
    return Pair(lambda: logits(dense, inputs), lambda: logits(sparse, inputs), len(names), left)


def shrunk_pair(subject: Subject, batch: int, device: str) -> Pair:
    """The network and the one without superfluous channels, both dense. ConfigError where there are none."""
    network = copy.deepcopy(subject.network).to(device, torch.float32)
    inputs, logits = sample(subject.data, batch, device, torch.float32), subject.family.logits
    small = shrink(network, logits, inputs[:8])
    layers = sum(name in small.lost for name in subject.sparse)
    return Pair(lambda: logits(network, inputs), lambda: logits(small.network, inputs), layers, [])


def bypassed(network: nn.Module, names: Sequence[str], forward: Callable[[], Tensor]) -> list[Issue]:
    """A fault for each of these layers that ``forward`` never calls: what reads its weight elsewhere expects a dense one."""
    called: set[str] = set()
    hooks = [
        network.get_submodule(name).register_forward_pre_hook(lambda *_, name=name: called.add(name)) for name in names
    ]
    try:
        with torch.no_grad():
            forward()
    finally:
        for hook in hooks:
            hook.remove()
    problem = "the network reads its weight and never calls the layer"
    return [Issue(name, problem, "leave it dense") for name in names if name not in called]


def sample(data: DataSpec, batch: int, device: str, dtype: torch.dtype) -> Tensor:
    """A batch of what the network reads: noise as images, or random tokens."""
    inputs = data.inputs.sample(batch, torch.Generator().manual_seed(0))
    return inputs.to(device, dtype if inputs.is_floating_point() else None)


def forms(device: str) -> Sequence[Form]:
    """The forms with a product on this type of device."""
    return [FORMS[name]() for name in FORMS if FORMS[name].device == device]
