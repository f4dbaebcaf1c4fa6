"""Which layers of a model are sparse."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from sparselab.core.errors import Issues, did_you_mean, nearest, refuse
from sparselab.core.model_spec import Layer, ModelSpec

# As in spec/outline.py.
ROLES = frozenset({"stem", "head", "embedding", "downsample", "depthwise", "gates", "qkv", "q", "k", "v", "proj", "ff"})


def select(model_spec: ModelSpec, include: Sequence[str], exclude: Sequence[str] = ()) -> list[Layer]:
    """The layers that ``include`` selects and ``exclude`` does not, in forward order.

    A selector is a layer's name, a glob over full names (``blocks.*.attn.qkv``; ``*`` crosses dots) or ``@role``. One
    that matches nothing raises ConfigError with the closest that would, all of them at once; only ``exclude`` may name a role
    that this model happens not to have.
    """
    issues = Issues()
    chosen: dict[str, set[str]] = {"include": set(), "exclude": set()}
    for key, selectors in (("include", include), ("exclude", exclude)):
        for i, selector in enumerate(selectors):
            if key == "exclude" and selector[:1] == "@" and selector[1:] in ROLES:
                chosen[key] |= {layer.name for layer in model_spec.layers if selector[1:] in layer.roles}
                continue
            with issues.catch():
                found = matching(model_spec.layers, selector, f"targets.{key}[{i}]")
                chosen[key] |= {layer.name for layer in found}
    issues.raise_if_any()
    names = chosen["include"] - chosen["exclude"]
    if not names:
        why = "nothing is included" if not chosen["include"] else "exclude takes out all that include selects"
        refuse("targets", f"no layer is left to be sparse: {why}", 'write targets.include=["*"]')
    return [layer for layer in model_spec.layers if layer.name in names]


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
