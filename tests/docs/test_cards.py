"""Every command line of the cards, the README and the top config is one that a shell takes: pasted into bash, then planned.

Those of :data:`SMALL` also run, with the small network and little data that are put in the place of what they name.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from sparselab.cli import application, main
from sparselab.cli.arguments import parse
from sparselab.core.errors import ConfigError
from sparselab.experiments.sweeps import cells
from sparselab.running.planning import plan_of

ROOT = Path(__file__).parents[2]
TINY = {
    "model=llama_tiny": "model=llama_tiny model.width=32 model.depth=1 model.heads=2 model.ff=64",
    "dataset=stdlib": "dataset=stdlib dataset.max_bytes=60000 dataset.block=32",
    "engine.draws=10": "engine.draws=1",
    "problem.d=64": "problem.d=6",
}
TRAINED = " trainer.batch_size=8 trainer.max_epochs=null trainer.max_steps=2 trainer.precision=32"
SMALL = ("method=cast", "activation=wina", "estimator=colide", "solver=elimination")
INLINE = re.compile(r"`((?:python run\.py|sparselab check) [^`]+)`")
INDENTED = re.compile(r"^ {4,}((?:python run\.py|sparselab check) (?:.*\\\n)*.*)$", re.MULTILINE)


def lines() -> list[str]:
    """Each command line that is shown, once; continued lines as they are."""
    pages = [ROOT / "README.md", ROOT / "configs/config.yaml", *sorted((ROOT / "sparselab").rglob("*.md"))]
    texts = [page.read_text(encoding="utf-8") for page in pages]
    shown = [line for text in texts for line in INDENTED.findall(text) + INLINE.findall(text)]
    return list(
        dict.fromkeys(re.sub(r"  +(?:what would run|# ).*$", "", line) for line in shown if not re.search("[…<]", line))
    )


def words_of(commands: list[str]) -> list[list[str]]:
    """The words that bash makes of each command, the program's name among them: one shell reads them all."""
    tell = (
        "python() { printf '%s\\0' python \"$@\" $'\\n'; }; sparselab() { printf '%s\\0' sparselab \"$@\" $'\\n'; }\n"
    )
    script = tell + "\n".join(commands)
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    return [text.split("\0")[:-1] for text in done.stdout.split("\n\0") if text]


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans name the hub, and nothing is loaded from it."""
    monkeypatch.chdir(tmp_path)
    for name in ("SPARSELAB_DATA", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


def quickest(smoke: list[str], asked: list[str]) -> cells.Asked:
    """The cells of a sweep in the tier smoke, where its table has one: their plans need no networks of somebody else's."""
    try:
        return cells.read(smoke)
    except ConfigError as refused:
        if "no such tier" not in str(refused):
            raise
        return cells.read(asked)


def test_bash_takes_every_line_and_each_can_be_planned(elsewhere: None) -> None:
    shown = [line for line in lines() if "method=taylor" not in line]  # the README's own method is tested with it
    found = words_of(shown)
    assert len(found) == len(shown) >= 15
    for words in found:
        asked = parse(words[2:])
        if asked.help:
            continue
        try:
            if asked.sweep:
                smoke = [text.replace("tier=cpu", "tier=smoke") for text in asked.overrides]
                some = quickest(smoke, asked.overrides)
                assert plan_of(list(some.cells[0].overrides)).id, words
            else:
                assert plan_of(asked.overrides, asked.config_dir).id, words
        except ConfigError as refused:  # some data have no public name
            assert all("no local copy" in str(issue) for issue in refused.issues), words


@pytest.mark.parametrize("line", [line for line in lines() if any(name in line for name in SMALL)])
def test_a_line_runs_with_a_small_budget(line: str, elsewhere: None, capsys: pytest.CaptureFixture[str]) -> None:
    for name, small in TINY.items():
        line = line.replace(name, small)
    line = line.replace(" dataset.block=32'", f" dataset.block=32{TRAINED}'")
    if "method=cast" in line:
        line += TRAINED
    ((_, _, *words),) = words_of([line])
    assert application.main(words) == 0, capsys.readouterr().err
    assert main.main(["check", *words]) == 0
    assert "(finished, " in capsys.readouterr().out
