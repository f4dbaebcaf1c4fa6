"""What a model is to the rest of the project: options in, an outline without torch, a network with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from sparselab.models.sketch import Sketch
from sparselab.models.weights import compare_outline, place, read_header
from sparselab.spec.dataspec import DataSpec
from sparselab.spec.faults import Fault, Faults, Refused
from sparselab.spec.options import Options
from sparselab.spec.outline import Outline
from sparselab.spec.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from sparselab.models.tap import Tap
    from sparselab.models.weights import Entry

MODELS: Registry[Family] = Registry("model", "sparselab.models.families")


class Family:
    """A family of networks. One options instance and one :class:`DataSpec` fix a network.

    A subclass says what does not fit (``misfits``), draws the network in closed form (``sketch``) and makes it
    (``make``). Parameter names are those of the library that the network comes from and never change.
    """

    name: ClassVar[str]
    task: ClassVar[str]
    trunk: ClassVar[tuple[str, ...]] = ()
    """Names of the modules whose children are the network's blocks, in forward order; none: it has no known blocks."""
    final_norm: ClassVar[str | None] = None
    """Name of the norm after the last block, where there is one."""
    decoder: ClassVar[bool] = False
    """Whether the network is a decoder of transformers: rules on activations and on attention need one."""

    batch_norm: bool = False
    """Whether it normalises over the examples of a batch all that its layers but the head put out."""

    class Options(Options):
        weights: str | None = Field(None, description="null, or the path of a .safetensors file to start from")

    options: Options

    def __init__(self, options: Options):
        self.options = options

    @property
    def where(self) -> str:
        """What a fault of the network itself is about, as typed."""
        return f"model={self.name}"

    def misfits(self, data: DataSpec) -> list[Fault]:
        """Why this network cannot be made for ``data``, options against options and options against the data."""
        return []

    def sketch(self, data: DataSpec) -> Sketch | None:
        """The network in closed form, or None where only building it can tell."""
        return None

    def make(self, data: DataSpec) -> nn.Module:
        """A network with initial weights from torch's global generator."""
        raise NotImplementedError

    def draw(self, data: DataSpec) -> Outline | None:
        """The outline of what :meth:`network` gives, unchecked."""
        sketch = self.sketch(data)
        return None if sketch is None else sketch.outline(self.name)

    def network(self, data: DataSpec) -> nn.Module:
        """What :meth:`build` fills with weights, unchecked."""
        return self.make(data)

    def files(self) -> dict[str, list[str]]:
        """Options that name files, with the files whose bytes decide what the option means."""
        return {} if self.options.weights is None else {"weights": [self.options.weights]}

    def faults(self, data: DataSpec) -> list[Fault]:
        """Everything that can be refused without torch: misfits, and the weights file's header against the outline."""
        if self.task != data.task:
            problem = f"reads {self.task}s and dataset {data.name} is {data.task}"
            return [Fault(f"model={self.name}", problem, f"choose a dataset of {self.task}s or another model")]
        found = Faults()
        with found.catch():
            found.found += self.misfits(data)
        if self.options.weights is not None:
            with found.catch():
                entries = read_header(self.options.weights)
                outline = None if found.found else self.draw(data)
                if outline is not None:
                    found.found += self.compare(entries, outline, place(self.options.weights))
        return found.found

    def outline(self, data: DataSpec) -> Outline | None:
        """The layers, costs and parameters of the network for ``data``, without torch; None where only building it
        can tell (then use :func:`sparselab.models.trace.trace`).

        Raises :class:`Refused` where the network cannot be made for ``data``.
        """
        self._require(data)
        return self.draw(data)

    def build(self, data: DataSpec) -> nn.Module:
        """The network in its starting state, on the CPU in float32: random from torch's global generator, then
        ``weights`` where the options name a file. Raises :class:`Refused`."""
        self._require(data)
        model = self.network(data)
        if self.options.weights is not None:
            self.load(model, self.options.weights)
        return model

    def compare(self, found: Mapping[str, Entry], outline: Outline, where: str) -> list[Fault]:
        """How a weights file that :meth:`load` is to read differs from the network, as far as its header tells."""
        return compare_outline(found, outline, where)

    def load(self, model: nn.Module, path: str) -> None:
        """Copy the tensors of a safetensors file into ``model``; Refused, and nothing copied, unless all fit."""
        from sparselab.models.load import load_weights

        load_weights(model, path)

    def logits(self, model: nn.Module, batch: Tensor) -> Tensor:
        """One forward pass. Images: (n, c, h, w) float -> (n, classes). Text: (n, t) int64 -> (n, t, vocabulary)."""
        return model(batch)

    carries: bool = False
    """Whether a window of text goes on from the state that the one before it left. Then data come in streams."""

    def carried(self, model: nn.Module, batch: Tensor, state: Any) -> tuple[Tensor, Any]:
        """As :meth:`logits` of text, going on from ``state`` (None: from nothing); also the state that it leaves.

        A state is tensors with the batch as second axis, in lists and tuples. Only of families that carry one.
        """
        raise NotImplementedError(f"{type(self).__name__} carries no state")

    @property
    def has_blocks(self) -> bool:
        """Whether :meth:`blocks` can name them; known without building the network."""
        return bool(self.trunk)

    def blocks(self, model: nn.Module) -> list[nn.Module]:
        """The blocks in forward order. Their outputs are the hidden states that feature distillation compares."""
        return [block for name in self.trunk for block in model.get_submodule(name).children()]

    def norm(self, model: nn.Module) -> nn.Module | None:
        """The norm between the last block and the head; its output is what libraries call the last hidden state."""
        return None if self.final_norm is None else model.get_submodule(self.final_norm)

    def tap(self, model: nn.Module) -> Tap:
        """What keeps the hidden states of ``model`` while it is open."""
        from sparselab.models.tap import Tap

        return Tap(self.blocks(model), self.norm(model))

    @property
    def starts_trained(self) -> bool:
        """Whether training starts from given weights, so that the starting network is worth learning from."""
        return self.options.weights is not None

    def library_config(self, model: nn.Module) -> dict[str, Any] | None:
        """What the network's library wants to find beside its weights, as ``config.json``; None where it is nothing."""
        return None

    def _require(self, data: DataSpec) -> None:
        faults = self.faults(data)
        if faults:
            raise Refused(faults)


class ImageFamily(Family):
    """Families that classify images."""

    task = "image"


class TextFamily(Family):
    """Families that predict the next token with a network of transformers' own."""

    task = "text"
    decoder = True

    def logits(self, model: nn.Module, batch: Tensor) -> Tensor:
        return model(input_ids=batch, use_cache=False).logits

    def library_config(self, model: nn.Module) -> dict[str, Any] | None:
        """For ``from_pretrained`` of the run's folder, without what differs between machines (folders, versions)."""
        config: dict[str, Any] = model.config.to_diff_dict()  # type: ignore[operator, union-attr]
        config = {key: value for key, value in config.items() if key not in ("_name_or_path", "transformers_version")}
        return {**config, "architectures": [type(model).__name__]}


def vocabulary_misfits(data: DataSpec) -> list[Fault]:
    """A fault where a network cannot be made because only loading tells how many tokens there are."""
    if data.classes:
        return []
    problem = "the size of its vocabulary is known only once it is loaded"
    return [Fault(f"dataset={data.name}", problem, "use a local copy (data_dir), or dataset.tokenizer=bytes")]


def misfit(key: str, value: Any, problem: str, fix: str) -> Fault:
    """A fault of option ``model.<key>``."""
    return Fault(f"model.{key}={value}", problem, fix)
