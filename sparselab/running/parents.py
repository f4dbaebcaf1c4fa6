"""The cells that a config's values name, and the files that stand for them in their places. [no torch]"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparselab.config.cell_ref import MASKS, WEIGHTS, CellRef, names_cell, names_cells
from sparselab.config.schema import UNIDENTIFIED
from sparselab.core.errors import ConfigError, Issue, Issues, refuse, short, spell
from sparselab.storage.export import MODEL

if TYPE_CHECKING:
    from sparselab.running.engine import Plan

Named = Callable[[list[str], list[str]], "tuple[str, Plan | None]"]
"""A cell's own overrides, and those that say how it runs, to its id, and to its plan if that is wanted."""
# What a cell that another one needs takes over from it: how things run, never what is computed.
INHERITED = frozenset(UNIDENTIFIED) - {"logger", "tier", "paper", "force", "debug"}
MERGED = "model.weights"  # the option that takes several parents


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
        lost: set[str] = set()
        self._walk(config, "", config, outer, named, issues, lost)
        return lost

    def _walk(
        self, node: dict[str, Any], where: str, config: dict[str, Any], outer: list[str], named: Named, issues: Issues,
        lost: set[str],
    ) -> None:  # fmt: skip
        for key, value in node.items():
            place = f"{where}{key}"
            if names_cell(value) or names_cells(value):
                before = len(issues.found)
                with issues.catch():
                    node[key] = self._files(place, value, config, outer, named)
                if len(issues.found) > before:
                    lost.add(place.partition(".")[0])
            elif isinstance(value, dict):
                self._walk(value, f"{place}.", config, outer, named, issues, lost)

    def _files(self, place: str, value: Any, config: dict[str, Any], outer: list[str], named: Named) -> Any:
        """The path, or the paths, for a value at ``place``."""
        if place in INHERITED:
            refuse(short(f"{place}={spell(value)}"), "takes no cell", "write a value; cells stand for networks")
        if isinstance(value, list) and place == MERGED:
            return [
                self._file(place, CellRef.of(item, place), config, outer, named) if names_cell(item) else item
                for item in value
            ]
        if isinstance(value, list):
            refuse(short(f"{place}={spell(value)}"), "takes one cell, not several", "keep one of them")
        return self._file(place, CellRef.of(value, place), config, outer, named)

    def _file(self, place: str, ref: CellRef, config: dict[str, Any], outer: list[str], named: Named) -> str:
        how = [text for text in outer if text.partition("=")[0] in INHERITED]
        try:
            id, plan = named(list(ref.overrides), how)
        except ConfigError as refused:
            raise ConfigError(
                [Issue(f"{place}: {issue.where}", issue.problem, issue.fix) for issue in refused.issues]
            ) from None
        if ref.take not in (None, WEIGHTS):
            refuse(f"{place}.take={ref.take}", "is about weights", f"write take: {WEIGHTS}, or leave it out")
        folder = plan.folder if plan is not None else Path(str(config["runs_dir"])) / id
        path = str(Path(folder) / MODEL)
        self.refs.append((place, ref.planned(id, path)))
        self.files[path] = id
        if plan is not None:
            self.plans[id] = plan
        return path


__all__ = ["INHERITED", "MASKS", "Named", "Parents"]
