"""Records of an older layout: names change, numbers and everything else do not, and an id changes with a proof only."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparselab.core.errors import ConfigError
from sparselab.core.renames import RENAMES, Renames, now_called
from sparselab.storage import migrations, record
from sparselab.storage.ids import cell_id, digest
from sparselab.storage.migrations import Traced, former_id, migrated

(STEP,) = [step for step in RENAMES if step.schema == 2]
OLD, NEW = "0123456789ab", "ba9876543210"
DENSE, TODAY = "aaaaaaaaaaaa", "bbbbbbbbbbbb"  # a cell that the cell starts from

IDENTITY = (
    {"engine": {"name": "train"}, "loss": {"distill": {"weight": 0.5}}, "seed": 3},
    {"losses": {"distill": 2}, "files": {"loss.distill.teacher": [f"cell:{TODAY}"], "model.weights": ["0f"]}},
)
IDENTITY_BEFORE = (
    {"engine": {"name": "train"}, "term": {"distill": {"weight": 0.5}}, "seed": 3},
    {"terms": {"distill": 2}, "files": {"term.distill.teacher": [f"cell:{DENSE}"], "model.weights": ["0f"]}},
)


def old(**changes):
    body = {
        "schema": 1,
        "id": OLD,
        "status": "finished",
        "config": {
            "engine": {"name": "train"},
            "term": {"distill": {"teacher": f"cell:{DENSE}", "weight": 0.5}},
            "seed": 3,
        },
        "overrides": ["term=[distill]", "term.distill.teacher='cell:method=dense term=[l1]'", "seed=3"],
        "metrics": {"test.accuracy": 0.1 + 0.2, "test.n": 360},
        "account": {"work": 15925248.0},
    } | changes
    return json.loads(json.dumps(body | {"seal": digest(body)}))


@pytest.mark.parametrize("point", ["", "@100", "@2epochs"])
def test_the_former_id_names_parents_by_theirs_and_keeps_the_point(point):
    now = IDENTITY[0], {**IDENTITY[1], "files": {"model.weights": [f"cell:{TODAY}{point}", f"cell:{NEW}{point}"]}}
    before = (
        IDENTITY_BEFORE[0],
        {
            **IDENTITY_BEFORE[1],
            "files": {"model.weights": [f"cell:{DENSE}{point}", f"cell:{NEW}{point}"]},
        },
    )
    assert former_id(now, {TODAY: DENSE}, 1) == cell_id(*before)


def test_a_parent_at_a_point_gets_its_id_of_today_in_the_record():
    config = {"engine": {"name": "train"}, "model": {"weights": f"cell:{DENSE}@2epochs"}, "seed": 3}
    new = migrated(old(config=config), "here", trace)
    assert new["config"]["model"]["weights"] == f"cell:{TODAY}@2epochs"


def trace(overrides, schema):
    assert schema == 1 and not any("term" in text for text in overrides)
    return Traced(NEW, OLD, {DENSE: TODAY})


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("term=[l1,distill]", "loss=[l1,distill]"),
        ("term.l1.weight=1e-4", "loss.l1.weight=1e-4"),
        ("engine=intervene", "engine=inference"),
        ("engine='interact'", "engine='online'"),
        ("engine.draws=2", "engine.draws=2"),
        ("method.term=3", "method.term=3"),
        ("terms=3", "terms=3"),
        ("runs_dir=a term=b", "runs_dir=a term=b"),
        ("model.weights='cell:engine=interact term=[l1]'", "model.weights='cell:engine=online loss=[l1]'"),
        ("x='cell:term=[l1] y=\"cell:term.l1.weight=2\"'", "x='cell:loss=[l1] y=\"cell:loss.l1.weight=2\"'"),
        (r"x='cell:a y=\'cell:term=[l1]\''", r"x='cell:a y=\'cell:loss=[l1]\''"),
    ],
)
def test_overrides(text, wanted):
    assert migrations.override(text, 1) == wanted
    assert migrations.override(wanted, 1) == wanted and migrations.override(text, 2) == text


def test_what_is_typed_is_told_at_its_own_level():
    assert now_called("term=[l1]") == "loss=[l1]" and now_called("seed=1") == "seed=1"
    assert now_called("x='cell:term=[l1]'") == "x='cell:term=[l1]'"  # refused where that cell is read


def test_the_layout_of_records_is_that_of_the_last_step():
    assert RENAMES[-1].schema == record.SCHEMA
    assert [step.schema for step in RENAMES] == list(range(2, record.SCHEMA + 1))


def test_an_identity_with_the_old_names_hashes_to_the_old_id():
    assert former_id(IDENTITY, {TODAY: DENSE}, 1) == cell_id(*IDENTITY_BEFORE)
    assert former_id(IDENTITY, {}, 2) == cell_id(*IDENTITY)


names = st.text("abc", min_size=1, max_size=2)


@given(st.dictionaries(st.sampled_from(["term", "seed", "edit"]), st.dictionaries(names, st.integers())), names)
def test_undoing_a_step_gives_what_was(config, engine):
    config["engine"] = {"name": {"a": "interact", "b": "intervene"}.get(engine, engine)}
    assert STEP.undone((STEP.config(config), {}))[0] == config


def test_a_record_keeps_all_but_its_names():
    before = old()
    after = migrated(before, "here", trace)
    assert (
        after["id"] == NEW
        and after["migrated"] == [OLD]
        and after["schema"] == 2
        and record.unchanged(record.plainly(json.dumps(after)))
    )
    assert after["config"] == {
        "engine": {"name": "train"},
        "loss": {"distill": {"teacher": f"cell:{TODAY}", "weight": 0.5}},
        "seed": 3,
    }
    assert after["overrides"] == ["loss=[distill]", "loss.distill.teacher='cell:method=dense loss=[l1]'", "seed=3"]
    changed = {"id", "config", "overrides", "schema", "seal", "migrated"}
    assert {k: v for k, v in after.items() if k not in changed} == {k: v for k, v in before.items() if k not in changed}
    assert before == old(), "what was given is as it was"
    assert migrated(after, "here", trace) == after


def test_a_record_without_an_old_name_keeps_its_id_and_is_not_planned():
    before = old(config={"engine": {"name": "estimate"}, "seed": 3}, overrides=["seed=3"])
    after = migrated(before, "here", lambda *_: pytest.fail("not asked"))
    assert after["id"] == OLD and "migrated" not in after and after["schema"] == 2


def test_former_ids_stand_oldest_first(monkeypatch):
    third = Renames(schema=3, groups={"loss": "penalty"})
    monkeypatch.setattr(migrations, "RENAMES", (*RENAMES, third))
    monkeypatch.setattr(record, "SCHEMA", 3)
    once = migrated(old(), "here", trace) | {"schema": 2}
    once.pop("seal")
    once["seal"] = digest(once)
    newest = "c" * 12
    twice = migrated(once, "here", lambda texts, schema: Traced(newest, NEW))
    assert twice["migrated"] == [OLD, NEW] and twice["id"] == newest and "penalty" in twice["config"]
    both = migrated(old(), "here", lambda texts, schema: Traced(newest, OLD))  # two steps at once
    assert both["migrated"] == [OLD] and "penalty" in both["config"] and both["overrides"][0] == "penalty=[distill]"


def _line(given, trace=trace):
    with pytest.raises(ConfigError) as refused:
        migrated(given, "here", trace)
    (issue,) = refused.value.issues
    assert len(str(issue)) <= 160 and " — " in str(issue)
    return str(issue)


def test_a_cell_that_is_another_one_for_another_reason_is_refused():
    def other(texts, schema):
        return Traced(NEW, "f" * 12, {DENSE: TODAY})

    line = _line(old(), other)
    assert line.startswith(f"here: cell {OLD} is {NEW} today, not by names alone — run it again, set SPARSELAB_DATA")
    kept = migrated(old(), "here", other, outdated=True)
    assert kept["id"] == OLD and "migrated" not in kept and kept["config"] == migrated(old(), "here", trace)["config"]


@pytest.mark.parametrize(
    "given",
    [
        None,
        [],
        "x",
        {},
        {"schema": 1},
        old() | {"metrics": {"test.accuracy": 0.9}},
        old() | {"schema": 2},
        old() | {"seal": None},
        old(schema=0),
        old(schema=True),
        old(schema="1"),
        old(config=None),
        old(overrides=None),
        old(overrides=[1]),
        old(migrated="x"),
        old(id=7),
    ],
)
def test_what_is_no_sound_record_is_refused(given):
    assert _line(given) == "here: corrupt or half-written record — restore the file, or run the cell again"


def test_a_newer_record_and_one_that_cannot_be_sealed_are_refused():
    assert _line(old(schema=99)) == "here: schema 99 is newer than this sparselab's 2 — update sparselab"
    assert "cannot be sealed again" in _line(old(status="done"))
