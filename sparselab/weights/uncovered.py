"""Parameters that no mask can be put on: what becomes of them when a network is to be sparse [no torch]."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sparselab.core.errors import Issue
from sparselab.core.model_spec import ADDED, FUNCTION, Loose, ModelSpec
from sparselab.weights.targets import WHY, names

SHOWN = 4


def uncovered(model_spec: ModelSpec, exclude: Sequence[str]) -> list[Loose]:
    """Parameters of two and more dimensions that can be no layer and that ``exclude`` does not name."""
    return [one for one in model_spec.loose if not any(names(selector, one) for selector in exclude)]


def issues(model_spec: ModelSpec, include: Sequence[str], exclude: Sequence[str]) -> list[Issue]:
    """Why this network cannot be made sparse as asked.

    A selector that names a layer whose weight is not what the network multiplies with would prune nothing. Who asks for
    every layer, without exception, gets every weight that is multiplied with or an error; what is only added to what
    passes (positions, tables of biases) is no weight in this sense.
    """
    left = uncovered(model_spec, exclude)
    found = [one for one in left if one.use == FUNCTION and any(names(selector, one) for selector in include)]
    if not found and "*" in include and not exclude:
        found = [one for one in left if one.use != ADDED]
    if not found:
        return []
    first = found[0]
    more = f" ({len(found) - 1} more)" if len(found) > 1 else ""
    where = f"targets: {first.name.removesuffix('.weight')}"
    return [Issue(where, f"{WHY[first.use]}{more}", "exclude it (targets.exclude) or choose another model")]


def spelled(names: Sequence[str]) -> list[str]:
    """Names, with numbers starred out where several then share one: ``blocks.*.attn.qkv.weight``."""
    starred: dict[str, list[str]] = {}
    for name in names:
        starred.setdefault(re.sub(r"(?<![^.])\d+(?![^.])", "*", name), []).append(name)
    return [star if len(own) > 1 else own[0] for star, own in starred.items()]


def line(names: Sequence[str], weights: int, count: int) -> str:
    """For a plan and a summary, of what :func:`spelled` gives."""
    shown = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more kinds" if len(names) > SHOWN else "")
    return f"{shown} ({count} parameter{'s' if count > 1 else ''} that no mask is put on, {weights:,} numbers)"
