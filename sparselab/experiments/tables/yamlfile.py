"""Reading a YAML file that people write by hand: safe, without aliases, and without YAML 1.1's base-60 numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sparselab.core.errors import Issues, refuse

LARGEST = 1_000_000
"""Bytes of the largest file that is read."""


def read_yaml(path: Path, where: str) -> dict[str, Any]:
    """The mapping in ``path``. ``where`` names the file in faults.

    ConfigError: not readable, not YAML, not a mapping, a repeated key, an alias (a few lines of them expand to gigabytes),
    and ``2:4`` without quotes, which YAML 1.1 reads as base 60 (124).
    """
    import yaml

    try:
        data = path.read_bytes()
        text = data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        refuse(where, f"cannot be read ({error})", "write a UTF-8 text file")
    if len(data) > LARGEST:
        refuse(where, f"has {len(data):,} bytes", f"a table takes less than {LARGEST:,}")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
    try:
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            refuse(where, "is not a mapping", "write `source:`, `rows:`, `columns:` ... at the start of lines")
        issues = Issues()
        _check(node, where, issues, set())
        issues.raise_if_any()
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        refuse(f"{where}{line}", f"is not YAML ({getattr(error, 'problem', None) or error})", "mend the line")
    except RecursionError:
        refuse(where, "is nested too deeply", "a table is four levels deep")
    finally:
        loader.dispose()


def _check(node: Any, where: str, issues: Issues, seen: set[int]) -> None:
    import yaml

    at = f"{where}:{node.start_mark.line + 1}"
    if isinstance(node, yaml.ScalarNode):
        if node.tag == "tag:yaml.org,2002:int" and ":" in node.value:
            issues.add(at, f"an unquoted {node.value} is read in base 60", f'write "{node.value}" in quotes')
        return
    if id(node) in seen:
        issues.add(at, "aliases (*name) are not read", "write the value out")
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check(item, where, issues, seen)
        return
    keys: set[str] = set()
    for key, value in node.value:
        if isinstance(key, yaml.ScalarNode) and key.value in keys:
            issues.add(
                f"{where}:{key.start_mark.line + 1}", f"the key {key.value!r} is there twice", "delete one of them"
            )
        keys.add(key.value if isinstance(key, yaml.ScalarNode) else "")
        _check(key, where, issues, seen)
        _check(value, where, issues, seen)
