"""The config groups of plug-ins: a member that brings no YAML gets one made of its options and their defaults."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from sparselab.config.schema import SEVERAL
from sparselab.core import plugins
from sparselab.core.options import UNSET, Options


def bare_members(known: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, str, type]]:
    """(group, name, class) of what plug-ins registered in a config group without a YAML of that name."""
    for plugin in plugins.loaded():
        for (group, name), cls in plugin.members.items():
            if group in known and name not in known[group]:
                yield group, name, cls


def store(known: Mapping[str, Sequence[str]]) -> None:
    """Put the configs of such members where Hydra finds them, in this process and in those of its launchers."""
    from hydra.core.config_store import ConfigStore

    for group, name, cls in bare_members(known):
        ConfigStore.instance().store(group=group, name=name, node=config_of(group, name, cls))


def config_of(group: str, name: str, cls: Any) -> dict[str, Any]:
    """The YAML that the member could have: its name, its options with their defaults, and the groups that it chooses.

    An option without a default must be given. ``defaults``, where the class has it, is {group: member}, as for a method
    {"schedule": "cubic"}.
    """
    chosen = [{f"override /{group}@_global_.{group}": member} for group, member in getattr(cls, "defaults", {}).items()]
    options = getattr(cls, "Options", Options)
    usual = options.usual()  # of what it inherits from a member of the package
    values = {
        key: usual.get(key, UNSET) if field.is_required() else _plain(field.get_default(call_default_factory=True))
        for key, field in options.model_fields.items()
    }
    own = {name: values} if group in SEVERAL else {"name": name, **values}
    return {**({"defaults": chosen} if chosen else {}), **own}


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
