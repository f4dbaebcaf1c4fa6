"""Skeletons of one's own code work as they are written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sparselab.cli.new import kinds, run
from sparselab.core.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]


QUICK = ("method", "paper", "task")
"""Of each kind of skeleton one: all import the same seconds' worth, and train for another second or two."""


@pytest.mark.parametrize("chosen", [QUICK, pytest.param(None, marks=pytest.mark.slow)], ids=["some", "all"])
def test_the_test_of_every_skeleton_passes(chosen, tmp_path, capsys):
    asked = chosen or kinds()
    for kind in asked:
        assert run([kind, f"my_{kind}", f"to={tmp_path}"]) == 0
    written = capsys.readouterr().out.split()
    assert all(Path(path).is_file() for path in written)
    assert {f"test_my_{kind}.py" for kind in asked} <= {Path(path).name for path in written}
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)], cwd=tmp_path,
                          env=environment, capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["methd", "mine"], 'methd: there is no skeleton of that kind — did you mean "method"?'),
        (["method", "My-Method"], "is no name for it — use a-z, 0-9 and _"),
        (["method", "class"], "is no name for it"),
        (["method", "srste"], "srste: is one of sparselab's own: method=srste — choose another name"),
        (["method"], "takes a kind and a name — as in: sparselab new method mine"),
    ],
)
def test_bad_names_are_one_line(words, line, tmp_path):
    with pytest.raises(ConfigError) as refused:
        run([*words, str(tmp_path)] if len(words) > 1 else words)
    assert line in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "test_mine.py").write_text("precious")
    with pytest.raises(ConfigError, match="is there already"):
        run(["method", "mine", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["test_mine.py"]
