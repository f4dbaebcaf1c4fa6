"""Activations of a language model, recorded at one of its blocks over a text [no torch at import]."""

from __future__ import annotations

import hashlib
import re
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from sparselab.core.data_spec import DataSpec
from sparselab.core.data_types import Activations, NextTokens, Tokens
from sparselab.core.errors import ConfigError, Issue, did_you_mean, refuse
from sparselab.core.memo import once
from sparselab.core.options import Options, validate
from sparselab.inputs.data.dataset import DATASETS, Dataset
from sparselab.inputs.data.sets.text import TextSet
from sparselab.inputs.local_copies import near_data
from sparselab.inputs.models.family import MODELS

if TYPE_CHECKING:
    from sparselab.core.model_spec import ModelSpec
    from sparselab.inputs.data.recorded import RecordedSplits
    from sparselab.inputs.models.family import Family

PARTS = ("train", "val", "test")
MODEL = "{name: hf, path: weights/stories260k}"
TEXT = "{name: tinystories, block: 256}"


class ActivationOptions(Options):
    """Options of recorded activations."""

    model: dict[str, Any] | None = Field(description=f"the network that is recorded, such as {MODEL}")
    text: dict[str, Any] | None = Field(description=f"the text that it reads, such as {TEXT}")
    layer: int = Field(ge=1, description="the block whose output is recorded, from 1")
    width: int | None = Field(ge=1, description="of the vectors, for a network of the hub; null: its folder says it")
    train: int | None = Field(ge=1, description="vectors to train on; null: one for each token of the text")
    val: int | None = Field(ge=1, description="vectors to validate on; null for all")
    test: int | None = Field(ge=1, description="vectors to test on; null for all")
    normalise: Literal["each", "all", "none"] = Field(
        description="each: every vector to mean 0 and deviation 1, then as all; all: centred, mean square 1; none",
    )


