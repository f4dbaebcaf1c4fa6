"""Tensors in files: safetensors in and out, checked before a byte is copied, and masks as packed bits.

The format (huggingface/safetensors): 8 bytes with the length of a JSON header, the header, the data. Loading runs no
code; what is added here is deterministic bytes, one-line faults, no memory for what a header merely claims, and a
comparison with the names, shapes and dtypes that the caller expects.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparselab.core.errors import Issues, refuse
from sparselab.storage import atomic
from sparselab.storage.atomic import shown

if TYPE_CHECKING:
    from torch import Tensor

HEADER_LIMIT = 16 * 2**20  # bytes; 100,000 tensors need about ten million
ALIASES = "aliases"  # metadata key: JSON of {name left out: name of the tensor it shares}
_SHOWN_FAULTS = 8

# safetensors' name -> torch's name, bytes per element. Formats with less than a byte per element are refused.
DTYPES = {
    "F64": ("float64", 8),
    "F32": ("float32", 4),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "F8_E4M3": ("float8_e4m3fn", 1),
    "F8_E5M2": ("float8_e5m2", 1),
    "C64": ("complex64", 8),
    "I64": ("int64", 8),
    "I32": ("int32", 4),
    "I16": ("int16", 2),
    "I8": ("int8", 1),
    "U64": ("uint64", 8),
    "U32": ("uint32", 4),
    "U16": ("uint16", 2),
    "U8": ("uint8", 1),
    "BOOL": ("bool", 1),
}


@dataclass(frozen=True)
class Entry:
    """A header's entry for one tensor: torch's name of the dtype, and the shape."""

    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Header:
    """The checked header of a safetensors file; ``aliases`` maps names left out to the tensors that they share."""

    tensors: dict[str, Entry]
    metadata: dict[str, str]
    aliases: dict[str, str]


def read_header(path: str | os.PathLike[str]) -> Header:
    """Check a safetensors file from its header and its size alone. :class:`ConfigError` for anything that does not fit."""
    path = Path(path)
    where = shown(path)
    fix = "give a whole safetensors file"
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            refuse(where, "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file", fix)
        with path.open("rb") as file:
            start, brace = file.read(8), file.read(1)
            length = int.from_bytes(start, "little")
            # A length of 128, 384, … begins with the byte that begins a pickle too; only a header goes on with a brace.
            if start[:2] == b"PK" or (start[:1] == b"\x80" and brace != b"{"):
                refuse(where, "a pickle, which could run code and is never loaded", "convert it to safetensors")
            if len(start) < 8 or length > status.st_size - 8:
                refuse(where, f"not safetensors, or cut short ({status.st_size:,} bytes)", fix)
            if length > HEADER_LIMIT:
                refuse(where, f"claims a header of {length:,} bytes", f"at most {HEADER_LIMIT:,} are read")
            text = (brace + file.read(length - 1)) if length else b""
    except OSError as error:
        refuse(where, f"cannot be read ({error.strerror})", "give a readable safetensors file")
    try:
        return _check(json.loads(text, object_pairs_hook=_unique), status.st_size - 8 - length)
    except (ValueError, RecursionError) as error:
        problem = error.args[0] if isinstance(error, _Malformed) else "its header is not JSON"
        refuse(where, f"not valid safetensors: {problem}", fix)


def load(path: str | os.PathLike[str], expected: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file; names that share a tensor come back sharing it.

    Names, shapes and dtypes are compared with ``expected`` before anything is copied.

    Args:
        path: of a safetensors file
        expected: tensors by name on any device, ``meta`` too; None: whatever the file has

    Returns:
        Tensors by name, on the CPU.

    Raises:
        ConfigError: the file is none, or differs from ``expected``; all differences (the first eight) together.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    header = read_header(path)
    if expected is not None:
        _compare(path, header, expected)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        refuse(shown(path), f"not valid safetensors: {shown(error, 60)}", "give a whole safetensors file")
    return tensors | {alias: tensors[name] for alias, name in header.aliases.items()}


def save(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> bytes:
    """Write tensors as safetensors, whole or not at all.

    Args:
        path: of the file
        tensors: by name, on any device
        metadata: added to ``{"format": "pt"}``, which transformers asks for

    Returns:
        The bytes of the file, which follow from the content alone.

    Raises:
        RunFailed: the disk refuses; nothing is at ``path`` then but what was there.
    """
    data = packed(tensors, metadata)
    atomic.write_bytes(path, data)
    return data


def packed(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """Return the bytes that :func:`save` writes of ``tensors`` (any shapes, by name)."""
    from safetensors.torch import save as serialise

    plain = {name: tensors[name].detach().cpu().contiguous().clone() for name in sorted(tensors)}
    return _in_order(serialise(plain, metadata={"format": "pt", **(metadata or {})}))


def save_masks(path: str | os.PathLike[str], masks: Mapping[str, Tensor]) -> bytes:
    """Write masks under the names of the tensors that they mask.

    Args:
        path: of the file
        masks: (*weight) bool, True where a weight stays, by the name of its tensor

    Returns:
        The bytes of the file.

    Raises:
        ValueError: a mask is not bool.
    """
    import torch

    for name, mask in masks.items():
        if mask.dtype != torch.bool:
            raise ValueError(f"the mask of {name} has dtype {mask.dtype}, not bool")
    return save(path, masks)


def load_masks(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read masks.

    Args:
        path: of a ``masks.safetensors``

    Returns:
        (*weight) bool by the name of the tensor.

    Raises:
        ConfigError: one is not boolean, or the file is none.
    """
    for name, entry in read_header(path).tensors.items():
        if entry.dtype != "bool":
            refuse(shown(path), f"{shown(name, 40)} is {entry.dtype}, and a mask is bool", "give a masks.safetensors")
    return load(path)


