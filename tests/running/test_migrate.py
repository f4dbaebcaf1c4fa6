"""Runs folders of an older layout: every cell under its new id, whatever stops the migration, and nothing lost."""

from __future__ import annotations

import shutil

import pytest

from sparselab.cli.migrate import run
from sparselab.core.errors import ConfigError
from sparselab.core.renames import RENAMES, replaced
from sparselab.experiments.tables.migrate import results
from sparselab.running.migrate import Lineage, runs
from sparselab.running.planning import plan_of
from sparselab.storage import atomic, record
from sparselab.storage.checkpoints import Checkpoints, hand_over
from sparselab.storage.ids import digest

SMALL = ("model=mlp", "trainer.max_epochs=null", "trainer.max_steps=2", "trainer.precision=32")
PHASE = "cell:method=dense term=[l1] " + " ".join(SMALL)
CELLS = {  # as they were typed, and as they are typed now
    "phase": (["method=dense", "term=[l1]", *SMALL], ["method=dense", "loss=[l1]", *SMALL]),
    "chain": (
        ["method=srste", "sparsity=2:4", *SMALL, f"model.weights='{PHASE}'"],
        ["method=srste", "sparsity=2:4", *SMALL, f"model.weights='{PHASE.replace('term', 'loss')}'"],
    ),
    "online": (["engine=interact", "problem=random_bandit", "solver=lasso"],) * 2,
    "estimate": (["problem=sem", "estimator=sort_n_regress"],) * 2,
}
CELLS["online"] = (CELLS["online"][0], ["engine=online", "problem=random_bandit", "solver=lasso"])


class Killed(BaseException):
    """The process dies here."""


class Dying(atomic.Files):
    """Die at the ``last`` call that would change a name."""

    def __init__(self, last):
        self.left = last

    def rename(self, source, target):
        self._count()
        super().rename(source, target)

    def unlink(self, path):
        self._count()
        super().unlink(path)

    def _count(self):
        self.left -= 1
        if self.left < 0:
            raise Killed


@pytest.fixture(scope="module")
def old_runs(tmp_path_factory):
    """(a runs folder as the layout 1 had it, its ids by the ids of today)."""
    folder, lineage, ids = tmp_path_factory.mktemp("old") / "runs", Lineage(), {}
    for typed, today in CELLS.values():
        plan, traced = plan_of(today), lineage.trace(today, 1)
        assert traced.id == plan.id
        ids[plan.id] = traced.former
        config, _ = RENAMES[0].undone((plan.recorded_config(), {}))
        cells = {f"cell:{new}": f"cell:{was}" for was, new in traced.cells.items()}
        body = {
            "schema": 1,
            "id": traced.former,
            "status": "finished",
            "config": replaced(config, lambda text, cells=cells: cells.get(text, text)),
            "overrides": typed,
            "metrics": {"test.accuracy": 1 / 3, "test.n": 360},
        }
        for name, metrics in (("record.json", body["metrics"]), ("record-0123.json", {"test.accuracy": 0.5})):
            whole = body | {"metrics": metrics}
            atomic.write_json(folder / traced.former / name, whole | {"seal": digest(whole)})
        atomic.write_text(folder / traced.former / "log.csv", "step\n")
    return folder, ids


@pytest.fixture
def folder(old_runs, tmp_path):
    shutil.copytree(old_runs[0], tmp_path / "runs")
    return tmp_path / "runs"


def _sound(folder, ids):
    assert {path.name for path in folder.iterdir()} == set(ids)
    for new, was in ids.items():
        found = record.read(folder / new, new)
        assert found["metrics"] == {"test.accuracy": 1 / 3, "test.n": 360}
        assert found.get("migrated", []) == ([was] if was != new else [])
        (other,) = record.conflicts(folder / new)
        assert other.name != "record-0123.json" and b'"test.accuracy": 0.5' in other.read_bytes()
        assert (folder / new / "log.csv").exists()


