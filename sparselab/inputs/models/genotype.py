"""Cells of networks as graphs: which operations a cell has and what each of its nodes reads [no torch].

A network repeats a normal and a reduction cell (Liu et al. 2019, arXiv 1806.09055). A cell reads what the two cells before it
put out (states 0 and 1). Each of its nodes adds two earlier states, each through an operation, and is the next state; what the
cell puts out is all its nodes, channel after channel.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparselab.core.errors import did_you_mean, refuse, short, spell
from sparselab.core.seeds import derive_seed

NONE, SKIP = "none", "skip_connect"
OPERATIONS = (
    NONE, "max_pool_3x3", "avg_pool_3x3", SKIP, "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5",
)  # fmt: skip
"""Candidates of an edge, in the order of quark0/darts; ``none`` is for searches only."""
INPUTS = 2
"""Cells that a cell reads, and states that a node reads."""
FILE = "genotype.json"
"""Name of the file with the genotype in the folder of a run whose network has one."""
LIMIT = 100_000  # bytes of such a file
SPELLED = "{normal: [[[sep_conv_3x3, 0], [skip_connect, 1]], …], reduce: […]}"
KEYS = ("normal", "reduce")

Edge = tuple[str, int]
Nodes = tuple[tuple[Edge, Edge], ...]


@dataclass(frozen=True)
class Genotype:
    """Nodes of the normal and of the reduction cell: of each the two (operation, state) that it adds."""

    normal: Nodes
    reduce: Nodes

    def tree(self) -> dict[str, Any]:
        """Plain containers, as :func:`read_tree` reads them."""
        return {key: [[list(edge) for edge in node] for node in getattr(self, key)] for key in KEYS}

    def rendered(self) -> bytes:
        """The bytes of its file: JSON, a node a line."""
        cells = []
        for key in KEYS:
            nodes = ",\n".join(f"    {json.dumps([list(edge) for edge in node])}" for node in getattr(self, key))
            cells.append(f'  "{key}": [\n{nodes}\n  ]')
        return ("{\n" + ",\n".join(cells) + "\n}\n").encode()


def _paired(*flat: Edge) -> Nodes:
    return tuple((flat[i], flat[i + 1]) for i in range(0, len(flat), INPUTS))


_MAX, _AVG, _SEP3, _SEP5, _DIL3, _DIL5 = (name for name in OPERATIONS if name not in (NONE, SKIP))
RELEASED: dict[str, Genotype] = {
    # hamidmousavi0/PR-DARTS, Hydra/models/genotypes.py: DARTS_prune_three_for (its default), _01, _05, DARTS_PRUNE_ONE_FOR,
    # and DARTS_ORIGINAL, of its dense search.
    "dass": Genotype(
        _paired((_AVG, 0), (SKIP, 1), (_DIL5, 1), (SKIP, 2), (_AVG, 2), (SKIP, 1), (SKIP, 4), (SKIP, 3)),
        _paired((_MAX, 1), (_SEP3, 0), (_MAX, 1), (_DIL3, 2), (SKIP, 0), (_DIL3, 2), (_MAX, 1), (SKIP, 4)),
    ),
    "dass_01": Genotype(
        _paired((_DIL3, 1), (_DIL5, 0), (_SEP5, 0), (_DIL5, 1), (_SEP5, 0), (_SEP3, 3), (_SEP3, 2), (_DIL5, 0)),
        _paired((SKIP, 1), (SKIP, 0), (_DIL5, 1), (_DIL5, 2), (_DIL5, 2), (_DIL5, 3), (_DIL5, 3), (SKIP, 0)),
    ),
    "dass_05": Genotype(
        _paired((_SEP5, 0), (SKIP, 1), (_DIL5, 1), (_SEP3, 2), (_DIL3, 2), (_SEP3, 0), (_SEP3, 2), (_SEP3, 0)),
        _paired((_SEP3, 0), (_AVG, 1), (_SEP3, 0), (_SEP5, 2), (_SEP5, 1), (_SEP5, 2), (_DIL3, 1), (_DIL3, 2)),
    ),
    "dass_one_phase": Genotype(
        _paired((_MAX, 0), (_DIL3, 1), (_DIL5, 1), (SKIP, 0), (_DIL5, 2), (_DIL5, 3), (_DIL5, 0), (SKIP, 4)),
        _paired((_DIL5, 0), (_DIL5, 1), (_DIL5, 2), (_DIL3, 0), (_DIL5, 2), (_DIL3, 3), (_DIL3, 0), (_DIL5, 2)),
    ),
    "darts_original": Genotype(
        _paired((_SEP3, 0), (_DIL5, 1), (SKIP, 0), (_SEP3, 1), (SKIP, 0), (_DIL3, 1), (_DIL3, 0), (_DIL5, 1)),
        _paired((SKIP, 1), (_MAX, 0), (_DIL5, 2), (_MAX, 0), (_AVG, 0), (SKIP, 1), (SKIP, 2), (SKIP, 3)),
    ),
    # quark0/darts, cnn/genotypes.py
    "darts_v1": Genotype(
        _paired((_SEP3, 1), (_SEP3, 0), (SKIP, 0), (_SEP3, 1), (SKIP, 0), (_SEP3, 1), (_SEP3, 0), (SKIP, 2)),
        _paired((_MAX, 0), (_MAX, 1), (SKIP, 2), (_MAX, 0), (_MAX, 0), (SKIP, 2), (SKIP, 2), (_AVG, 0)),
    ),
    "darts_v2": Genotype(
        _paired((_SEP3, 0), (_SEP3, 1), (_SEP3, 0), (_SEP3, 1), (_SEP3, 1), (SKIP, 0), (SKIP, 0), (_DIL3, 2)),
        _paired((_MAX, 0), (_MAX, 1), (SKIP, 2), (_MAX, 1), (_MAX, 0), (SKIP, 2), (SKIP, 2), (_MAX, 1)),
    ),
}  # fmt: skip
"""Cells that were published, by name."""


def edges(nodes: int) -> int:
    """How many edges a cell of so many nodes has in a search: each node reads all states before it."""
    return sum(INPUTS + node for node in range(nodes))


def check_operations(operations: Sequence[str], where: str) -> None:
    """Refuse an operation that is none, is there twice, or leaves no choice. where: the key. Raises ConfigError."""
    for operation in operations:
        if operation not in OPERATIONS:
            refuse(
                f"{where}: {short(spell(operation), 30)}", "is no operation", did_you_mean(str(operation), OPERATIONS)
            )
    if len(set(operations)) < len(operations):
        refuse(where, "names an operation twice", "name each once")
    if len(set(operations) - {NONE}) < 1:
        refuse(where, f"names no operation beside {NONE}", f"write {where}=[skip_connect, sep_conv_3x3]")


def derived(
    normal: Sequence[Sequence[float]], reduce: Sequence[Sequence[float]], operations: Sequence[str]
) -> Genotype:
    """The cells that a search ends with (arXiv 1806.09055, section 2.4).

    Of the softmax over an edge's operations the largest that is not ``none`` is the edge's; a node keeps the two edges whose
    is largest. Of equal ones the first counts.

    Args:
        normal: (edges, operations) weights of the normal cell before the softmax
        reduce: (edges, operations) of the reduction cell
        operations: names of the columns

    Returns:
        The genotype; each node has exactly two inputs, and ``none`` is never chosen.
    """
    return Genotype(_derived(normal, operations), _derived(reduce, operations))


def _derived(weights: Sequence[Sequence[float]], operations: Sequence[str]) -> Nodes:
    nodes: list[tuple[Edge, Edge]] = []
    start = 0
    able = [column for column, name in enumerate(operations) if name != NONE]
    while start < len(weights):
        states = INPUTS + len(nodes)
        shares = [_softmax(row) for row in weights[start : start + states]]
        best = [max(able, key=lambda column, row=row: row[column]) for row in shares]  # type: ignore[misc]
        first, second = sorted(range(states), key=lambda state: -shares[state][best[state]])[:INPUTS]
        nodes.append(((operations[best[first]], first), (operations[best[second]], second)))
        start += states
    return tuple(nodes)


def _softmax(row: Sequence[float]) -> list[float]:
    top = max(row)
    powers = [math.exp(value - top) for value in row]
    return [power / sum(powers) for power in powers]


def drawn(seed: int, nodes: int, operations: Sequence[str]) -> Genotype:
    """Cells drawn at random: each node reads two earlier states, each through an operation, all equally likely.

    Args:
        seed: of the draw
        nodes: of each cell
        operations: to draw from; ``none`` is passed over
    """
    import numpy as np

    rng = np.random.default_rng(derive_seed(seed, "genotype"))
    able = [name for name in operations if name != NONE]

    def cell() -> Nodes:
        found = []
        for node in range(nodes):
            first, second = rng.permutation(INPUTS + node)[:INPUTS].tolist()
            one, other = (able[int(rng.integers(len(able)))] for _ in range(INPUTS))
            found.append(((one, first), (other, second)))
        return tuple(found)

    return Genotype(cell(), cell())


def is_path(value: Any) -> bool:
    """True for a genotype that is said by naming a file."""
    return isinstance(value, str) and value.endswith((".json", ".safetensors"))


def read(value: Any, where: str) -> Genotype:
    """The genotype that an option says: a released one's name, a file, ``{random: 0, nodes: 4, ops: […]}``, or the cells.

    Raises ConfigError, in the name of ``where``.
    """
    if is_path(value):
        return read_file(value, where)
    if isinstance(value, str):
        if value not in RELEASED:
            refuse(f"{where}={short(value, 40)}", "is no released cell, and no file", did_you_mean(value, RELEASED))
        return RELEASED[value]
    if isinstance(value, Mapping) and "random" in value:
        return _random(value, where)
    return read_tree(value, where)


def _random(value: Mapping[str, Any], where: str) -> Genotype:
    for key in value:
        if key not in ("random", "nodes", "ops"):
            refuse(
                f"{where}.{short(str(key), 30)}", "is not said of random cells", "write {random: 0, nodes: 4, ops: […]}"
            )
    seed, nodes, operations = value["random"], value.get("nodes", 4), value.get("ops", list(OPERATIONS))
    if type(seed) is not int or seed < 0:
        refuse(f"{where}.random={short(spell(seed), 30)}", "is no seed", "write a whole number, at least 0")
    check_nodes(nodes, f"{where}.nodes")
    if not isinstance(operations, list):
        refuse(f"{where}.ops={short(spell(operations), 30)}", "is no list", "write ops: [skip_connect, sep_conv_3x3]")
    check_operations(operations, f"{where}.ops")
    return drawn(seed, nodes, operations)


def check_nodes(nodes: Any, where: str) -> None:
    """Refuse a number of nodes that makes no cell. Raises ConfigError."""
    if type(nodes) is not int or nodes < INPUTS:
        problem = f"a cell has at least as many nodes as inputs, {INPUTS}"
        refuse(f"{where}={short(spell(nodes), 30)}", problem, f"write at least {INPUTS}")


def read_file(path: str, where: str) -> Genotype:
    """The genotype of a ``genotype.json``, or of the run whose finished ``model.safetensors`` is named. Raises ConfigError."""
    named = f"{where}={path if len(path) <= 50 else '…' + path[-49:]}"
    file = Path(path).expanduser()
    if file.suffix == ".safetensors":
        if "@" in file.name:
            refuse(named, "is the network within its run, and cells are those of its end", "leave at: out")
        file = file.with_name(FILE)
        if Path(path).expanduser().is_file() and not file.is_file():
            fix = "name a run of model=darts_search or model=darts"
            refuse(named, f"there is no {FILE} beside it", fix)
    try:
        if not file.is_file():
            refuse(named, "no such file", f"give the path of a {FILE}")
        if file.stat().st_size > LIMIT:
            refuse(named, f"larger than any genotype ({LIMIT:,} bytes)", f"give the path of a {FILE}")
        text = file.read_bytes()
    except (OSError, ValueError) as error:  # a name that no file can have
        reason = getattr(error, "strerror", None) or str(error)
        refuse(named, f"cannot be read ({reason})", "check the path and its permissions")
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        refuse(named, "is not valid JSON", f"give the path of a {FILE}")
    return read_tree(tree, named)


def read_tree(tree: Any, where: str) -> Genotype:
    """The genotype of plain containers. Raises ConfigError for an unknown operation, or a graph that is no cell."""
    if not isinstance(tree, Mapping) or set(tree) != set(KEYS):
        refuse(short(where, 80), "is no pair of cells", f"write {SPELLED}")
    return Genotype(*(_nodes(tree[key], f"{where}: {key}") for key in KEYS))


def _nodes(nodes: Any, where: str) -> Nodes:
    if not isinstance(nodes, list):
        refuse(where, "is no list of nodes", f"write {SPELLED}")
    check_nodes(len(nodes), f"{where}: nodes")
    found = []
    for number, node in enumerate(nodes):
        at, states = f"{where}, node {number}", INPUTS + number
        if not isinstance(node, (list, tuple)) or len(node) != INPUTS:
            refuse(at, f"does not add {INPUTS} inputs", "write [[sep_conv_3x3, 0], [skip_connect, 1]]")
        for edge in node:
            if not isinstance(edge, (list, tuple)) or len(edge) != 2 or type(edge[1]) is not int:
                refuse(at, f"{short(spell(edge), 30)} is no operation and state", "write [sep_conv_3x3, 0]")
            check_operations([edge[0]], at)
            if not 0 <= edge[1] < states:
                refuse(f"{at}: {edge[1]}", f"a node reads the {states} states before it", f"at most {states - 1}")
        (one, first), (other, second) = node
        if first == second:
            refuse(f"{at}: {first}", "is read twice", "name two states")
        found.append(((str(one), first), (str(other), second)))
    return tuple(found)
