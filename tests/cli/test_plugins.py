"""Code from outside: what it registers works as the project's own, its content is in ids, and only a person can name it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.config_store import ConfigStore

from sparselab.cli.arguments import parse
from sparselab.core import plugins
from sparselab.core.errors import ConfigError
from sparselab.core.registry import REGISTRIES
from sparselab.running.planning import plan_of

ROOT = Path(__file__).resolve().parents[2]
METHOD = '''
from pydantic import Field

from sparselab.core.options import Options
from sparselab.weights.method import METHODS, Method


@METHODS.register("{name}")
class Mine(Method):
    """Gradual pruning by |weight| to a power."""

    class Options(Options):
        power: float = Field({power}, gt=0)
        layers: list[int] = [1, 2]

    defaults = {{"schedule": "cubic"}}

    def score(self, slot, context):
        return slot.dense.abs() ** self.options.power
'''
CELL = ["model=mlp", "model.hidden=[8]", "trainer.max_epochs=null", "trainer.max_steps=40", "trainer.accelerator=cpu"]
SPARSE = [*CELL, "sparsity=0.5"]


@pytest.fixture
def fresh(monkeypatch):
    """As in a process that has looked at no plug-in yet; call it to begin once more. What plug-ins registered is forgotten."""
    monkeypatch.setenv(plugins.VARIABLE, "")

    def begin() -> None:
        for plugin in plugins._state.loaded:
            for kind, name in plugin.members:
                del REGISTRIES[kind]._members[name]
                ConfigStore.instance().repo.get(kind, {}).pop(f"{name}.yaml", None)
        for name in [name for name in sys.modules if name.startswith(plugins.MODULES)]:
            del sys.modules[name]
        monkeypatch.setattr(plugins, "_state", plugins._State())

    begin()
    yield begin
    begin()


def named(path: Path, *words: str) -> list[str]:
    """The overrides of a command line that names the plug-in."""
    return parse([f"plugins=[{path}]", *words]).overrides


def write(folder: Path, name: str = "mine", power: float = 1.0, file: str = "mine.py") -> Path:
    path = folder / file
    path.write_text(METHOD.format(name=name, power=power))
    return path


def test_a_file_gives_a_method_with_options_and_a_schedule_of_its_own(fresh, tmp_path):
    plan = plan_of(named(write(tmp_path), "method=mine", "method.power=2", *SPARSE))
    assert plan.config["method"] == {"name": "mine", "power": 2, "layers": [1, 2]}
    assert plan.config["schedule"]["name"] == "cubic"
    assert list(plan.identity[0]["plugins"]) == ["mine.py"]
    with pytest.raises(ConfigError, match=r"method\.power=-1"):
        plan_of(["method=mine", "method.power=-1", *SPARSE])


def test_ids_hold_the_content_of_the_files_whose_members_a_cell_uses_and_of_no_others(fresh, tmp_path):
    plain = plan_of(["method=gmp", *SPARSE]).id
    first = plan_of(named(write(tmp_path), "method=mine", *SPARSE)).id
    assert plan_of(["method=gmp", *SPARSE]).id == plain, "a cell that uses nothing of it keeps its id"
    fresh()
    (tmp_path / "elsewhere").mkdir()
    assert plan_of(named(write(tmp_path / "elsewhere"), "method=mine", *SPARSE)).id == first, "nor where it lies"
    fresh()
    assert plan_of(named(write(tmp_path, power=1.5), "method=mine", "method.power=1", *SPARSE)).id != first


def test_a_dataset_counts_too(fresh, tmp_path):
    (tmp_path / "more.py").write_text(
        "from sparselab.inputs.data.dataset import DATASETS\n"
        'Base = DATASETS["digits"]\n'
        '@DATASETS.register("own_digits")\n'
        "class Own(Base):\n"
        "    pass\n"
    )
    plan = plan_of(named(tmp_path / "more.py", "method=gmp", "dataset=own_digits", *SPARSE))
    assert plan.identity[0]["plugins"] == {"more.py": plugins.loaded()[0].digest}
    assert plan.config["dataset"]["name"] == "own_digits"


def test_a_package_registers_by_its_entry_point_and_brings_its_configs(fresh, tmp_path, monkeypatch):
    package = tmp_path / "packed"
    (package / "configs" / "method").mkdir(parents=True)
    (package / "__init__.py").write_text(METHOD.format(name="packed", power=1.0))
    (package / "configs" / "method" / "packed.yaml").write_text(
        "defaults:\n  - override /schedule@_global_.schedule: linear\nname: packed\npower: 3.0\nlayers: []\n"
    )
    info = tmp_path / "packed-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: packed\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[sparselab.plugins]\npacked = packed\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    plan = plan_of(["method=packed", *SPARSE])
    assert plan.config["method"]["power"] == 3.0 and plan.config["schedule"]["name"] == "linear"
    assert list(plan.identity[0]["plugins"]) == ["packed"]
    sys.modules.pop("packed")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("x = 1\ny = nowhere\n", "plugins=bad.py: line 2: NameError: name 'nowhere' is not defined — correct the file"),
        ("x = (\n", "plugins=bad.py: line 1: SyntaxError: '(' was never closed (bad.py, line 1) — correct the file"),
        ("raise SystemExit('no')\n", "plugins=bad.py: line 1: SystemExit: no — correct the file"),
        (METHOD.format(name="gmp", power=1.0), "ValueError: method 'gmp' is registered twice"),
    ],
)
def test_what_cannot_be_imported_is_one_line(fresh, tmp_path, text, line):
    (tmp_path / "bad.py").write_text(text)
    overrides = named(tmp_path / "bad.py", *SPARSE)
    for _ in range(2):  # and again at the next look
        with pytest.raises(ConfigError) as refused:
            plan_of(overrides)
        (issue,) = refused.value.issues
        assert line in str(issue) and "\n" not in str(issue)


def test_a_file_is_named_once(fresh, tmp_path):
    path = write(tmp_path)
    for words in ([f"plugins=[{path},{path}]"], [f"plugins=[{path}]", f"plugins=[{path}]"]):
        with pytest.raises(ConfigError, match="is there twice"):
            parse(words)


def test_a_table_cannot_name_a_plugin(fresh, tmp_path):
    write(tmp_path)
    with pytest.raises(ConfigError, match="plugins: no such key"):
        plan_of(["method=gmp", *SPARSE, "plugins=[mine.py]"])  # as the overrides of a table or a record are read


def test_a_sweep_by_other_processes_runs_it_and_records_say_so(tmp_path):
    write(tmp_path)
    words = ["-m", "plugins=[mine.py]", "method=mine,gmp", *SPARSE, "trainer.progress=none", "hydra/launcher=joblib",
             "hydra.launcher.n_jobs=1"]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, str(ROOT / "run.py"), *words], cwd=tmp_path, env=environment, text=True,
                          capture_output=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    records = [json.loads(path.read_text()) for path in (tmp_path / "runs").glob("*/record.json")]
    found = {record["config"]["method"]["name"]: record["environment"].get("plugins") for record in records}
    assert set(found) == {"mine", "gmp"} and found["gmp"] is None and list(found["mine"]) == ["mine.py"]