def pack_masks(masks: Mapping[str, Tensor]) -> dict[str, dict[str, Any]]:
    """Return masks as plain containers, one bit per weight.

    Args:
        masks: (*weight) bool by name

    Returns:
        ``{name: {"shape": [...], "bits": uint8 (ceil(size / 8),)}}``.

    Raises:
        ValueError: a mask is not bool.
    """
    import numpy as np
    import torch

    packed = {}
    for name, mask in masks.items():
        if mask.dtype != torch.bool:
            raise ValueError(f"the mask of {name} has dtype {mask.dtype}, not bool")
        bits = np.packbits(mask.detach().cpu().contiguous().numpy().reshape(-1))
        packed[name] = {"shape": list(mask.shape), "bits": torch.from_numpy(bits)}
    return packed


def unpack_masks(packed: Mapping[str, Mapping[str, Any]], where: str = "masks") -> dict[str, Tensor]:
    """Undo :func:`pack_masks`.

    Args:
        packed: what :func:`pack_masks` gave
        where: what an error names

    Returns:
        (*weight) bool by name.

    Raises:
        ConfigError: shape and bits do not fit; before any copy.
    """
    import numpy as np
    import torch

    masks = {}
    for name, item in packed.items():
        shape, bits = item["shape"], item["bits"]
        count = prod(shape) if all(type(size) is int and size >= 0 for size in shape) else -1
        if count < 0 or bits.dtype != torch.uint8 or tuple(bits.shape) != ((count + 7) // 8,):
            refuse(where, f"the packed mask of {shown(name, 40)} does not fit its shape", "use a whole checkpoint")
        flat = np.unpackbits(bits.cpu().numpy())
        if flat[count:].any():
            refuse(where, f"the packed mask of {shown(name, 40)} has bits beyond its end", "use a whole checkpoint")
        masks[name] = torch.from_numpy(flat[:count].astype(bool)).reshape(shape)
    return masks


class _Malformed(ValueError):
    """Raised for a header that is JSON and no safetensors header."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Malformed("a name occurs twice")
    return found


def _check(header: Any, size: int) -> Header:
    if not isinstance(header, dict):
        raise _Malformed("the header is not an object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _Malformed("the metadata is not text")
    tensors, ranges = {}, []
    for name, entry in header.items():
        _check_name(name)
        tensors[name], span = _check_entry(name, entry)
        ranges.append(span)
    reached = 0
    for begin, end in sorted(ranges):
        if begin != reached:
            raise _Malformed("tensors overlap or leave a hole")
        reached = end
    if reached != size:
        raise _Malformed(f"tensors take {reached:,} bytes, the file has {size:,}")
    return Header(tensors, metadata, _check_aliases(metadata, tensors))


def _check_name(name: str) -> None:
    if not name or len(name) > 512 or not name.isprintable() or name.startswith("/") or ".." in name.split("/"):
        raise _Malformed(f"{shown(name, 40)!r} is not a tensor's name")


def _check_entry(name: str, entry: Any) -> tuple[Entry, tuple[int, int]]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _Malformed(f"{shown(name, 40)} is not a tensor")
    dtype, shape, span = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise _Malformed(f"{shown(name, 40)} has the unknown dtype {shown(dtype, 16)}")
    for numbers in (shape, span):
        if not isinstance(numbers, list) or not all(type(n) is int and 0 <= n < 2**63 for n in numbers):
            raise _Malformed(f"{shown(name, 40)} has no valid shape and offsets")
    torch_name, width = DTYPES[dtype]
    # Sizes of one axis are limited above, so their product cannot take long; 64 axes are torch's own limit.
    if len(shape) > 64 or len(span) != 2 or prod(shape) * width != span[1] - span[0]:
        raise _Malformed(f"{shown(name, 40)} claims a shape that its bytes do not have")
    return Entry(torch_name, tuple(shape)), (span[0], span[1])


def _check_aliases(metadata: Mapping[str, str], tensors: Mapping[str, Entry]) -> dict[str, str]:
    aliases = json.loads(metadata.get(ALIASES, "{}"), object_pairs_hook=_unique)
    if not isinstance(aliases, dict):
        raise _Malformed("its aliases are not an object")
    for alias, name in aliases.items():
        _check_name(alias)
        if alias in tensors or not isinstance(name, str) or name not in tensors:
            raise _Malformed(f"the alias {shown(alias, 40)} fits no tensor")
    return aliases


def _compare(path: str | os.PathLike[str], header: Header, expected: Mapping[str, Any]) -> None:
    found = header.tensors | {alias: header.tensors[name] for alias, name in header.aliases.items()}
    where, issues = shown(path), Issues()
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            issues.add(where, f"{shown(name, 40)} is missing", "give weights of this very model")
        elif name not in expected:
            issues.add(where, f"{shown(name, 40)} is not in the model", "give weights of this very model")
        else:
            want = Entry(str(expected[name].dtype).removeprefix("torch."), tuple(expected[name].shape))
            if want != found[name]:
                issues.add(where, f"{shown(name, 40)} is {found[name]}", f"the model has {want}")
    issues.found = issues.found[:_SHOWN_FAULTS]
    issues.raise_if_any()


def _in_order(data: bytes) -> bytes:
    """The same file with its metadata sorted: the serialiser writes them in the random order of a hash map."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header = {"__metadata__": dict(sorted(header.pop("__metadata__").items())), **header}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]
