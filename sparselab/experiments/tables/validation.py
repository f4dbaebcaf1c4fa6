"""One line for each thing that a table's YAML says wrong, with the whole path to it through lists and mappings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, get_args

from pydantic import ValidationError

from sparselab.core.errors import ConfigError, Issue, did_you_mean
from sparselab.core.options import Options

T = TypeVar("T", bound=Options)


def validated(schema: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """``values`` as an instance of ``schema``; every fault at once as :class:`ConfigError`. ``where`` leads the path."""
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise ConfigError([_fault(schema, item, where) for item in error.errors()]) from None


def _fault(schema: type[Options], item: Any, where: str) -> Issue:
    key = ".".join([*([where] if where else []), *map(str, item["loc"])])
    model, description = _place(schema, item["loc"])
    if item["type"] == "extra_forbidden":
        return Issue(key, "no such key", did_you_mean(str(item["loc"][-1]), model.model_fields))
    if item["type"] == "missing":
        return Issue(key, "is required and has no value", f"write {description or item['loc'][-1]}")
    message = item["msg"].removeprefix("Value error, ")
    shown = f"{key}={item['input']}" if isinstance(item["input"], str | int | float | list) else key
    return Issue(shown[:60], message[:1].lower() + message[1:], description or "see configs/paper/srste.yaml")


def _place(schema: type[Options], loc: tuple[Any, ...]) -> tuple[type[Options], str]:
    """The innermost model on the way to ``loc``, and the description of the last of its fields on that way."""
    model, description = schema, ""
    inside = True  # the next part names a field of ``model``; otherwise an item of a list or mapping of models
    for part in loc:
        if not inside:
            inside = True
        elif part in model.model_fields:
            field = model.model_fields[part]
            description = field.description or description
            nested = _model(field.annotation)
            if nested is not None:
                inside = field.annotation is nested or type(None) in get_args(field.annotation)
                model = nested
    return model, description


def _model(annotation: Any) -> type[Options] | None:
    """The options class inside ``annotation``: X of X, X | None, list[X] and dict[str, X]."""
    if isinstance(annotation, type) and issubclass(annotation, Options):
        return annotation
    return next((found for argument in get_args(annotation) if (found := _model(argument))), None)
