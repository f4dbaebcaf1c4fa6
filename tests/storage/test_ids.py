from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparselab.core.errors import ConfigError
from sparselab.storage.ids import canonical, cell_id, digest, label

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def _reversed(value):
    if isinstance(value, dict):
        return {key: _reversed(value[key]) for key in reversed(list(value))}
    return tuple(map(_reversed, value)) if isinstance(value, list) else value


def test_canonical_text():
    assert canonical({"b": [1.0, 0.5, True, None], "a": {"y": -0.0, "x": "é"}}) == (
        '{"a":{"x":"\\u00e9","y":0},"b":[1,0.5,true,null]}'
    )
    assert canonical(1e22) == canonical(10**22) and canonical(1e-5) == canonical(0.00001) == "1e-05"
    assert len({canonical(value) for value in (1, True, "1", [1], None)}) == 5


@given(PLAIN)
def test_order_of_keys_and_kind_of_sequence_leave_no_trace(value):
    assert canonical(value) == canonical(_reversed(value))


@given(PLAIN, PLAIN)
def test_equal_ids_mean_equal_content(one, other):
    if canonical(one) != canonical(other):
        assert digest(one) != digest(other)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"optim": {"lr": math.nan}}, "config.optim.lr=nan: not a finite number"),
        ({"a": [0, math.inf]}, "config.a[1]=inf: not a finite number"),
        ({"a": {1: 2}}, "config.a: the key 1 is not text"),
        ({"a": {2, 3}}, "config.a: a set is not plain data"),
        ({"a": object}, "config.a: a type is not plain data"),
    ],
)
def test_what_has_no_canonical_form_is_refused(config, said):
    with pytest.raises(ConfigError) as refused:
        canonical(config)
    assert str(refused.value).startswith(said)


def test_cell_id():
    config = {"method": {"name": "srste", "decay": 2e-4}, "sparsity": "2:4", "seed": 0}
    assert cell_id(config) == cell_id(dict(reversed(config.items()))) == digest(config)[:12]
    assert len(cell_id(config)) == 12 and set(cell_id(config)) <= set("0123456789abcdef")
    changed = [config | {"seed": 1}, config | {"sparsity": "1:4"}, config | {"x": None}]
    assert len({cell_id(config), cell_id(config, {"data": "f00"}), *map(cell_id, changed)}) == 5


def test_the_id_is_the_same_for_ever():
    """sha256 of {"lr":1,"seed":0}. A changed id would make every record of every user a stranger."""
    assert cell_id({"seed": 0, "lr": 1.0}) == "f4f5d80fefb8"


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["method=srste", "sparsity=2:4"], "method=srste,sparsity=2-4"),
        ([], "cell"),
        (["../../etc/passwd"], "etc-passwd"),
        (["a=..", ".."], "a="),
        (["x=<script>alert(1)</script>"], "x=-script-alert-1-script"),
        (["a=1\nb=2\x00\x1b[31m"], "a=1-b=2-31m"),
        (["é" * 40], "cell"),
    ],
)
def test_labels(overrides, name):
    assert label(overrides) == name


@given(st.lists(st.text(max_size=200), max_size=5))
def test_labels_are_safe_names(overrides):
    name = label(overrides)
    assert 0 < len(name.encode()) <= 100
    assert ".." not in name and "/" not in name and "\\" not in name and name[0] not in ".-"
    assert name.isprintable() and name.isascii()


def test_long_labels_stay_apart():
    one, other = label(["a" * 200 + "1"]), label(["a" * 200 + "2"])
    assert one != other and len(one) == len(other) == 100
