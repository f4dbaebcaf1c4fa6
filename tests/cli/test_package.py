"""The package works where the repository is not: built as a wheel, unpacked elsewhere, used from an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import sparselab
from sparselab.running import records

ROOT = Path(__file__).resolve().parents[2]
CELL = [
    "method=srste",
    "sparsity=2:4",
    "model=mlp",
    "model.hidden=[8]",
    "trainer.max_epochs=null",
    "trainer.max_steps=4",
]
QUIET = ["trainer.progress=none", "trainer.accelerator=cpu", "trainer.precision='32'"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the contents of the wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z", "sparselab", "hydra_plugins", "configs", "*.toml",
                             "setup.py", "MANIFEST.in", "README.md", "LICENSE"], capture_output=True, check=True)  # fmt: skip
    for name in filter(None, listed.stdout.decode().split("\0")):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-c", "from setuptools.build_meta import build_wheel; build_wheel('..')"]
    subprocess.run(build, cwd=source, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def run(installed: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command of the unpacked package, in a folder where nothing else of the project is."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    return subprocess.run([sys.executable, "-m", "sparselab", *words], cwd=folder, env=environment, text=True,
                          capture_output=True, check=False)  # fmt: skip


def test_the_wheel_runs_a_cell_and_a_sweep_from_an_empty_folder(installed, tmp_path):
    done = run(installed, tmp_path, "run", *CELL, *QUIET)
    assert done.returncode == 0, done.stderr
    record = tmp_path / done.stdout.splitlines()[-1]
    assert record.is_file() and '"commit": ""' in record.read_text()
    swept = run(installed, tmp_path, "run", "-m", *CELL, *QUIET, "seed=0,1")
    assert swept.returncode == 0 and "2 of 2 cells finished" in swept.stderr + swept.stdout, swept.stderr
    assert len(list((tmp_path / "runs").glob("*/record.json"))) == 2


def test_the_wheel_has_every_config_and_every_table(installed):
    for name in ("config.yaml", "method/srste.yaml", "paper/srste.yaml", "hydra/launcher/submitit_slurm.yaml"):
        assert (installed / "sparselab" / "configs" / name).read_bytes() == (ROOT / "configs" / name).read_bytes()
    assert (installed / "sparselab" / "experiments" / "tables" / "page" / "report.html").is_file()
    assert list((installed / "sparselab").rglob("kernels.c")) and list((installed / "sparselab").rglob("vectors.h"))


def test_check_and_version_of_the_wheel(installed, tmp_path):
    assert run(installed, tmp_path, "--version").stdout == f"sparselab {sparselab.__version__}\n"
    done = run(installed, tmp_path, "check", "-m", "paper=srste", "tier=smoke")
    assert done.returncode == 0, done.stderr


def test_code_that_nobody_added_is_a_dirty_tree(tmp_path, monkeypatch):
    """`git describe` looks at tracked files only: a new plug-in would make records with a commit that does not have it."""
    for folder in ("configs", "sparselab/running"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "configs" / "config.yaml").write_text("")
    (tmp_path / "sparselab" / "running" / "records.py").write_text("")
    monkeypatch.setattr(records, "__file__", str(tmp_path / "sparselab" / "running" / "records.py"))
    named = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    for words in (["init", "-q"], ["add", "."], [*named, "commit", "-qm", "one"]):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    (tmp_path / "notes.txt").write_text("not code")
    clean = records.commit()
    assert len(clean) == 12
    (tmp_path / "sparselab" / "new.py").write_text("")
    assert records.commit() == f"{clean}-dirty"
    (tmp_path / "sparselab" / "new.py").unlink()
    (tmp_path / "configs" / "config.yaml").write_text("a: 1")
    assert records.commit() == f"{clean}-dirty"


def test_the_commit_of_a_repository_around_an_installed_package_is_not_recorded(tmp_path, monkeypatch):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    monkeypatch.setattr(records, "__file__", str(tmp_path / "site" / "sparselab" / "running" / "records.py"))
    assert records.commit() == ""


def test_the_wheel_has_every_skeleton(installed):
    inside = Path("sparselab") / "cli" / "skeletons"
    there = {path.relative_to(installed).as_posix() for path in (installed / inside).rglob("*.txt")}
    assert there == {path.relative_to(ROOT).as_posix() for path in (ROOT / inside).rglob("*.txt")}
    assert f"{inside.as_posix()}/paper/paper/NAME.yaml.txt" in there
