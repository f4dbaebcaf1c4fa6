"""Who is running a cell: a file in its folder that saves work, and that no result rests on [no torch].

A lease that is wrongly held makes somebody wait; one wrongly taken makes two processes run one cell; both end in
the same record (:func:`sparselab.storage.record.settle`). So nothing here locks.

The holder touches the file now and then. Its age is measured by the clock of the file system, against the folder it
lies in, so the clocks of two machines are never compared. On the holder's own machine a dead process is seen at once.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import secrets
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from sparselab.storage import atomic

NAME = "lease.json"
BEAT = 15.0  # seconds between two signs of life
STALE = 120.0  # seconds without one after which a lease is up for taking
LIMIT = 4096  # bytes; a lease has 200


@dataclass(frozen=True)
class Holder:
    """A process that runs a cell.

    place: the machine as far as process ids mean something on it (host, boot, namespace). started: when the process
    was born, in the kernel's ticks, because ids are used again. job: the scheduler's job, of which one incarnation
    lives at a time; restart: which one. sweep: the name of the sweep that started the process.
    """

    host: str
    place: str
    pid: int
    started: str
    job: str
    restart: str
    sweep: str
    token: str

    def __str__(self) -> str:
        return f"{self.host}, process {self.pid}" + (f", job {self.job}" if self.job else "")

    def dead(self) -> bool:
        """True if the process is known to have ended; False where nobody here can tell."""
        return self.place == _place() and _born(self.pid) != self.started

    def alive_here(self) -> bool:
        """True if it is another living process of this machine, which signals reach."""
        return self.place == _place() and self.pid != os.getpid() and not self.dead()

    def same_job(self, other: Holder) -> bool:
        """True if both are incarnations of one scheduler's job, which was requeued."""
        return bool(self.job) and self.job == other.job and self.restart != other.restart


def myself(sweep: str = "", environment: Mapping[str, str] = os.environ) -> Holder:
    """This process, as the holder of one lease."""
    array, task = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{task}" if array else environment.get("SLURM_JOB_ID", "")
    pid = os.getpid()
    restart = environment.get("SLURM_RESTART_COUNT", "0") if job else ""
    return Holder(platform.node(), _place(), pid, _born(pid), job, restart, sweep, secrets.token_hex(8))


class Lease:
    """The lease of one cell in this process; use :func:`take`."""

    def __init__(self, path: Path, holder: Holder):
        self.path = path
        self.holder = holder
        self._ended = threading.Event()
        threading.Thread(target=self._beat, name=f"lease of {path.parent.name}", daemon=True).start()

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            found = read(self.path.parent)
            if found is None or found.token != self.holder.token:
                return  # taken over by somebody who thought this process dead: let them; the records will be compared
            with suppress(OSError):
                os.utime(self.path)

    def release(self) -> None:
        """Give it back; nothing happens where somebody else has taken it."""
        self._ended.set()
        found = read(self.path.parent)
        if found is not None and found.token == self.holder.token:
            with suppress(OSError):
                atomic.FILES.unlink(self.path)


def take(folder: str | os.PathLike[str], holder: Holder | None = None) -> Lease | Holder:
    """The lease of the cell in ``folder``, or the process that has it. RunFailed where nothing can be written."""
    path, holder = Path(folder) / NAME, holder or myself()
    for _ in range(3):  # somebody may take or release it between two steps
        if atomic.create_bytes(path, atomic.render(asdict(holder))):
            return Lease(path, holder)
        there = read(folder)
        if there is not None and not (there.dead() or there.same_job(holder) or _age(path) > STALE):
            return there
        if _take_over(path, there, holder):
            return Lease(path, holder)
    return read(folder) or holder


def read(folder: str | os.PathLike[str]) -> Holder | None:
    """Who holds the lease of the cell in ``folder``; None where nobody does, or nobody can be read there."""
    return _parse(Path(folder) / NAME)


def held(folder: str | os.PathLike[str]) -> Holder | None:
    """The living holder of a cell's lease, as far as can be told; None where the cell is free."""
    there = read(folder)
    return None if there is None or there.dead() or _age(Path(folder) / NAME) > STALE else there


def forget(folder: str | os.PathLike[str]) -> None:
    """Remove the lease of a finished cell, whoever left it: beside the record it means nothing any more."""
    path = Path(folder) / NAME
    if path.exists():
        with suppress(OSError):
            atomic.FILES.unlink(path)


def _parse(path: Path) -> Holder | None:
    try:
        with path.open("rb") as file:
            holder = Holder(**json.loads(file.read(LIMIT)))
    except (OSError, ValueError, TypeError):
        return None
    right = all(isinstance(value, int if key == "pid" else str) for key, value in asdict(holder).items())
    return holder if right else None


def _take_over(path: Path, there: Holder | None, holder: Holder) -> bool:
    """Put ``holder`` in the place of a dead or unreadable lease; False where another process is about to.

    Of many that find the same dead holder one makes the mark with that holder's name, and only it may write the lease.
    """
    mark = path.with_name(f".{NAME}.{there.token if there else 'unreadable'}")
    if not atomic.create_bytes(mark, b""):
        if _age(mark) > BEAT:  # whoever made it died before it was done
            with suppress(OSError):
                atomic.FILES.unlink(mark)
        return False
    try:
        if not path.exists() or _parse(path) != there:
            return False  # released or taken over since it was read
        atomic.write_bytes(path, atomic.render(asdict(holder)))
        return True
    finally:
        with suppress(OSError):
            atomic.FILES.unlink(mark)


def _age(path: Path) -> float:
    """Seconds since the last sign of life, by the clock of the file system; 0 where that cannot be told."""
    with suppress(OSError):
        os.utime(path.parent)  # to the file server's now
        return path.parent.stat().st_mtime - path.stat().st_mtime
    return 0.0


@functools.cache
def _place() -> str:
    parts = [platform.node()]
    for name in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        with suppress(OSError):
            path = Path(name)
            parts.append(str(path.readlink()) if path.is_symlink() else path.read_text().strip())
    return " ".join(parts)


def _born(pid: int) -> str:
    """When a process began; empty where there is none (a zombie is none)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "" if Path("/proc/self/stat").exists() or not _alive(pid) else "?"
    return "" if fields[0] in ("Z", "X") else fields[19]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
