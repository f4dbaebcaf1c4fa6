"""From overrides to a plan: the one path that `run.py`, `sparselab check` and the sweeps share."""

from __future__ import annotations

from typing import Any

from sparselab.engines.engine import ENGINES, Engine, Plan
from sparselab.spec.compose import compose
from sparselab.spec.faults import Faults, Refused, did_you_mean, refuse
from sparselab.spec.options import validate


PASSING = ("force=", "debug=")  # overrides that say how to run this time, not what the cell is


def engine_of(config: dict[str, Any]) -> Engine:
    """The engine that the config names. Raises Refused."""
    values = dict(config.get("engine") or {})
    name = values.pop("name", None)
    if not isinstance(name, str):
        refuse("engine", "has no name", did_you_mean("", ENGINES))
    cls = ENGINES[name]
    return cls(validate(cls.Options, values, "engine"))


def plan_of(overrides: list[str], search_path: str | None = None) -> Plan:
    """The plan of the cell that ``overrides`` describe; Refused with every fault that can be foreseen."""
    composed = compose(overrides, search_path)
    overrides = [text for text in overrides if not text.startswith(PASSING)]
    faults = Faults(list(composed.faults))
    if not composed.faults:
        return engine_of(composed.config).plan(composed.config, overrides)
    with faults.catch():
        engine_of(composed.config).plan(composed.config, overrides, composed.lost)
    raise Refused(faults.found)


def cell_id_of(overrides: list[str]) -> str:
    """The id of the cell that ``overrides`` describe."""
    return plan_of(overrides).id


__all__ = ["Refused", "cell_id_of", "engine_of", "plan_of"]
