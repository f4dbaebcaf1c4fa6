"""What is printed costs no result: closed streams, ASCII alone, readers that have gone, full disks."""

from __future__ import annotations

import ast
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sparselab.cli import check
from sparselab.cli.run import finish, guarded
from sparselab.cli.streams import Unfailing, steady
from sparselab.planning import plan_of

ROOT = Path(__file__).resolve().parents[2]


def test_signs_have_a_spelling_in_ascii(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    with steady():
        print("0.9 → 0.9 · größe — “x” \udcff")
        sys.stdout.flush()
    assert written.getvalue() == b"0.9 -> 0.9 | gr\\xf6\\xdfe - \\u201cx\\u201d \\udcff\n"


class Broken(io.StringIO):
    def write(self, text):
        raise BrokenPipeError(32, "Broken pipe")

    def flush(self):
        self.write("")


def test_standard_error_never_fails():
    stream = Unfailing(Broken())
    print("a line", file=stream, flush=True)
    assert stream.encoding == Broken().encoding


def test_a_finished_cell_is_finished_whoever_reads_it(monkeypatch, capfd):
    plan = plan_of(["method=dense", "model=mlp"])
    monkeypatch.setattr(sys, "stdout", Broken())
    monkeypatch.setattr("sparselab.cli.run.to_nowhere", lambda: None)
    monkeypatch.setattr("sparselab.cli.summary.lines", lambda record, typed: [("seconds", "1"), ("again", "x")])
    assert finish(plan, {}) == 0
    assert "the cell is finished: runs/" in capfd.readouterr().err


def test_a_full_disk_is_one_line(monkeypatch, capfd):
    monkeypatch.setattr("sparselab.cli.run.to_nowhere", lambda: None)

    def full():
        raise OSError(28, "No space left on device")

    assert guarded(full) == 1
    assert capfd.readouterr().err == "failed: standard output: No space left on device\n"
    with pytest.raises(FileNotFoundError):  # an error of the program is none of a stream
        guarded(lambda: len(Path("nowhere").read_bytes()))


def test_closed_streams_and_ascii_in_a_process(tmp_path):
    """Without standard error and input, and with ASCII alone, `check` answers as ever."""
    command = f"{sys.executable} -m sparselab.cli.main check method=gmp sparsity=0.9 model=mlp 2>&- <&-"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", command], capture_output=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0 and b"parameters      50,610 -> 6,330 nonzero" in done.stdout


def test_no_text_file_depends_on_the_locale():
    """Every text file is opened with an encoding, which else follows the terminal's."""
    found = []
    for file in (ROOT / "sparselab").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "open"):
                continue
            mode = next((a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)), "")
            if mode in ("a", "w", "r", "x") and not any(word.arg == "encoding" for word in node.keywords):
                found.append(f"{file.name}:{node.lineno}")
    assert found == []


def test_the_again_line_names_the_folder_of_configs(tmp_path, monkeypatch, capsys):
    (tmp_path / "my configs" / "method").mkdir(parents=True)
    (tmp_path / "my configs" / "method" / "plain.yaml").write_text("name: dense\n")
    plan = plan_of(["method=plain", "model=mlp"], str(tmp_path / "my configs"))
    shown = []
    monkeypatch.setattr("sparselab.cli.summary.show", lambda record, typed: shown.append(typed))
    assert finish(plan, {}) == 0
    assert shown == [["--config-dir", str(tmp_path / "my configs"), "method=plain", "model=mlp"]]
    assert check.run(["-m", "--config-dir", str(tmp_path / "my configs"), "method=plain", "model=mlp", "seed=0,1"]) == 0
    assert "2 cells: 0 finished" in capsys.readouterr().out


def test_costs_are_told_where_only_the_data_are_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("SPARSELAB_DATA", raising=False)
    words = ["method=rigl", "sparsity=0.95", "model=resnet50", "dataset=imagenet"]
    assert guarded(lambda: check.run(words)) == 2
    out, err = capsys.readouterr()
    assert "MACs            4,089,184,256 → 582,263,223 per sample" in out
    assert err.startswith("dataset=imagenet: no local copy, and HF_HUB_OFFLINE=1 keeps the hub off")
    assert guarded(lambda: check.run([*words, "optim=none"])) == 2
    assert not capsys.readouterr().out
