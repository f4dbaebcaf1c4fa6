"""What the README shows is true: its method works, its files exist, its command lines are accepted."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sparselab.config.members import groups
from sparselab.running.planning import engine_of, plan_of
from sparselab.weights import methods
from sparselab.weights.method import METHODS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def block(language: str) -> tuple[str, str]:
    """(path in its first comment, text) of the README's only code block in ``language``."""
    (text,) = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return text.splitlines()[0].removeprefix("# "), text


@pytest.fixture
def shown_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, borrowed: Callable) -> Path:
    """The README's method, written down as it says, in a folder of its own. Returns the folder of configs."""
    code, yaml = block("python"), block("yaml")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / Path(code[0]).name).write_text(code[1])
    config = tmp_path / yaml[0]
    config.parent.mkdir(parents=True)
    config.write_text(yaml[1])
    borrowed(METHODS)  # with the project's own, which are imported only once
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path / "code")])
    monkeypatch.setattr(METHODS, "_loaded", False)
    monkeypatch.delitem(sys.modules, "sparselab.weights.methods.taylor", raising=False)
    return tmp_path / "configs"


def test_the_method_is_as_short_as_promised() -> None:
    lines = [line for line in block("python")[1].splitlines() if line.strip() and not line.startswith("#")]
    assert len(lines) <= 15
    assert len(block("yaml")[1].splitlines()) <= 10


def test_the_method_trains(shown_method: Path, tmp_path: Path) -> None:
    overrides = [
        "method=taylor", "sparsity=0.9", "model=mlp", "model.hidden=[16]", "trainer.max_epochs=null",
        "trainer.max_steps=40", "trainer.precision='32'", "trainer.progress=none", f"runs_dir={tmp_path / 'runs'}",
    ]  # fmt: skip
    plan = plan_of(overrides, str(shown_method))
    record = engine_of(plan.config).run(plan)
    assert record["sparsity"]["realised"] == pytest.approx(0.9, abs=1e-3)
    assert record["metrics"]["test.n"] == 360


def test_every_linked_file_exists() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    missing = [link for link in links if not (ROOT / link).exists()]
    assert not missing


def shown_commands() -> list[str]:
    return [
        line.split("  #")[0].strip() for line in README.splitlines() if re.match(r" {4}python run\.py (?!-m)", line)
    ]


@pytest.mark.parametrize("command", shown_commands())
def test_every_command_line_is_accepted(command: str, shown_method: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SPARSELAB_DATA", "HF_HUB_OFFLINE"):  # as where the hub can be reached; nothing is loaded here
        monkeypatch.delenv(name, raising=False)
    overrides = shlex.split(command)[2:]
    assert plan_of(overrides, str(shown_method)).id


def test_the_line_of_rigl_covers_every_layer_as_its_paper_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """RigL's ERK shares out stem and head, too: 0.12 times the dense network's products at 0.95 (arXiv 1911.11134, table 2)."""
    (line,) = re.findall(r"^ {4}sparselab check (method=rigl .*?)   #", README, re.MULTILINE)
    for name in ("SPARSELAB_DATA", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    plan = plan_of(shlex.split(line))
    assert len(plan.parts.layers) == 54 and {"conv1", "fc"} <= {layer.name for layer in plan.parts.layers}
    assert round(plan.cost["macs"] / plan.cost["macs_dense"], 2) == 0.12


@pytest.mark.parametrize("group", sorted(set(groups()) - {"paper", "trainer", "engine"}))
def test_every_member_of_every_group_is_named_once_as_such(group):
    """In the table's rows that are about the group; ``resnet20 … resnet110`` stands for those in between."""
    rows = re.findall(r"^\| (.*?) \| (.*?) \|$", README, re.MULTILINE)
    mine = [members for title, members in rows if f"`{group}`" in title]
    named = set(re.findall(r"`(\w+)`", " ".join(mine))) | {"resnet32", "resnet44", "resnet56"}
    assert set(groups()[group]) - named == set()
    assert len(mine) == (2 if group == "problem" else 1)


def test_every_card_is_linked_once():
    cards = [card.relative_to(ROOT).as_posix() for card in (ROOT / "sparselab").rglob("*.md")]
    assert {card: README.count(f"]({card})") for card in cards} == dict.fromkeys(cards, 1)
