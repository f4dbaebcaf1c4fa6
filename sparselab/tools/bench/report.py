"""Measurements as one record a run, and the page made from them [no torch]."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

RECORDS, PAGE = "measured.jsonl", "README.md"
HEAD = """# What sparsity costs

Made by `make bench`, from [its records](measured.jsonl). A figure is the median (first and third quartile) of the ratios of a
thing to its baseline, which took turns in one process. On a CPU, seconds are those of the processor; on a GPU, of the wall.
Bold: more than was asked for.
"""


def read(folder: Path) -> list[dict[str, Any]]:
    """The records, in the order in which they were made; none where there is no file."""
    path = folder / RECORDS
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def render(records: Iterable[dict[str, Any]]) -> str:
    """The page: a table per section, a column per run."""
    records = list(records)
    out = [HEAD]
    for i, record in enumerate(records):
        out.append(f"{i + 1}. **{record['label']}**: {about(record)}")
    sections = dict.fromkeys(row["section"] for record in records for row in record["rows"])
    for section in sections:
        out += ["", f"## {section}", ""]
        out += table([[row for row in record["rows"] if row["section"] == section] for record in records], records)
    return "\n".join(out) + "\n"


def about(record: dict[str, Any]) -> str:
    """Return place and time of a run."""
    e = record["environment"]
    return (
        f"{e['date']}, commit {e['commit']}, {e['processor']}, {e['threads']} thread{'s' * (e['threads'] != 1)}"
        f"{', ' + e['gpu'] if e['gpu'] else ''}, torch {e['torch']}, masks by the {e['kernels']} path"
    )


def table(columns: list[list[dict[str, Any]]], records: list[dict[str, Any]]) -> list[str]:
    """Rows of all runs that have some, under their labels."""
    used = [i for i, rows in enumerate(columns) if rows]
    by_name = [{row["name"]: row for row in columns[i]} for i in used]
    heads = [f"{records[i]['label']} | its baseline" for i in used]
    out = ["| what | against | asked for | " + " | ".join(heads) + " |", "|---" * (3 + 2 * len(used)) + "|"]
    for name in dict.fromkeys(name for rows in by_name for name in rows):
        one = next(rows[name] for rows in by_name if name in rows)
        goal = f"{one['goal']:g}" if one["goal"] else ""
        cells = [cell(rows.get(name)) for rows in by_name]
        out.append(f"| {name} | {one['baseline']} | {goal} | " + " | ".join(cells) + " |")
    return out


def cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return "not run | "
    low, middle, high = row["ratio"]
    digits = 3 if row["goal"] and row["goal"] < 1.5 and middle < 10 else 2
    shown = f"{middle:.{digits}f}"
    shown = f"**{shown}**" if row["goal"] and middle > row["goal"] else shown
    notes = f"; {row['extra']}" if row["extra"] else ""
    return f"{shown} ({low:.{digits}f} to {high:.{digits}f}){notes} | {seconds(row['seconds'])}"


def seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.2f} ms"
