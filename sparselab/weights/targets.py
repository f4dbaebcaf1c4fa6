"""Which layers of a model are sparse."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from sparselab.core.errors import Issues, did_you_mean, nearest, refuse
from sparselab.core.model_spec import Layer, Loose, ModelSpec

# As in sparselab/core/model_spec.py.
ROLES = frozenset(
    {"stem", "head", "embedding", "downsample", "depthwise", "gates", "qkv", "q", "k", "v", "proj", "ff", "router"}
)


WHY = {
    "added": "is added to what passes and multiplies nothing",
    "product": "multiplies in a way that no pattern is defined for",
    "function": "is standardised or normed first: what multiplies is a function of it",
    "unseen": "is not reached by the traced pass",
}
"""Why a parameter of two and more dimensions is no layer, by :attr:`~sparselab.core.model_spec.Loose.use`."""


def select(model_spec: ModelSpec, include: Sequence[str], exclude: Sequence[str] = ()) -> list[Layer]:
    """The layers that ``include`` selects and ``exclude`` does not, in forward order.

    A selector is a layer's name, a glob over full names (``blocks.*.attn.qkv``; ``*`` crosses dots) or ``@role``. One
    that matches nothing raises ConfigError with the closest that would, all of them at once; only ``exclude`` may name a role
    that this model happens not to have, and parameters that are no layer.
    """
    issues = Issues()
    chosen: dict[str, set[str]] = {"include": set(), "exclude": set()}
    for key, selectors in (("include", include), ("exclude", exclude)):
        for i, selector in enumerate(selectors):
            if key == "exclude" and selector[:1] == "@" and selector[1:] in ROLES:
                chosen[key] |= {layer.name for layer in model_spec.layers if selector[1:] in layer.roles}
                continue
            loose = [one for one in model_spec.loose if names(selector, one)]
            if key == "exclude" and loose and not any(fnmatchcase(layer.name, selector) for layer in model_spec.layers):
                continue
            with issues.collect():
                if loose and not any(fnmatchcase(layer.name, selector) for layer in model_spec.layers):
                    refuse(f"targets.{key}[{i}]", f"{loose[0].name} {WHY[loose[0].use]}", "leave it out")
                found = matching(model_spec.layers, selector, f"targets.{key}[{i}]")
                chosen[key] |= {layer.name for layer in found}
    issues.raise_if_any()
    left = chosen["include"] - chosen["exclude"]
    if not left:
        why = "nothing is included" if not chosen["include"] else "exclude takes out all that include selects"
        refuse("targets", f"no layer is left to be sparse: {why}", 'write targets.include=["*"]')
    return [layer for layer in model_spec.layers if layer.name in left]


def names(selector: str, one: Loose) -> bool:
    """True if a selector names a parameter that is no layer, by its own name or by its module's."""
    return any(fnmatchcase(name, selector) for name in (one.name, one.name.removesuffix(".weight")))


def matching(layers: Iterable[Layer], selector: str, where: str) -> list[Layer]:
    """The layers that one selector matches; ConfigError with the closest where it matches none."""
    layers = list(layers)
    if selector.startswith("@"):
        found = [layer for layer in layers if selector[1:] in layer.roles]
        roles = {f"@{role}" for layer in layers for role in layer.roles}
        if not found:
            fix = did_you_mean(selector, roles) if roles else "this model's layers have no roles: write their names"
            refuse(where, f"'{selector}' matches no layer", fix)
        return found
    found = [layer for layer in layers if fnmatchcase(layer.name, selector)]
    if not found:
        refuse(where, f"'{selector}' matches no layer", _closest(selector, [layer.name for layer in layers]))
    return found


def _closest(selector: str, names: list[str]) -> str:
    """A glob is answered with a glob: names with their numbers starred out, whole or up to some dot."""
    if not re.search(r"[*?\[]", selector):
        hit = nearest(selector, names)
        return f"closest: '{hit}'" if hit else did_you_mean(selector, names)
    starred = {re.sub(r"(?<![^.])\d+(?![^.])", "*", name) for name in names}
    heads = {".".join([*name.split(".")[:i], "*"]) for name in starred for i in range(1, name.count(".") + 1)}
    hit = nearest(selector, sorted(starred | heads))
    return f"closest: '{hit}'" if hit else did_you_mean(selector, starred)
