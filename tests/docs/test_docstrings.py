"""Docstrings of public functions name every array that they take: its shape is nowhere in the signature."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ARRAYS = ("Tensor", "ndarray")
FILES = [path for path in sorted((ROOT / "sparselab").rglob("*.py")) if "bench" not in path.parts]  # pages of figures


def public(node: ast.AST, owner: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    for child in ast.iter_child_nodes(node):
        name = getattr(child, "name", "_")
        if name.startswith("_"):
            continue
        if isinstance(child, ast.ClassDef):
            yield from public(child, f"{name}.")
        elif isinstance(child, ast.FunctionDef):
            yield f"{owner}{name}", child


def unnamed(source: str) -> list[str]:
    """``function: argument`` of each array that a docstring does not name. An override has its base's docstring."""
    found = []
    for name, function in public(ast.parse(source)):
        text = ast.get_docstring(function)
        arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        arrays = [a.arg for a in arguments if a.annotation and any(x in ast.unparse(a.annotation) for x in ARRAYS)]
        found += [f"{name}: {a}" for a in arrays if text is not None and a not in text]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT / "sparselab")))
def test_every_array_is_named(path: Path) -> None:
    assert unnamed(path.read_text()) == [], "say its shape under Args"


def test_control_an_array_that_no_docstring_names_is_found() -> None:
    said = 'def f(x: Tensor, y: Tensor, k: int):\n    """Add.\n\n    Args:\n        x: (n,)\n    """'
    assert unnamed(said) == ["f: y"]
    assert unnamed("class A:\n    def f(self, x: Tensor): ...") == []
