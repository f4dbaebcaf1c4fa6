"""Overrides and options: what is taken, what is refused, and how a line is put together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from sparselab.config.compose import compose, defaults
from sparselab.config.overrides import check, expand, for_hydra
from sparselab.core.errors import WIDTH, ConfigError, Issue, Issues, did_you_mean, nearest, refuse, short, spell
from sparselab.core.options import Options, attempt, validate
from sparselab.core.registry import Registry
from sparselab.core.sparsity import Sparsity


def lines(words):
    return [str(issue) for issue in compose(words).issues]


# --- overrides --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("seed=3", "seed", 3),
        ("++seed=3", "seed", 3),
        ("sparsity=2:4", "sparsity", "2:4"),
        ('sparsity="2:4"', "sparsity", "2:4"),
        ("sparsity=' 0.9'", "sparsity", " 0.9"),
        ("runs_dir=2024", "runs_dir", "2024"),
        ("runs_dir=1e3", "runs_dir", "1e3"),
        ("runs_dir=a b", "runs_dir", "a b"),
        ("trainer.precision=16", "trainer.precision", "16"),
        ("trainer.clip=null", "trainer.clip", None),
        ("targets.exclude=[]", "targets.exclude", []),
        ("model.hidden=[6,7]", "model.hidden", [6, 7]),
        ("dataset.augment={}", "dataset.augment", {}),
        ("dataset.augment={crop: 4, flip: true}", "dataset.augment", {"crop": 4, "flip": True}),
    ],
)
def test_values_as_they_arrive_in_the_config(text, key, value):
    node = compose(["model=mlp", text])
    assert node.issues == [] and node.invalid == frozenset()
    found = node.config
    for part in key.split("."):
        found = found[part]
    assert found == value and type(found) is type(value)


def test_the_later_of_two_wins_and_a_mapping_replaces():
    assert compose(["seed=1", "seed=2"]).config["seed"] == 2
    assert compose(["method=asp", "method=srste"]).config == defaults() | {
        key: compose(["method=srste"]).config[key] for key in ("method", "schedule", "optim")
    }
    augment = compose(["dataset.augment={crop: 1}", "dataset.augment.shift=2"]).config["dataset"]["augment"]
    assert augment == {"crop": 1, "shift": 2}


@pytest.mark.parametrize("group", ["tier", "loss", "metric", "paper"])
def test_groups_that_may_be_null(group):
    assert compose([f"{group}=null"]).config == defaults()


def test_term_takes_a_name_or_a_list():
    assert compose(["loss=distill"]).config["loss"] == compose(["loss=[distill]"]).config["loss"] != {}
    assert set(compose(["metric=[ood,calibration]"]).config["metric"]) == {"ood", "calibration"}


def test_composing_leaves_no_trace_in_the_next():
    compose(["targets.exclude=[x]", "optim.lr=7"]).config["targets"]["include"].append("y")
    assert compose([]).config == defaults()


def test_lost_are_the_keys_that_are_not_what_was_asked_for():
    """With another issue, what a method lacks that nobody typed is no issue of its own: ``sparsity`` is among them."""
    assert check(["sparsty=2:4"]).invalid == {"sparsity"}
    assert check(["model=vit-s", "optim.lrr=1"]).invalid == {"model", "optim", "sparsity"}
    assert check(["seed"]).invalid == {"seed", "sparsity"}
    assert check(["seed", "method=dense"]).invalid == {"seed"}


def test_keys_of_a_group_that_is_lost_are_not_judged():
    assert lines(["model=vit-s", "model.depht=3", "model.foo=3"]) == [
        'model=vit-s: no such model — did you mean "vit_s"? (any network of timm: model=timm model.arch=NAME)'
    ]


def test_a_sweep_is_the_product_of_its_values_in_order():
    cells, own = expand(["a=1,2", "b=x", "c=range(0,2)", "hydra/launcher=joblib"])
    assert cells == [["a=1", "b=x", "c=0"], ["a=1", "b=x", "c=1"], ["a=2", "b=x", "c=0"], ["a=2", "b=x", "c=1"]]
    assert own == ["hydra/launcher=joblib"]


def test_lists_and_quoted_commas_are_no_sweep():
    assert expand(["model.hidden=[1,2]", "runs_dir='a,b'"]) == ([["model.hidden=[1,2]", "runs_dir='a,b'"]], [])


def test_what_hydra_would_not_take_is_put_as_it_does():
    words = ["tier=null", "dataset.augment={crop: 4}", "++targets={include: [x]}", "seed=1,2", "trainer.clip=null"]
    assert for_hydra(words) == [
        "++dataset.augment={crop: 4}",
        "++targets={include: [x]}",
        "seed=1,2",
        "trainer.clip=null",
    ]


# --- options ----------------------------------------------------------------------------------------------------------


class Inner(Options):
    size: int = Field(1, ge=1, description="at least 1")


class Outer(Options):
    inner: Inner = Field(Inner(), description="a mapping")
    mode: str | bool = Field("x", description="a word, true or false")
    rates: list[float] = Field([0.5], description="numbers")
    path: str = Field(description="a file")
    layers: dict[str, Inner] = Field({}, description="by name")
    either: Inner | None = Field(None, description="a mapping, or null")


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (
            {"path": "x", "inner": {"size": 0}},
            "at.inner.size=0: input should be greater than or equal to 1 — at least 1",
        ),
        ({"path": "x", "inner": {"sise": 2}}, 'at.inner.sise: no such key — did you mean "size"?'),
        ({"path": "x", "inner": 3}, "at.inner=3: input should be a valid dictionary or instance of Inner — a mapping"),
        ({"path": "x", "mode": 3}, "at.mode=3: input should be a valid string — a word, true or false"),
        ({"path": "x", "rates": [0.5, "a"]}, "at.rates.1=a: input should be a valid number — numbers"),
        ({"path": "x", "rates": [float("nan")]}, "at.rates.0=nan: input should be a finite number — numbers"),
        (
            {"path": "x", "layers": {"a.b": {"size": 0}}},
            "at.layers.a.b.size=0: input should be greater than or equal to 1 — at least 1",
        ),
        ({"path": "x", "either": {"sise": 0}}, 'at.either.sise: no such key — did you mean "size"?'),
        ({}, "at.path: is required and has no value — write at.path=…"),
        ({"path": "???"}, "at.path: is required and has no value — write at.path=…"),
        ({"path": None}, "at.path=null: has no value — a file"),
    ],
)
def test_a_line_names_the_innermost_key_and_what_it_takes(values, told):
    with pytest.raises(ConfigError) as refused:
        validate(Outer, values, "at")
    assert [str(issue) for issue in refused.value.issues] == [told]


def test_options_without_keys_say_so():
    class Nothing(Options):
        pass

    assert str(attempt(Nothing, {"x": 1}, "method")[1][0][1]) == (
        "method.x: no such key: there are no options here — leave it out"
    )


def test_what_is_valid_comes_back_as_it_was_given():
    assert validate(Outer, {"path": "x", "inner": {"size": 3}}, "at").inner.size == 3


# --- lines ------------------------------------------------------------------------------------------------------------


@given(st.text(max_size=400), st.text(max_size=400), st.text(max_size=400))
def test_a_fault_is_one_short_printable_line(where, problem, fix):
    line = str(Issue(where, problem, fix))
    assert len(line) <= WIDTH and line.isprintable()
    line.encode()


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("model.weights=" + "x" * 20, "model.weights=" + "x" * 20 + ": "),
        ("model.weights=" + "x" * 60, "model.weights=" + "x" * 25 + "…: "),
        ("model.weights=…" + "x" * 60 + "name", "model.weights=…" + "x" * 21 + "name: "),
        ("…" + "x" * 60 + "name", "…" + "x" * 35 + "name: "),
    ],
)
def test_a_long_line_keeps_its_key_and_its_mend(where, told):
    line = str(Issue(where, "p" * 200, "write another"))
    assert line.startswith(told) and line.endswith("p… — write another") and len(line) == WIDTH


def test_faults_are_collected_and_told_once():
    issues = Issues()
    for _ in range(2):
        with issues.collect():
            refuse("a", "b", "c")
    with pytest.raises(ConfigError) as refused:
        issues.raise_if_any()
    assert refused.value.issues == [Issue("a", "b", "c")] and str(refused.value) == "a: b — c"


def test_words():
    assert nearest("SRSTE", ["ste", "srste"]) == "srste"
    assert nearest("zzz", ["ste"]) is None
    assert did_you_mean("zzz", "cab", limit=2) == "one of: a, b, …"
    assert short("x" * 60) == "x" * 49 + "…"
    assert spell({"a": [None, True, 0.5, "x"]}) == "{a: [null,true,0.5,x]}"


def test_a_name_is_registered_once():
    registry: Registry = Registry("thing", "sparselab.running.loggers")

    @registry.register("one")
    class One:
        pass

    assert registry["one"] is One and One.name == "one" and "one" in registry
    with pytest.raises(ValueError, match="registered twice"):
        registry.register("one")(type("Two", (), {}))
    with pytest.raises(ConfigError, match=r'thing=on: no such thing — did you mean "one"\?'):
        registry["on"]


# --- sparsity ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "kind", "density"),
    [
        (0.9, "unstructured", 0.1), ("0.9", "unstructured", 0.1), ("2:4", "nm", 0.5), ("1:16", "nm", 0.0625),
        ("block:4x1:0.8", "block", 0.2), ("channel:0.5", "channel", 0.5), ("in_channel:0.9", "in_channel", 0.1),
        ("dense", "dense", 1.0), (0, "dense", 1.0),
        ("DENSE", "dense", 1.0), (".5", "unstructured", 0.5), ("9e-1", "unstructured", 0.1),
    ],
)  # fmt: skip
def test_sparsity_is_parsed(value, kind, density):
    parsed = Sparsity.parse(value)
    assert (parsed.kind, parsed.density) == (kind, density)
    assert Sparsity.parse(str(parsed)) == parsed


@given(st.integers(1, 500), st.integers(1, 500))
def test_every_pattern_is_taken_or_told(n, m):
    if 0 < n < m:
        parsed = Sparsity.parse(f"{n}:{m}")
        assert (parsed.n, parsed.m, str(parsed)) == (n, m, f"{n}:{m}")
    else:
        with pytest.raises(ConfigError):
            Sparsity.parse(f"{n}:{m}")


@given(st.integers(1, 16), st.integers(2, 40))
def test_what_yaml_makes_of_an_unquoted_pattern_is_recognised(n, m):
    """YAML 1.1 reads n:m as 60 n + m."""
    if n < m:
        with pytest.raises(ConfigError, match=f"looks like an unquoted {n}:{m}"):
            Sparsity.parse(60 * n + m)


@given(st.one_of(st.text(max_size=20), st.floats(), st.integers(), st.none(), st.booleans(), st.lists(st.integers())))
def test_any_value_is_a_sparsity_or_refused(value):
    try:
        assert 0 < Sparsity.parse(value).density <= 1
    except ConfigError as refused:
        (issue,) = refused.issues
        assert str(issue).startswith("sparsity=")
