"""The one writer. Every file of a run appears under its name whole, or not at all.

A write makes a temporary file in the destination folder, writes, syncs, renames it over the name and syncs the folder.
A process that dies on the way leaves at most a temporary file, which nothing reads and :func:`sweep` removes. Nothing
here locks: two processes that write the same name both succeed, and readers see one whole file or the other.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import platform
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sparselab.core.errors import Issue, RunFailed

DAY = 86_400.0  # seconds after which a temporary file of another machine counts as abandoned

_REASONS = {
    errno.ENOSPC: ("disk full", "free some space and run the same command again"),
    errno.EDQUOT: ("disk quota used up", "free some space and run the same command again"),
    errno.EROFS: ("read-only file system", "choose a writable runs_dir"),
    errno.EACCES: ("no permission to write", "choose a writable runs_dir"),
    errno.EPERM: ("no permission to write", "choose a writable runs_dir"),
}


class Files:
    """Every system call that changes the disk, so that a drill can fail or stop at the k-th one."""

    def create(self, path: Path) -> int:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)

    def write(self, descriptor: int, data: memoryview) -> int:
        return os.write(descriptor, data)

    def sync(self, descriptor: int) -> None:
        os.fsync(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        source.replace(target)

    def link(self, source: Path, target: Path) -> None:
        target.hardlink_to(source)

    def unlink(self, path: Path) -> None:
        path.unlink()

    def sync_folder(self, folder: Path) -> None:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems sync no folders
                raise
        finally:
            os.close(descriptor)


FILES = Files()

# Process ids mean something on one machine only, so a temporary name carries the machine as well.
_HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
_TEMPORARY = re.compile(r"\..*\.([0-9a-f]{8})-(\d{1,10})-(\d+)\.tmp")
_counter = itertools.count()
_in_flight: set[Path] = set()


def shown(text: object, limit: int = 48) -> str:
    """``text`` fit for a one-line message: printable characters only, and the END of what is too long."""
    clean = "".join(c if c.isprintable() else "?" for c in str(text))
    return clean if len(clean) <= limit else "…" + clean[1 - limit :]


def write_bytes(path: str | os.PathLike[str], data: bytes | bytearray | memoryview) -> Path:
    """Put ``data`` under ``path``, replacing what is there; folders are made. :class:`RunFailed` where that fails."""
    path = Path(path)
    with _temporary(path, memoryview(data).cast("B")) as temporary:
        FILES.rename(temporary, path)
    return path


def create_bytes(path: str | os.PathLike[str], data: bytes | bytearray | memoryview) -> bool:
    """Put ``data`` under ``path`` unless something is there; False, and nothing changed, where something is.

    Of any number of processes that create the same name at once, exactly one gets True.
    """
    path = Path(path)
    with _temporary(path, memoryview(data).cast("B")) as temporary:
        try:
            FILES.link(temporary, path)
        except FileExistsError:
            created = False
        else:
            created = True
        FILES.unlink(temporary)
    return created


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """:func:`write_bytes` of UTF-8 text."""
    return write_bytes(path, text.encode())


def write_json(path: str | os.PathLike[str], value: Any) -> Path:
    """:func:`write_bytes` of :func:`render`."""
    return write_bytes(path, render(value))


def render(value: Any) -> bytes:
    """The bytes of a JSON file: keys sorted, ASCII, one line feed at the end. NaN and infinity raise ValueError."""
    return (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def sweep(folder: str | os.PathLike[str]) -> int:
    """Remove abandoned temporary files of ``folder``: the writer is dead, or the file is a day old. How many went.

    Never an error: what cannot be removed stays.
    """
    swept = 0
    with suppress(OSError):
        for path in sorted(Path(folder).iterdir()):
            match = _TEMPORARY.fullmatch(path.name)
            if match is None or not _abandoned(path, match[1], int(match[2])):
                continue
            with suppress(OSError):
                FILES.unlink(path)
                swept += 1
    return swept


def free_bytes(path: str | os.PathLike[str]) -> int:
    """Bytes an ordinary user can still write at ``path``, which need not exist yet; 0 where nobody can tell."""
    path = Path(path).absolute()
    for folder in (path, *path.parents):
        with suppress(OSError):
            return shutil.disk_usage(folder).free
    return 0


@contextmanager
def _temporary(path: Path, data: memoryview) -> Iterator[Path]:
    """A synced temporary file with ``data`` beside ``path``; the body moves it into place."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary, descriptor = _create(path)
        try:
            try:
                rest = data
                while rest:
                    rest = rest[FILES.write(descriptor, rest) :]
                FILES.sync(descriptor)
            finally:
                os.close(descriptor)
            yield temporary
            FILES.sync_folder(path.parent)
        except BaseException:
            with suppress(OSError):
                FILES.unlink(temporary)
            raise
        finally:
            _in_flight.discard(temporary)
    except OSError as error:
        reason, fix = _REASONS.get(error.errno or 0, (error.strerror or str(error), "choose another runs_dir"))
        problem = f"{reason}, {len(data):,} bytes needed and {free_bytes(path.parent):,} free"
        raise RunFailed(str(Issue(shown(path), problem, fix))) from error


def _create(path: Path) -> tuple[Path, int]:
    while True:
        temporary = path.with_name(f".{path.name[:64]}.{_HOST}-{os.getpid()}-{next(_counter)}.tmp")
        _in_flight.add(temporary)
        try:
            return temporary, FILES.create(temporary)
        except FileExistsError:  # left by an earlier process of the same id
            _in_flight.discard(temporary)
        except BaseException:
            _in_flight.discard(temporary)
            raise


def _abandoned(path: Path, host: str, pid: int) -> bool:
    if host == _HOST:
        return path not in _in_flight if pid == os.getpid() else not _alive(pid)
    with suppress(OSError):
        return time.time() - path.stat().st_mtime > DAY
    return False


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
