"""A page of features of an auto-encoder with the contexts in which they fire most."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from sparselab.core.data_types import Activations
from sparselab.core.options import Options
from sparselab.training.metrics.feature import Context, Feature
from sparselab.training.metrics.metric import METRICS, Metric, Subject

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

AT_ONCE = 4096  # vectors that are coded together


@METRICS.register("contexts")
class Contexts(Metric):
    """Picture ``contexts.png``: features, each with the ``contexts`` tokens of largest code.

    Features go from the most frequent to the rarest that fire in the test split, evenly spaced by rank; all tokens are in
    contexts of their own.
    """

    needs = (Activations, Activations)

    class Options(Options):
        features: int = Field(ge=1, description="features on the page, at least 1")
        contexts: int = Field(ge=1, description="contexts of each, at least 1")
        around: int = Field(ge=0, description="tokens shown before and after")

    def measure(self, subject: Subject) -> dict[str, float]:
        return {}

    def pictures(self, subject: Subject) -> dict[str, bytes]:
        from sparselab.storage.png import grey
        from sparselab.training.metrics.torch_side.page import page

        return {"contexts.png": grey(page(self.found(subject)))}

    def found(self, subject: Subject) -> list[Feature]:
        """The features of the page."""
        import torch

        vectors = subject.loaded.parts["test"]
        device = next(subject.network.parameters()).device
        with torch.no_grad():
            parts = [subject.network.codes(part.to(device)).float().cpu() for part in vectors.split(AT_ONCE)]  # type: ignore[operator]
        codes = torch.cat(parts)
        density = (codes > 0).float().mean(0)
        alive = [int(i) for i in density.argsort(descending=True, stable=True) if density[i] > 0]
        count = min(self.options.features, len(alive))
        chosen = [alive[round(i * (len(alive) - 1) / max(count - 1, 1))] for i in range(count)]
        recorder = subject.loaded.recorder
        tokens = recorder.windows("test", len(vectors))[0]
        return [
            Feature(i, float(density[i]), tuple(self._contexts(codes[:, i], tokens, recorder.text.tokenizer().spelled)))
            for i in chosen
        ]

    def _contexts(self, code: Tensor, tokens: Tensor, spelled: Callable[[list[int]], str]) -> list[Context]:
        length, around = tokens.shape[1], self.options.around
        made: list[Context] = []
        for place in map(int, code.argsort(descending=True, stable=True)):
            if len(made) == self.options.contexts or code[place] <= 0:
                break
            window, at = divmod(place, length)
            row = tokens[window].tolist()
            first = max(at - around, 0)
            # A token by itself loses the space that it begins with: each piece is what it adds to the text.
            before, upto, whole = (
                spelled(row[first:end]) if end > first else "" for end in (at, at + 1, at + 1 + around)
            )
            context = Context(before, upto[len(before) :], whole[len(upto) :], float(code[place]))
            if all((context.before, context.token) != (other.before, other.token) for other in made):
                made.append(context)
        return made
