"""Any language model of transformers, by hub name or local folder: a decoder for text, an encoder or decoder for sentences."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from sparselab.core.data_spec import DataSpec
from sparselab.core.data_types import MaskedTokens
from sparselab.core.errors import Issue, refuse
from sparselab.core.options import off
from sparselab.inputs.local_copies import only_here
from sparselab.inputs.models.families.gpt import gpt2_spec
from sparselab.inputs.models.families.llama import llama_spec
from sparselab.inputs.models.family import MODELS, OwnTokens, TextFamily, classes_of, head_of
from sparselab.inputs.models.hf_config import ADAPTER, config_faults
from sparselab.inputs.models.spec_builder import SpecBuilder
from sparselab.inputs.models.weights import place, read_header

if TYPE_CHECKING:
    from torch import nn

    from sparselab.core.model_spec import ModelSpec

CLOSED_FORMS = {"gpt2": gpt2_spec, "llama": llama_spec}
VERBATIM = "give a folder made by save_pretrained"
PROBED = 16
"""Tokens with which a network is asked whether it looks ahead."""
ROUNDING = 1e-4
"""By how much of their spread logits may differ that were computed from the same tokens, in float32."""


@MODELS.register("hf")
class HuggingFace(TextFamily):
    """``AutoModelForCausalLM.from_pretrained(path)`` in float32, from safetensors only and never with remote code.

    For sentences ``AutoModelForSequenceClassification``: the trunk's weights from the folder, and a new head where it has none
    for these classes. ``start: config`` draws all weights anew and needs no more than the folder's config.json.

    Its own tokenizer makes the data's tokens, unless ``tokenizer: any`` lets another one. Llama and GPT-2 in local folders
    have a closed form; every other model spec is traced.
    """

    class Options(TextFamily.Options):
        path: str = Field(min_length=1, description="a local folder, or a hub name such as openai-community/gpt2")
        revision: str | None = Field(description="commit, tag or branch of a hub model; null: its main branch")
        tokenizer: Literal["own", "any"] = off("own", description="own, or any: text cut by another one is wanted")

        start: Literal["weights", "config"] = off("weights", description="weights, or config: all weights are drawn")

    options: Options

    @property
    def where(self) -> str:
        return place(self.options.path, "model.path")

    def _folder(self) -> Path | None:
        """The local folder, None for a hub name. ConfigError where the path can be neither."""
        path = Path(self.options.path).expanduser()
        if path.is_dir():
            return path
        if path.exists():
            refuse(self.where, "is a file", "name the folder it lies in")
        if only_here(self.options.path):
            refuse(self.where, "no local copy", "make it in data_dir (SPARSELAB_DATA), as docs/real-networks.md says")
        if path.is_absolute() or self.options.path.startswith(".") or self.options.path.count("/") > 1:
            refuse(self.where, "no such folder", "give a transformers folder, or a hub name owner/model")
        return None

    def _config(self) -> dict[str, Any] | None:
        """config.json of a local folder; None for a hub name."""
        folder = self._folder()
        if folder is None:
            return None
        if not (folder / "config.json").exists() and (folder / ADAPTER).exists():
            refuse(self.where, "holds an adapter and no network", "merge it into its network (merge_and_unload)")
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        except OSError:
            refuse(self.where, "has no readable config.json", VERBATIM)
        except ValueError:
            refuse(self.where, "its config.json is not valid JSON", VERBATIM)
        if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
            refuse(self.where, "its config.json names no model_type", VERBATIM)
        return config

    @classmethod
    def tokens_of(cls, values: Mapping[str, Any]) -> OwnTokens | None:
        path = values.get("path")
        if not isinstance(path, str) or values.get("tokenizer") == "any":
            return None
        folder = Path(path).expanduser()
        if not folder.is_dir():
            return OwnTokens(None)
        try:
            vocabulary = json.loads((folder / "config.json").read_text(encoding="utf-8"))["vocab_size"]
        except (OSError, ValueError, KeyError, TypeError):
            vocabulary = 0  # planning says what is wrong with the file
        return OwnTokens(folder, vocabulary if isinstance(vocabulary, int) else 0)

    def files(self) -> dict[str, list[str]]:
        folder = self._folder()
        if folder is None:
            return super().files()
        weights = sorted(folder.glob("*.safetensors")) if self.reads_weights else []
        return super().files() | {"path": [str(folder / "config.json"), *map(str, weights)]}

    def misfits(self, data: DataSpec) -> list[Issue]:
        folder, config = self._folder(), self._config()
        if folder is None or config is None:
            return []
        adapter = next(iter(sorted(folder.glob("adapter_*"))), None)
        if adapter is not None:  # the library would load the network that it names, or the folder's own without it
            problem = f"holds an adapter ({adapter.name}), which nothing here applies"
            return [Issue(self.where, problem, "merge it into the weights, or move it elsewhere")]
        shards = sorted(folder.glob("*.safetensors")) if self.reads_weights else []
        if not shards and self.reads_weights:
            return [
                Issue(self.where, "holds no .safetensors file, and pickles are never opened", "convert to safetensors")
            ]
        for shard in shards:
            read_header(shard, "model.path")
        if config.get("is_encoder_decoder") is True:
            problem = f"is an encoder and a decoder ({config['model_type']}), and only one of the two is read here"
            return [Issue(self.where, problem, "give a causal language model, or for sentences an encoder")]
        issues = config_faults(folder, config, self.where)
        vocabulary = config.get("vocab_size")
        if isinstance(vocabulary, int) and vocabulary < data.inputs.vocabulary:
            problem = f"knows {vocabulary:,} tokens and {data.name} has {data.inputs.vocabulary:,}"
            issues.append(Issue(self.where, problem, "use data made with this model's tokenizer"))
        context = self.longest(data)
        if context is not None and context < data.inputs.length:
            problem = f"reads at most {context} tokens and {data.name}'s window has {data.inputs.length}"
            issues.append(Issue(self.where, problem, "use a shorter window"))
        return issues

    def one_way(self) -> bool:
        config = self._config()
        return config is not None and self.reads_weights and config.get("is_causal", True) is not False

    def longest(self, data: DataSpec) -> int | None:
        config = self._config() or {}
        context = config.get("max_position_embeddings", config.get("n_positions"))
        return context if isinstance(context, int) else None

    def builder(self, data: DataSpec) -> SpecBuilder | None:
        config = self._config()
        # Quantised weights are stored in shapes of their own.
        if config is None or config["model_type"] not in CLOSED_FORMS or "quantization_config" in config:
            return None
        try:
            return CLOSED_FORMS[config["model_type"]](config, data.inputs.length, classes_of(data))
        except (KeyError, TypeError, ZeroDivisionError):
            refuse(self.where, "its config.json lacks a size, or has one that is no number", VERBATIM)

    def traced_spec(self, data: DataSpec) -> ModelSpec | None:
        return None if self._folder() is None else super().traced_spec(data)  # a hub name would be downloaded

    def make(self, data: DataSpec) -> nn.Module:
        try:
            model, report = self._loaded(data)
        except Exception as error:  # what a config of any architecture can break shares no base class
            reason = (str(error).strip() or type(error).__name__).split("\n")[0]
            refuse(self.where, f"cannot be loaded: {reason[:60]}", "check name, network and files")
        for problem, keys in report.items():
            if keys:
                names = sorted(map(str, keys))
                refuse(self.where, f"{problem.split('_')[0]} tensors: {names[0][:40]} ({len(names)} in all)", VERBATIM)
        head = model.get_output_embeddings()
        tied = head is not None and head.weight is model.get_input_embeddings().weight
        if head is not None and not tied and getattr(model.config, "tie_word_embeddings", False):
            # The library says so in passing, and keeps both; the spec of config.json would count one.
            fix = "write tie_word_embeddings: false in config.json"
            refuse(self.where, "its config.json ties embedding and head, its file has two", fix)
        vocabulary = model.get_input_embeddings().weight.shape[0]
        if vocabulary < data.inputs.vocabulary:
            problem = f"knows {vocabulary:,} tokens and {data.name} has {data.inputs.vocabulary:,}"
            refuse(self.where, problem, "use data made with this model's tokenizer")
        if classes_of(data) is not None:
            return model
        ahead = looks_ahead(
            model, min(data.inputs.length, PROBED), min(vocabulary, data.inputs.vocabulary or vocabulary)
        )
        if isinstance(data.targets, MaskedTokens):
            if not ahead:
                problem = "attends to what came before only, and masked tokens are told from both sides"
                refuse(self.where, problem, "give a network that takes is_causal: false in its config.json")
            return model
        if ahead:
            problem = "is no decoder: its logits change with later tokens"
            refuse(self.where, problem, "give a causal language model (BERT: is_decoder in config.json)")
        return model

    def _loaded(self, data: DataSpec) -> tuple[Any, dict[str, Any]]:
        """(the network, names of tensors that are missing, unexpected and mismatched); those of a new head are neither."""
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

        path, revision = str(self._folder() or self.options.path), self.options.revision or "main"
        cls = AutoModelForCausalLM if classes_of(data) is None else AutoModelForSequenceClassification
        given: dict[str, Any] = {"revision": revision, "trust_remote_code": False}
        if isinstance(data.targets, MaskedTokens):  # no config knows the entry, so that it cannot be given like others
            given["config"] = AutoConfig.from_pretrained(path, **given)
            given["config"].is_causal = False
        else:
            given.update(head_of(data))
        if not self.reads_weights and "config" in given:
            return cls.from_config(given["config"], dtype=torch.float32), {}
        if not self.reads_weights:
            return cls.from_config(AutoConfig.from_pretrained(path, **given), dtype=torch.float32), {}
        loaded: Any = cls.from_pretrained(
            path, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **given
        )
        model, report = loaded
        kinds = ("missing_keys", "unexpected_keys", "mismatched_keys")
        if classes_of(data) is None:
            return model, {kind: report[kind] for kind in kinds}
        trunk = f"{model.base_model_prefix}."
        return model, {
            kind: [key for key in map(str, report[kind]) if key.startswith(trunk) and "pooler" not in key]
            for kind in kinds
        }

    has_blocks = True

    @property
    def starts_trained(self) -> bool:
        """True unless all weights are drawn anew."""
        return self.reads_weights or self.options.weights is not None

    @property
    def reads_weights(self) -> bool:
        """True if the folder's own weights are where it starts."""
        return self.options.start == "weights"

    def blocks(self, model: nn.Module) -> list[nn.Module]:
        return list(self._trunk(model)[1])

    def norm(self, model: nn.Module) -> nn.Module | None:
        siblings = self._trunk(model)[0].named_children()
        return next((module for name, module in siblings if "norm" in name or name.startswith("ln_")), None)

    def _trunk(self, model: Any) -> tuple[nn.Module, Any]:
        """(the module that holds the list of blocks, that list): the first list of ``num_hidden_layers`` modules."""
        from torch import nn

        depth = model.config.num_hidden_layers
        nested = ((parent, child) for parent in model.modules() for child in parent.children())
        found = next((pair for pair in nested if isinstance(pair[1], nn.ModuleList) and len(pair[1]) == depth), None)
        if found is None:
            refuse(self.where, f"has no list of {depth} blocks", "leave out what needs the blocks of the model")
        return found


def looks_ahead(model: nn.Module, length: int, vocabulary: int) -> bool:
    """True if logits change with a later token, which makes every perplexity meaningless.

    Two windows of ``length`` tokens below ``vocabulary`` that differ in their second half; the logits of the first half
    are compared. The model is left as it was, and no random number is drawn.
    """
    import torch

    if length < 2:
        return False
    half = length // 2
    numbers = torch.arange(length, device=next(model.parameters()).device)
    one = numbers * 7 % vocabulary
    other = torch.where(numbers < half, one, (one + 1 + vocabulary // 2) % vocabulary)
    training = model.training
    model.eval()
    with torch.no_grad():
        logits = model(input_ids=torch.stack([one, other]), use_cache=False).logits[:, :half].float()
    model.train(training)
    return bool((logits[0] - logits[1]).abs().max() > ROUNDING * logits.std())
