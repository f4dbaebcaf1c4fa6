"""A spiking neuron: how currents become spikes, step by step [no torch at import]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from sparselab.core import options as spec_options
from sparselab.core.errors import did_you_mean, refuse
from sparselab.core.options import validate
from sparselab.core.registry import Registry

if TYPE_CHECKING:
    from sparselab.inputs.models.neurons.torch_side.membrane import Membrane

WHERE = "neuron"
TauMap = Literal["sigmoid", "sigmoid_raw", "exp", "exp_clamped"]
TAU_MAPS = "sigmoid (starts at tau), sigmoid_raw (sigmoid of tau, .711 of .9), exp, or exp_clamped (.01 to .99)"


class Neuron:
    """A kind of neuron. Options are those of the registered class; a network makes one membrane for each layer.

    A membrane reads currents (n, t, units) and gives as many spikes, from 0 to 1; its state begins at 0 in every pass.

    learned: trained scalars of one layer's neurons.
    coupled: whether a unit's spike depends on other units of its layer.
    """

    class Options(spec_options.Options):
        defaults_from: ClassVar[str] = "neuron/_base"

        tau: float = Field(gt=0, lt=1, description="share of the membrane potential that a step leaves, in (0, 1)")

    name: ClassVar[str]
    coupled: ClassVar[bool] = False
    options: Any

    def __init__(self, options: Any):
        self.options = options

    @property
    def learned(self) -> int:
        return 0

    def make(self) -> Membrane:
        """The membrane of one layer, in its starting state."""
        raise NotImplementedError(f"{type(self).__name__} has no membrane")


NEURONS: Registry[Neuron] = Registry("neuron", "sparselab.inputs.models.neurons")


def made(values: dict[str, Any]) -> Neuron:
    """The neuron of a mapping ``{name: lif, …}``. Raises ConfigError."""
    values = dict(values)
    name = values.pop("name", None)
    if not isinstance(name, str):
        refuse(f"model.{WHERE}", "has no name", did_you_mean("", NEURONS))
    cls = NEURONS[name]
    return cls(validate(cls.Options, values, WHERE))


def complete(values: dict[str, Any]) -> dict[str, Any]:
    """A mapping ``{name: lif, …}`` with every option in it, so that one neuron is always said in the same words.

    Raises ConfigError.
    """
    neuron = made(values)
    return {"name": neuron.name, **neuron.options.model_dump()}
