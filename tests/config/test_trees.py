"""Composed trees that are kept between processes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from sparselab.config import trees
from sparselab.config.members import CONFIGS, _hydra
from sparselab.config.overrides import check

CHOICES = ("method=gmp", "model=mlp", "loss=[distill,l1]")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPARSELAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def never() -> dict[str, Any]:
    raise AssertionError("composed again")


def test_a_kept_tree_is_what_hydra_composes():
    tree = _hydra(list(CHOICES), None, with_hydra=False)
    assert trees.kept(CHOICES, CONFIGS, lambda: tree) == tree
    again = trees.kept(CHOICES, CONFIGS, never)
    assert json.dumps(again) == json.dumps(tree)  # types and the order of keys too


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b.replace(b"gmp", b"imp"), lambda b: b"\xff", lambda b: b""]
)
def test_a_damaged_file_is_made_again(cache: Path, damage):
    trees.kept(CHOICES, CONFIGS, lambda: {"method": "gmp"})
    (path,) = cache.rglob("*.json")
    path.write_bytes(damage(path.read_bytes()))
    assert trees.kept(CHOICES, CONFIGS, lambda: {"method": "gmp"}) == {"method": "gmp"}
    assert trees.kept(CHOICES, CONFIGS, never) == {"method": "gmp"}


def test_a_changed_new_or_renamed_file_makes_other_trees(tmp_path: Path):
    names = set()
    for number, files in enumerate([{"a": "x: 1"}, {"a": "x: 2"}, {"b": "x: 1"}, {"a": "x: 1", "b": ""}]):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name, text in files.items():
            (folder / f"{name}.yaml").write_text(text)
        names.add(trees.fingerprint(folder))
    assert len(names) == 4


def test_a_changed_table_leaves_the_trees_as_they_are(tmp_path: Path, cache: Path):
    """A paper's table is edited all the time, and the choice of no member reads one."""
    (tmp_path / "paper" / "slug").mkdir(parents=True)
    before = trees.fingerprint(tmp_path)
    (tmp_path / "paper" / "slug" / "a.yaml").write_text("x: 1")
    assert trees.fingerprint(tmp_path) == before
    (tmp_path / "model" / "paper").mkdir(parents=True)
    (tmp_path / "model" / "paper" / "a.yaml").write_text("x: 1")
    assert trees.fingerprint(tmp_path) != before
    assert trees.kept(("paper=slug",), tmp_path, lambda: {"x": 1}) == {"x": 1} and not list(cache.rglob("*.json"))
    assert "paper" not in {choice.partition("=")[0] for choice in check(["paper=srste", "model=mlp"]).choices}


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SPARSELAB_CACHE", str(tmp_path / "file"))
    assert trees.kept(CHOICES, CONFIGS, lambda: {"a": 1}) == {"a": 1}


def test_files_that_were_edited_meanwhile_leave_nothing(tmp_path: Path, cache: Path):
    """A process goes by the files that it met; what it composed of others is not kept under their name."""
    (tmp_path / "a.yaml").write_text("x: 1")
    trees.kept((), tmp_path, lambda: {"x": 1})
    (tmp_path / "a.yaml").write_text("x: 2")
    trees.kept(("b",), tmp_path, lambda: {"x": 2})
    assert len(list(cache.rglob("*.json"))) == 1


@pytest.mark.parametrize("odd", ["dangling", "folder", "linked"])
def test_where_files_cannot_all_be_read_nothing_is_kept(tmp_path: Path, cache: Path, odd: str):
    configs = tmp_path / "configs"
    (configs / "method").mkdir(parents=True)
    if odd == "dangling":
        (configs / "method" / ".#a.yaml").symlink_to("me@host:1")
    elif odd == "folder":
        (configs / "method" / "a.yaml").symlink_to(tmp_path)
    else:
        (configs / "model").symlink_to(configs / "method")
    assert trees.kept((), configs, lambda: {"x": 1}) == {"x": 1}
    assert not list(cache.rglob("*.json"))


def test_without_a_home_and_with_values_that_are_not_json_it_is_made(monkeypatch: pytest.MonkeyPatch):
    def homeless(self: Path) -> Path:
        raise RuntimeError("no home")

    assert trees.kept(("bytes",), CONFIGS, lambda: {"x": b"hello"}) == {"x": b"hello"}
    monkeypatch.delenv("SPARSELAB_CACHE")
    monkeypatch.setattr(Path, "expanduser", homeless)
    assert trees.kept((), CONFIGS, lambda: {"x": 1}) == {"x": 1}


def test_what_json_would_change_is_not_kept(cache: Path):
    trees.kept(CHOICES, CONFIGS, lambda: {"a": {1: 2}})
    assert not list(cache.rglob("*.json")) and not list(cache.rglob("*.tmp"))


def test_old_trees_of_other_files_are_dropped(cache: Path):
    old, new = cache / "trees" / "old", cache / "trees" / "new"
    for folder in (old, new):
        folder.mkdir(parents=True)
    os.utime(old, (0, 0))
    trees.kept(CHOICES, CONFIGS, lambda: {"a": 1})
    assert not old.exists() and new.exists()
