"""The interface of a model: options in, a model spec without torch, a network with it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from sparselab.core.data_spec import DataSpec
from sparselab.core.data_types import Classes, Images, MaskedTokens, NextTokens, Pair, Sentences, Tokens, spoken
from sparselab.core.errors import ConfigError, Issue, Issues
from sparselab.core.model_spec import ModelSpec
from sparselab.core.options import Options
from sparselab.core.registry import Registry
from sparselab.inputs.models.spec_builder import SpecBuilder
from sparselab.inputs.models.weights import compare_spec, place, read_header

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from sparselab.inputs.models.feature_recorder import FeatureRecorder
    from sparselab.inputs.models.genotype import Genotype
    from sparselab.inputs.models.weights import Entry

MODELS: Registry[Family] = Registry("model", "sparselab.inputs.models.families")


@dataclass(frozen=True)
class OwnTokens:
    """The tokens that a trained language model reads.

    folder: where its files lie; None: on the hub. vocabulary: how many it knows; 0 where only loading tells.
    """

    folder: Path | None
    vocabulary: int = 0


class Family:
    """A family of networks. One options instance and one :class:`DataSpec` fix a network.

    A subclass says what does not fit (``misfits``), draws the network in closed form (``draw``) and makes it
    (``make``). Parameter names are those of the library that the network comes from and never change.
    """

    name: ClassVar[str]
    heads: ClassVar[tuple[Pair, ...]] = ()
    """Pairs of inputs and targets that it makes a network for: what it reads, and what its head can give."""
    trunk: ClassVar[tuple[str, ...]] = ()
    """Names of the modules whose children are the network's blocks, in forward order; none: it has no known blocks."""
    final_norm: ClassVar[str | None] = None
    """Name of the norm after the last block, where there is one."""
    decoder: ClassVar[bool] = False
    """True for a decoder of transformers: rules on activations and on attention need one."""
    gives: ClassVar[frozenset[str]] = frozenset()
    """Names of what its networks keep for extra losses to read, such as ``divergence``."""
    instructions: ClassVar[Mapping[str, frozenset[str]]] = {}
    """Instructions that torch needs for the network in ``bf16`` or ``16``; a precision not named runs on all processors."""

    version: ClassVar[int] = 1
    """Raised when the same options give another network; from 2 on it is part of a cell's id."""

    spiking: ClassVar[bool] = False
    """True if its blocks are layers of spiking neurons, which put out spikes (n, t, …)."""

    searched: ClassVar[bool] = False
    """True if its networks weigh operations against each other (:meth:`choices`), so that a search can move the weights."""

    shaped_by: ClassVar[frozenset[str]] = frozenset()
    """Options naming files that say which layers there are; nothing is known of these until such a file is there."""

    batch_norm: bool = False
    """True if it normalises over the examples of a batch all that its layers but the head put out."""

    class Options(Options):
        defaults_from: ClassVar[str] = "model/_base"

        weights: str | None = Field(description="null, or the path of a .safetensors file to start from")

    options: Options

    fresh_head: bool = False
    """True if the head starts at random although ``weights`` are given, whose own head may be another one; the plan says so."""

    def __init__(self, options: Options):
        self.options = options
        self.left: frozenset[str] = frozenset()  # tensors that :meth:`load` leaves as they are

    @property
    def where(self) -> str:
        """Return the key of an issue of the network itself, as typed."""
        return f"model={self.name}"

    def misfits(self, data: DataSpec) -> list[Issue]:
        """Why this network cannot be made for ``data``, options against options and options against the data."""
        return []

    def least_batch(self) -> int:
        """Examples that a micro-batch must have, over all processes, for the network to do what it says."""
        return 1

    def longest(self, data: DataSpec) -> int | None:
        """Tokens that the network, made for ``data``, can read at once; None where nothing limits them."""
        return None

    def builder(self, data: DataSpec) -> SpecBuilder | None:
        """The network in closed form, or None where only building it can tell."""
        return None

    def make(self, data: DataSpec) -> nn.Module:
        """A network with initial weights from torch's global generator."""
        raise NotImplementedError

    def draw(self, data: DataSpec) -> ModelSpec | None:
        """The model spec of what :meth:`network` gives, unchecked."""
        builder = self.builder(data)
        return None if builder is None else builder.model_spec(self.name)

    def network(self, data: DataSpec) -> nn.Module:
        """Return the network that :meth:`build` fills with weights, unchecked."""
        return self.make(data)

    def files(self) -> dict[str, list[str]]:
        """Options that name files, with the files whose bytes decide what the option means."""
        return {} if self.options.weights is None else {"weights": [self.options.weights]}

    def issues(self, data: DataSpec) -> list[Issue]:
        """Everything that can be refused without torch: misfits, and the weights file's header against the model spec."""
        if data.pair not in self.heads:
            problem = f"is for {' or '.join(map(spoken, self.heads))}, and dataset {data.name} is {spoken(data.pair)}"
            return [Issue(f"model={self.name}", problem, "choose another of the two")]
        found = Issues()
        with found.collect():
            found.found += self.misfits(data)
        if self.options.weights is not None:
            with found.collect():
                entries = read_header(self.options.weights)
                model_spec = None if found.found else self.draw(data)
                if model_spec is not None:
                    given = without_head(model_spec) if self.fresh_head else model_spec
                    found.found += self.compare(entries, given, place(self.options.weights))
        return found.found

    def model_spec(self, data: DataSpec) -> ModelSpec | None:
        """Return the layers, costs and parameters of the network for ``data``, without torch.

        None where only building it can tell (then use :func:`sparselab.inputs.models.trace.trace`).

        Raises :class:`ConfigError` where the network cannot be made for ``data``.
        """
        self._require(data)
        return self.draw(data)

    def traced_spec(self, data: DataSpec) -> ModelSpec | None:
        """The model spec from a network that is built for it and dropped; None where that takes files from elsewhere.

        For families whose :meth:`model_spec` cannot tell. Imports torch; ConfigError where the network cannot be made. Without
        weights of its own the network is built on the meta device, which takes neither time nor memory.
        """
        import torch

        from sparselab.inputs.models.trace import traced

        if not self.starts_trained:
            with (
                contextlib.suppress(Exception),
                torch.device("meta"),
            ):  # some networks look at a number while they are made
                return traced(self, self.network(data), data)
        return traced(self, self.network(data), data)

    def build(self, data: DataSpec) -> nn.Module:
        """Return the network in its starting state, on the CPU in float32.

        Random from torch's global generator, then ``weights`` where the options name a file. Raises :class:`ConfigError`.
        """
        self._require(data)
        model = self.network(data)
        if self.options.weights is not None:
            if self.fresh_head:
                self.left = head_tensors(self.draw(data) or self._traced(model, data))
            self.load(model, self.options.weights)
        return model

    def _traced(self, model: nn.Module, data: DataSpec) -> ModelSpec:
        from sparselab.inputs.models.trace import traced

        return traced(self, model, data)

    def compare(self, found: Mapping[str, Entry], model_spec: ModelSpec, where: str) -> list[Issue]:
        """How a weights file that :meth:`load` is to read differs from the network, as far as its header tells."""
        return compare_spec(found, model_spec, where)

    def load(self, model: nn.Module, path: str) -> None:
        """Copy the tensors of a safetensors file into ``model``.

        Args:
            model: changed in place
            path: of a safetensors file

        Raises:
            ConfigError: a tensor is missing, is not the model's or has another shape; nothing is copied then.
        """
        from sparselab.inputs.models.load import load_weights

        load_weights(model, path, left=self.left)

    def logits(self, model: nn.Module, batch: Tensor) -> Tensor:
        """Do one forward pass.

        Args:
            model: what :meth:`build` gave
            batch: (n, *inputs): images (n, c, h, w) float, tokens (n, t) int64, sentences (n, 3, t) int64, vectors
                (n, width) float

        Returns:
            (n, *outputs): (n, classes), (n, t, vocabulary) or the shape of the targets, float.
        """
        return model(batch)

    carries: bool = False
    """True if a window of text goes on from the state that the one before it left. Then data come in streams."""

    def carried(self, model: nn.Module, batch: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Do one forward pass of text, going on from ``state``; only of families that carry one.

        Args:
            model: what :meth:`build` gave
            batch: (n, t) int64
            state: what the call before returned; None: nothing

        Returns:
            ((n, t, vocabulary) float, state). A state is tensors with the batch as second axis, in lists and tuples.
        """
        raise NotImplementedError(f"{type(self).__name__} carries no state")

    def constrain_gradients(self, model: nn.Module) -> None:
        """Take from gradients, before an update, what would leave the set that parameters are held to; by default nothing."""

    def constrain(self, model: nn.Module) -> None:
        """Bring parameters back, after an update, to the set that they are held to; by default nothing.

        Of sparse weights it sees the dense ones, before their mask.
        """

    def choices(self, model: nn.Module) -> dict[str, Tensor]:
        """The weights of operations, before their softmax, by name; of families that are ``searched``.

        Args:
            model: what :meth:`build` gave

        Returns:
            Buffers (edges, operations) of the model.
        """
        raise NotImplementedError(f"{type(self).__name__} weighs no operations")

    def genotype(self, model: nn.Module) -> Genotype | None:
        """Return the cells that the network is made of, or favours; None where it has none.

        Args:
            model: what :meth:`build` gave

        Returns:
            A genotype, whose file and picture a finished run leaves, or None.
        """
        return None

    @property
    def has_blocks(self) -> bool:
        """True if :meth:`blocks` can name them; known without building the network."""
        return bool(self.trunk)

    def blocks(self, model: nn.Module) -> list[nn.Module]:
        """Return the blocks in forward order.

        Args:
            model: what :meth:`build` gave

        Returns:
            Modules of the model; their outputs are the hidden states that feature distillation compares.
        """
        return [block for name in self.trunk for block in model.get_submodule(name).children()]

    def norm(self, model: nn.Module) -> nn.Module | None:
        """The norm between the last block and the head; its output is what libraries call the last hidden state."""
        return None if self.final_norm is None else model.get_submodule(self.final_norm)

    def recorder(self, model: nn.Module) -> FeatureRecorder:
        """Return a recorder of the hidden states of ``model``, which records while it is open."""
        from sparselab.inputs.models.feature_recorder import FeatureRecorder

        return FeatureRecorder(self.blocks(model), self.norm(model))

    @property
    def starts_trained(self) -> bool:
        """True if training starts from given weights, so that the starting network is worth learning from."""
        return self.options.weights is not None

    @classmethod
    def tokens_of(cls, values: Mapping[str, Any]) -> OwnTokens | None:
        """Return what its options say of a trained network's tokens; None if they say nothing."""
        return None

    def library_config(self, model: nn.Module) -> dict[str, Any] | None:
        """Return the ``config.json`` that the network's library expects beside its weights; None if none."""
        return None

    def _require(self, data: DataSpec) -> None:
        issues = self.issues(data)
        if issues:
            raise ConfigError(issues)


def without_head(model_spec: ModelSpec) -> ModelSpec:
    """The model spec less the layers of the head."""
    return replace(model_spec, layers=tuple(layer for layer in model_spec.layers if "head" not in layer.roles))


def head_tensors(model_spec: ModelSpec) -> frozenset[str]:
    """Names of the head's parameters."""
    heads = [layer for layer in model_spec.layers if "head" in layer.roles]
    return frozenset(name for layer in heads for name in (layer.tensor, f"{layer.name}.bias"))


class ImageFamily(Family):
    """Families that classify images."""

    heads = ((Images, Classes),)


class TextFamily(Family):
    """Families of transformers' own networks: they predict the next token, tokens behind a mask, or a sentence's class.

    For tokens behind a mask the same network attends in both directions: its config says ``is_causal: false``.
    """

    heads: ClassVar[tuple[Pair, ...]] = ((Tokens, NextTokens), (Tokens, MaskedTokens), (Sentences, Classes))
    decoder = True

    def one_way(self) -> bool:
        """True if given weights are known to be those of a network that attended to what came before only."""
        return False

    def logits(self, model: nn.Module, batch: Tensor) -> Tensor:
        """Do one forward pass.

        Args:
            model: what :meth:`build` gave
            batch: text (n, t) int64, or sentences (n, 3, t) int64: tokens, padding and segments

        Returns:
            (n, t, vocabulary), or (n, classes).
        """
        if batch.ndim == 2:
            return model(input_ids=batch, use_cache=False).logits
        tokens, present, second = batch.unbind(1)
        kinds = {"token_type_ids": second} if getattr(model.config, "type_vocab_size", 0) > 1 else {}
        return model(input_ids=tokens, attention_mask=present, **kinds).logits

    def library_config(self, model: nn.Module) -> dict[str, Any] | None:
        """For ``from_pretrained`` of the run's folder, without what differs between machines (folders, versions)."""
        config: dict[str, Any] = model.config.to_diff_dict()  # type: ignore[operator, union-attr]
        config = {key: value for key, value in config.items() if key not in ("_name_or_path", "transformers_version")}
        return {**config, "architectures": [type(model).__name__]}


def classes_of(data: DataSpec) -> int | None:
    """Return the classes of a head on sentences; None where the next token is predicted."""
    return data.classes if isinstance(data.inputs, Sentences) else None


def head_of(data: DataSpec) -> dict[str, Any]:
    """Entries of a transformers config for what ``data`` asks for: nothing for the next token."""
    if isinstance(data.targets, MaskedTokens):
        return {"is_causal": False}
    if not isinstance(data.inputs, Sentences):
        return {}
    return {"num_labels": data.classes, "pad_token_id": data.inputs.pad, "use_cache": False}


def vocabulary_misfits(data: DataSpec) -> list[Issue]:
    """A fault where a network cannot be made because only loading tells how many tokens there are."""
    if data.inputs.vocabulary:
        return []
    problem = "the size of its vocabulary is known only once it is loaded"
    return [Issue(f"dataset={data.name}", problem, "use a local copy (data_dir), or dataset.tokenizer=bytes")]


def misfit(key: str, value: Any, problem: str, fix: str) -> Issue:
    """A fault of option ``model.<key>``."""
    return Issue(f"model.{key}={value}", problem, fix)
