"""Sets of the Hugging Face hub, through ``datasets``; every way it can fail is one line [no torch]."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sparselab.core.errors import refuse

if TYPE_CHECKING:
    import datasets

_OFF = {"1", "true", "yes", "on"}


_asked: list[str] = []  # not empty: answer as if the hub were on


@contextmanager
def as_if_on() -> Iterator[None]:
    """Plans made inside name the hub although it is off: what a cell would cost needs no data."""
    _asked.append("on")
    try:
        yield
    finally:
        _asked.pop()


def offline() -> str:
    """The variable that turns the hub off, as ``NAME=value``; empty where it is on."""
    if _asked:
        return ""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        value = os.environ.get(name, "")
        if value.lower() in _OFF:
            return f"{name}={value}"
    return ""


def cached(repo: str, kind: str = "datasets") -> bool:
    """True if an earlier run left (some of) a set, or of one of the hub's ``models``, in the hub's own caches."""
    home = Path(os.environ.get("HF_HOME") or Path("~/.cache/huggingface").expanduser())
    prepared = Path(os.environ.get("HF_DATASETS_CACHE") or home / "datasets") / repo.replace("/", "___")
    files = Path(os.environ.get("HF_HUB_CACHE") or home / "hub") / f"{kind}--{repo.replace('/', '--')}"
    return prepared.is_dir() or files.is_dir()


def check(repo: str, where: str, layout: str) -> None:
    """Refuse, before anything is loaded, a set that is neither local nor cached while the hub is off."""
    if (switch := offline()) and not cached(repo):
        refuse(where, f"no local copy, and {switch} keeps the hub off", f"put {layout} in data_dir, or unset it")


@cache
def _one_word() -> None:
    """Say that the hub is asked, once, instead of what its client (imported by now) says of every try."""
    import logging

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    if not offline():
        print("asking the hub; where it does not answer, this takes a minute", file=sys.stderr, flush=True)


def load(
    repo: str, split: str, where: str, layout: str, config: str | None = None, revision: str | None = None
) -> datasets.Dataset:
    """One split of a hub set; ConfigError with the first line of the reason where it cannot be had."""
    check(repo, where, layout)
    import datasets

    _one_word()
    try:
        return datasets.load_dataset(repo, config, split=split, revision=revision)
    except Exception as error:  # the library's failures share no base class: network, gate, disk, format
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        refuse(where, f"the hub did not give it ({reason[:50]})", f"put {layout} in data_dir")
