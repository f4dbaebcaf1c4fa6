"""``report.html``: ledger, figures, tables, claims and records in one static file that fetches nothing.

The tables are plain HTML (they read without JavaScript); figures and record dialogs are drawn from one JSON block.
Jinja escapes every text on its way into the page, the script sets text nodes only, and the page's policy runs no other
script.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from sparselab.experiments.tables import ledger, render
from sparselab.experiments.tables.entries import Entry
from sparselab.experiments.tables.pictures import Picture, pictures
from sparselab.experiments.tables.styles import styles
from sparselab.experiments.tables.summary import Line, Summary

PAGE = Path(__file__).parent / "page"
LAYER_BUDGET = 1_500_000
"""Bytes that the layers of all records may take; beyond it the page leaves layers to records.jsonl."""
_FIELDS = 80
_TEXT = 300
_APART = {"config", "overrides", "seal", "schema", "layers", "id"}
_FIRST = {"status": 0, "reason": 1, "metrics": 2, "sparsity": 3}  # of a record's parts, in its dialog


def html(summaries: Sequence[Summary], find: Callable[[Summary, Picture], bytes | None] = lambda *_: None) -> str:
    """The page for these tables; those without a record are in the ledger only.

    ``find`` gives the bytes of a picture, or None where they are not at hand.
    """
    import jinja2
    from markupsafe import Markup

    shown = [summary for summary in summaries if summary.done]
    records = _Records(shown)
    anchors = {(s.table.output, s.tier): _anchor(s) for s in shown}
    script = (PAGE / "report.js").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string((PAGE / "report.html").read_text(encoding="utf-8")).render(
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=Markup((PAGE / "report.css").read_text(encoding="utf-8")),
        data=Markup(_json(records.data([_drawn(summary, records) for summary in shown]))),
        ledger_headers=ledger.HEADERS,
        classes=("holds", "fails", "inconclusive", "idle", "idle", "idle"),
        ledger=[{"cells": row, "anchor": anchors.get((row[0], row[3]))} for row in ledger.rows_of(summaries)],
        tables=[_section(summary, records, find) for summary in shown],
    )


def _anchor(summary: Summary) -> str:
    return re.sub(r"[^a-z0-9]+", "-", f"{summary.table.output}-{summary.tier}")


def _json(value: Any) -> str:
    """JSON that cannot end its script element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _section(summary: Summary, records: _Records, find: Callable[[Summary, Picture], bytes | None]) -> dict[str, Any]:
    """Return the values of a table that the template shows."""
    sections = [
        ("Known differences", summary.table.differences),
        ("Not in the table", [f"{render.places(cells)}: {reason}" for reason, cells in summary.excluded()]),
        ("Provenance of the published numbers", render.provenance(summary)),
    ]
    names, shown = render.headers(summary), render.columns(summary)
    told = shown[: -len(render.LAST)]
    return {
        "anchor": _anchor(summary),
        "name": summary.table.output,
        "tier": summary.tier,
        "title": render.title(summary),
        "headers": [names[number] for number in shown],
        "numbers": len(told),
        "source": summary.table.source.cited,
        "notes": render.notes(summary),
        "figure": f"{summary.table.metric.label} against {summary.axis[0]}"
        + (f" and against {summary.cost_label}" if summary.trained else ""),
        "shown": summary.shown,
        "claims": [
            {
                "name": v.name,
                "text": v.claim.text,
                "kind": render.kind(v),
                "verdict": str(v),
                "earlier": v.earlier,
                "style": "idle" if v.verdict == "not run" else v.verdict,
                "evidence": render.evidence(v),
            }
            for v in summary.verdicts
        ],
        "lines": [
            {
                "texts": [texts[number] for number in told],
                "verdicts": render.verdicts(line),
                "ids": [{"key": records.index(entry), "text": entry.id[:6]} for entry in line.entries],
            }
            for line in summary.lines
            for texts in [render.texts(line, summary.table)]
        ],
        "pictures": [
            {"caption": picture.caption, "data": base64.b64encode(data).decode()}
            for picture in pictures(summary.table, [entry for line in summary.lines for entry in line.entries])
            if (data := find(summary, picture)) is not None
        ],
        "sections": [(heading, items) for heading, items in sections if items],
    }


def _drawn(summary: Summary, records: _Records) -> dict[str, Any]:
    """Return the values of a table that the figure needs."""
    digits = summary.table.metric.digits
    index = {line.place: number for number, line in enumerate(summary.lines)}
    label, log = summary.axis
    curves = summary.curves()
    return {
        "name": summary.table.output,
        "tier": summary.tier,
        "metric": summary.table.metric.label,
        "axis": {
            "label": label,
            "log": log,
            "log_metric": summary.log_metric,
            "sparsity": summary.table.axis == "sparsity",
        },
        "trained": summary.trained,
        "cost": summary.cost_label,
        "comparable": summary.comparable,
        "lines": [_point(line, digits, records) for line in summary.lines],
        "curves": [
            [name, [index[line.place] for line in lines], [style.colour, style.shape, style.dash]]
            for (name, lines), style in zip(curves.items(), styles(list(curves)), strict=True)
        ],
    }


