"""Config folders from elsewhere (``--config-dir``), looked at before anything composes them.

A config may come from a stranger. Beside what any YAML can do (:mod:`sparselab.config.yaml_file`) one that Hydra reads can
name classes (``_target_``), read the environment (interpolations) and be reached through a link. All of that is refused: no
config of this project needs it.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from sparselab.config.yaml_file import mapping_of
from sparselab.core.errors import Issues, refuse, short

MAX_BYTES = 200_000  # the longest of the project's own has 30 kB
MAX_FILES = 2_000
PACKAGE = re.compile(r"^\s*#\s*@package\s+(\S+)", re.MULTILINE)


def scan(search_path: str | None) -> None:
    """ConfigError, with every fault of every file, unless the folder's YAML files are plain data."""
    if search_path is None:
        return
    root = Path(search_path)
    where = f"--config-dir {short(search_path)}"
    if not root.is_dir():
        refuse(where, "is not a folder", "name a folder with YAML files, such as mine/method/")
    if (root / "hydra").exists():
        refuse(where, "holds a folder hydra/, and Hydra's own settings are not taken from outside", "remove it")
    issues = Issues()
    for number, file in enumerate(_files(root)):
        if number == MAX_FILES:
            refuse(where, f"holds more than {MAX_FILES:,} YAML files", "name a folder of its own")
        with issues.collect():
            scan_file(file)
    issues.raise_if_any()


def _files(root: Path) -> Iterator[Path]:
    """YAML files of a folder, in order, also beyond links (Hydra follows them), each folder once."""
    seen: set[str] = set()
    for folder, inner, names in os.walk(root, followlinks=True):
        true = os.path.realpath(folder)
        if true in seen:
            inner.clear()
            continue
        seen.add(true)
        inner.sort()
        yield from (Path(folder) / name for name in sorted(names) if name.endswith((".yaml", ".yml")))


def scan_file(file: Path) -> None:
    """Check one file, for :func:`scan`. Raises ConfigError with the first fault."""
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            refuse(file.name, "is not a file", "a config is a UTF-8 YAML file")
        if status.st_size > MAX_BYTES:
            refuse(file.name, f"has {status.st_size:,} bytes, too large for a config", f"at most {MAX_BYTES:,} bytes")
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        refuse(file.name, "is not text", "a config is a UTF-8 YAML file")
    except OSError as error:
        refuse(file.name, f"cannot be read ({error.strerror})", "correct or remove it")
    if text.startswith("\ufeff"):  # Hydra reads no "# @package" behind it, and says nothing
        refuse(file.name, "begins with a byte order mark", "save it as plain UTF-8, without BOM")
    if (package := PACKAGE.search(text)) and package[1] != "_global_":
        refuse(file.name, f"@package {package[1]} is not allowed", "write # @package _global_, or leave it out")
    mapping_of(text, file.name, _scan_scalar)


def _scan_scalar(value: str, at: str) -> None:
    """Refuse what Hydra would act upon."""
    if "_target_" in value:
        refuse(at, "classes cannot be named in a config", "use name: with a registered member")
    if "${" in value:
        refuse(at, "interpolations are not allowed (they can read the environment)", "write the value itself")
    if re.match(r"(override\s+|optional\s+)*/?hydra([/.@:]|$)", value) or "@hydra" in value:
        refuse(at, "Hydra's own settings are not taken from outside", "give hydra/launcher on the command line")
