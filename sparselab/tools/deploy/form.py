"""Forms of storing sparse weights, and networks put into one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from sparselab.core.errors import ConfigError, Issue
from sparselab.core.registry import Registry

Problem = tuple[str, str]
"""(problem, fix): what is wrong, and how to fix it."""

FORMS: Registry[Form] = Registry("form", "sparselab.tools.deploy")


class Form(ABC):
    """A way to store the weight of a linear layer that makes its product skip zeros, for inference only."""

    name: ClassVar[str]
    device: ClassVar[str]
    """Type of the device on which the form has a product."""
    dtype: ClassVar[torch.dtype]
    """The type of number that it multiplies, in which the dense network is compared, too."""

    @abstractmethod
    def misfit(self, weight: Tensor) -> Problem | None:
        """Why a weight (outputs, inputs) cannot be stored so; None where it can."""

    @abstractmethod
    def layer(self, dense: nn.Linear) -> nn.Module:
        """The layer that takes the place of ``dense``, whose weight fits."""


def misfits(network: nn.Module, names: Sequence[str], form: Form) -> list[Issue]:
    """A fault for each of these layers that cannot be put into ``form``."""
    found, modules = [], dict(network.named_modules())
    for name in names:
        layer = modules.get(name)  # gate matrices are no modules
        problem: Problem | None = ("is no linear layer", "leave it out")
        if isinstance(layer, nn.Linear):
            problem = form.misfit(layer.weight)
        if problem:
            found.append(Issue(name, *problem))
    return found


def convert(network: nn.Module, names: Sequence[str], form: Form) -> None:
    """Put these linear layers into ``form``, in place. ConfigError, before any is, with a line for each that does not fit."""
    issues = misfits(network, names, form)
    if issues:
        raise ConfigError(issues)
    for name in names:
        parent, _, leaf = name.rpartition(".")
        setattr(network.get_submodule(parent), leaf, form.layer(network.get_submodule(name)))  # type: ignore[arg-type]
