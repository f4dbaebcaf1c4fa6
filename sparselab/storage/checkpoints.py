"""Checkpoints that are believed only when they are whole: to resume from, never to publish (see :mod:`.export`).

A checkpoint is ``step-<step>-<hash>.ckpt`` (plain containers and tensors, read back with weights-only loading) and,
written after it, ``<file>.json`` with its size, SHA-256, step, cell and schema. Without its manifest it is none.
Content is in the name, so two processes that run one cell never write over each other.
"""

from __future__ import annotations

import collections
import hashlib
import io
import json
import logging
import os
import pickletools  # a disassembler: it runs nothing
import re
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparselab.core.errors import ConfigError, Issue, RunFailed, refuse
from sparselab.storage import atomic
from sparselab.storage.atomic import shown
from sparselab.storage.ids import digest

if TYPE_CHECKING:
    from torch import Tensor

SCHEMA = 1

_log = logging.getLogger(__name__)
_NAME = re.compile(r"step-(\d{10,18})-[0-9a-f]{8}\.ckpt")
# What torch.save puts into an archive of plain containers and dense tensors, and what its program then asks for.
_MEMBERS = re.compile(
    r"[^/]+/(data\.pkl|version|byteorder|\.format_version|\.storage_alignment|\.data/serialization_id|data/\d+)"
)
# torch.storage.UntypedStorage, which the newest dtypes ask for, is left out: a program could call it for any size.
_STORAGES = "Double|Float|Half|BFloat16|Long|Int|Short|Char|Byte|Bool|ComplexDouble|ComplexFloat"
_GLOBALS = re.compile(rf"collections OrderedDict|torch\._utils _rebuild_tensor_v2|torch ({_STORAGES})Storage")
_FLOATS = ("float64", "float32", "float16", "bfloat16", "complex128", "complex64")
_DTYPES = (*_FLOATS, "int64", "int32", "int16", "int8", "uint8", "bool")
_LEAVES = (type(None), bool, int, float, str)
_MANIFEST_LIMIT = 2**20  # bytes
_FIX = "use a checkpoint that sparselab wrote"


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint. ``facts`` is what :meth:`Checkpoints.save` was given to compare after loading."""

    path: Path
    step: int
    state: dict[str, Any]
    facts: dict[str, Any] = field(default_factory=dict)


class _Unusable(Exception):
    """Not whole: the checkpoint before it is tried."""


class _Pruned(_Unusable):
    """Removed while it was read, by another process of the cell that has newer ones."""


class Checkpoints:
    """The checkpoints of one cell in one folder, of which the newest ``keep`` good ones stay.

    folder: where they lie; made at the first save.
    cell:   the cell's id; checkpoints of another cell are refused.
    keep:   how many to keep, at least 2: the one before the newest is what a damaged newest falls back to.
    """

    def __init__(self, folder: str | os.PathLike[str], cell: str, keep: int = 2):
        if keep < 2:
            raise ValueError(f"keep={keep}: a damaged checkpoint needs another to fall back to, so keep at least 2")
        self.folder = Path(folder)
        self.cell = cell
        self.keep = keep

    def save(self, state: Mapping[str, Any], step: int, facts: Mapping[str, Any] | None = None) -> Path:
        """Write ``state`` as the checkpoint after ``step`` updates, read it back, and only then remove the oldest.

        state: dicts, lists and tuples of tensors, numbers and text; anything else raises TypeError naming its place.
        facts: plain values for the manifest (the realised density, say), compared by the caller after loading.
        :class:`RunFailed` where the disk refuses; the checkpoints before this one are then untouched.
        """
        import torch

        buffer = io.BytesIO()
        torch.save(_map_tensors(dict(state), _compact), buffer)
        data = buffer.getbuffer()
        sha = hashlib.sha256(data).hexdigest()
        path = self.folder / f"step-{step:010d}-{sha[:8]}.ckpt"
        manifest = {"size": len(data), "sha256": sha, "step": step, "cell": self.cell, "schema": SCHEMA}
        manifest["facts"] = dict(facts or {})
        atomic.write_bytes(path, data)
        atomic.write_json(_manifest_of(path), manifest | {"seal": digest(manifest, "manifest")})
        try:
            self._verified(path)
        except _Unusable as unusable:
            if self._overtaken(path):
                return path
            problem = f"the checkpoint just written reads back wrong ({unusable})"
            raise RunFailed(str(Issue(shown(path), problem, "check the disk and run the same command again"))) from None
        self._prune(path)
        return path

    def load_latest(self) -> Checkpoint | None:
        """The newest whole checkpoint, or None where there is none.

        Damaged ones are passed over with one line of warning. :class:`ConfigError` for a checkpoint of another cell or of a
        newer schema, and for one that is whole and holds anything but plain containers and tensors.
        """
        search = True
        while search:
            search, found, unusable = False, None, []
            for path in self._newest_first():
                try:
                    manifest, data = self._verified(path)
                except _Pruned:
                    search = True
                    break
                except _Unusable as why:
                    unusable.append(f"{path.name} {why}")
                else:
                    found = Checkpoint(path, manifest["step"], _load(path, data), manifest["facts"])
                    break
        if unusable:
            instead = f"going on from step {found.step}" if found else "starting from the beginning"
            _log.warning("%s: %s — %s", shown(self.folder), shown("; ".join(unusable), 90), instead)
        return found

    def sweep(self) -> int:
        """Remove what crashes left: abandoned temporary files, and older checkpoints that never got a manifest."""
        swept = atomic.sweep(self.folder)
        whole = self._newest_first()
        newest = _step(whole[0]) if whole else 0
        for path in self._files():
            if path not in whole and _step(path) < newest:
                swept += _remove(path)
        return swept

    def clear(self) -> None:
        """Remove every checkpoint of the folder."""
        for path in self._files():
            _remove(_manifest_of(path))
            _remove(path)
        atomic.sweep(self.folder)

    def need_space(self, planned: int) -> None:
        """:class:`ConfigError` unless three checkpoints of ``planned`` bytes fit: two that stay and one on its way."""
        free = atomic.free_bytes(self.folder)
        if free < 3 * planned:
            problem = f"{free:,} bytes free, {3 * planned:,} needed (3 checkpoints of {planned:,})"
            refuse(shown(self.folder), problem, "free some space or choose another runs_dir")

    def _files(self) -> list[Path]:
        try:
            return sorted(path for path in self.folder.iterdir() if _NAME.fullmatch(path.name))
        except FileNotFoundError:
            return []
        except OSError as error:
            refuse(shown(self.folder), f"cannot be read ({error.strerror})", "choose another runs_dir")

    def _newest_first(self) -> list[Path]:
        """Files with a manifest. One without is not finished: its writer died, or is about to write the manifest."""
        complete = [path for path in self._files() if _manifest_of(path).exists()]
        return sorted(complete, key=lambda path: (_step(path), path.name), reverse=True)

    def _verified(self, path: Path) -> tuple[dict[str, Any], bytes]:
        """Manifest and bytes of a checkpoint, both whole; :class:`_Unusable` otherwise."""
        try:
            with _manifest_of(path).open("rb") as file:
                text = file.read(_MANIFEST_LIMIT)
            manifest = json.loads(text)
            whole = atomic.render(manifest) == text
            seal = manifest.pop("seal")
            if not whole or digest(manifest, "manifest") != seal:
                raise _Unusable("has a damaged manifest")
            if manifest["schema"] > SCHEMA:
                refuse(shown(path), f"schema {manifest['schema']} is newer than {SCHEMA}", "update sparselab")
            if manifest["cell"] != self.cell:
                problem = f"is of cell {shown(manifest['cell'], 16)}, not {self.cell}"
                refuse(shown(path), problem, "choose another runs_dir")
            if manifest["step"] != _step(path) or not isinstance(manifest["facts"], dict):
                raise _Unusable("has a manifest of something else")
            if path.stat().st_size != manifest["size"]:
                raise _Unusable("is cut short or of the wrong size")
            data = path.read_bytes()
            if hashlib.sha256(data).hexdigest() != manifest["sha256"]:
                raise _Unusable("is damaged (its hash differs)")
        except OSError as error:
            kind = _Unusable if _manifest_of(path).exists() else _Pruned
            raise kind(f"cannot be read ({error.strerror})") from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise _Unusable("has a damaged manifest") from None
        return manifest, data

    def _overtaken(self, path: Path) -> bool:
        """True if another process of the cell is ahead and has removed ``path`` as an old one."""
        gone = not (path.exists() and _manifest_of(path).exists())
        return gone and any(_step(other) > _step(path) for other in self._newest_first())

    def _prune(self, newest: Path) -> None:
        """Remove what is older than the newest ``keep`` GOOD checkpoints; a damaged one never counts as kept."""
        good = 0
        for path in self._newest_first():
            if good >= self.keep and path != newest:
                _remove(_manifest_of(path))  # first, so that a crash in between leaves no checkpoint that looks whole
                _remove(path)
                continue
            try:
                self._verified(path)
                good += 1
            except (_Unusable, ConfigError):
                continue


def hand_over(folder: Path, old: str, new: str) -> None:
    """Make the checkpoints of the cell ``old`` in ``folder`` those of the cell ``new``; others, and damaged ones, stay."""
    for path in sorted(folder.glob("step-*.ckpt.json")) if old != new else ():
        try:
            manifest = json.loads(path.read_bytes()[:_MANIFEST_LIMIT])
            seal = manifest.pop("seal")
            if manifest["cell"] == old and digest(manifest, "manifest") == seal:
                manifest["cell"] = new
                atomic.write_json(path, manifest | {"seal": digest(manifest, "manifest")})
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, ConfigError):
            continue


def _manifest_of(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _step(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    return int(match[1]) if match else -1


def _remove(path: Path) -> int:
    with suppress(OSError):
        atomic.FILES.unlink(path)
        return 1
    return 0


def _load(path: Path, data: bytes) -> dict[str, Any]:
    """The state in ``data``. A manifest proves that a file is whole, not that its author means well; hence checks."""
    import torch

    where = shown(path)
    _check_archive(where, data)
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a hostile file makes of the reader, the answer is one line
        refuse(where, f"not a checkpoint: {shown(str(error).partition(chr(10))[0], 60)}", _FIX)
    if type(state) is not dict:
        refuse(where, f"holds a {type(state).__name__}, not a state", _FIX)
    try:
        return _map_tensors(state, lambda tensor: _check_tensor(where, tensor))
    except (TypeError, RecursionError) as error:
        refuse(where, shown(error, 60), _FIX)


def _check_archive(where: str, data: bytes) -> None:
    """Refuse, before torch sees it, an archive that could cost more memory than its size or call more than it must."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            names = [member.filename for member in members]
            if len(set(names)) != len(names) or not all(map(_MEMBERS.fullmatch, names)):
                refuse(where, "not an archive that torch.save writes", _FIX)
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                refuse(where, "a compressed archive, which may unpack to any size", _FIX)
            program = b"".join(archive.read(name) for name in names if name.endswith("/data.pkl"))
        for operation, argument, _ in pickletools.genops(program):
            if operation.name in ("INST", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4"):
                refuse(where, f"uses the pickle operation {operation.name}", _FIX)
            if operation.name == "GLOBAL" and not _GLOBALS.fullmatch(str(argument)):
                refuse(where, f"asks for {shown(str(argument).replace(' ', '.'), 40)}, which is never called", _FIX)
    except (ValueError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, IndexError, KeyError):
        refuse(where, "not a checkpoint: its archive is malformed", _FIX)


def _check_tensor(where: str, tensor: Tensor) -> Tensor:
    import torch

    if tensor.layout != torch.strided or not tensor.is_contiguous() or not _owns_storage(tensor):
        claim = " x ".join(map(str, tensor.shape))
        refuse(where, f"a tensor claims {claim} elements and has not their bytes", _FIX)
    return tensor


def _owns_storage(tensor: Tensor) -> bool:
    return tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()


def _compact(tensor: Tensor) -> Tensor:
    """The tensor as it can be checked on loading: on the CPU, contiguous, with a storage of its own size."""
    import torch

    if tensor.layout != torch.strided or str(tensor.dtype).removeprefix("torch.") not in _DTYPES:
        raise TypeError(f"a checkpoint cannot hold a tensor of {tensor.dtype} in {tensor.layout}")
    tensor = tensor.detach().cpu()
    return tensor if tensor.is_contiguous() and _owns_storage(tensor) else tensor.contiguous().clone()


def _map_tensors(
    value: Any, change: Callable[[Tensor], Tensor], where: str = "state", done: dict[int, Any] | None = None
) -> Any:
    """A copy of plain containers with ``change`` done to every tensor; TypeError, naming the place, for anything else.

    A container that occurs several times is copied once and shared again, so a few bytes cannot unfold to any size.
    """
    import torch

    kind = type(value)
    if kind in _LEAVES:
        return value
    if kind in (torch.Tensor, torch.nn.Parameter):
        return change(value)
    if kind not in (dict, collections.OrderedDict, list, tuple):
        raise TypeError(f"{where} is a {kind.__name__}, which a checkpoint cannot hold")
    done = {} if done is None else done
    if id(value) in done:
        if done[id(value)] is None:
            raise TypeError(f"{where} contains itself")
        return done[id(value)]
    done[id(value)] = None
    if kind in (list, tuple):
        copy = kind(_map_tensors(item, change, f"{where}[{index}]", done) for index, item in enumerate(value))
    else:
        for key in value:
            if type(key) not in (str, int):
                raise TypeError(f"{where} has a key of type {type(key).__name__}")
        copy = kind((key, _map_tensors(item, change, f"{where}.{key}", done)) for key, item in value.items())
    done[id(value)] = copy
    return copy
