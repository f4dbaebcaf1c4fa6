"""The pages under docs/ are true: their links lead somewhere, and every file and package that they name exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_and_paths_of_a_page_exist(page):
    text = page.read_text()
    links = [link for link in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", text) if not link.startswith("http")]
    paths = re.findall(r"`((?:sparselab|tests|scripts|configs)/[\w/.-]+)`", text)
    missing = [link for link in links if not (page.parent / link).exists()]
    missing += [path for path in paths if "." in Path(path).name and not (ROOT / path).exists()]
    assert missing == []


def test_the_architecture_names_every_package():
    packages = {file.parent.name for file in (ROOT / "sparselab").glob("*/__init__.py")}
    rows = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "architecture.md").read_text(), re.MULTILINE)
    assert set(rows) == packages
