"""Sweeps that cannot be: one line each, exit 2, nothing begun and no torch."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sparselab.cli import application
from sparselab.cli import main as console

SMALL = ["model=mlp", "method=dense", "trainer.max_epochs=null", "trainer.max_steps=3"]
BAD = [
    (["paper=srst", "tier=cpu"], 'paper=srst: no such paper — did you mean "srste"?'),
    (["papr=srste"], 'papr=srste: no such key — did you mean "paper=srste"?'),
    (["papers=srste", "tier=cpu"], 'papers=srste: no such key — did you mean "paper=srste"?'),
    (["paper=srste", "tier=cup"], 'tier=cup: paper=srste has no such tier — did you mean "cpu"?'),
    ([*SMALL, "hydra/launcher=jobib"], 'hydra/launcher=jobib: no such launcher — did you mean "joblib"?'),
    ([*SMALL, "hydra/launcher=joblib", "hydra.launcher.n_jbs=2"], "hydra.launcher.n_jbs: no such key"),
    ([*SMALL, "hydra/launcher=submitit_slurm", "hydra.launcher.timeout_min=x"], "config: Error merging override"),
    ([*SMALL, "hydra/launcher=submitit_slurm", "hydra.launcher.tasks_per_node=4"],
     "hydra.launcher.tasks_per_node=4: a cell is one task, which starts its own processes"),
    ([*SMALL, "hydra/launcher=submitit_slurm", "hydra.launcher.nodes=2"], "hydra.launcher.nodes=2: a cell is one task"),
    ([*SMALL, "hydra/sweeper=basic"], "hydra/sweeper=basic: cannot be changed"),
    ([*SMALL, "hydra.sweeper.token=x"], "hydra.sweeper.token=x: cannot be changed"),
    ([*SMALL, "sparsty=0.5,0.9"], 'sparsty: no such key — did you mean "sparsity"?'),
    ([*SMALL, "seed=0,-1"], "seed=-1"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "line"), BAD, ids=[" ".join(words[-2:]) for words, _ in BAD])
def test_one_line_and_exit_2(words: list[str], line: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert application.main(["-m", *words, f"runs_dir={tmp_path}/runs"]) == 2
    printed = capfd.readouterr().err.splitlines()
    assert len(printed) == 1 and printed[0].startswith(line) and len(printed[0]) <= 160
    assert not (tmp_path / "runs").exists()
    assert console.main(["check", "-m", *words, f"runs_dir={tmp_path}/runs"]) == 2
    assert capfd.readouterr().err.splitlines() == printed, "check and run say the same"


def test_what_srun_starts_beside_the_first_does_nothing(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    monkeypatch.setenv("SLURM_PROCID", "3")
    assert application.main(["method=nonsense"]) == 0
    assert capfd.readouterr().err == "srun's task 3 has nothing to do: the first starts a process for each device\n"
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert application.main(["method=nonsense"]) == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_runs_folder(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    runs = tmp_path / "runs"
    runs.mkdir(mode=0o500)
    assert application.main(["-m", *SMALL, "seed=0,1", f"runs_dir={runs}"]) == 2
    assert "cannot be written" in capfd.readouterr().err
