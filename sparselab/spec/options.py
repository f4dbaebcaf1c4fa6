"""Typed options: what a YAML group may say, and the line that is printed when it says something else."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from sparselab.spec.faults import Fault, Refused, did_you_mean

O = TypeVar("O", bound="Options")


class Options(BaseModel):
    """Base of every options class. Strict: no silent conversion (``yes`` is not a number, ``"3"`` is not 3)."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


def validate(schema: type[O], values: dict[str, Any], where: str) -> O:
    """``values`` as an instance of ``schema``; every fault of it at once as :class:`Refused`."""
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise Refused([_fault(schema, item, where) for item in error.errors()]) from None


def _fault(schema: type[Options], item: Any, where: str) -> Fault:
    key = ".".join([where, *map(str, item["loc"])]) if where else ".".join(map(str, item["loc"]))
    if item["type"] == "extra_forbidden":
        return Fault(key, "no such key", did_you_mean(str(item["loc"][-1]), schema.model_fields))
    if item["type"] == "missing":
        return Fault(key, "is required and has no value", f"write {key}=…")
    message = item["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    shown = f"{key}={item['input']}"
    field = schema.model_fields.get(str(item["loc"][0])) if item["loc"] else None
    hint = field.description if field is not None and field.description else "see the group's YAML for its values"
    return Fault(shown[:60], message, hint)
