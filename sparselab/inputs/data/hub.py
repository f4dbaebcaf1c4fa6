"""Sets of the Hugging Face hub, through ``datasets``; every way it can fail is one line. [no torch]"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from sparselab.core.errors import refuse

if TYPE_CHECKING:
    import datasets

_OFF = {"1", "true", "yes", "on"}


def offline() -> str:
    """The variable that turns the hub off, as ``NAME=value``; empty where it is on."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        value = os.environ.get(name, "")
        if value.lower() in _OFF:
            return f"{name}={value}"
    return ""


def cached(repo: str, kind: str = "datasets") -> bool:
    """Whether an earlier run left (some of) a set, or of one of the hub's ``models``, in the hub's own caches."""
    home = Path(os.environ.get("HF_HOME") or Path("~/.cache/huggingface").expanduser())
    prepared = Path(os.environ.get("HF_DATASETS_CACHE") or home / "datasets") / repo.replace("/", "___")
    files = Path(os.environ.get("HF_HUB_CACHE") or home / "hub") / f"{kind}--{repo.replace('/', '--')}"
    return prepared.is_dir() or files.is_dir()


def check(repo: str, where: str, layout: str) -> None:
    """Refuse, before anything is loaded, a set that is neither local nor cached while the hub is off."""
    if (switch := offline()) and not cached(repo):
        refuse(where, f"no local copy, and {switch} keeps the hub off", f"put {layout} in data_dir, or unset it")


def load(
    repo: str, split: str, where: str, layout: str, config: str | None = None, revision: str | None = None
) -> datasets.Dataset:
    """One split of a hub set; ConfigError with the first line of the reason where it cannot be had."""
    check(repo, where, layout)
    import datasets

    try:
        return datasets.load_dataset(repo, config, split=split, revision=revision)
    except Exception as error:  # the library's failures share no base class: network, gate, disk, format
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        refuse(where, f"the hub did not give it ({reason[:50]})", f"put {layout} in data_dir")
