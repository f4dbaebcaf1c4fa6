"""Overrides that are read without Hydra's grammar read as they would with it."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from hypothesis import given
from hypothesis import strategies as st

from sparselab.config.plain import literal, quoted, read, repeated
from sparselab.core.errors import ConfigError
from sparselab.experiments.sweeps.start import plans
from sparselab.experiments.tables.grid import expand
from sparselab.experiments.tables.load import load_all
from sparselab.running.planning import plan_of

PARSER = OverridesParser.create()
PIECES = [
    "a", "A1", "true", "Null", "1", "0", "007", "12", "2:4", "-", "/", ".", "e", "_", ":", "inf", "NaN", "'", "\\'", "x y",
    "$", "1e5", "1e-4", "0.5", "-0", "-1.50", ".5", "5.", "1_0", "block:", "4x1:", "=", "{", "\\", "\\\\", "+", "@", '"', "é",
]  # fmt: skip
TEXTS = st.builds(
    lambda key, equals, pieces: key + equals + "".join(pieces),
    st.sampled_from(["a", "a.b", "a/b", "a/b/c", "a/b.c", "a.b/c", "_x.y_z", "a-b", "+a", "~a", "a@b", "a..b", ""]),
    st.sampled_from(["=", "=", "=", "= ", " =", "==", ""]),
    st.lists(st.sampled_from(PIECES), max_size=5),
)


def as_hydra_reads(text: str) -> object:
    item = PARSER.parse_override(text)
    assert item.package is None and not (item.is_add() or item.is_delete() or item.is_sweep_override())
    value = item.value()
    return item.key_or_group, type(value), value.text if isinstance(value, QuotedString) else value


def agrees(text: str) -> bool:
    """Whether ``text`` is read here; if so, it is as Hydra reads it."""
    found = read(text)
    if found is not None:
        assert as_hydra_reads(text) == (found.key_or_group, type(found.value()), found.value()), text
    return found is not None


@given(TEXTS)
def test_what_is_plain_reads_as_in_hydra(text: str) -> None:
    agrees(text)


@given(st.text(alphabet="ab'\\ \"$=", max_size=12))
def test_quoted_text_reads_as_in_hydra(text: str) -> None:
    agrees(f"a='{text}'")


ITEMS = st.sampled_from(
    [
        "a",
        "1",
        "-2",
        "0.5",
        "1e-4",
        "null",
        "True",
        "nan",
        "@q",
        '"@ff"',
        '"a b"',
        '"a,b"',
        '"a: b"',
        "a:b",
        "2:4",
        "a-b",
        "''",
        "{k: 2epochs}",
        "{k.a: [a/b, 2:4], l: {m: 'it'}}",
        "[[1], []]",
        "[",
        "",
    ]
)
SEPARATORS = st.sampled_from([",", ", ", ",  ", " ,", ": "])


@given(st.lists(ITEMS, max_size=4), SEPARATORS, st.sampled_from(["[]", "{}", "()", "[}"]), st.booleans())
def test_lists_and_mappings_read_as_in_hydra(items: list[str], separator: str, ends: str, mapping: bool) -> None:
    inside = separator.join(f"k{n if n < 3 else 0}: {item}" if mapping else item for n, item in enumerate(items))
    agrees(f"a={ends[0]}{inside}{ends[1]}")


def test_most_of_what_tables_say_is_plain() -> None:
    texts = {
        text for table in load_all() for tier in table.tiers for cell in expand(table, tier) for text in cell.overrides
    }
    plain = sum(map(agrees, sorted(texts)))
    assert plain > 0.99 * len(texts)


TWICE = [
    "{@q: 1:8, @k: 1:4, @q: 2:4}",
    "{layers.0: 0.5, layers.0: 0.8}",
    "{@q:0.5,@q:0.8}",
    "{'a b': [1,2], \"a b\": 0.5}",
]


@pytest.mark.parametrize("value", TWICE)
def test_a_key_that_is_given_twice_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match=r"names (@q|layers\.0|a b) twice — keep one of the two"):
        plan_of(["method=srste", "sparsity=2:4", f"targets.patterns={value}"])


def test_a_sweep_over_mappings_may_name_a_key_in_each() -> None:
    """As Hydra reads it (hydra#573 asked for commas that do not separate; these do)."""
    assert repeated("a={x: 1, y: 2},{x: 3, y: 4}") is None
    assert repeated("a={x: 1},{y: 3, y: 4}") == "y"
    both = plans(["method=dense", "model=mlp", "dataset.augment={shift:0,rotate:0},{shift:1,rotate:1}"])
    assert [plan.config["dataset"]["augment"]["shift"] for plan in both] == [0, 1]


@pytest.mark.parametrize("value", ["{a: {x: 1}, b: {x: 2}}", "{a: 'x: 1, a: 2'}", "{a: [b, b], b: 1}", "{}", "[a, a]"])
def test_what_is_no_key_may_come_twice(value: str) -> None:
    assert repeated(f"a={value}") is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("model.weights=cell:method=dense model=mlp seed=3", "cell:method=dense model=mlp seed=3"),
        ("optim=größe", "größe"),
        ("runs_dir=/home/jürgen/läufe-1", "/home/jürgen/läufe-1"),
        ("runs_dir=/home/a=b", None),
        ("runs_dir=é, b", None),
        ("model=mlp", None),  # what needs no quotes is Hydra's
    ],
)
def test_what_can_mean_itself_only_needs_no_quotes(text, value):
    found = literal(text)
    assert (found and found.value()) == value
    if found is not None:
        theirs = OverridesParser.create().parse_override(f"{found.key_or_group}={quoted(value)}")
        assert theirs.value() == value
