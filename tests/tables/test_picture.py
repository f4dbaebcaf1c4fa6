"""Pictures are compared by what they show."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from sparselab.tables import results
from sparselab.tables.figure import figure_svg
from sparselab.tables.picture import same_picture
from sparselab.tables.summary import summarise

SVG = b"""\
<g clip-path="url(#p0123456789)"><path d="M 10.251234 -3.5e-05 L 20 7" style="stroke: #0072b2"/></g>
<use xlink:href="#mabcdef0123" x="4.00"/><use xlink:href="#DejaVuSans-30"/>
<clipPath id="p0123456789"/><path id="mabcdef0123"/><path id="DejaVuSans-30"/>
"""


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"p0123456789", b"p9876543210"),
        (b"mabcdef0123", b"m0000000000"),
        (b"10.251234", b"10.251235"),
        (b"10.251234", b"10.26"),
        (b"-3.5e-05", b"0"),
        (b"4.00", b"4"),
    ],
)
def test_what_nobody_can_see_is_no_difference(before, after):
    assert same_picture(SVG, SVG.replace(before, after))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"10.251234", b"10.262"),
        (b"L 20 7", b"L 20 8"),
        (b"L 20 7", b"L 20 7 L 20 7"),
        (b"#0072b2", b"#d55e00"),
        (b'href="#DejaVuSans-30"', b'href="#DejaVuSans-31"'),
        (b"url(#p0123456789)", b"url(#mabcdef0123)"),
        (b"stroke", b"fill"),
        (b"</g>", b"</g>\n"),
        (b"M", b"\xff"),
    ],
)
def test_what_is_shown_is_a_difference(before, after):
    assert not same_picture(SVG, SVG.replace(before, after, 1))


def test_a_logarithm_that_ends_otherwise_draws_the_same(table, entries, monkeypatch):
    """The number that a figure is drawn from, moved by its last bits, as another processor's logarithm moves it."""
    here = figure_svg(summarise(table, "cpu", entries))
    value = entries[4].record["metrics"]["test.accuracy"]
    entries[4].record["metrics"]["test.accuracy"] = math.nextafter(value, 1)
    assert same_picture(here, figure_svg(summarise(table, "cpu", entries)))
    entries[4].record["metrics"]["test.accuracy"] = value - 0.005
    assert not same_picture(here, figure_svg(summarise(table, "cpu", entries)))


def test_a_picture_that_shows_the_same_is_neither_stale_nor_written_again(tmp_path: Path, configs, table, entries):
    out = tmp_path / "results"
    results.write(out, table, "cpu", entries, configs)
    path = out / "demo" / "cpu" / "figure.svg"
    here = path.read_bytes()
    before = here.replace(here.partition(b"url(#p")[2][:10], b"0123456789")
    path.write_bytes(before)
    assert results.stale(out, configs) == []
    results.write(out, table, "cpu", entries, configs)
    assert path.read_bytes() == before
    path.write_bytes(before.replace(b"0123456789", b"9876543210", 1))  # one of the places only: it points to nothing
    assert [line.split(":")[0] for line in results.stale(out, configs)] == ["demo/cpu/figure.svg"]
