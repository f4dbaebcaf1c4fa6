"""Neurons of log-sum-exp dynamics (arXiv 2602.11206) [no torch at import]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from sparselab.inputs.models.neuron import NEURONS, TAU_MAPS, Neuron, TauMap

if TYPE_CHECKING:
    from sparselab.inputs.models.neurons.torch_side.scalars import Tau
    from sparselab.inputs.models.neurons.torch_side.ultra import Ring, Soft

ORDER = "lse_first (the mean of old potentials, then the current) or input_first (leak and current, then the mean)"
LEAK = "what tau multiplies within the log-sum-exp: centre (the unit's own potential) or all"


class UltraOptions(Neuron.Options):
    """Options of the whole family."""

    defaults_from: ClassVar[str] = "neuron/_ultra"

    threshold: float = Field(description="membrane potential at which half a spike is due; 0 in the released code")
    eps: float = Field(ge=0.1, le=20, description="temperature at the start, from .1 to 20")
    learn_eps: bool = Field(description="true or false: train it, as the exponential of a number, held to .1 … 20")
    spike_scale: float | None = Field(
        gt=0, description="slope of the spike at the start, trained apart from eps (above 0), or null: 1 / eps"
    )


class Ultra(Neuron):
    """Base: the scalars that the family trains."""

    options: Any

    @property
    def learned(self) -> int:
        return int(self.options.learn_eps) + (self.options.spike_scale is not None)

    def _soft(self, tau: Tau) -> Soft:
        from sparselab.inputs.models.neurons.torch_side.scalars import Eps
        from sparselab.inputs.models.neurons.torch_side.ultra import Soft

        o = self.options
        return Soft(tau, o.threshold, Eps(o.eps, o.learn_eps), o.spike_scale)

    def _ring(self, tau: Tau, leak: str, order: str) -> Ring:
        from sparselab.inputs.models.neurons.torch_side.scalars import Eps
        from sparselab.inputs.models.neurons.torch_side.ultra import Ring

        o = self.options
        return Ring(tau, o.threshold, Eps(o.eps, o.learn_eps), o.spike_scale, leak, order == "input_first")


@NEURONS.register("ultralif")
class UltraLIF(Ultra):
    """``m = LSE_eps(v + log tau, I)``, ``s = sigma((m - theta) / eps)``, ``v <- m (1 - s)`` (arXiv 2602.11206, eq. 16-18)."""

    class Options(UltraOptions):
        pass

    options: Options

    def make(self) -> Soft:
        from sparselab.inputs.models.neurons.torch_side.scalars import Tau

        return self._soft(Tau(self.options.tau))


@NEURONS.register("ultraplif")
class UltraPLIF(Ultra):
    """UltraLIF whose tau is trained."""

    class Options(UltraOptions):
        tau_map: TauMap = Field(description=TAU_MAPS)

    options: Options

    @property
    def learned(self) -> int:
        return super().learned + 1

    def make(self) -> Soft:
        from sparselab.inputs.models.neurons.torch_side.scalars import Tau

        return self._soft(Tau(self.options.tau, self.options.tau_map))


@NEURONS.register("ultradlif")
class UltraDLIF(Ultra):
    """Neighbours on a ring: ``m_i = LSE_eps(v_{i-1}, v_i, v_{i+1}) + I_i``, spike and reset as UltraLIF (eq. 19 to 21).

    With ``order=input_first``, as in the released code (ultralif/neurons/ultradlif.py), ``v <- tau v + I`` comes first, the
    log-sum-exp of three gives the spike alone, and the reset acts on v.
    """

    coupled = True

    class Options(UltraOptions):
        order: Literal["lse_first", "input_first"] = Field(description=ORDER)
        leak: Literal["none", "centre", "all"] = Field(description=f"none (as the paper writes it), or {LEAK}")

        @model_validator(mode="after")
        def _one_reading(self) -> UltraDLIF.Options:
            return _one_reading(self)

    options: Options

    def make(self) -> Ring:
        from sparselab.inputs.models.neurons.torch_side.scalars import Tau

        return self._ring(Tau(self.options.tau), self.options.leak, self.options.order)


@NEURONS.register("ultradplif")
class UltraDPLIF(Ultra):
    """UltraDLIF whose tau is trained; ``leak=centre`` is that of the release's ablation file."""

    coupled = True

    class Options(UltraOptions):
        tau_map: TauMap = Field(description=TAU_MAPS)
        order: Literal["lse_first", "input_first"] = Field(description=ORDER)
        leak: Literal["centre", "all"] = Field(description=LEAK)

        @model_validator(mode="after")
        def _one_reading(self) -> UltraDPLIF.Options:
            return _one_reading(self)

    options: Options

    @property
    def learned(self) -> int:
        return super().learned + 1

    def make(self) -> Ring:
        from sparselab.inputs.models.neurons.torch_side.scalars import Tau

        o = self.options
        return self._ring(Tau(o.tau, o.tau_map), o.leak, o.order)


def _one_reading(options: Any) -> Any:
    if options.order == "input_first" and options.leak != "all":
        raise ValueError("order=input_first multiplies every potential by tau; write neuron.leak=all")
    return options
