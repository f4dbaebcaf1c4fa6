"""``kernels.c``, compiled once for this machine (about a second), kept, and loaded.

It is compiled for this very processor, so the file's name is a hash of the source, the compiler and what the processor
can do: nodes that share a home directory do not share what they cannot run. Where anything is missing, or the result is
not what it should be, there is no library and the plain path in torch serves; :func:`status` says which and why.

``SPARSELAB_NATIVE=0`` asks for the plain path. ``SPARSELAB_CACHE`` is where the compiled file is kept.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from contextlib import suppress
from ctypes import POINTER, c_float, c_int, c_int32, c_int64, c_uint32, c_void_p
from functools import cache
from pathlib import Path

LARGEST_GROUP = 256
"""M up to which the kernels solve N:M; the same number is in ``kernels.c``."""

SOURCE = Path(__file__).with_name("kernels.c")
FLAGS = ("-O3", "-march=native", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
OPENMP = "-fopenmp"  # torch on Linux has loaded the same libgomp: one pool of threads for both

SIGNATURES = {
    "groups": [c_void_p, c_void_p, c_void_p, c_int64, c_int64, c_int, c_int, c_int, c_int],
    "masked": [c_void_p, c_void_p, c_void_p, c_int64, c_int],
    "add_pruned": [c_void_p, c_void_p, c_void_p, c_float, c_int64, c_int],
    "bracket": [c_void_p, c_int64, c_int32, c_int32, c_int, c_void_p, c_int64, POINTER(c_int64)],
    "histogram": [c_void_p, c_int64, c_uint32, c_int, c_int, c_int, POINTER(c_int64)],
    "above": [c_void_p, c_void_p, c_int64, c_int32, c_int64, c_int, c_int],
}  # fmt: skip


class Unavailable(Exception):
    """Why there is no library, in a few words."""


def library() -> ctypes.CDLL | None:
    """The compiled kernels, or None."""
    return _load()[0]


def status() -> str:
    """``native``, or ``plain`` with the reason."""
    return _load()[1]


@cache
def _load() -> tuple[ctypes.CDLL | None, str]:
    try:
        return _checked(_found()), "native"
    except Unavailable as reason:
        return None, f"plain ({reason})"


def _found() -> ctypes.CDLL:
    if os.environ.get("SPARSELAB_NATIVE", "1") == "0":
        raise Unavailable("SPARSELAB_NATIVE=0")
    compiler = shutil.which(os.environ.get("CC") or "gcc") or shutil.which("cc")
    if compiler is None:
        raise Unavailable("no C compiler")
    folder = Path(os.environ.get("SPARSELAB_CACHE") or Path("~/.cache/sparselab").expanduser()) / "native"
    path = folder / f"{_key(compiler)}.so"
    kept = _open(path)
    if kept is not None:
        return kept
    with suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _private(folder):
            _compile(compiler, path)
            kept = _open(path)
            if kept is not None:
                return kept
    with tempfile.TemporaryDirectory() as scratch:  # no place to keep it: it lives as long as this process
        path = Path(scratch) / "kernels.so"
        _compile(compiler, path)
        made = _open(path)
    if made is None:
        raise Unavailable("what was compiled cannot be loaded")
    return made


def _key(compiler: str) -> str:
    here = Path(compiler).resolve().stat()
    parts = [SOURCE.read_bytes(), *map(str.encode, FLAGS), f"{compiler} {here.st_size} {here.st_mtime_ns}".encode()]
    parts.append(f"{platform.system()} {platform.machine()} {platform.processor()}".encode())
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        parts += [line.encode() for line in lines if line.startswith(("flags", "Features"))][:1]
    return hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:24]


def _compile(compiler: str, path: Path) -> None:
    """Beside its final place and then moved there: two processes that compile at once do not meet. The seal is last."""
    for flags in ((*FLAGS, OPENMP), FLAGS):
        temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp")
        try:
            done = subprocess.run(
                [compiler, *flags, "-o", temporary, SOURCE], capture_output=True, timeout=120, check=False
            )
            if done.returncode == 0:
                seal = hashlib.sha256(temporary.read_bytes()).hexdigest()
                temporary.chmod(0o600)
                temporary.replace(path)
                temporary.write_text(seal)
                temporary.replace(path.with_suffix(".sha256"))
                return
        except (OSError, subprocess.SubprocessError) as error:
            raise Unavailable(f"{Path(compiler).name}: {type(error).__name__}") from None
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
    raise Unavailable(f"{Path(compiler).name} cannot compile the kernels")


def _open(path: Path) -> ctypes.CDLL | None:
    """The library at ``path`` if it is whole and nobody else can have written it."""
    try:
        if not (_private(path.parent) and _private(path)):
            return None
        if hashlib.sha256(path.read_bytes()).hexdigest() != path.with_suffix(".sha256").read_text():
            return None
        return ctypes.CDLL(str(path))
    except OSError:
        return None


def _private(path: Path) -> bool:
    """Whether it is this user's and no one else may write to it: what is loaded runs."""
    found = path.stat()
    return found.st_uid == os.getuid() and not found.st_mode & 0o022


def _checked(loaded: ctypes.CDLL) -> ctypes.CDLL:
    """Types for every function, and one known answer: 2:4 of 3 -3 0 4 keeps, by magnitude, the first and the last."""
    try:
        for name, arguments in SIGNATURES.items():
            function = getattr(loaded, name)
            function.argtypes, function.restype = arguments, c_int if name == "groups" else None
    except AttributeError:
        raise Unavailable("what was compiled is not whole") from None
    scores, mask, out = (c_float * 36)(*[3, -3, 0, 4] * 9), (ctypes.c_uint8 * 36)(), (c_float * 36)()
    bad = loaded.groups(scores, mask, out, 9, 1, 4, 2, 1, 1)
    if bad or list(mask) != [1, 0, 0, 1] * 9 or list(out) != [3, 0, 0, 4] * 9:
        raise Unavailable("what was compiled gives wrong masks")
    return loaded