def _point(line: Line, digits: int, records: _Records) -> dict[str, Any]:
    published = line.published and {
        "number": line.published.value,
        "value": render.published(line, digits),
        "verified": line.published.verified,
        "provenance": line.published.provenance,
    }
    point = {
        "row": line.row,
        "column": line.column,
        "ours": render.ours(line, digits),
        "mean": _short(line.mean),
        "sd": _short(line.sd),
        "requested": line.requested,
        "published": published or None,
        "values": [_short(value) for value in line.values],
        "records": [records.index(entry) for entry in line.entries],
    }
    numbers = {
        "x": (line.x, list(line.x_by_seed)),
        "flops": (line.flops, list(line.flops_by_seed)),
    }
    for key, (mean, single) in numbers.items():
        point[key] = _short(mean)
        point[key + "s"] = [_short(number) for number in single]
    return point


def _short(number: float | None) -> float | None:
    return None if number is None else float(f"{number:.6g}")


class _Records:
    """The records of all tables, each text stored once."""

    def __init__(self, summaries: Sequence[Summary]):
        self._index: dict[int, int] = {}
        self._entries: list[tuple[int, Entry]] = []
        for table, summary in enumerate(summaries):
            for entry in (e for line in summary.lines for e in line.entries):
                self._index[id(entry)] = len(self._entries)
                self._entries.append((table, entry))

    def index(self, entry: Entry) -> int:
        return self._index[id(entry)]

    def data(self, tables: list[dict[str, Any]]) -> dict[str, Any]:
        """The JSON block. A record is [table, row, column, seed, shape, values, overrides, layers], texts by number."""
        pool: dict[str, int] = {}
        shapes: dict[tuple[int, ...], int] = {}

        def word(text: str) -> int:
            return pool.setdefault(text, len(pool))

        records = []
        for table, entry in self._entries:
            fields = dict(_fields(entry.record))
            shape = shapes.setdefault(tuple(word(key) for key in fields), len(shapes))
            cell = entry.cell
            head = [
                table,
                word(cell.row),
                word(cell.column),
                cell.seed,
                shape,
                [word(text) for text in fields.values()],
            ]
            records.append([*head, [word(item) for item in cell.overrides], []])
        words = len(pool)
        layers = self._layers(pool)
        if layers is None:
            pool = dict(islice(pool.items(), words))
        else:
            for record, own in zip(records, layers, strict=True):
                record[-1] = own
        return {
            "tables": tables,
            "pool": list(pool),
            "shapes": [list(shape) for shape in shapes],
            "ids": [entry.id for _, entry in self._entries],
            "records": records,
        }

    def _layers(self, pool: dict[str, int]) -> list[list[int]] | None:
        """The layers of each record as numbers of texts in ``pool``, which they join; None as soon as they are too large."""
        found, size = [], 0
        for _, entry in self._entries:
            own = []
            for text in _layers(entry.record):
                size += 6 if text in pool else 6 + len(text)
                own.append(pool.setdefault(text, len(pool)))
            if size > LAYER_BUDGET:
                return None
            found.append(own)
        return found


def _fields(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the entries of a record's dialog: its plain values by dotted name, at most 80."""
    for key, value in islice(_flat(record, ""), _FIELDS):
        yield key, _text(value)


def _flat(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    order = sorted(map(str, tree))
    for key in order if prefix else sorted(order, key=lambda key: _FIRST.get(key, len(_FIRST))):
        value = tree.get(key)
        if key in _APART:
            continue
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _text(value: Any) -> str:
    if type(value) is int:  # what most of it is; json.dumps takes ten times as long
        return str(value)
    text = f"{value:.6g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _TEXT else text[: _TEXT - 1] + "…"


def _layers(record: Mapping[str, Any]) -> Iterator[str]:
    """A JSON list of four texts for each layer that the record describes."""
    sparsity = record.get("sparsity")
    layers = sparsity.get("layers") if isinstance(sparsity, Mapping) else None
    for layer in layers if isinstance(layers, list) else []:
        if isinstance(layer, Mapping):
            shape = layer.get("shape")
            size = " × ".join(map(str, shape)) if isinstance(shape, list) else _text(shape)
            cells = [layer.get("name"), size, layer.get("pattern"), layer.get("density")]
            yield json.dumps([_text(cell) for cell in cells], ensure_ascii=False)
