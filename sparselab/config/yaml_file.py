"""YAML that people write, one's own or a stranger's: plain data in one mapping, or the line that says why it is not.

YAML can expand a few bytes to gigabytes (aliases), name classes (tags), read ``2:4`` as a number in base 60, and keep the last
of two values for one key without a word. The events of a text are looked at before anything is made of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from sparselab.core.errors import refuse, short

MAX_DEPTH = 30
BASE_60 = re.compile(r"[+-]?\d+(:[0-5]?\d)+(\.\d*)?")  # how YAML 1.1 reads an unquoted 2:4
Look = Callable[[str, str], None]
"""A further check of a scalar: its text, and ``file:line``. Raises ConfigError."""


def mapping_of(text: str, name: str, look: Look | None = None) -> dict[str, Any]:
    """The mapping that ``text`` is; empty for an empty one. name: of the file. Raises ConfigError with the first fault."""
    import yaml

    loader_class = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _check_events(yaml.parse(text, Loader=loader_class), name, look, yaml)
        loader = loader_class(text)  # what it composes is bounded now
        try:
            node = loader.get_single_node()
            if node is None:
                return {}
            if not isinstance(node, yaml.MappingNode):
                refuse(f"{name}:{node.start_mark.line + 1}", "is not a list of keys", "write key: value, a line each")
            _check_keys(node, name, yaml)
            return dict(loader.construct_document(node))
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", 0)
        problem = getattr(error, "problem", None) or "odd characters"
        refuse(f"{name}:{line + 1}", f"is not YAML ({problem})", "correct the line")
    except (RecursionError, ValueError):  # a key that is a list, a date that is none
        refuse(name, "holds values that cannot be read", "write plain values")


def _check_events(events: Any, name: str, look: Look | None, yaml: Any) -> None:
    depth = documents = 0

    def at(event: Any) -> str:
        return f"{name}:{event.start_mark.line + 1}"

    for event in events:
        if isinstance(event, yaml.NodeEvent):
            if event.anchor is not None:  # of an alias it is the anchor that it names
                problem = "YAML anchors and aliases are not allowed (they expand to gigabytes)"
                refuse(at(event), problem, "repeat the value")
            if event.tag is not None:
                refuse(at(event), "YAML tags are not allowed (they can name classes)", "write plain values")
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > MAX_DEPTH:
                    refuse(at(event), f"nested more than {MAX_DEPTH} deep", "a config is flat")
                continue
            if event.implicit[0] and BASE_60.fullmatch(event.value):  # unquoted
                problem = f"an unquoted {event.value} is a base-60 number in YAML"
                refuse(at(event), problem, f'write "{event.value}"')
            if look is not None:
                look(event.value, at(event))
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                refuse(name, "holds several documents", "keep one, without ---")
            if event.version or event.tags:
                refuse(at(event), "YAML directives are not allowed (they can name classes)", "write plain values")


def _check_keys(root: Any, name: str, yaml: Any) -> None:
    """No key twice in any mapping: the last would count without a word."""
    nodes = [root]
    while nodes:
        node = nodes.pop()
        if isinstance(node, yaml.SequenceNode):
            nodes += node.value
        if not isinstance(node, yaml.MappingNode):
            continue
        seen: set[str] = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                refuse(f"{name}:{key.start_mark.line + 1}", f"the key {short(key.value)} is there twice", "keep one")
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else "")
            nodes += [key, value]
