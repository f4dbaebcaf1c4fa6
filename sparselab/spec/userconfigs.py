"""Config folders from elsewhere (``--config-dir``), looked at before anything composes them.

A config may come from a stranger. YAML can expand a few bytes to gigabytes (aliases), name classes (``_target_``,
tags), read the environment (interpolations) and lie beyond a link; a config of this project needs none of that.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sparselab.spec.faults import Faults, refuse, short

MAX_BYTES = 200_000  # the longest of the project's own has 30 kB
MAX_FILES = 2_000
MAX_DEPTH = 30
BASE_60 = re.compile(r"[+-]?\d+(:[0-5]?\d)+(\.\d*)?")  # how YAML 1.1 reads an unquoted 2:4
PACKAGE = re.compile(r"^\s*#\s*@package\s+(\S+)", re.MULTILINE)


def scan(search_path: str | None) -> None:
    """Refused, with every fault of every file, unless the folder's YAML files are plain data."""
    if search_path is None:
        return
    root = Path(search_path)
    where = f"--config-dir {short(search_path)}"
    if not root.is_dir():
        refuse(where, "is not a folder", "name a folder with YAML files, such as mine/method/")
    if (root / "hydra").exists():
        refuse(where, "holds a folder hydra/, and Hydra's own settings are not taken from outside", "remove it")
    faults = Faults()
    for number, file in enumerate(_files(root)):
        if number == MAX_FILES:
            refuse(where, f"holds more than {MAX_FILES:,} YAML files", "name a folder of its own")
        with faults.catch():
            scan_file(file)
    faults.raise_if_any()


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
    """One file's share of :func:`scan`. Raises Refused with the first fault."""
    import yaml

    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            refuse(file.name, "is not a file", "a config is a UTF-8 YAML file")
        if status.st_size > MAX_BYTES:
            refuse(file.name, f"has {status.st_size:,} bytes, too large for a config", f"at most {MAX_BYTES:,} bytes")
        text = file.read_text(encoding="utf-8")
        if text.startswith("\ufeff"):  # Hydra reads no "# @package" behind it, and says nothing
            refuse(file.name, "begins with a byte order mark", "save it as plain UTF-8, without BOM")
        if (package := PACKAGE.search(text)) and package[1] != "_global_":
            refuse(file.name, f"@package {package[1]} is not allowed", "write # @package _global_, or leave it out")
        _scan_tokens(yaml.scan(text), file.name, yaml)
        _scan_shape(
            list(yaml.compose_all(text, Loader=yaml.SafeLoader)), file.name, yaml
        )  # after the tokens: now bounded
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", 0)
        problem = getattr(error, "problem", None) or "odd characters"
        refuse(f"{file.name}:{line + 1}", f"is not YAML ({problem})", "mend the line")
    except UnicodeDecodeError:
        refuse(file.name, "is not text", "a config is a UTF-8 YAML file")
    except OSError as error:
        refuse(file.name, f"cannot be read ({error.strerror})", "mend or remove it")


def _scan_tokens(tokens: Any, name: str, yaml: Any) -> None:
    depth = 0
    for token in tokens:
        at = f"{name}:{token.start_mark.line + 1}"
        if isinstance(token, (yaml.AliasToken, yaml.AnchorToken)):
            refuse(at, "YAML anchors and aliases are not allowed (they expand to gigabytes)", "repeat the value")
        if isinstance(token, (yaml.TagToken, yaml.DirectiveToken)):
            refuse(at, "YAML tags are not allowed (they can name classes)", "write plain values")
        opens = (yaml.FlowSequenceStartToken, yaml.FlowMappingStartToken, yaml.BlockMappingStartToken)
        if isinstance(token, (*opens, yaml.BlockSequenceStartToken)):
            depth += 1
            if depth > MAX_DEPTH:
                refuse(at, f"nested more than {MAX_DEPTH} deep", "a config is flat")
        if isinstance(token, (yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken, yaml.BlockEndToken)):
            depth -= 1
        if isinstance(token, yaml.ScalarToken):
            _scan_scalar(token, at)


def _scan_shape(documents: list[Any], name: str, yaml: Any) -> None:
    """One mapping, and no key twice in any: of two the last would count without a word."""
    if len(documents) > 1:
        refuse(name, "holds several documents", "keep one, without ---")
    nodes = [node for node in documents if node is not None]
    if nodes and not isinstance(nodes[0], yaml.MappingNode):
        refuse(f"{name}:{nodes[0].start_mark.line + 1}", "is not a list of keys", "write key: value, a line each")
    while nodes:
        node = nodes.pop()
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                if isinstance(key, yaml.ScalarNode) and key.value in seen:
                    refuse(
                        f"{name}:{key.start_mark.line + 1}", f"the key {short(key.value)} is there twice", "keep one"
                    )
                seen.add(str(key.value))
                nodes += [key, value]
        elif isinstance(node, yaml.SequenceNode):
            nodes += node.value


def _scan_scalar(token: Any, at: str) -> None:
    value = token.value
    if token.plain and BASE_60.fullmatch(value):
        refuse(at, f"an unquoted {value} is a base-60 number in YAML", f'write "{value}"')
    if "_target_" in value:
        refuse(at, "classes cannot be named in a config", "use name: with a registered member")
    if "${" in value:
        refuse(at, "interpolations are not allowed (they can read the environment)", "write the value itself")
    if re.match(r"(override\s+|optional\s+)*/?hydra([/.@:]|$)", value) or "@hydra" in value:
        refuse(at, "Hydra's own settings are not taken from outside", "give hydra/launcher on the command line")