@DATASETS.register("activations")
class ActivationSet(Dataset):
    """The outputs of block ``layer`` of a frozen language model, a vector for each token of a text; they are their own targets.

    ``model`` and ``text`` have the options of a model and of a dataset; ``model.weights`` may be another cell's. Windows of the
    text are drawn without replacement by the numbers of the place (``activations``, split), and vectors stay in the order
    of the text. The network reads them once: what it put out is kept in the cache.
    """

    task = "reconstruction"
    Options: ClassVar[type[Options]] = ActivationOptions
    options: ActivationOptions

    def spec(self) -> DataSpec:
        model_spec, text, o = self._model_spec(), self._text_spec, self.options
        width = o.width
        if model_spec is not None:
            depth = _blocks(model_spec)
            if o.layer > depth:
                refuse(f"dataset.layer={o.layer}", f"the network has {depth} blocks", f"write at most {depth}")
            width = next(layer.shape[1] for layer in model_spec.layers if layer.kind == "embedding")
        if width is None:
            refuse("dataset.width", "is known once the network is loaded", "write it, or name a local folder")
        if o.width not in (None, width):
            refuse(f"dataset.width={o.width}", f"the network's vectors have {width} numbers", "leave it out")
        sizes = {part: self._size(part, text) for part in PARTS}
        key = f"{text.fingerprint}{o.layer}"
        return DataSpec(
            name=self.name,
            inputs=Activations(width),
            targets=Activations(width),
            train=sizes["train"],
            val=sizes["val"],
            test=sizes["test"],
            fingerprint=hashlib.sha256(key.encode()).hexdigest(),
            source=text.source,
            path=text.path,
            title=f"{text.title or text.name}, block {o.layer}",
        )

    def load(self) -> RecordedSplits:
        from sparselab.inputs.data.recorded import Recorder, recorded_splits

        recorder = Recorder(self.family, self.text, self._text_spec, self.options.layer)
        sizes = {part: self._within(part, getattr(self.options, part), recorder.length(part)) for part in PARTS}
        made = recorded_splits(recorder, sizes, self.options.normalise)
        if made.parts["train"].shape[1:] != self.spec().shape:
            problem = f"the network's vectors have {made.parts['train'].shape[1]} numbers"
            refuse(f"dataset.width={self.options.width}", problem, "write that")
        return made

    def files(self) -> dict[str, list[str]]:
        return {f"model.{option}": paths for option, paths in self.family.files().items()}

    def places(self) -> tuple[str, ...]:
        return tuple(f"text.{option}" for option in self.text.places())

    def weights(self) -> tuple[dict[str, str], ModelSpec | None]:
        path = self.family.options.weights
        return ({}, None) if path is None else ({"model.weights": path}, self._model_spec())

    @cached_property
    def family(self) -> Family:
        """The family of the network that is recorded."""
        family: Family = self._made(MODELS, "model", near_data(self._given("model", MODEL), self.folder()))
        if (Tokens, NextTokens) not in family.heads or not family.has_blocks:
            refuse(f"dataset.model.name={family.name}", "is no language model with known blocks", f"write {MODEL}")
        return family

    @cached_property
    def text(self) -> Dataset:
        """The text, cut by the network's own tokenizer where it has one."""
        from sparselab.inputs.tokenizers import choose_tokenizer

        values = {"tokenizer": "auto", **self._given("text", TEXT)}
        name = str(values.get("name"))
        if name in DATASETS and not issubclass(DATASETS[name], TextSet):
            refuse(f"dataset.text.name={name}", "is no text", f"write dataset.text={TEXT}")
        self._made(DATASETS, "text", values, self.data_dir)  # what is wrong with the options comes first
        model = {"name": self.family.name, **self._given("model", MODEL)}
        if found := choose_tokenizer({"dataset": values, "model": model, "data_dir": self.data_dir}):
            raise ConfigError(_inside(found))
        return self._made(DATASETS, "text", values, self.data_dir)

    @cached_property
    def _text_spec(self) -> DataSpec:
        text = self.text
        try:
            return text.spec()
        except ConfigError as refused:
            raise ConfigError(_inside(refused.issues)) from None

    def _given(self, option: str, example: str) -> dict[str, Any]:
        values: dict[str, Any] | None = getattr(self.options, option)
        if values is None:
            refuse(f"dataset.{option}", "is required and has no value", f"write dataset.{option}={example}")
        return values

    def _made(self, registry: Any, option: str, values: dict[str, Any], *more: Any) -> Any:
        values = dict(values)
        name = values.pop("name", None)
        if not isinstance(name, str):
            refuse(f"dataset.{option}", "has no name", did_you_mean("", registry))
        cls = registry[name]
        return cls(validate(cls.Options, values, f"dataset.{option}"), *more)

    def _model_spec(self) -> ModelSpec | None:
        """The network's layers; None where only the hub can tell.

        A weights file is looked at by the plan: another cell may have yet to make it.
        """
        bare, text = type(self.family)(self.family.options.model_copy(update={"weights": None})), self._text_spec
        try:
            found = once(("recorded", bare.name, repr(bare.options), text), lambda: bare.model_spec(text))
            found = found or bare.traced_spec(text)
        except ConfigError as refused:
            raise ConfigError(_inside(refused.issues)) from None
        return found

    def _size(self, part: str, text: DataSpec) -> int:
        """Vectors of a split as far as they are known: what was asked for, or one for each token of whole windows."""
        asked, windows = getattr(self.options, part), getattr(text, part)
        if not windows:  # only loading tells how many tokens there are
            return asked or 0
        return self._within(part, asked, max(windows - 1, 0) * text.inputs.length)

    def _within(self, part: str, asked: int | None, there: int) -> int:
        """``asked``, or all; ConfigError where there are fewer."""
        if not there or (asked or 0) > there:
            fix = f"write at most {there}" if there else "write a smaller dataset.text.block"
            where = f"dataset.{part}={asked}" if asked else f"dataset.{part}"
            refuse(where, f"whole windows of the text have {there:,} tokens", fix)
        return there if asked is None else asked


def _blocks(model_spec: ModelSpec) -> int:
    """How many blocks a network has, by the numbers in its layers' names."""
    numbers = [int(found[1]) for layer in model_spec.layers if (found := re.search(r"\.(\d+)(\.|$)", layer.name))]
    return 1 + max(numbers, default=-1)


def _inside(issues: list[Issue]) -> list[Issue]:
    """Issues of a network or of a text as issues of the dataset that names it."""
    found = []
    for issue in issues:
        where = issue.where.replace("dataset.", "text.", 1) if issue.where.startswith("dataset.") else issue.where
        found.append(Issue(f"dataset.{where}", issue.problem, issue.fix))
    return found
