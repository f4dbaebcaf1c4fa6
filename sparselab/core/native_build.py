"""C sources of the project, compiled once for this machine (about a second), kept, and loaded.

They are compiled for this very processor, so the file's name is a hash of the source, the compiler and what the processor
can do: nodes that share a home directory do not share what they cannot run. Where the compiler is missing, or the
compiled file is damaged, there is no library, and the caller computes without it; :class:`Unavailable` says why.

``SPARSELAB_NATIVE=0`` asks for the plain path. ``SPARSELAB_CACHE`` is where the compiled files are kept.
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
from pathlib import Path

from sparselab.core.cache_folder import cache_folder

FLAGS = ("-O3", "-march=native", "-shared", "-fPIC")
OPENMP = "-fopenmp"  # torch on Linux has loaded the same libgomp: one pool of threads for both


class Unavailable(Exception):
    """Raised where there is no library; the message says why, in a few words."""


def compiler() -> str | None:
    """The C compiler of this machine (``CC``, gcc or cc), None where there is none or it was asked not to be used."""
    if os.environ.get("SPARSELAB_NATIVE", "1") == "0":
        return None
    return shutil.which(os.environ.get("CC") or "gcc") or shutil.which("cc")


def load(source: Path, flags: tuple[str, ...] = (), others: tuple[Path, ...] = ()) -> ctypes.CDLL:
    """The library of ``source``, compiled with ``flags`` beside :data:`FLAGS`. Raises :class:`Unavailable`.

    others: further sources (``.c``), and headers in the same folder.
    """
    tool = compiler()
    if tool is None:
        asked = os.environ.get("SPARSELAB_NATIVE", "1") == "0"
        raise Unavailable("SPARSELAB_NATIVE=0" if asked else "no C compiler")
    flags = (*FLAGS, *flags)
    folder = cache_folder() / "native"
    sources = (source, *others)
    path = folder / f"{_key(sources, tool, flags)}.so"
    kept = _open(path)
    if kept is not None:
        return kept
    with suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _private(folder):
            _compile(sources, tool, flags, path)
            kept = _open(path)
            if kept is not None:
                return kept
    with tempfile.TemporaryDirectory() as scratch:  # no place to keep it: it lives as long as this process
        path = Path(scratch) / "kernels.so"
        _compile(sources, tool, flags, path)
        made = _open(path)
    if made is None:
        raise Unavailable("what was compiled cannot be loaded")
    return made


def _key(sources: tuple[Path, ...], compiler: str, flags: tuple[str, ...]) -> str:
    here = Path(compiler).resolve().stat()
    parts = [*(source.read_bytes() for source in sources), *map(str.encode, flags)]
    parts.append(f"{compiler} {here.st_size} {here.st_mtime_ns}".encode())
    parts.append(f"{platform.system()} {platform.machine()} {platform.processor()}".encode())
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        parts += [line.encode() for line in lines if line.startswith(("flags", "Features"))][:1]
    return hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:24]


def _compile(sources: tuple[Path, ...], compiler: str, own: tuple[str, ...], path: Path) -> None:
    """Compile beside the final place, then move the file there, so that two processes cannot mix; the seal is written last."""
    translated = [source for source in sources if source.suffix == ".c"]
    for flags in ((*own, OPENMP), own):
        temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp")
        try:
            done = subprocess.run(
                [compiler, *flags, "-o", temporary, *translated], capture_output=True, timeout=120, check=False
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
    """True if it is this user's and no one else may write to it: what is loaded runs."""
    found = path.stat()
    return found.st_uid == os.getuid() and not found.st_mode & 0o022
