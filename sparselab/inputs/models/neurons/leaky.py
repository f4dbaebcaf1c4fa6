"""Neurons whose membrane is a leaky sum of currents [no torch at import]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from sparselab.inputs.models.neuron import NEURONS, TAU_MAPS, Neuron, TauMap

if TYPE_CHECKING:
    from sparselab.inputs.models.neurons.torch_side.membrane import Membrane
    from sparselab.inputs.models.neurons.torch_side.scalars import Tau

SPIKE = "hard (a step forward, the slope of the soft spike backward) or soft (the sigmoid itself, both ways)"


class LeakyOptions(Neuron.Options):
    """Options of neurons with a threshold and a slope."""

    defaults_from: ClassVar[str] = "neuron/_leaky"

    threshold: float = Field(description="membrane potential at which half a spike is due")
    spike: Literal["hard", "soft"] = Field(description=SPIKE)
    beta: float = Field(gt=0, description="slope of the soft spike, above 0")


class Leaking(Neuron):
    """Base of neurons with a threshold and a slope."""

    options: Any

    def _leaky(self, tau: Tau, threshold: float | Tau | None = None) -> Membrane:
        from sparselab.inputs.models.neurons.torch_side.leaky import Leaky

        o = self.options
        return Leaky(tau, o.threshold if threshold is None else threshold, o.beta, o.spike == "hard")


@NEURONS.register("lif")
class LIF(Leaking):
    """Leaky integrate-and-fire: ``v <- tau v + I``, ``s = H(v - theta)``, ``v <- v (1 - s)``.

    Backward H has the slope of sigma(beta (v - theta)); with ``spike=soft`` the spike is that sigmoid. arXiv 2602.11206 says
    the first, its released code (JomaMinoza/UltraLIF ultralif/neurons/lif.py) does the second.
    """

    class Options(LeakyOptions):
        pass

    options: Options

    def make(self) -> Membrane:
        from sparselab.inputs.models.neurons.torch_side.scalars import Tau

        return self._leaky(Tau(self.options.tau))


@NEURONS.register("plif")
class PLIF(Leaking):
    """LIF whose tau is trained (Fang et al. 2021, arXiv 2007.05785)."""

    class Options(LeakyOptions):
        tau_map: TauMap = Field(description=TAU_MAPS)

    options: Options

    @property
    def learned(self) -> int:
        return 1

    def make(self) -> Membrane:
        from sparselab.inputs.models.neurons.torch_side.scalars import Tau

        return self._leaky(Tau(self.options.tau, self.options.tau_map))


@NEURONS.register("adalif")
class AdaLIF(Neuron):
    """LIF whose threshold rises with its spikes (Bellec et al. 2018): ``theta + adapt b``, ``b <- decay b + (1 - decay) s``."""

    class Options(LeakyOptions):
        adapt: float = Field(ge=0, description="how far a unit that always spikes raises its threshold, at least 0")
        decay: float = Field(ge=0, lt=1, description="share of the raise that a step leaves, in [0, 1)")

    options: Options

    def make(self) -> Membrane:
        from sparselab.inputs.models.neurons.torch_side.leaky import Adaptive
        from sparselab.inputs.models.neurons.torch_side.scalars import Tau

        o = self.options
        return Adaptive(Tau(o.tau), o.threshold, o.beta, o.spike == "hard", o.adapt, o.decay)


@NEURONS.register("fullplif")
class FullPLIF(Leaking):
    """LIF whose tau and threshold are trained, the threshold as a sigmoid."""

    class Options(LeakyOptions):
        threshold: float = Field(gt=0, lt=1, description="threshold in (0, 1)")
        tau_map: TauMap = Field(description=TAU_MAPS)
        threshold_map: Literal["sigmoid", "sigmoid_raw"] = Field(
            description="sigmoid (starts at threshold) or sigmoid_raw (sigmoid of threshold, .622 of .5)"
        )

    options: Options

    @property
    def learned(self) -> int:
        return 2

    def make(self) -> Membrane:
        from sparselab.inputs.models.neurons.torch_side.scalars import Tau

        o = self.options
        threshold = Tau(o.threshold, o.threshold_map)  # another share in (0, 1), trained the same way
        return self._leaky(Tau(o.tau, o.tau_map), threshold)


class SpikeOptions(Neuron.Options):
    """Options of DSpike."""

    defaults_from: ClassVar[str] = "neuron/_dspike"

    threshold: float = Field(gt=0, description="membrane potential at which half a spike is due, above 0")
    spike: Literal["hard", "soft"] = Field(description=SPIKE)
    k: float = Field(description="sharpness k = softplus of a trained number that starts here, held to .5 … 50")


class Sharp(Neuron):
    """Base of neurons whose spike has a trained sharpness."""

    options: Any

    def _tanh(self, tau: Tau) -> Membrane:
        from sparselab.inputs.models.neurons.torch_side.leaky import Tanh

        o = self.options
        return Tanh(tau, o.threshold, o.k, o.spike == "hard")


@NEURONS.register("dspike")
class DSpike(Sharp):
    """LIF with a hyperbolic tangent of trained sharpness for a spike (Li et al. 2021; JomaMinoza/UltraLIF baselines.py).

    ``s = (tanh(k (v / (2 theta) - 1/2)) + tanh(k / 2)) / (2 tanh(k / 2))``, cut off at 0 and 1.
    """

    class Options(SpikeOptions):
        pass

    options: Options

    @property
    def learned(self) -> int:
        return 1

    def make(self) -> Membrane:
        from sparselab.inputs.models.neurons.torch_side.scalars import Tau

        return self._tanh(Tau(self.options.tau))


@NEURONS.register("dspike_plus")
class DSpikePlus(Sharp):
    """DSpike whose tau is trained, too."""

    class Options(SpikeOptions):
        tau_map: TauMap = Field(description=TAU_MAPS)

    options: Options

    @property
    def learned(self) -> int:
        return 2

    def make(self) -> Membrane:
        from sparselab.inputs.models.neurons.torch_side.scalars import Tau

        return self._tanh(Tau(self.options.tau, self.options.tau_map))


@NEURONS.register("sigmalif")
class SigmaLIF(Neuron):
    """LIF with the spike of UltraLIF, ``s = sigma((v - theta) / eps)``: its control, without log-sum-exp.

    At one time step it is a perceptron with sigmoids, of slope 1 where ``learn_eps`` is false and eps 1.
    """

    class Options(Neuron.Options):
        threshold: float = Field(description="membrane potential at which half a spike is due")
        eps: float = Field(ge=0.1, le=20, description="temperature at the start, from .1 to 20")
        learn_eps: bool = Field(description="true or false: train it, as the exponential of a number, held to .1 … 20")

    options: Options

    @property
    def learned(self) -> int:
        return int(self.options.learn_eps)

    def make(self) -> Membrane:
        from sparselab.inputs.models.neurons.torch_side.leaky import Tempered
        from sparselab.inputs.models.neurons.torch_side.scalars import Eps, Tau

        o = self.options
        return Tempered(Tau(o.tau), o.threshold, Eps(o.eps, o.learn_eps))
