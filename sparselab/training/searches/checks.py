"""A search against the other parts of its cell, before anything runs [no torch]."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparselab.core.errors import Issue
from sparselab.inputs.models.family import MODELS

if TYPE_CHECKING:
    from sparselab.training.parts import UncheckedParts


def against_parts(made: UncheckedParts) -> list[Issue]:
    """The issues of a search with the network, the data and the length of the run."""
    search, found = made.search, []
    if search is None:
        return []
    where = f"search={search.name}"
    if made.has("model") and not made.parts["model"].searched:
        able = " or model=".join(name for name in MODELS if MODELS[name].searched)
        problem = f"model={made.parts['model'].name} weighs no operations against each other"
        found.append(Issue(where, problem, f"write model={able}, or leave it out"))
    others = {
        "scenario": made.scenario, "adapt": made.adapt, "merge": made.merge, "edit": made.edit, "removal": made.removal,
    }  # fmt: skip
    for key, other in others.items():
        if other is not None:
            found.append(Issue(f"{key}={other.name}", f"is no part of a search ({where})", "leave one of them out"))
    trainer = made.cell.trainer if "trainer" not in made.invalid else None
    if trainer is not None and made.has("data"):
        data = made.parts["data"]
        if not data.val:
            fix = f"write dataset.val={max(data.train // 2, trainer.batch_size):,}".replace(",", "")
            found.append(
                Issue("dataset.val=0", f"{where} measures operations on a validation split, and there is none", fix)
            )
        elif data.val < trainer.batch_size:
            problem = f"{where} takes whole batches of the {data.val:,} validation examples"
            found.append(Issue(f"trainer.batch_size={trainer.batch_size}", problem, f"write at most {data.val}"))
        if not made.steps:
            found.append(Issue(where, "moves nothing in a run of no updates", "leave it out, or train"))
    return found + search.issues(made)
