"""The cells that a config's values name, and the files that stand for them in their places [no torch]."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparselab.config.cell_ref import BOTH, MASKS, WEIGHTS, CellRef, names_cell, names_cells, several
from sparselab.config.schema import UNIDENTIFIED
from sparselab.core.errors import ConfigError, Issue, Issues, refuse, short, spell
from sparselab.core.points import point_of
from sparselab.storage.export import MASKS as MASKS_FILE
from sparselab.storage.export import MODEL, early

if TYPE_CHECKING:
    from sparselab.running.engine import Plan

Named = Callable[[list[str], list[str]], "tuple[str, Plan | None]"]
"""A cell's own overrides, and those that say how it runs, to its id, and to its plan if that is wanted."""
# What a cell that another one needs takes over from it: how things run, never what is computed.
INHERITED = frozenset(UNIDENTIFIED) - {"logger", "tier", "paper", "force", "debug"}
MERGED = "model.weights"  # the option that takes several parents, and their masks with them
TICKET = "targets.masks"  # the option that takes masks


@dataclass
class Parents:
    """The parents of one cell.

    refs:  (key of the config, parent), planned. files: path of a parent's file to the cell that makes it, its id.
    plans: of the parents by id, where plans were asked for.
    """

    refs: list[tuple[str, CellRef]] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    plans: dict[str, Plan] = field(default_factory=dict)

    def resolve(self, config: dict[str, Any], outer: list[str], named: Named, issues: Issues) -> set[str]:
        """Put the file that stands for it in the place of each value that names a cell; ``issues`` gets what is wrong.

        outer: the overrides of the cell itself. Returns the top-level keys of which nothing else is to be said, because a
        cell that they name cannot be.
        """
        invalid: set[str] = set()
        self._walk(config, "", config, outer, named, issues, invalid)
        return invalid

    def _walk(
        self, node: dict[str, Any], where: str, config: dict[str, Any], outer: list[str], named: Named, issues: Issues,
        invalid: set[str],
    ) -> None:  # fmt: skip
        for key, value in node.items():
            place = f"{where}{key}"
            if names_cell(value) or names_cells(value):
                before = len(issues.found)
                with issues.collect():
                    node[key] = self._files(place, value, config, outer, named)
                if len(issues.found) > before:
                    invalid.add(place.partition(".")[0])
            elif isinstance(value, dict):
                self._walk(value, f"{place}.", config, outer, named, issues, invalid)

    def _files(self, place: str, value: Any, config: dict[str, Any], outer: list[str], named: Named) -> Any:
        """The path, or the paths, for a value at ``place``."""
        if place in INHERITED:
            refuse(short(f"{place}={spell(value)}"), "takes no cell", "write a value; cells stand for networks")
        value = several(value, place)
        if isinstance(value, list) and place != MERGED:
            refuse(short(f"{place}={spell(value)}"), "takes one cell, not several", "keep one of them")
        items = value if isinstance(value, list) else [value]
        refs = [CellRef.of(item, place) if names_cell(item) else None for item in items]
        paths = [
            item if ref is None else self._file(place, ref, config, outer, named)
            for ref, item in zip(refs, items, strict=True)
        ]
        if any(ref is not None and ref.take == BOTH for ref in refs):  # parents that are merged have one mask
            self._masks_too(
                place, next(ref for ref in refs if ref is not None and ref.take == BOTH), config, outer, named
            )
        return paths if isinstance(value, list) else paths[0]

    def _masks_too(self, place: str, ref: CellRef, config: dict[str, Any], outer: list[str], named: Named) -> None:
        if config["targets"].get("masks") is not None:
            refuse(TICKET, f"masks are said here and by {place}.take={BOTH}", "leave one of them out")
        config["targets"]["masks"] = self._file(TICKET, replace(ref, take=MASKS), config, outer, named)

    def _file(self, place: str, ref: CellRef, config: dict[str, Any], outer: list[str], named: Named) -> str:
        """Return the path of the file of a parent that stands at ``place``."""
        taken = MASKS if place.rpartition(".")[2] == MASKS else WEIGHTS
        if ref.take not in (None, taken) and (ref.take != BOTH or place != MERGED):
            refuse(f"{place}.take={ref.take}", f"is about {taken}", f"write take: {taken}, or leave it out")
        if ref.at is not None and taken == MASKS:
            refuse(f"{place}.at={ref.at}", "masks are those of the end of a run", "leave it out")
        how = [text for text in outer if text.partition("=")[0] in INHERITED]
        try:
            id, plan = named(list(ref.overrides), how)
        except ConfigError as refused:
            raise ConfigError(
                [Issue(f"{place}: {issue.where}", issue.problem, issue.fix) for issue in refused.issues]
            ) from None
        if ref.at is not None and plan is not None and ref.at not in kept_points(plan):
            refuse(
                f"{place}.at={ref.at}", "the cell keeps no weights there", f"write trainer.keep_at: [{ref.at}] in it"
            )
        folder = plan.folder if plan is not None else Path(str(config["runs_dir"])) / id
        name = MASKS_FILE if taken == MASKS else MODEL if ref.at is None else early(ref.at)
        path = str(Path(folder) / name)
        self.refs.append((place, replace(ref, take=taken).planned(id, path)))
        self.files[path] = id if ref.at is None else f"{id}@{ref.at}"
        if plan is not None:
            self.plans[id] = plan
        return path


def kept_points(plan: Plan) -> list[str | None]:
    """Return the points at which a cell keeps its weights, spelled."""
    return [point_of(point) for point in plan.config["trainer"].get("keep_at", [])]


__all__ = ["INHERITED", "TICKET", "Named", "Parents", "kept_points"]
