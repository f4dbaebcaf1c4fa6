"""The precision that ``trainer.precision=auto`` stands for on this machine, and how it is reported [no torch]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sparselab.core.errors import ConfigError, Issue, Issues
from sparselab.core.processor import AVX512, LSTM_NEEDS, flags, native_bf16, uses_gpu

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from sparselab.config.schema import TrainerOptions
    from sparselab.inputs.models.family import Family

AUTO = "auto"


def settled(config: dict[str, Any]) -> dict[str, Any]:
    """The config with the precision that is meant in the place of ``auto``; the same object where it says one.

    ``bf16`` where the processor, or the GPU where one is used, multiplies it in hardware, else ``32``. Id and record
    hold what it was settled to. Raises ConfigError.
    """
    trainer = config.get("trainer")
    if not isinstance(trainer, dict) or trainer.get("precision") != AUTO:
        return config
    return {**config, "trainer": {**trainer, "precision": _meant(trainer.get("accelerator"))}}


def _meant(accelerator: Any) -> str:
    return "bf16" if native_bf16(str(accelerator)) else "32"


def said(asked: str, trainer: TrainerOptions) -> str:
    """The precision as `sparselab check` prints it: with the reason where ``asked`` left it to the machine."""
    if asked != AUTO:
        return trainer.precision
    device = "GPU" if uses_gpu(trainer.accelerator) else "processor"
    does = "multiplies bf16" if trainer.precision == "bf16" else "does not multiply bf16 in hardware"
    return f"{trainer.precision} (auto: the {device} {does})"


def unable(family: Family, trainer: TrainerOptions, issues: Issues) -> None:
    """A fault where no library computes the model in that precision on this processor."""
    issues.found += _faults(f"model={family.name}", family.instructions, trainer)


def check_network(network: nn.Module, trainer: TrainerOptions) -> None:
    """The same of a network that has been built: those of libraries may hold an LSTM too. Raises ConfigError."""
    from torch import nn

    found = _faults("an LSTM of the model", LSTM_NEEDS, trainer)
    if found and any(isinstance(module, nn.LSTM) for module in network.modules()):
        raise ConfigError(found)


def _faults(who: str, dependencies: Mapping[str, frozenset[str]], trainer: TrainerOptions) -> list[Issue]:
    here = flags()
    missing = dependencies.get(trainer.precision, frozenset()) - here
    if uses_gpu(trainer.accelerator) or not here or not missing:
        return []
    problem = f"{who} needs a processor with {_short(missing)} for it"
    return [Issue(f"trainer.precision={trainer.precision}", problem, "write trainer.precision=32, or auto")]


def _short(instructions: frozenset[str]) -> str:
    return "AVX-512" if instructions <= AVX512 else " and ".join(sorted(instructions))
