"""S1, S2, S4 and S5 of reliability: sweeps are killed, doubled, broken and repeated. Nothing is lost, nothing runs twice.

Each drill has a negative control that it must be able to see, and prints what was killed, when, and what was lost.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import toy_sweep

from sparselab.experiments.sweeps import lease
from sparselab.storage import record as records

ROOT = Path(__file__).parents[2]
TOY = [sys.executable, str(Path(toy_sweep.__file__))]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def start(runs: Path, cells: int, seconds: float, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*TOY, str(runs), str(cells), str(seconds), *options],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def results(runs: Path, cells: int) -> list[str]:
    """The hash of each cell's result; raises where one is missing or broken."""
    return [records.result_hash(records.read(runs / toy_sweep.cell_id(i), toy_sweep.cell_id(i))) for i in range(cells)]


def expected(cells: int) -> list[str]:
    return [records.result_hash(toy_sweep.result(i)) for i in range(cells)]


def computed(runs: Path) -> Counter[int]:
    """How often each cell was begun, over all processes."""
    return Counter(int(line) for path in runs.glob("ran-*") for line in path.read_text().split())


def killed_until_done(runs: Path, cells: int, kills: int, rng: random.Random) -> int:
    """Two sweeps at once; again and again one of them is killed while it computes, and started anew. Kills made."""
    workers = [start(runs, cells, 0.1) for _ in range(2)]
    done = 0
    while done < kills and all(worker.poll() is None for worker in workers):
        victim = workers[done % 2]
        if not (runs / f"ran-{victim.pid}").exists():
            time.sleep(0.01)
            continue
        time.sleep(rng.uniform(0, 0.3))
        victim.kill()
        victim.communicate()
        workers[done % 2] = start(runs, cells, 0.1)
        done += 1
    outputs = [worker.communicate(timeout=200)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], outputs
    return done


