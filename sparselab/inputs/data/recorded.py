"""Vectors that a frozen language model put out at one of its blocks, and the model itself to put others in their place."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from sparselab.core.errors import RunFailed
from sparselab.core.processor import instructions
from sparselab.core.seeds import derive_seed
from sparselab.inputs.data import cache
from sparselab.inputs.data.loader import Batch, Job
from sparselab.inputs.data.seeds import generator
from sparselab.inputs.data.sources import IGNORE
from sparselab.inputs.data.splits import PARTS, Loads, content_of

if TYPE_CHECKING:
    from sparselab.core.data_spec import DataSpec
    from sparselab.inputs.data.dataset import Dataset
    from sparselab.inputs.data.splits import TextSplits
    from sparselab.inputs.models.family import Family

TOGETHER = 16  # windows that the network reads at once: part of what decides the last bit of a vector
FLAT = 1e-5  # least deviation within a vector that is divided by


class _Reached(Exception):
    """The block has been passed: the rest of the network is not needed."""


class Recorder:
    """A frozen language model, a text that it reads in windows side by side, and the block that is looked at, from 1."""

    def __init__(self, family: Family, text: Dataset, text_spec: DataSpec, layer: int):
        self.family, self.text, self.text_spec, self.layer = family, text, text_spec, layer
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @cached_property
    def network(self) -> nn.Module:
        """The network in evaluation mode. One without weights of its own is drawn by numbers of this place."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed("activations", "network"))
            return self.family.build(self.text_spec).eval().requires_grad_(False).to(self.device)

    @cached_property
    def splits(self) -> TextSplits:
        return self.text.load()  # type: ignore[return-value]

    @property
    def block(self) -> nn.Module:
        return self.family.blocks(self.network)[self.layer - 1]

    def length(self, part: str) -> int:
        """Tokens of the split's windows without the last, which may be short."""
        block = self.text_spec.inputs.length
        return (-(-(len(getattr(self.splits, part)) - 1) // block) - 1) * block

    def windows(self, part: str, count: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets (windows, block) of whole windows with at least ``count`` tokens, in the text's order."""
        tokens, length = getattr(self.splits, part), self.text_spec.inputs.length
        drawn = generator("activations", part).permutation(self.length(part) // length)[: -(-count // length)]
        at = torch.from_numpy(np.sort(drawn))[:, None] * length + torch.arange(length + 1)
        windows = tokens[at].long()
        return windows[:, :-1], windows[:, 1:]

    def record(self, part: str, count: int) -> np.ndarray:
        """(count, width) float32: the block's output for each token."""
        made: list[Tensor] = []

        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            made.append(_first(output).float().cpu().flatten(0, 1))
            raise _Reached

        with self._hooked(keep):
            for inputs in self.windows(part, count)[0].split(TOGETHER):
                with suppress(_Reached):
                    self.family.logits(self.network, inputs.to(self.device))
        return torch.cat(made)[:count].numpy()

    def nats(self, part: str, count: int, change: Callable[[Tensor], Tensor] | None = None) -> float:
        """Cross-entropy per token of the same windows; ``change`` maps the block's output (n, t, width) to what goes on."""

        def replace(module: nn.Module, inputs: Any, output: Any) -> Any:
            if change is None:
                return output
            new = change(_first(output)).to(_first(output).dtype)
            return (new, *output[1:]) if isinstance(output, tuple) else new

        total, tokens = 0.0, 0
        with self._hooked(replace):
            for inputs, targets in zip(*(part.split(TOGETHER) for part in self.windows(part, count)), strict=True):
                logits = self.family.logits(self.network, inputs.to(self.device)).float().flatten(0, 1)
                wanted = targets.to(self.device).flatten()
                total += float(nn.functional.cross_entropy(logits, wanted, ignore_index=IGNORE, reduction="sum"))
                tokens += targets.numel()
        return total / tokens

    @contextmanager
    def _hooked(self, hook: Callable[..., Any]) -> Iterator[None]:
        handle = self.block.register_forward_hook(hook)
        try:
            with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
                yield
        finally:
            handle.remove()

    def key(self, part: str, count: int) -> str:
        """Name of the recorded vectors in the cache: all that decides their bits."""
        cpu = self.device.type == "cpu"
        facts = [
            *(hashlib.sha256(Path(p).read_bytes()).hexdigest() for files in self.family.files().values() for p in files),
            self.family.name, self.family.version, repr(self.family.options), self.splits.content, self.layer, part, count,
            self.text_spec.inputs.length, TOGETHER, torch.__version__, torch.get_num_threads() if cpu else 0,
            instructions() if cpu else torch.cuda.get_device_name(), platform.machine(),
        ]  # fmt: skip
        return f"activations-{hashlib.sha256(repr(facts).encode()).hexdigest()[:32]}"


def _first(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


@dataclass(frozen=True)
class Scale:
    """From recorded vectors to those that are learnt from, and back.

    each: a vector first loses its own mean and is divided by its own deviation. mean: (width,), subtracted then. size: the
    number that all are divided by last.
    """

    each: bool
    mean: Tensor
    size: float

    @classmethod
    def of(cls, vectors: Tensor, normalise: str) -> Scale:
        """The scale that ``normalise`` (``each``, ``all``, ``none``) gives these vectors (n, width)."""
        each = normalise == "each"
        inner = cls(each, torch.zeros(vectors.shape[1]), 1.0)
        if normalise == "none":
            return inner
        steady = inner.there(vectors)[0].double()
        mean = steady.mean(0)
        size = float((steady - mean).square().mean().sqrt())
        if not 0 < size < float("inf"):
            raise RunFailed("dataset=activations: the recorded vectors are all the same, or not finite")
        return cls(each, mean.float(), size)

    def there(self, vectors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(what is learnt from, the vectors' own means, their own deviations)."""
        own, deviation = vectors.new_zeros(()), vectors.new_ones(())
        if self.each:
            own = vectors.mean(-1, keepdim=True)
            deviation = (vectors - own).square().mean(-1, keepdim=True).sqrt().clamp(min=FLAT)
        return ((vectors - own) / deviation - self.mean.to(vectors.device)) / self.size, own, deviation

    def back(self, vectors: Tensor, own: Tensor, deviation: Tensor) -> Tensor:
        return (vectors * self.size + self.mean.to(vectors.device)) * deviation + own


class Vectors:
    """Batches (b, width) of vectors, each its own target."""

    def __init__(self, vectors: Tensor, device: str = "cpu"):
        self.vectors = vectors.to(device)

    def __len__(self) -> int:
        return len(self.vectors)

    def rows(self, rng: np.random.Generator | None) -> np.ndarray:
        return np.arange(len(self)) if rng is None else rng.permutation(len(self))

    def batches(self, jobs: Iterable[Job]) -> Iterator[Batch]:
        for job in jobs:
            rows = torch.from_numpy(job.rows[job.mine]).to(self.vectors.device, non_blocking=True)
            vectors = self.vectors[rows]
            yield vectors, vectors


@dataclass(frozen=True)
class RecordedSplits(Loads):
    """Vectors (n, width) of the three splits, scaled; and where they come from."""

    parts: Mapping[str, Tensor]
    scale: Scale
    recorder: Recorder
    digests: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def content(self) -> str:
        """Hash of every vector."""
        return content_of(self.parts[part] for part in PARTS)

    def source(self, part: str, batch_size: int, train: bool, device: str, workers: int) -> Vectors:
        """The vectors of ``part``; ``workers`` are not needed."""
        return Vectors(self.parts[part], device)

    def nats(self, part: str, count: int, change: Callable[[Tensor], Tensor] | None = None) -> float:
        """The language model's cross-entropy per token where ``change`` maps scaled vectors (n, width) at its block."""

        def spliced(output: Tensor) -> Tensor:
            assert change is not None
            vectors, *own = self.scale.there(output.float().flatten(0, -2))
            return self.scale.back(change(vectors), *own).view_as(output)

        return self.recorder.nats(part, count, None if change is None else spliced)


def recorded_splits(recorder: Recorder, sizes: Mapping[str, int], normalise: str) -> RecordedSplits:
    """The splits of so many vectors, from the cache where they lie there."""
    keys = {part: recorder.key(part, count) for part, count in sizes.items()}
    raw = {
        part: torch.from_numpy(cache.array(keys[part], partial(recorder.record, part, count)))
        for part, count in sizes.items()
    }
    scale = Scale.of(raw["train"], normalise)
    return RecordedSplits({part: scale.there(vectors)[0] for part, vectors in raw.items()}, scale, recorder)