def _bytes(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_runs_folder(folder, old_runs):
    ids, said = old_runs[1], []
    assert sum(new != was for new, was in ids.items()) == 3, "the estimator's cell has no old name in it"
    count = runs(folder, Lineage(), said.append)
    assert (count.rewritten, count.renamed, count.current, count.left, said) == (4, 3, 0, 0, [])
    _sound(folder, ids)
    chain, phase = plan_of(CELLS["chain"][1]).id, plan_of(CELLS["phase"][1]).id
    assert record.read(folder / chain)["config"]["model"]["weights"] == f"cell:{phase}"
    before = _bytes(folder)
    again = runs(folder, Lineage(), said.append)
    assert (again.rewritten, again.current, again.left) == (0, 4, 0) and _bytes(folder) == before


def test_a_migration_that_dies_anywhere_is_finished_by_the_next(folder, old_runs, monkeypatch):
    lineage, calls = Lineage(), 0
    while True:
        shutil.rmtree(folder)
        shutil.copytree(old_runs[0], folder)
        with monkeypatch.context() as patch:
            patch.setattr(atomic, "FILES", Dying(calls))
            try:
                runs(folder, lineage, pytest.fail)
                break
            except Killed:
                pass
        runs(folder, lineage, pytest.fail)
        _sound(folder, old_runs[1])
        calls += 1
    assert calls >= 15


def test_what_cannot_be_migrated_stays_and_is_named(folder, old_runs):
    ids, said = old_runs[1], []
    changed = {was: new for new, was in ids.items() if new != was}
    (taken, new), (leased, _), (broken, _) = changed.items()
    record.write(folder / new, {"id": new, "status": "failed", "config": {}, "overrides": [], "metrics": {}})
    (folder / leased / "lease.json").write_text("{}")
    (folder / broken / "record.json").write_text("[" * 100_000)
    before = {name: _bytes(folder / name) for name in (taken, leased, broken)}
    count = runs(folder, Lineage(), said.append)
    assert (count.rewritten, count.left) == (1, 3)
    assert {name: _bytes(folder / name) for name in before} == before
    text = "\n".join(sorted(said))
    assert f"its cell is {new} today, and that is there already — keep one of the two folders" in text
    assert "its cell runs, or ran when its machine stopped (lease.json)" in text
    assert "corrupt or half-written record" in text and all(len(line) <= 160 for line in said)


def test_kept_results(folder, old_runs, tmp_path):
    import json

    ids, where = old_runs[1], tmp_path / "results/p/cpu"
    where.mkdir(parents=True)
    lines = []
    for number, (new, was) in enumerate(ids.items()):
        old = json.loads((folder / was / "record.json").read_text())
        row = {"row": new, "column": "c", "seed": number, "overrides": old["overrides"], "record": old}
        lines.append(json.dumps(row))
        atomic.write_bytes(where / f"pictures/{was}-x.png", b"png")
    (where / "records.jsonl").write_text("\n".join(lines) + "\n")
    assert results(tmp_path, Lineage(), pytest.fail).renamed == 3
    text = (where / "records.jsonl").read_text()
    items = [json.loads(line) for line in text.splitlines()]
    assert [item["record"]["id"] for item in items] == [item["row"] for item in items] == list(ids)
    assert [item["overrides"] for item in items] == [today for _, today in CELLS.values()]
    assert all(record.unchanged(record.plainly(json.dumps(item["record"]))) for item in items)
    assert {path.name for path in (where / "pictures").iterdir()} == {f"{new}-x.png" for new in ids}
    assert results(tmp_path, Lineage(), pytest.fail).current == 4 and (where / "records.jsonl").read_text() == text
    (where / "records.jsonl").write_text(text + "[]\n")
    said = []
    assert results(tmp_path, Lineage(), said.append).left == 1
    assert said == ["results/p/cpu/records.jsonl:5: is not a record of a table — restore the file (git checkout)"]


def test_checkpoints_go_with_the_cell(tmp_path):
    import torch

    old, new = "a" * 12, "b" * 12
    Checkpoints(tmp_path, old).save({"w": torch.ones(2)}, 3)
    (tmp_path / "step-0000000009-00000000.ckpt.json").write_text("[")
    hand_over(tmp_path, old, new)
    assert Checkpoints(tmp_path, new).load_latest().step == 3
    with pytest.raises(ConfigError):
        Checkpoints(tmp_path, old).load_latest()


def test_the_command(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert run([]) == 0
    assert capsys.readouterr().out.startswith("runs: 4 records rewritten, 3 of them under a new id; 0 were current")
    with pytest.raises(ConfigError, match="migrate nowhere: there is no such folder"):
        run(["nowhere"])
