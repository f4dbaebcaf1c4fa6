"""The common part of every engine's record: the environment, and how it is written [no torch unless the engine used it]."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparselab.core.processor import instructions
from sparselab.running.identity import plugins_of
from sparselab.storage import record as records

if TYPE_CHECKING:
    from sparselab.config.schema import HostOptions

LIBRARIES = ("torch", "pytorch-lightning", "timm", "transformers", "numpy", "scipy", "scikit-learn")


def keep(folder: Path, body: dict[str, Any], write: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """Write the network and, last, the record. Plug-ins that the cell uses are named in its environment.

    Where another process has finished the cell meanwhile, its files stay. The same result is dropped; another one is
    kept beside it, as ``record-<hash>.json`` with its network in a folder of that name. Returns the record that stands.
    """
    if outside := plugins_of(body["config"]):
        body["environment"]["plugins"] = outside
    if records.finished(folder, body["id"]) is None:
        body["files"] = write(folder)
        return records.settle(folder, body).record
    beside = folder / f".second-{os.getpid()}"
    body["files"] = write(beside)
    kept = folder / f"record-{records.result_hash(body)[:12]}"
    settled = records.settle(folder, body)
    if settled.agrees or kept.exists():
        shutil.rmtree(beside)
    else:
        beside.rename(kept)
    return settled.record


def environment(host: HostOptions, devices: int = 1) -> dict[str, Any]:
    """Versions and the device: what a bit-equal rerun needs to match."""
    import sparselab

    torch = sys.modules.get("torch")  # an engine that does without it need not wait for its import here
    cuda = torch is not None and host.accelerator != "cpu" and torch.cuda.is_available()
    return {
        "sparselab": sparselab.__version__,
        "commit": commit(),
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
        "device": torch.cuda.get_device_name() if torch is not None and cuda else platform.machine(),
        "instructions": instructions(),
        "threads": torch.get_num_threads() if torch is not None else host.threads or 0,
        "devices": devices,
        "promise": "D" if cuda else ("B" if devices > 1 else "A"),
    }


def commit() -> str:
    """The commit of the code, ``-dirty`` where the working tree differs from it; empty outside of its repository.

    A file of code or configuration that git does not track makes it dirty as well: the commit lacks what was run.
    An installed package may lie inside somebody else's repository, whose commit says nothing about this code.
    """
    root = Path(__file__).parents[2]
    if not (root / "configs" / "config.yaml").is_file():
        return ""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, check=False
        ).stdout.strip()

    found = git("describe", "--always", "--dirty", "--abbrev=12")
    if found.endswith("-dirty") or not git("ls-files", "--others", "--exclude-standard", "--", "sparselab", "configs"):
        return found
    return f"{found}-dirty" if found else ""
