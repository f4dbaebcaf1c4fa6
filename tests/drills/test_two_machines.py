"""S2 and S4 once more: two machines on one runs folder, and what a loop of one's own does with a failure."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from test_sweeps import ROOT, computed, expected, results, start

SFTP_SERVERS = ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/lib/ssh/sftp-server")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_s4_control_a_loop_that_stops_at_a_failure(tmp_path: Path) -> None:
    """What people write first ends with its first failure: cells are missing, and no table says why."""
    loop = start(tmp_path, 6, 0.0, "naive", "fail=3")
    output, _ = loop.communicate()
    done = json.loads((tmp_path / "results.json").read_text())
    assert loop.returncode == 1 and len(done) == 3 and "cells failed:" not in output


@pytest.fixture(params=["one_disk", pytest.param("two_mounts", marks=pytest.mark.slow)])
def folders(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, Path, Path]]:
    """(the disk, the runs folder as the first machine sees it, as the second one sees it).

    two_mounts: a network file system. Each machine mounts one server's folder for itself (sshfs, with its usual caches),
    and talks to a server process of its own. Where the kernel has NFS, ``SPARSELAB_SHARED=/mnt/one:/mnt/two`` tries that.
    """
    if request.param == "one_disk":
        yield tmp_path, tmp_path, tmp_path
        return
    if shared := os.environ.get("SPARSELAB_SHARED"):
        one, two = (Path(mount) / tmp_path.name for mount in shared.split(":"))
        one.mkdir()
        yield one, one, two
        return
    server = next((path for path in SFTP_SERVERS if Path(path).exists()), None)
    if not (server and shutil.which("sshfs") and os.access("/dev/fuse", os.R_OK | os.W_OK)):
        pytest.skip("needs root, /dev/fuse, and: apt-get install sshfs openssh-sftp-server")
    command = tmp_path / "ssh"  # what sshfs takes for ssh: the server at once, with nothing in between
    command.write_text(f"#!/bin/sh\nexec {server}\n")
    command.chmod(0o755)
    disk, one, two = (tmp_path / name for name in ("disk", "one", "two"))
    disk.mkdir()
    with ExitStack() as stack:
        for mount in (one, two):
            mount.mkdir()
            words = ["sshfs", "-o", f"ssh_command={command}", f"server:{disk}", str(mount)]
            done = subprocess.run(words, text=True, capture_output=True, check=False)
            if done.returncode:
                pytest.skip(f"sshfs does not mount here: {done.stderr.strip()}")
            stack.callback(subprocess.run, ["umount", "-l", str(mount)], check=False)
        yield disk, one, two


@pytest.mark.timeout(900)
def test_s2_two_machines_on_one_runs_folder(folders: tuple[Path, Path, Path]) -> None:
    """Neither can see the other's processes, and their clocks are days apart; one dies without a word.

    What it was at is taken over once its lease shows no sign of life, and until then nobody else touches it.
    """
    disk, mine, its = folders
    cells, options = 30, ("stale=10",)
    one = start(mine, cells, 0.2, "machine=a", *options)
    while not (disk / f"ran-{one.pid}").exists():
        time.sleep(0.01)
    two = start(its, cells, 0.2, "machine=bb", *options)
    while not (disk / f"ran-{two.pid}").exists():
        time.sleep(0.01)
    one.kill()
    one.communicate()
    output, _ = two.communicate(timeout=800)
    assert two.returncode == 0, output
    runs = computed(disk)
    print(f"S2: 2 machines, 1 killed, {cells} cells, {runs.total()} runs of cells, 0 lost")
    assert results(disk, cells) == expected(cells)
    assert runs.total() <= cells + 1, "the cell under way, and no other, is begun again"
    assert not list(disk.glob("*/lease.json")) and not list(disk.glob("*/record-*.json"))


def test_s2_two_sweeps_at_once_on_two_machines(folders: tuple[Path, Path, Path]) -> None:
    """Nobody dies: no cell is run twice, although each sees the other's files with a delay."""
    disk, mine, its = folders
    cells = 20
    sweeps = [start(mine, cells, 0.3, "machine=a", "together=2"), start(its, cells, 0.3, "machine=bb", "together=2")]
    outputs = [sweep.communicate(timeout=250)[0] for sweep in sweeps]
    assert [sweep.returncode for sweep in sweeps] == [0, 0], outputs
    runs = computed(disk)
    print(f"S2: 2 machines at once, {cells} cells, {runs.total()} runs of cells, 0 lost")
    assert results(disk, cells) == expected(cells) and set(runs.values()) == {1}
    assert not list(disk.glob("*/lease.json")) and not list(disk.glob("*/record-*.json"))
