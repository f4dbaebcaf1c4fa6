"""``sparselab inspect``: what is really sparse in a file, and whether it is what the run claims."""

from __future__ import annotations

import hashlib
import itertools
import sys
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparselab.cli.kinds import buffers, kinds
from sparselab.core.errors import ConfigError, refuse
from sparselab.core.model_spec import EXPERTS
from sparselab.core.sparsity import Sparsity
from sparselab.storage import record as records
from sparselab.storage import tensors
from sparselab.storage.atomic import shown
from sparselab.storage.export import MASKS, MODEL
from sparselab.weights.patterns.layout import AXES, grouped

if TYPE_CHECKING:
    from rich.table import Table
    from torch import Tensor

GROUPS = (2, 4, 8, 16, 32)  # the M that are looked for: powers of two in order
_WIDTH = 200  # columns of a table that goes to a file or a pipe


@dataclass
class Row:
    """One tensor of at least two dimensions. ``broken`` names the claims about it that are false."""

    name: str
    shape: tuple[int, ...]
    nonzero: int
    size: int
    along: dict[str, str]
    zero_channels: dict[str, int]
    mask: str = ""
    requested: str = ""
    broken: list[str] = field(default_factory=list)


@dataclass
class Findings:
    """A whole file: its parameters of two dimensions and more, and the number of all; running statistics are no parameters."""

    path: Path
    rows: list[Row] = field(default_factory=list)
    parameters: int = 0
    nonzero: int = 0
    record: Mapping[str, Any] | None = None
    broken: list[str] = field(default_factory=list)


def run(argv: list[str]) -> int:
    """The command: one path, and ``--layers`` for dense tensors as well. Exit codes as :func:`inspect`."""
    usage = "write: sparselab inspect <run folder or safetensors file> [--layers]"
    if not {"-h", "--help"}.isdisjoint(argv):
        print(f"usage: {usage.removeprefix('write: ')}")
        return 0
    paths = [argument for argument in argv if argument != "--layers"]
    if len(paths) != 1 or paths[0].startswith("-"):
        refuse(f"inspect {shown(' '.join(argv), 40)}".rstrip(), "one path is needed", usage)
    return inspect(paths[0], "--layers" in argv)


def inspect(path: str, layers: bool) -> int:
    """Print the table of a safetensors file or a run folder.

    layers: show dense tensors as well; otherwise they are one line together.
    Returns 0; 1 when masks, record and weights contradict each other; 2, with one line on standard error, for what
    cannot be read. Runs no code of the file and takes no memory that the file does not have.
    """
    try:
        findings = examine(Path(path))
    except ConfigError as refused:
        print(*refused.issues, sep="\n", file=sys.stderr)
        return 2
    _print(findings, layers)
    return 1 if findings.broken or any(row.broken for row in findings.rows) else 0


def examine(path: Path) -> Findings:
    """Findings that :func:`inspect` prints, of a safetensors file or a run folder. :class:`ConfigError` for anything else."""
    path = path.parent if path.name == records.NAME else path
    folder = path if path.is_dir() else None
    record = records.read(folder) if folder and records.path_of(folder).exists() else None
    file = folder / MODEL if folder else path
    if folder and not file.exists():
        refuse(shown(path), f"no {MODEL} in this folder", "give a run folder or a safetensors file")
    header = tensors.read_header(file)
    beside = file.with_name(MASKS)
    masks = tensors.load_masks(beside) if beside.exists() and beside != file else {}
    findings = Findings(file, record=record)
    _check_files(file.parent, record)
    requests = _requests(record, header.tensors)
    read_as = kinds({name: tuple(entry.shape) for name, entry in header.tensors.items()})
    read_as |= {name: str(request["kind"]) for name, request in requests.items() if "kind" in request}
    state = buffers(header) - masks.keys() - requests.keys()
    for name, tensor in _tensors(file, header):
        if name in state:
            continue
        there = tensor.bool()
        findings.parameters += tensor.numel()
        findings.nonzero += int(there.sum())
        if tensor.dim() >= 2 and tensor.numel():
            kind = read_as[name]
            findings.rows.append(_row(name, there, kind, masks.pop(name, None), requests.pop(name, None)))
    left = [(MASKS, name) for name in masks] + [(records.NAME, name) for name in requests]
    findings.broken += [f"{source} speaks of {shown(name)}, which is not in {file.name}" for source, name in left]
    return findings


