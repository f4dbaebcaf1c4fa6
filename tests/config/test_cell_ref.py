"""Cells as values: what is printed is read again as it was, by sparselab, by Hydra and through a shell."""

from __future__ import annotations

import shlex
import subprocess

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st

from sparselab.config.cell_ref import CellRef, canonical, names_cell
from sparselab.config.overrides import for_hydra, said
from sparselab.config.plain import written
from sparselab.core.errors import ConfigError

NUMBERS = st.integers(-(10**12), 10**12) | st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(alphabet="ab10 '\"\\,:=[]{}$.-é@#~", max_size=8).filter(lambda text: "${" not in text)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS | st.sampled_from(["2:4", "block:4x1:0.8", "null", "nan", "1e-3"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["@q", "blocks", "a.b"]), inner, max_size=2)
    ),
    max_leaves=4,
).filter(lambda value: value != {})
KEYS = st.sampled_from(["method", "model.hidden", "trainer.max_steps", "seed", "runs_dir"])


def refs(deeper: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    own = st.dictionaries(KEYS, deeper, min_size=1, max_size=3)
    more = st.sampled_from(
        [{}, {"take": "weights"}, {"take": "masks"}, {"at": 100}, {"at": "2epochs", "take": "weights"}]
    )
    return st.builds(lambda own, more: {"cell": own, **more}, own, more)


REFS = refs(VALUES | refs(VALUES | refs(VALUES)))


@settings(max_examples=60, deadline=None)
@given(REFS)
def test_what_is_printed_is_read_as_the_same_value(tree: dict[str, object]) -> None:
    ref = CellRef.of(tree, "model.weights")
    key, value = said(f"model.weights={ref}")
    assert (key, value) == ("model.weights", tree)
    assert CellRef.of(value, key) == ref


@settings(max_examples=60, deadline=None)
@given(REFS)
def test_hydra_reads_the_same(tree: dict[str, object]) -> None:
    """Launchers hand overrides on through Hydra's own grammar."""
    text = for_hydra([f"model.weights={written(tree)}"])[0]
    assert OverridesParser.create().parse_override(text).value() == tree


@settings(max_examples=4, deadline=None)  # a process each, of many values
@given(st.lists(REFS, min_size=20, max_size=20))
def test_a_shell_hands_over_what_is_printed(trees: list[dict[str, object]]) -> None:
    texts = [f"model.weights={CellRef.of(tree, 'model.weights')}" for tree in trees]
    command = f"printf '%s\\0' {shlex.join(texts)}"
    printed = subprocess.run(["bash", "-c", command], capture_output=True, check=True).stdout.decode()
    assert printed.split("\0")[:-1] == texts


def test_a_cell_in_a_cell_needs_no_quotes_of_its_own() -> None:
    inner = CellRef(("method=dense", "model=mlp", "seed=0"), at="100")
    outer = CellRef(("method=ticket", "sparsity=0.9", f"model.weights={inner}"), take="masks")
    asked = "cell: {method: dense, model: mlp, seed: 0}, at: 100"
    assert str(outer) == f"{{cell: {{method: ticket, sparsity: 0.9, model.weights: {{{asked}}}}}, take: masks}}"
    assert shlex.quote(f"targets.masks={outer}") == f"'targets.masks={outer}'"


def test_the_older_text_means_the_same() -> None:
    text = "cell:method=ticket 'model.weights='\"'cell:method=dense seed=3'\" trainer.precision='\"32\"'"
    new = '{cell: {method: ticket, model.weights: {cell: {method: dense, seed: 3}}, trainer.precision: "32"}}'
    assert str(CellRef.of(text, "model.weights")) == new
    assert canonical("model.weights=" + written(text)) == canonical(f"model.weights={new}") == f"model.weights={new}"
    assert canonical("targets.patterns={@q: 1:8}") == "targets.patterns={@q: 1:8}"


def test_a_chain_is_the_cells_in_cells_that_one_would_write() -> None:
    own, links = "method: dense, model: mlp", {"dataset": ["mnist", "digits", "cifar10"], "seed": [5, 6, 7]}
    first = f"{{cell: {{{own}, dataset: mnist, seed: 5}}}}"
    second = f"{{cell: {{{own}, dataset: digits, seed: 6, model.weights: {first}}}}}"
    third = f"model.weights={{cell: {{{own}, dataset: cifar10, seed: 7, model.weights: {second}}}, at: 9}}"
    short = {"cell": {"method": "dense", "model": "mlp"}, "chain": links, "at": 9}
    assert f"model.weights={CellRef.of(short, 'model.weights')}" == third
    assert canonical(f"model.weights={written(short)}") == third
    one = {"cell": {"model.weights": "a.safetensors"}, "chain": {"dataset": ["digits"]}}
    assert str(CellRef.of(one, "x")) == "{cell: {model.weights: a.safetensors, dataset: digits}}"
    masks = {"cell": {"method": "gmp"}, "chain": {"sparsity": [0.5, 0.75]}}
    for ref in (CellRef.of(masks, "targets.masks"), CellRef.of({**masks, "take": "masks"}, "other")):
        assert "sparsity: 0.75, targets.masks: {cell: {method: gmp, sparsity: 0.5}" in str(ref)


@pytest.mark.parametrize(
    ("chain", "line"),
    [
        ("mnist", "model.weights.chain=mnist: is no chain — write chain: {optim.lr: [0.1, 0.01]}"),
        ({}, "is no chain"),
        ({"dataset": []}, "is no chain"),
        ({"dataset": "mnist"}, "is no chain"),
        ({"seed": [1, 2], "dataset": ["mnist"]}, "model.weights.chain: has lists of 1 and 2 values — give each key"),
        ({"model.weights": ["a", "b"]}, "model.weights.chain.model.weights: is what a chain hands on — leave it out"),
    ],
)
def test_what_is_no_chain_is_refused(chain: object, line: str) -> None:
    with pytest.raises(ConfigError) as refused:
        CellRef.of({"cell": {"method": "dense"}, "chain": chain}, "model.weights")
    assert line in str(refused.value)


@pytest.mark.parametrize("value", ["cells", {"cells": {}}, {"phase": 1, "name": "x"}, None, 3])
def test_other_values_name_no_cell(value: object) -> None:
    assert not names_cell(value)


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (
            {"cell": {}},
            "model.weights={cell: {}}: names no cell — write 'model.weights={cell: {method: dense, model: mlp}}'",
        ),
        ({"cell": "original"}, "names no cell"),
        ({"cell": {"seed": 1}, "tak": "masks"}, 'model.weights.tak: is not said of a cell — did you mean "take"?'),
        ({"cell": {"seed": 1}, "take": "mask"}, 'model.weights.take=mask: cannot be taken — did you mean "masks"?'),
        (
            {"cell": {"seed": 1}, "at": -1},
            "model.weights.at=-1: is no point of a run — write updates, such as 100, or epochs",
        ),
        ({"cell": {"seed": 1}, "at": True}, "is no point of a run"),
        ({"cell": {"seed": 1}, "at": 5, "take": "masks"}, "model.weights.at=5: masks are those of the end"),
        ({"phase": "original"}, "model.weights: phase: is a word of tables, which name their phases"),
    ],
)
def test_what_is_no_parent_is_refused(value: object, line: str) -> None:
    with pytest.raises(ConfigError) as refused:
        CellRef.of(value, "model.weights")
    assert line in str(refused.value)
