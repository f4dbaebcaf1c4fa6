"""Which tokenizer cuts a text: the one that belongs to the model, wherever it has one [no torch]."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sparselab.core.errors import ConfigError, Issue, short
from sparselab.inputs.data.dataset import LocalCopies
from sparselab.inputs.data.tokens import AUTO, BYTES, UNITS, holds_tokenizer, tokenizer_of
from sparselab.inputs.local_copies import near_data
from sparselab.inputs.models.family import MODELS, OwnTokens


def choose_tokenizer(config: dict[str, Any], invalid: Iterable[str] = ()) -> list[Issue]:
    """Put what ``auto`` means in its place in the config; return the issues of a tokenizer that is not the model's.

    invalid: groups of which nothing is known.
    """
    dataset, model = config.get("dataset"), config.get("model")
    if not isinstance(dataset, dict) or not isinstance(asked := dataset.get("tokenizer"), str):
        return []
    own, near = None, None
    if isinstance(model, dict) and not {"model", "data_dir"} & set(invalid) and model.get("name") in MODELS:
        near = folder_of_copies(config.get("data_dir"))
        own = MODELS[model["name"]].tokens_of(near_data(model, near))
    path = str(model.get("path")) if isinstance(model, dict) else ""
    bare = own is not None and own.folder is not None and not holds_tokenizer(own.folder)
    if asked == AUTO and own is not None and own.folder is None and not may_be_on_hub(path):
        return []  # a model that is nowhere is the model's own issue
    if asked == AUTO:
        dataset["tokenizer"] = BYTES if own is None or bare else path
        return _unknown(own, path) if own is not None and bare else []
    if own is None or bare or _same(asked, path, own, near):
        return []
    problem = f"is not the tokenizer of model.path={short(path)}"
    fix = "write dataset.tokenizer=auto, or model.tokenizer=any"
    return [Issue(short(f"dataset.tokenizer={asked}"), problem, fix)]


def may_be_on_hub(path: str) -> bool:
    """True where a path can be a hub name (``owner/model``)."""
    return not (Path(path).expanduser().is_absolute() or path.startswith(".") or path.count("/") > 1)


def folder_of_copies(data_dir: Any) -> Path | None:
    """The folder of local copies; None where there is none, and where the dataset says what is wrong with it."""
    try:
        return LocalCopies(data_dir if isinstance(data_dir, str) else None).folder()
    except ConfigError:
        return None


def _unknown(own: OwnTokens, path: str) -> list[Issue]:
    """The fault of a model without a tokenizer whose tokens cannot be bytes."""
    if own.vocabulary in (0, 256):
        return []
    problem = f"knows {own.vocabulary:,} tokens, and its folder has no tokenizer to say which"
    return [Issue(short(f"model.path={path}"), problem, "put its tokenizer there, or write dataset.tokenizer=…")]


def _same(asked: str, path: str, own: OwnTokens, near: Path | None) -> bool:
    """True if the tokenizer asked for is the model's: by its files, or by its name on the hub."""
    if asked == path:
        return True
    if asked == BYTES or asked in UNITS or own.folder is None:
        return False
    folder = Path(near_data({"tokenizer": asked}, near)["tokenizer"]).expanduser()
    if not folder.is_dir() or not holds_tokenizer(folder):
        return False  # one of the hub; of a folder without one the dataset says so
    return tokenizer_of(str(folder)).mark("") == tokenizer_of(str(own.folder)).mark("")
