"""The registry of datasets and what each of them owes [no torch]."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from sparselab.core.errors import refuse
from sparselab.core.options import Options as AnyOptions
from sparselab.core.registry import Registry
from sparselab.inputs.data import files

if TYPE_CHECKING:
    from sparselab.core.data_spec import DataSpec
    from sparselab.core.model_spec import ModelSpec
    from sparselab.inputs.data.splits import Splits


class LocalCopies:
    """The folder of local copies: ``data_dir``, or without it the environment's ``SPARSELAB_DATA``."""

    def __init__(self, data_dir: str | None = None):
        self.data_dir = data_dir

    def given_folder(self) -> Path | None:
        """``data_dir`` where it was written; ConfigError where it is no folder or holds nothing."""
        if self.data_dir is None:
            return None
        return _existing(Path(self.data_dir).expanduser(), f"data_dir={files.short(self.data_dir)}")

    def folder(self) -> Path | None:
        """The folder of local copies, or None where the user named none."""
        given = self.given_folder()
        named = os.environ.get("SPARSELAB_DATA")
        if given is not None or not named:
            return given
        return _existing(Path(named).expanduser(), f"SPARSELAB_DATA={files.short(named)}")

    def local(self, *names: str) -> Path | None:
        """The first of ``names`` that exists in the folder of local copies."""
        folder = self.folder()
        found = [folder / name for name in names if (folder / name).exists()] if folder else []
        return found[0] if found else None


class Dataset(LocalCopies, ABC):
    """A dataset: what it is (:meth:`spec`, cheap) and its three disjoint splits (:meth:`load`).

    A local copy wins, otherwise the public set is loaded from the hub.
    """

    name: ClassVar[str]
    task: ClassVar[str]
    """The task that it is for, unless a cell names another one."""
    Options: ClassVar[type[AnyOptions]] = AnyOptions

    def __init__(self, options: AnyOptions, data_dir: str | None = None):
        super().__init__(data_dir)
        self.options = options

    @property
    def where(self) -> str:
        return f"dataset={self.name}"

    @abstractmethod
    def spec(self) -> DataSpec:
        """The facts that a plan needs, in well under a second; ConfigError where files are missing, empty or damaged."""

    @abstractmethod
    def load(self) -> Splits:
        """The splits in memory; ConfigError where the content is not what :meth:`spec` announced."""

    @property
    def augments(self) -> bool:
        """True if training sees other inputs than evaluation would of the same example."""
        return False

    def companions(self) -> dict[str, bytes]:
        """Files that belong beside a network trained on it, by name: those of a tokenizer."""
        return {}

    def places(self) -> tuple[str, ...]:
        """Options (``text.tokenizer``) that say where something lies. What lies there is in the fingerprint, not in an id."""
        return ()

    def files(self) -> dict[str, list[str]]:
        """Return the options (``model.weights``) that name a network's files.

        Their bytes, or the cell that makes them, decide what the option means for an id. They are no part of the fingerprint.
        """
        return {}

    def weights(self) -> tuple[dict[str, str], ModelSpec | None]:
        """Weights files among :meth:`files` by option, with the network that they have to fit; the plan compares them."""
        return {}, None


DATASETS: Registry[Dataset] = Registry("dataset", "sparselab.inputs.data.sets")


def _existing(path: Path, where: str) -> Path:
    if not path.exists():
        refuse(where, "no such folder", "name a folder that exists, or leave it out")
    if not path.is_dir():
        refuse(where, "is not a folder", "name the folder that holds cifar10/, mnist/ or text/")
    try:
        empty = next(path.iterdir(), None) is None
    except OSError:
        refuse(where, "cannot be read", "give yourself permission to read it (chmod u+rx)")
    if empty:
        refuse(where, "is empty", "fill it (cifar10/train.parquet …), or leave it out")
    return path
