"""Looks into a weights file without torch, and compares it with what a network expects, before anything is copied."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from sparselab.core.errors import Issue, refuse
from sparselab.core.model_spec import ModelSpec

HEADER_CAP = 100_000_000  # bytes; the limit of the safetensors library itself
BYTES_OF = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 8),
}
WIDENS = {"F16": "F32", "BF16": "F32"}
"""Types that a file may hold in the place of those that a network has: nothing is lost on the way."""
PICKLES = frozenset({".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".th", ".tar"})
ANOTHER = "give another copy of the file"


@dataclass(frozen=True)
class Entry:
    """One tensor of a weights file. ``dtype`` as safetensors spells it (``F32``)."""

    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"


@dataclass(frozen=True)
class Part:
    """A tensor as a file may hold it, inside a larger one: number ``index`` of ``count`` equal runs of ``whole``."""

    whole: str
    index: int
    count: int

    def axis(self, whole: tuple[int, ...], shape: tuple[int, ...]) -> int | None:
        """The axis along which tensors of ``shape`` make up one of shape ``whole``; None where they do not."""
        axes = [i for i, (a, b) in enumerate(zip(whole, shape, strict=False)) if a != b]
        fits = len(whole) == len(shape) and len(axes) == 1 and whole[axes[0]] == self.count * shape[axes[0]]
        return axes[0] if fits else None


def place(path: str | Path, key: str = "model.weights") -> str:
    """``key=path`` for the front of a fault; a long path loses its beginning, so that the line keeps its end."""
    text = str(path)
    return f"{key}={text if len(text) <= 50 else '…' + text[-49:]}"


def read_header(path: str | Path, key: str = "model.weights") -> dict[str, Entry]:
    """The tensors a safetensors file holds, by name. Reads the header only: 8 bytes of length, then JSON.

    Raises :class:`ConfigError` for a file that is missing, unreadable, a pickle (never opened), truncated or inconsistent:
    every tensor must have a known dtype and exactly its bytes, and together they must fill the file without overlap.
    """
    where = place(path, key)
    path = Path(path).expanduser()
    if path.suffix.lower() in PICKLES:
        refuse(where, "a pickle can run any code and is never opened", "convert to safetensors")
    try:
        if path.is_dir():
            refuse(where, "is a folder", "name the .safetensors file in it")
        if not path.is_file():
            refuse(where, "no such file", "give the path of a .safetensors file")
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(HEADER_CAP, size - 8):
                refuse(where, "not a safetensors file, or cut off in its header", ANOTHER)
            raw = file.read(length)
    except OSError as error:
        refuse(where, f"cannot be read ({error.strerror})", "check its permissions")
    try:
        header = json.loads(raw, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError):
        refuse(where, "its header is not valid JSON", ANOTHER)
    if not isinstance(header, dict):
        refuse(where, "its header is not a list of tensors", ANOTHER)
    header.pop("__metadata__", None)
    return _entries(header, size - 8 - length, where)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a name twice")
    return fields


def _entries(header: dict[str, Any], data_bytes: int, where: str) -> dict[str, Entry]:
    entries, spans = {}, []
    for name, item in header.items():
        try:
            dtype, shape, (start, end) = item["dtype"], item["shape"], item["data_offsets"]
            entry = Entry(dtype, tuple(shape))
            sane = all(type(n) is int and n >= 0 for n in (*shape, start, end))
            sane = sane and end - start == prod(shape) * BYTES_OF[dtype]
        except (KeyError, TypeError, ValueError):
            sane = False
        if not sane:
            refuse(where, f"its entry for tensor {name[:40]!r} makes no sense", ANOTHER)
        entries[name] = entry
        spans.append((start, end))
    position = 0
    for start, end in sorted(spans):
        if start != position:
            refuse(where, "its tensors overlap or leave gaps", ANOTHER)
        position = end
    if position != data_bytes:
        state = f"holds {data_bytes:,} bytes of tensors where its header promises {position:,}"
        refuse(where, state, ANOTHER)
    return entries


def compare(found: Mapping[str, Entry], expected: Mapping[str, Entry], where: str) -> list[Issue]:
    """How a file differs from a network: at most one fault each for missing, unexpected, wrong shape and wrong dtype.

    Half precision is no fault where the network has float32. Each names the first tensor concerned and how many more there are.
    """
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    both = [name for name in expected if name in found]
    shapes = [name for name in both if found[name].shape != expected[name].shape]
    kinds = {name: (found[name].dtype, expected[name].dtype) for name in both if name not in shapes}
    dtypes = [name for name, (ours, theirs) in kinds.items() if theirs not in (ours, WIDENS.get(ours))]
    issues = []
    if missing:
        issues.append(Issue(where, f"lacks tensor {_first(missing)}", "give weights of this very network"))
    if unexpected:
        issues.append(
            Issue(where, f"has tensor {_first(unexpected)}, unknown here", "give weights of this very network")
        )
    if shapes:
        name = shapes[0]
        difference = f"{list(found[name].shape)}, not {list(expected[name].shape)}"
        issues.append(Issue(where, f"shape of {_first(shapes)} is {difference}", "match model and dataset to the file"))
    if dtypes:
        name = dtypes[0]
        difference = f"{found[name].dtype}, not {expected[name].dtype}"
        issues.append(Issue(where, f"dtype of {_first(dtypes)} is {difference}", "convert the file"))
    return issues


def divide(
    found: Mapping[str, Entry], expected: Mapping[str, tuple[int, ...]], part_of: Callable[[str], Part | None]
) -> tuple[dict[str, Entry], dict[str, Part]]:
    """(what a file holds, with parts in the place of the tensors that they are parts of; those parts, by name).

    expected: shapes by name. Only tensors that are expected and not in the file by that name are looked for in others.
    """
    parts = {name: part for name in expected if name not in found and (part := part_of(name)) and part.whole in found}
    wholes = {part.whole for part in parts.values()}
    divided = {name: entry for name, entry in found.items() if name not in wholes}
    for name, part in parts.items():
        whole = found[part.whole]
        fits = part.axis(whole.shape, expected[name]) is not None
        divided[name] = Entry(whole.dtype, expected[name] if fits else whole.shape)
    return divided, parts


def compare_spec(found: Mapping[str, Entry], model_spec: ModelSpec, where: str) -> list[Issue]:
    """Check presence, shape and dtype of the model spec's weights, before a network exists.

    A tied weight may be in the file under its other name, so only its shape and dtype are compared.
    """
    tied = {layer.tensor for layer in model_spec.layers if layer.roles >= {"embedding", "head"}}
    tensors = {layer.tensor: Entry("F32", layer.shape) for layer in model_spec.layers}
    expected = {name: entry for name, entry in tensors.items() if name in found or name not in tied}
    return compare({name: entry for name, entry in found.items() if name in expected}, expected, where)


def _first(names: list[str]) -> str:
    more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
    return f"{names[0][:48]}{more}"