def tightest(there: Tensor, kind: str, axis: str) -> str:
    """The N:M with the smallest share N/M, then the smallest M, that every group along ``axis`` obeys; "" for none.

    there: bool, True where a weight is not zero. ``2:4`` means that every group has exactly two, ``≤2:4`` at most two.
    """
    import torch

    before, length, after = grouped(kind, tuple(there.shape), axis)
    counts = there.reshape(before, length, after).to(dtype=torch.uint8)
    found = []
    for m in GROUPS:
        if length % m:
            break
        counts = counts[:, 0::2] + counts[:, 1::2]  # groups of m are pairs of groups of m / 2
        n = int(counts.max())
        if n < m:
            found.append((n / m, m, f"{n}:{m}" if int(counts.min()) == n else f"≤{n}:{m}"))
    return min(found)[2] if found else ""


def _tensors(file: Path, header: tensors.Header) -> Iterator[tuple[str, Tensor]]:
    """One tensor at a time, so that a file larger than the memory can be inspected."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            for name in sorted(header.tensors, key=_natural):
                yield name, opened.get_tensor(name)
    except (SafetensorError, OSError) as error:
        refuse(shown(file), f"cannot be read ({shown(error, 60)})", "give a whole safetensors file")


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts ``blocks.10`` after ``blocks.9``."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in name.split(".")]


def _check_files(folder: Path, record: Mapping[str, Any] | None) -> None:
    """Compare the files of a run folder with the hashes in its record: safetensors itself has no checksum."""
    for name, facts in _part(record, "files", dict).items():
        path = folder / Path(name).name
        try:
            with path.open("rb") as file:
                sha = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            refuse(shown(path), f"cannot be read ({error.strerror})", "run the cell again")
        if not isinstance(facts, dict) or facts.get("sha256") != sha:
            refuse(shown(path), "damaged: its hash is not the one in the record", "run the cell again")


def _requests(record: Mapping[str, Any] | None, there: Container[str]) -> dict[str, Mapping[str, Any]]:
    """Return the record's entries for tensors, by the tensor's name: it may name tensors that are ``there``, or layers."""
    requests: dict[str, Mapping[str, Any]] = {}
    for layer in _part(_part(record, "sparsity", dict), "layers", list):
        if not isinstance(layer, dict) or not all(isinstance(layer.get(key), str) for key in ("name", "pattern")):
            refuse(records.NAME, "a layer has no name or no pattern", "run the cell again")
        name = layer["name"]
        requests[name if name in there else f"{name.removesuffix('.weight')}.weight"] = layer
    return requests


def _part(record: Mapping[str, Any] | None, key: str, kind: type) -> Any:
    """A part of a record, empty where missing. A seal says that a record is whole, not that its parts make sense."""
    part = (record or {}).get(key)
    if part is not None and not isinstance(part, kind):
        refuse(f"{records.NAME}: {key}", f"is not a {kind.__name__}", "run the cell again")
    return part or kind()


def _row(name: str, there: Tensor, kind: str, mask: Tensor | None, request: Mapping[str, Any] | None) -> Row:
    row = Row(
        name,
        tuple(there.shape),
        int(there.sum()),
        there.numel(),
        {axis: tightest(there, kind, axis) for axis in ("in", "out")},
        _zero_channels(there, kind),
    )
    if mask is not None:
        _against_mask(row, there, mask)
    if request is not None:
        _against_request(row, there, mask, request)
    return row


def _zero_channels(there: Tensor, kind: str) -> dict[str, int]:
    """Count inputs that no output reads and outputs that read no input; with experts, those of each expert."""
    if kind in EXPERTS:
        inputs, outputs = (1, 2) if kind == "experts1d" else (2, 1)
        return {"in": int((~there.any(outputs)).sum()), "out": int((~there.any(inputs)).sum())}
    first, second = (int((~part.flatten(1).any(1)).sum()) for part in (there, there.transpose(0, 1)))
    return {"in": first, "out": second} if kind == "conv1d" else {"in": second, "out": first}


def _against_mask(row: Row, there: Tensor, mask: Tensor) -> None:
    if mask.shape != there.shape:
        row.broken.append("its mask has another shape")
    elif revived := int((there & ~mask).sum()):
        row.broken.append(f"{revived:,} weights that the mask prunes are not zero")
    row.mask = "differs" if row.broken else "agrees"


def _against_request(row: Row, there: Tensor, mask: Tensor | None, request: Mapping[str, Any]) -> None:
    for key, is_so in (("nonzero", row.nonzero), ("shape", list(row.shape))):
        if request.get(key) not in (None, is_so):
            row.broken.append(f"{key} is {shown(request[key])} in the record and {is_so} in the file")
    row.requested = request["pattern"]
    sparsity = Sparsity.parse(row.requested, f"{records.NAME}: pattern of {shown(row.name)}")
    if sparsity.free or not sparsity.prunes:
        return
    total, broken = _groups(sparsity, there if mask is None or mask.shape != there.shape else mask, request)
    row.requested += f": {total - broken:,} of {total:,}"
    if broken:
        row.broken.append(f"{broken:,} of {total:,} groups break {request['pattern']}")


def _groups(sparsity: Sparsity, there: Tensor, request: Mapping[str, Any]) -> tuple[int, int]:
    """How many groups (blocks, channels) there are and how many break the pattern.

    The record may say which kind of layer and which axis; what it leaves open is read in the way that fits best.
    """
    from sparselab.weights.patterns.pattern import Pattern

    kinds = [request["kind"]] if "kind" in request else ["conv"] if there.dim() > 2 else ["linear", "conv1d"]
    axes = [request["axis"]] if "axis" in request else list(AXES)
    readings = []
    for kind, axis in itertools.product(map(str, kinds), map(str, axes)):
        try:
            readings.append(Pattern.of(sparsity, kind, axis).broken(there))
        except ValueError:  # read like this, the pattern does not fit the shape
            continue
    broken, total = min(readings, default=(1, 1))
    return total, broken


def _print(findings: Findings, layers: bool) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH)
    dense = [row for row in findings.rows if row.nonzero == row.size and not row.broken]
    rows = findings.rows if layers else [row for row in findings.rows if row not in dense]
    if rows:
        console.print(_table(rows))
    if dense and not layers:
        console.print(Text(f"{len(dense)} dense tensors not shown ({sum(row.size for row in dense):,} weights)"))
    density = findings.nonzero / max(findings.parameters, 1)
    counts = f"{findings.parameters:,} parameters, {findings.nonzero:,} not zero (density {density:.4f})"
    console.print(Text(f"{findings.path}: {counts}"))
    if findings.record is not None:
        claimed = _part(findings.record, "sparsity", dict)
        parts = [f"cell {findings.record['id']}", findings.record["status"]]
        parts += [f"{key} {claimed[key]}" for key in ("requested", "realised") if key in claimed]
        asked = [row for row in findings.rows if row.requested]
        parts += [f"{sum(not row.broken for row in asked)} of {len(asked)} layers hold"] if asked else []
        console.print(Text(", ".join(parts)))
    for row in findings.rows:
        for line in row.broken:
            console.print(Text(f"{row.name}: {line}", style="red"))
    for line in findings.broken:
        console.print(Text(line, style="red"))


def _table(rows: list[Row]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    table.add_column("tensor", overflow="fold")
    table.add_column("shape", no_wrap=True)
    for title in ("density", "N:M in", "N:M out", "zero in", "zero out"):
        table.add_column(title, justify="right", no_wrap=True)
    asked, masked = any(row.requested for row in rows), any(row.mask for row in rows)
    if asked:
        table.add_column("requested: groups that hold", no_wrap=True)
    if masked:
        table.add_column("mask", no_wrap=True)
    for row in rows:
        cells = [row.name, "x".join(map(str, row.shape)), f"{row.nonzero / row.size:.4f}"]
        cells += [row.along[axis] or "-" for axis in ("in", "out")]
        cells += [str(row.zero_channels[axis]) for axis in ("in", "out")]
        cells += [row.requested or "-"] * asked + [row.mask or "-"] * masked
        table.add_row(*(Text(cell, style="red" if row.broken else "") for cell in cells))
    return table
