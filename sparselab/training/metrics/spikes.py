"""Spikes of a network's neurons: how many, at what cost, and what the network is worth with spikes of 0 and 1."""

from __future__ import annotations

from sparselab.training.metrics.metric import METRICS, Metric, Subject

ENERGY = (0.9, 4.6)
"""Energy of an addition, which a spike asks for, and of a multiplication with an addition, in picojoules (arXiv 2602.11206)."""


@METRICS.register("spikes")
class Spikes(Metric):
    """``spike_rate``, the mean spike of the test split, and 1 less that, ``activation_sparsity``.

    The mean is over units, time steps and examples, then over layers. ``synops`` is time steps times rate, the relative number
    of synaptic operations; ``energy_ratio`` what they take over a perceptron of the same size. ``hard_accuracy`` and
    ``hard_rate``: with spikes of 0 and 1, of the network as it was trained. Trained scalars of the neurons stand beside them
    by layer, such as ``eps_1``.
    """

    needs_spikes = True

    def measure(self, subject: Subject) -> dict[str, float]:
        import torch
        from torchmetrics.classification import MulticlassAccuracy

        from sparselab.inputs.models.neurons.torch_side.membrane import hardened

        network = subject.network
        rate = self._rates(subject)
        with torch.no_grad(), hardened(network):
            right = MulticlassAccuracy(subject.data.classes, average="micro")
            for inputs, labels in subject.batches():
                right = right.to(labels.device)
                right.update(subject.logits(inputs).argmax(-1), labels)
            hard = self._rates(subject)
        steps = int(network.timesteps)  # type: ignore[arg-type]
        return {
            "spike_rate": rate,
            "activation_sparsity": 1 - rate,
            "synops": steps * rate,
            "energy_ratio": steps * rate * ENERGY[0] / ENERGY[1],
            "hard_accuracy": float(right.compute()),
            "hard_rate": hard,
            **network.numbers(),  # type: ignore[operator]
        }

    def _rates(self, subject: Subject) -> float:
        """The mean spike, as the neurons are now."""
        import torch
        from torchmetrics import MeanMetric

        from sparselab.inputs.models.feature_recorder import FeatureRecorder

        layers = list(subject.network.neurons)  # type: ignore[arg-type]
        recorder, means = FeatureRecorder(layers), None
        with torch.no_grad(), recorder:
            for inputs, _ in subject.batches():
                subject.logits(inputs)
                means = means or [MeanMetric().to(inputs.device) for _ in layers]
                for mean, spikes in zip(means, recorder.take().blocks, strict=True):
                    mean.update(spikes.flatten(1).mean(1))
        return sum(float(mean.compute()) for mean in means or []) / len(layers)
