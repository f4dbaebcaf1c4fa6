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
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparselab.experiments.tables import ledger, render
from sparselab.experiments.tables.entries import Entry
from sparselab.experiments.tables.pictures import Picture, pictures
from sparselab.experiments.tables.styles import styles
from sparselab.experiments.tables.summary import Line, Summary

if TYPE_CHECKING:
    import jinja2

PAGE = Path(__file__).parent / "page"
LAYER_BUDGET = 1_500_000
"""Bytes that the layers of all records may take; beyond it the page leaves layers to records.jsonl."""
Find = Callable[[Summary, Picture], bytes | None]
"""The bytes of a picture; None where they are not at hand."""
_FIELDS = 80
_TEXT = 300
_APART = {"config", "overrides", "seal", "schema", "layers", "id"}
_FIRST = {"status": 0, "reason": 1, "metrics": 2, "sparsity": 3}  # of a record's parts, in its dialog


def nowhere(summary: Summary, picture: Picture) -> None:
    """No picture is at hand."""


@dataclass(frozen=True)
class Section:
    """The part of the page about a table at a tier, as text that depends on nothing else.

    row: of the ledger. anchor: names the section in the page. html: the section; "" without a record. data: JSON of its
    figure and records. layers: JSON of its records' layers, of ``size`` bytes as :data:`LAYER_BUDGET` counts; null beyond it.
    """

    row: ledger.Row
    anchor: str
    html: str = ""
    data: str = ""
    layers: str = "null"
    size: int = 0


def html(summaries: Sequence[Summary], find: Find = nowhere) -> str:
    """The page for these tables; those without a record are in the ledger only.

    ``find`` gives the bytes of a picture, or None where they are not at hand.
    """
    return page([section(summary, find) for summary in summaries])


def page(sections: Sequence[Section]) -> str:
    """The page of these sections."""
    from markupsafe import Markup

    shown = [one for one in sections if one.html]
    layers = sum(one.size for one in shown) <= LAYER_BUDGET
    data = (f"{json.dumps(s.anchor)}:[{s.data},{s.layers if layers else 'null'}]" for s in shown)
    anchors = {(one.row.texts[0], one.row.texts[3]): one.anchor for one in shown}
    rows = ledger.rows_by_table([one.row for one in sections])
    script = (PAGE / "report.js").read_text(encoding="utf-8")
    return _template("report.html").render(
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=Markup((PAGE / "report.css").read_text(encoding="utf-8")),
        data=Markup("{" + ",".join(data) + "}"),
        ledger_headers=ledger.HEADERS,
        classes=("holds", "fails", "inconclusive", "idle", "idle", "idle"),
        ledger=[{"cells": row, "anchor": anchors.get((row[0], row[3]))} for row in rows],
        sections=[Markup(one.html) for one in shown],
    )


def section(summary: Summary, find: Find = nowhere) -> Section:
    """The section of a table at a tier."""
    row, anchor = ledger.row_of(summary), _anchor(summary)
    if not summary.done:
        return Section(row, anchor)
    records = _Records(summary)
    text = _template("section.html").render(t=_section(summary, records, find))
    layers, size = records.layers()
    return Section(row, anchor, text, _json({**_drawn(summary, records), **records.data()}), layers, size)


@lru_cache(maxsize=2)
def _template(name: str) -> jinja2.Template:
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string((PAGE / name).read_text(encoding="utf-8"))


def _anchor(summary: Summary) -> str:
    return re.sub(r"[^a-z0-9]+", "-", f"{summary.table.output}-{summary.tier}")


def _json(value: Any) -> str:
    """JSON that cannot end its script element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _section(summary: Summary, records: _Records, find: Find) -> dict[str, Any]:
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
        "anchor": _anchor(summary),
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
    """The records of a table, each text stored once."""

    def __init__(self, summary: Summary):
        self._entries = [entry for line in summary.lines for entry in line.entries]
        self._index = {id(entry): number for number, entry in enumerate(self._entries)}

    def index(self, entry: Entry) -> int:
        return self._index[id(entry)]

    def data(self) -> dict[str, Any]:
        """Their JSON. A record is [row, column, seed, shape, values, overrides], texts by number."""
        pool: dict[str, int] = {}
        shapes: dict[tuple[int, ...], int] = {}

        def word(text: str) -> int:
            return pool.setdefault(text, len(pool))

        records = []
        for entry in self._entries:
            fields = dict(_fields(entry.record))
            shape = shapes.setdefault(tuple(word(key) for key in fields), len(shapes))
            cell = entry.cell
            head = [word(cell.row), word(cell.column), cell.seed, shape]
            records.append([*head, [word(text) for text in fields.values()], [word(item) for item in cell.overrides]])
        return {
            "pool": list(pool),
            "shapes": [list(shape) for shape in shapes],
            "ids": [entry.id for entry in self._entries],
            "records": records,
        }

    def layers(self) -> tuple[str, int]:
        """(JSON of the layers, their size): each text once, and of each record the numbers of its own; null where too large."""
        pool: dict[str, int] = {}
        found, size = [], 0
        for entry in self._entries:
            own = []
            for text in _layers(entry.record):
                size += 6 if text in pool else 6 + len(text)
                own.append(pool.setdefault(text, len(pool)))
            if size > LAYER_BUDGET:
                return "null", size
            found.append(own)
        return _json([list(pool), found]), size


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