@pytest.mark.parametrize("kills", [10, pytest.param(200, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_s1_two_sweeps_are_killed_at_random(tmp_path: Path, kills: int) -> None:
    cells = 12 * kills
    done = killed_until_done(tmp_path, cells, kills, random.Random(kills))
    runs = computed(tmp_path)
    print(f"S1: {done} kills, {cells} cells, {runs.total() - cells} of them begun again, 0 lost")
    assert done >= kills / 2
    assert results(tmp_path, cells) == expected(cells)
    assert cells < runs.total() <= cells + done, "a kill costs one cell's work at most"
    assert not any(lease.held(path.parent) for path in tmp_path.glob("*/lease.json"))


def test_s1_control_one_results_file_loses_cells(tmp_path: Path) -> None:
    """What people write first, without a single kill: two writers of one file undo each other's cells."""
    workers = [start(tmp_path, 60, 0.005, "naive", "together=2") for _ in range(2)]
    codes = [worker.wait(timeout=60) for worker in workers]
    for worker in workers:
        worker.communicate()
    runs = computed(tmp_path)
    assert any(codes) or runs.total() > 60 * 1.2, "the drill must see lost or doubled work here"


@pytest.mark.parametrize("step", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_s1_every_crash_point_of_a_sweep(tmp_path: Path, step: int) -> None:
    """The process ends at its k-th change of the disk, for every k: running it again always finishes, alike."""
    k, survived = 1, []
    while True:
        runs = tmp_path / str(k)
        broken = start(runs, 2, 0.0, f"crash={k}")
        broken.communicate()
        if broken.returncode == 0:
            break
        assert broken.returncode == 137
        again = start(runs, 2, 0.0)
        output, _ = again.communicate()
        assert again.returncode == 0, output
        assert results(runs, 2) == expected(2), f"crash point {k}"
        survived.append(k)
        k += step
    print(f"S1: {len(survived)} crash points, 0 lost")
    assert len(survived) >= 15 / step


def test_s2_eight_sweeps_at_once(tmp_path: Path) -> None:
    cells = 120
    workers = [start(tmp_path, cells, 0.02) for _ in range(8)]
    outputs = [worker.communicate()[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * 8, outputs
    runs = computed(tmp_path)
    print(f"S2: 8 sweeps, {cells} cells, {runs.total()} runs of cells, 0 lost, 0 broken")
    assert results(tmp_path, cells) == expected(cells)
    assert runs.total() <= 1.2 * cells
    assert not list(tmp_path.glob("*/record-*.json")) and not list(tmp_path.glob("*/lease.json"))


def test_s2_without_leases_work_is_doubled_and_nothing_is_lost(tmp_path: Path) -> None:
    """Control: a lease that is always stale. The work doubles, which the drill above would see; results do not break."""
    workers = [start(tmp_path, 6, 0.5, "stale=-1e9", "together=3") for _ in range(3)]  # taking over needs the disk
    outputs = [worker.communicate()[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * 3, outputs
    assert results(tmp_path, 6) == expected(6)
    assert computed(tmp_path).total() > 1.2 * 6


@pytest.mark.parametrize("failing", [[0], [3], [5], [0, 1, 2, 3, 4, 5]])
def test_s4_failures_stop_nothing_and_are_listed(tmp_path: Path, failing: list[int]) -> None:
    sweep = start(tmp_path, 6, 0.0, f"fail={','.join(map(str, failing))}")
    output, _ = sweep.communicate()
    assert sweep.returncode == 1
    table = output[output.index(f"{len(failing)} of 6 cells failed:") :].splitlines()[1:]
    for i, line in zip(failing, table, strict=False):
        assert re.fullmatch(rf"  {toy_sweep.cell_id(i)}  toy {i}  toy {i} cannot be run", line)
    good = [i for i in range(6) if i not in failing]
    assert all(records.finished(tmp_path / toy_sweep.cell_id(i), toy_sweep.cell_id(i)) for i in good)
    again = start(tmp_path, 6, 0.0)  # once it is fixed, the same command runs what is missing and nothing else
    again.communicate()
    assert again.returncode == 0
    assert computed(tmp_path) == Counter(range(6)) + Counter(failing)


def test_a_sweep_that_is_asked_to_stop_says_how_many_cells_are_left(tmp_path: Path) -> None:
    sweep = start(tmp_path, 50, 0.1)
    while computed(tmp_path).total() < 3:
        time.sleep(0.02)
    sweep.send_signal(signal.SIGTERM)
    output, _ = sweep.communicate(timeout=30)
    assert sweep.returncode == 75
    left = int(re.search(r"stopped on request, (\d+) of 50 cells left", output)[1])  # type: ignore[index]
    assert left == 50 - len(list(tmp_path.glob("*/record.json"))) > 0


def test_unusable_records_are_set_aside_named_and_made_again(tmp_path: Path) -> None:
    start(tmp_path, 3, 0.0).communicate()
    half, changed = (tmp_path / toy_sweep.cell_id(i) / "record.json" for i in (0, 1))
    half.write_bytes(half.read_bytes()[:100])
    changed.write_text(json.dumps({**json.loads(changed.read_text()), "metrics": {"test.accuracy": 1}}))
    sweep = start(tmp_path, 3, 0.0)
    output, _ = sweep.communicate()
    assert sweep.returncode == 0
    assert f"{toy_sweep.cell_id(0)}/record.json: corrupt or half-written record: set aside as" in output
    assert f"{toy_sweep.cell_id(1)}/record.json: corrupt or half-written record: set aside as" in output
    assert results(tmp_path, 3) == expected(3)
    assert len(list(tmp_path.glob("*/unusable-1.json"))) == 2


def test_a_cell_that_gives_two_results_keeps_both_and_exits_with_3(tmp_path: Path) -> None:
    start(tmp_path, 2, 0.0).communicate()
    other = {**toy_sweep.result(0), "metrics": {"test.accuracy": 0.5}}
    assert not records.settle(tmp_path / toy_sweep.cell_id(0), other).agrees
    sweep = start(tmp_path, 2, 0.0)
    output, _ = sweep.communicate()
    assert sweep.returncode == 3
    assert "another run of this cell gave another result" in output


def tree(folder: Path) -> dict[str, str]:
    """Path to hash of every file."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def run_py(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "run.py", *words], cwd=ROOT, text=True, capture_output=True, check=False)


@pytest.mark.timeout(200)
def test_s5_and_s4_with_real_cells(tmp_path: Path) -> None:
    """Three trained cells, of which one diverges; then the two others again: no step is trained, no byte changes."""
    common = ["-m", "model=mlp", "method=dense", "trainer.max_epochs=null", "trainer.max_steps=5", "optim=sgd",
              "trainer.threads=1", "trainer.precision='32'", "trainer.clip=null", "trainer.evals=0",
              f"runs_dir={tmp_path}/runs"]  # fmt: skip
    broken = run_py(*common, "optim.lr=0.1,1e30,0.2")
    assert broken.returncode == 1, broken.stderr
    assert "1 of 3 cells failed:" in broken.stderr and "optim.lr=1e+30" in broken.stderr.split("failed:")[1]
    assert len(list((tmp_path / "runs").glob("*/model.safetensors"))) == 2
    before = tree(tmp_path / "runs")
    began = time.monotonic()
    again = run_py(*common, "optim.lr=0.1,0.2")
    seconds = time.monotonic() - began
    assert again.returncode == 0, again.stderr
    print(f"S5: a finished sweep again: 0 updates, {seconds:.1f} s, 0 bytes changed")
    assert "2 cells (2 finished before)" in again.stderr
    assert tree(tmp_path / "runs") == before
    assert seconds < 5 * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    control = run_py(*common, "optim.lr=0.1,0.2", "force=true")  # the drill sees a sweep that does work
    assert control.returncode == 0 and tree(tmp_path / "runs") != before


def working(runs: Path) -> list[int]:
    """Processes of this machine that run a cell."""
    holders = [lease.read(path.parent) for path in runs.glob("*/lease.json")]
    return [holder.pid for holder in holders if holder is not None and holder.alive_here()]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_s1_real_cells_in_two_workers_are_killed_at_random(tmp_path: Path) -> None:
    """kill -9 of the sweep or of a worker, again and again; what is there at the end equals an unbroken sweep's."""
    words = ["-m", "model=mlp", "method=srste,ste", "sparsity=2:4", "seed=0,1,2", "trainer.max_epochs=null",
             "trainer.max_steps=1200", "trainer.checkpoint_every=100", "trainer.threads=1", "trainer.evals=0"]  # fmt: skip
    parallel = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    whole = run_py(*words, *parallel, f"runs_dir={tmp_path}/whole")
    assert whole.returncode == 0, whole.stderr
    command = [sys.executable, "run.py", *words, *parallel, f"runs_dir={tmp_path}/broken"]
    rng, kills = random.Random(1), 0
    while kills < 10 and len(list((tmp_path / "broken").glob("*/record.json"))) < 6:
        sweep = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not (workers := working(tmp_path / "broken")) and sweep.poll() is None:
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 6))
        victims = [[sweep.pid], workers[:1], [sweep.pid, *workers]][kills % 3]
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        kills += 1
        print(f"S1: killed {victims}, {len(list((tmp_path / 'broken').glob('*/record.json')))} of 6 cells finished")
        time.sleep(rng.uniform(0, 2))
        sweep.kill()  # where only a worker was killed, the sweep would go on by itself
        sweep.wait()
    assert kills >= 3
    final = run_py(*words, *parallel, f"runs_dir={tmp_path}/broken")
    assert final.returncode == 0, final.stderr
    hashes = [
        {path.parent.name: records.result_hash(records.read(path.parent)) for path in folder.glob("*/record.json")}
        for folder in (tmp_path / "whole", tmp_path / "broken")
    ]
    assert hashes[0] == hashes[1] and len(hashes[0]) == 6
