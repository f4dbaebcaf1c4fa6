"""A hash of all that names of cells depend on beside their overrides [no torch].

Whoever keeps names between processes keeps this text with them, and believes them only while it is the same. It covers the
code, the configs, the libraries, the processor, the environment and the state of the folders that an identity may look into:
size and time of every file, as ``make`` has it. A test watches which files are opened while all tables' cells are named.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sparselab.config.compose import defaults
from sparselab.config.members import CONFIGS
from sparselab.config.trees import fingerprint
from sparselab.core import plugins
from sparselab.core.packaged import PACKAGE
from sparselab.core.processor import flags, gpus

FOLDERS = ("SPARSELAB_DATA", "HF_HOME", "HF_DATASETS_CACHE", "HF_HUB_CACHE")
"""Variables that name folders with data and networks."""
HUB = "~/.cache/huggingface"
VARIABLES = ("SPARSELAB_", "HF_", "TRANSFORMERS_", "CUDA_", "ONEDNN_", "DNNL_", "ATEN_", "HOME", "XDG_")
LIBRARIES = (
    "hydra-core", "omegaconf", "pydantic", "numpy", "scipy", "scikit-learn", "torch", "torchvision", "timm", "transformers",
    "datasets", "safetensors", "PyYAML",
)  # fmt: skip
MOST = 20_000
"""Files in the folders, of all together, beyond which nothing is said: looking at them would cost more than it spares."""


def circumstances(search_path: str | None = None, configs: Path = CONFIGS) -> str | None:
    """A hash of all of it; None where it cannot be told, so that nothing may be kept.

    search_path: a user's folder of config groups. Beside one, or beside plug-ins, nothing is said: they may look anywhere.
    """
    if search_path is not None or plugins.loaded():
        return None
    try:
        told = [code(configs), sys.version, str(Path.cwd()), " ".join(sorted(flags())), str(gpus())]
        told += [f"{name} {_version(name)}" for name in LIBRARIES]
        told += sorted(f"{name}={value}" for name, value in os.environ.items() if name.startswith(VARIABLES))
        told += [line for folder in watched() for line in (str(folder), *_state(folder))]
    except (OSError, OverflowError):
        return None
    return hashlib.sha256("\n".join(told).encode(errors="surrogatepass")).hexdigest()


@lru_cache(maxsize=4)
def code(configs: Path = CONFIGS) -> str:
    """A hash of the package's own files and of all configs but tables. A process goes by the files that it met."""
    seen = hashlib.sha256(fingerprint(configs).encode())
    for folder, folders, names in os.walk(PACKAGE):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for name in sorted(names):
            if name.endswith((".py", ".html", ".css", ".js", ".txt")):
                path = Path(folder, name)
                data = path.read_bytes()
                seen.update(f"\n{path.relative_to(PACKAGE).as_posix()} {len(data)}\n".encode() + data)
    return seen.hexdigest()


def watched() -> list[Path]:
    """The folders whose files an identity may look at, and that no override names."""
    named = [os.environ.get(name) for name in FOLDERS] + [defaults()["data_dir"], HUB]
    return list(dict.fromkeys(Path(str(name)).expanduser() for name in named if name))


def _state(folder: Path) -> Iterator[str]:
    """A line for each file and folder below; OverflowError beyond the number that is looked at."""
    number = 0
    inner = [str(folder)]
    while inner:
        try:
            entries = sorted(os.scandir(inner.pop()), key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            continue
        for entry in entries:
            number += 1
            if number > MOST:
                raise OverflowError
            if entry.is_dir():
                inner.append(entry.path)
            status = entry.stat() if entry.is_file() else entry.stat(follow_symlinks=False)
            yield f"{entry.path} {status.st_size} {status.st_mtime_ns}"


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return ""


__all__ = ["circumstances", "code", "watched"]
