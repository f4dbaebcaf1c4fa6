"""Typed options: the values that a YAML group may have, and the error line for any other value."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from sparselab.core import packaged
from sparselab.core.errors import ConfigError, Issue, did_you_mean, spell

Some = TypeVar("Some", bound="Options")

UNSET = "???"  # how a YAML file says that a value must be given


class Options(BaseModel):
    """Base of every options class. Strict: no silent conversion (``yes`` is not a number, ``"3"`` is not 3).

    A default is written once. An option of a member that comes with the package has it in the member's YAML, and its field
    has none: what is left out in Python, or in a mapping such as ``dataset.model={name: gpt}``, is read from there. An
    option that stands in no YAML of the package has its default on the field.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    defaults_from: ClassVar[str] = ""
    """The file under ``configs/`` with the defaults of this class's fields, such as ``method/srste``. Registering a member
    sets it; a class of options that members share may name a file of the group that begins with an underscore."""

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        said = {key: value for key, value in given.items() if value != UNSET}
        if _needed(cls) <= given.keys():  # a composed config, for which no file has to be read
            return said
        return {**{key: value for key, value in cls.usual().items() if key not in given}, **said}

    @classmethod
    def usual(cls) -> dict[str, Any]:
        """The values that the package's YAML gives to fields without a default."""
        return copy.deepcopy(_usual(cls))


@cache
def _needed(cls: type[Options]) -> frozenset[str]:
    return frozenset(key for key, field in cls.model_fields.items() if field.is_required())


@cache
def _usual(cls: type[Options]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    needed = _needed(cls)
    for base in cls.__mro__:  # the nearest file counts, for the fields of the class that names it
        path = vars(base).get("defaults_from")
        if path and needed - found.keys():
            fields = needed & set(getattr(base, "model_fields", ()))
            found = {**{key: value for key, value in packaged.values(path).items() if key in fields}, **found}
    return {key: value for key, value in found.items() if value != UNSET}


def off(value: Any, **field: Any) -> Any:
    """A field of an option that came later, and that does nothing while it has its default ``value``.

    With that value it is no part of a cell's id, so cells from before the option existed keep their ids. field: as
    pydantic's ``Field`` takes it.
    """
    return Field(value, json_schema_extra={"off": value}, **field)


def is_off(field: FieldInfo, value: Any) -> bool:
    """True if ``field`` is one of :func:`off` and has the value at which it does nothing."""
    extra = field.json_schema_extra
    return isinstance(extra, dict) and "off" in extra and value == extra["off"]


def validate(schema: type[Some], values: Mapping[str, Any], where: str = "") -> Some:
    """``values`` as an instance of ``schema``; every fault of it at once as :class:`ConfigError`."""
    made, found = attempt(schema, values, where)
    if made is None:
        raise ConfigError([issue for _, issue in found])
    return made


def attempt(
    schema: type[Some], values: Mapping[str, Any], where: str = ""
) -> tuple[Some | None, list[tuple[tuple[str, ...], Issue]]]:
    """(the instance or None, (path of the key, fault) of everything that ``schema`` does not allow; one per key)."""
    try:
        return schema.model_validate(values), []
    except ValidationError as error:
        found: dict[str, tuple[tuple[str, ...], Issue]] = {}
        for item in error.errors():
            path, issue = _fault(schema, item, where)
            found.setdefault(".".join(path), (path, issue))  # each arm of a union reports the same key
        return None, list(found.values())


def _fault(schema: type[Options], item: Any, where: str) -> tuple[tuple[str, ...], Issue]:
    path, model, description, kind = _place(schema, item["loc"])
    key = ".".join([where, *path] if where else path)
    if item["type"] == "extra_forbidden":
        if not model.model_fields:
            return path, Issue(key, "no such key: there are no options here", "leave it out")
        return path, Issue(key, "no such key", did_you_mean(path[-1], model.model_fields))
    if item["type"] == "missing":
        return path, Issue(key, "is required and has no value", f"write {key}=…")
    message = item["msg"].removeprefix("Value error, ").replace(" after validation", "")
    message = message[:1].lower() + message[1:] if item["input"] is not None else "has no value"
    group = isinstance(kind, type) and issubclass(kind, Options) and isinstance(item["input"], Mapping)
    return path, Issue(key if group else f"{key}={spell(item['input'])}"[:60], message, description)


def _place(schema: type[Options], loc: tuple[Any, ...]) -> tuple[tuple[str, ...], type[Options], str, Any]:
    """(path without pydantic's names of union arms, the model that the last key belongs to, what that key takes, its type)."""
    path: list[str] = []
    model, description = schema, "see the group's YAML for its values"
    kind: Any = schema
    for part in loc:
        kind = bare(kind)
        if get_origin(kind) in (Union, UnionType):
            kind = Any  # this part is the name of an arm, which nobody wrote
            continue
        path.append(str(part))
        if isinstance(kind, type) and issubclass(kind, Options):
            model, field = kind, kind.model_fields.get(part)
            description = (field and field.description) or description
            kind = field.annotation if field else Any
        else:
            kind = get_args(kind)[-1] if get_origin(kind) in (dict, list, tuple) else Any
    return tuple(path), model, description, bare(kind)


def bare(kind: Any) -> Any:
    """A type without annotations and without ``| None``."""
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    arms = [arm for arm in get_args(kind) if arm is not NoneType]
    return bare(arms[0]) if get_origin(kind) in (Union, UnionType) and len(arms) == 1 else kind
