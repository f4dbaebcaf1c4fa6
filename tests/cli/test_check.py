"""`sparselab check`, the help texts, and what a cell's id depends on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sparselab.cli import application, main
from sparselab.cli.arguments import parse
from sparselab.cli.estimate import estimate
from sparselab.config.compose import groups
from sparselab.core.data_types import Images
from sparselab.core.errors import ConfigError
from sparselab.inputs.data.sets.arrays import Digits
from sparselab.inputs.models.families.timm_model import TimmModel
from sparselab.running.planning import plan_of
from sparselab.training import pace
from sparselab.weights.method import METHODS

ROOT = Path(__file__).resolve().parents[2]
BASE = ["method=gmp", "sparsity=0.9", "model=mlp", "trainer.max_epochs=null", "trainer.max_steps=100"]


pytestmark = pytest.mark.usefixtures("no_data")


def cell(*more):
    return plan_of([*BASE, *more]).id


# --- the id -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        "seed=1", "sparsity=0.8", "sparsity=channel:0.9", "schedule.end=0.6", "schedule=linear", "schedule.power=2.0",
        "distribution=erk", "method=magnitude", "method.pruned_weights=zero", "model.hidden=[300,101]", "optim.lr=0.01",
        "optim=sgd", "trainer.max_steps=101", "trainer.batch_size=64", "trainer.precision=16", "trainer.clip=null",
        "trainer.ema=0.9", "dataset.val=100", "dataset.limit_train=500", "dataset.augment.shift=2.0",
        "targets.exclude=['@head']", "targets.axis=out",
    ],
)  # fmt: skip
def test_what_changes_the_result_changes_the_id(change):
    assert cell(change) != cell()


@pytest.mark.parametrize(
    "change",
    [
        "runs_dir=elsewhere", "logger=wandb", "force=true", "debug=true", "trainer.workers=3",
        "trainer.progress=none", "trainer.threads=1", "trainer.evals=2", "trainer.checkpoint_minutes=1",
        "trainer.checkpoint_every=5", "trainer.devices=2", "trainer.strategy=ddp", "trainer.accelerator=cpu",
        "sparsity=0.90", "sparsity='0.9'", "schedule.end=7e-1", "trainer=digits", "method=gmp", "tier=null",
    ],
)  # fmt: skip
def test_what_does_not_change_the_result_leaves_the_id(change):
    assert cell(change) == cell()


def test_two_ways_of_saying_how_long_are_one_cell():
    assert (
        plan_of(["sparsity=2:4", "trainer.max_epochs=2"]).id
        == plan_of(["sparsity=2:4", "trainer.max_epochs=null", f"trainer.max_steps={2 * (1257 // 32)}"]).id
    )


def test_a_local_copy_in_another_folder_is_the_same_cell(tmp_path):
    (tmp_path / "data" / "x").mkdir(parents=True)
    assert cell("data_dir=data") == cell()


def test_a_tokenizer_in_another_folder_is_the_same_cell(tmp_path):
    def text(name: str, words: str) -> str:
        (tmp_path / name).mkdir()
        vocabulary = {word: number for number, word in enumerate(words)}
        (tmp_path / name / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}}))
        more = [f"dataset.tokenizer={tmp_path / name}", "trainer.max_steps=3", "trainer.max_epochs=null"]
        return plan_of(["model=gpt_tiny", "dataset=stdlib", "sparsity=0.5", "method=magnitude", *more]).id

    assert text("here", "abc") == text("there", "abc") != text("other", "abd")


def test_the_content_of_the_data_changes_the_id(monkeypatch):
    before, spec = cell(), Digits.spec
    monkeypatch.setattr(Digits, "spec", lambda self: replace(spec(self), fingerprint="other bytes"))
    assert cell() != before


def test_the_version_of_a_method_changes_the_id(monkeypatch):
    before = cell()
    monkeypatch.setattr(METHODS["gmp"], "version", METHODS["gmp"].version + 1)
    assert cell() != before


def test_the_order_of_overrides_and_a_later_one_for_the_same_key():
    assert plan_of(BASE[::-1]).id == cell()
    assert cell("seed=1", "seed=2") == cell("seed=2")


def test_ids_do_not_depend_on_the_process():
    code = f"from sparselab.running.planning import plan_of; print(plan_of({BASE!r}).id)"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == cell()


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.instructions
def test_check_prints_the_cell_and_leaves_nothing(capsys):
    assert main.main(["check", *BASE]) == 0
    out = capsys.readouterr().out
    labels = [line.split("  ")[0] for line in out.splitlines()]
    assert labels == [
        "cell",
        "method",
        "data",
        "task",
        "updates",
        "precision",
        "parameters",
        "MACs",
        "training FLOPs",
        "cost",
    ]
    assert f"{cell()} (to run, runs/{cell()})" in out and "100 of 32 examples" in out
    assert list(Path().iterdir()) == []


def test_two_seeds_are_two_cells(capsys):
    assert main.main(["check", "-m", *BASE, "seed=1,2"]) == 0
    *lines, total = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [cell("seed=1"), cell("seed=2")]
    assert total.startswith("2 cells: 0 finished, 2 to run · 200 updates · about")
    assert lines[0] != lines[1] and lines[0].endswith("seed=1")


def test_what_cells_for_others_need_is_listed_and_counted_too(capsys):
    """Two seeds from one network, which starts from another: four cells, those that others need before them."""
    first = "{cell: {method: dense, model: mlp, dataset: digits, trainer.max_steps: 3, seed: 7}}"
    start = f"{{cell: {{method: dense, model: mlp, trainer.max_steps: 4, seed: 8, model.weights: {first}}}}}"
    assert main.main(["check", "-m", *BASE, f"model.weights={start}", "seed=1,2"]) == 0
    *lines, total = capsys.readouterr().out.splitlines()
    assert total.startswith("4 cells, 2 of them for others: 0 finished, 4 to run · 207 updates")
    assert [line.rpartition("seed=")[2] for line in lines[2:]] == ["1", "2"]
    assert "max_steps=3" in lines[0] and "model.weights" not in lines[0] and "max_steps=4" in lines[1]


def test_a_sweep_with_one_bad_cell_is_refused_before_the_first_runs(capsys):
    assert application.main(["-m", *BASE, "sparsity=0.9,3:2", "seed=1,2"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        'sparsity=3:2: keeps 3 of every 2: N must be below M — for 2 of 3 write "2:3"'
    ]
    assert list(Path().iterdir()) == []


def test_a_folder_that_cannot_be_written_is_refused(monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ConfigError, match=r"runs_dir=runs: cannot be written — choose another folder with runs_dir=…"):
        cell()


def test_a_user_folder_adds_members(tmp_path, capsys):
    (tmp_path / "mine" / "method").mkdir(parents=True)
    (tmp_path / "mine" / "method" / "gentle.yaml").write_text("name: srste\nlambda_w: 1.0e-5\n")
    assert main.main(["check", "--config-dir", "mine", "method=gentle", "sparsity=2:4"]) == 0
    assert plan_of(["method=srste", "method.lambda_w=1e-5", "sparsity=2:4"]).id in capsys.readouterr().out


def test_an_estimate_follows_earlier_records(tmp_path, capsys):
    plan = plan_of(BASE)
    record = {"status": "finished", "seconds": 7208.0, "config": plan.config, "account": plan.cost}
    for name, text in (("a", json.dumps(record)), ("b", "not JSON"), ("c", "[]")):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "record.json").write_text(text)
    main.main(["check", *BASE])
    assert "about 2 h (from 1 earlier record of its kind)" in capsys.readouterr().out


def earlier(runs, plan, **times):
    """A record of ``plan`` in ``runs``; {} for one from before the times of updates were kept."""
    (runs / plan.id).mkdir(parents=True, exist_ok=True)
    body = {"status": "finished", "config": plan.config, "account": plan.cost, **times}
    (runs / plan.id / "record.json").write_text(json.dumps(body))


def test_start_up_and_pace_are_two_numbers(tmp_path):
    """Nine seconds of ten updates, of which the start took eight: a hundred take eighteen, not ninety."""
    ten = plan_of([*BASE[:-1], "trainer.max_steps=10", "schedule.every=1"])
    earlier(tmp_path / "runs", ten, seconds=9.0, times={"updates": 9, "updating": 0.9, "steps": 10})
    assert estimate([plan_of(BASE)]) == "about 18 s (from 1 earlier record of its kind)"
    assert estimate([plan_of(BASE), plan_of([*BASE, "seed=1"])]).startswith("about 36 s ")


@pytest.mark.parametrize(
    ("overrides", "times"),
    [
        ([], {"seconds": 9.0, "times": {"updates": 4, "updating": 0.4, "steps": 5}}),  # too few updates
        ([], {"seconds": 9.0}),  # an older record, all start-up
        (["model.hidden=[4000,4000]"], {"seconds": 900.0, "times": {"updates": 99, "updating": 899.0, "steps": 100}}),
        (["dataset=mnist"], {"seconds": 900.0, "times": {"updates": 99, "updating": 899.0, "steps": 100}}),
        (["trainer.precision=16"], {"seconds": 900.0, "times": {"updates": 99, "updating": 899.0, "steps": 100}}),
    ],
)
def test_what_is_of_another_kind_or_too_short_foretells_nothing(overrides, times, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")  # plans alone: nothing is loaded
    earlier(tmp_path / "runs", plan_of([*BASE, *overrides]), **times)
    assert estimate([plan_of(BASE)]).endswith(" s (a guess: no earlier record of its kind in runs)")


def test_a_guess_follows_the_machine(monkeypatch):
    """vit_s took 510 s in float32 on two idle cores of 70 GFLOPs a second each, and 8,260 s in emulated bf16."""
    monkeypatch.setattr(pace, "product_pace", lambda: 70e9)
    monkeypatch.setattr(pace, "flags", frozenset)
    work = plan_of(["method=srste", "sparsity=2:4", "model=vit_s"]).work
    host = {"accelerator": "cpu", "threads": 2}
    assert 510 / 3 < pace.guessed_seconds({**host, "precision": "32"}, 760, work) < 3 * 510
    monkeypatch.setattr(pace, "flags", lambda: frozenset({"avx2"}))
    assert 8260 / 3 < pace.guessed_seconds({**host, "precision": "bf16"}, 760, work) < 3 * 8260


# --- help and flags ---------------------------------------------------------------------------------------------------


def test_help_of_the_console_script(capsys):
    assert main.main(["--help"]) == main.main([]) == main.main(["check", "--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in main.COMMANDS) and "usage: sparselab check" in out


def test_help_of_run_names_every_group_and_imports_no_torch():
    code = (
        "import sys; from sparselab.cli.application import main; code = main(['--help', 'sparsty=2:4']); "
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(f"{name}:" in done.stdout for name in groups())
    assert list(Path().iterdir()) == []


def test_an_unknown_command_names_the_nearest(capsys):
    assert main.main(["chek"]) == 2
    assert capsys.readouterr().err == 'chek: no such command — did you mean "check"?\n'


def test_flags_may_stand_anywhere():
    for words in (
        ["-m", "a=1", "--config-dir", "mine"],
        ["a=1", "--config-dir=mine", "--multirun"],
        ["-cd", "mine", "a=1", "-m"],
    ):
        asked = parse(words)
        assert (asked.overrides, asked.config_dir, asked.sweep, asked.help) == (["a=1"], "mine", True, False)


def test_every_bad_flag_is_told():
    with pytest.raises(ConfigError) as refused:
        parse(["--cfg", "--seed=3", "-x", "--config-dir"])
    assert [issue.where for issue in refused.value.issues] == ["--cfg", "--seed=3", "-x", "--config-dir"]


def test_a_reader_that_goes_away_is_no_traceback():
    code = f"from sparselab.cli.main import main; raise SystemExit(main(['check', '-m', *{BASE!r}, 'seed=range(0,3)']))"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


@pytest.fixture
def pictures(monkeypatch):
    """Digits that say they are 32 x 32."""
    spec = Digits.spec
    monkeypatch.setattr(Digits, "spec", lambda self: replace(spec(self), inputs=Images(1, 32, 32)))


TIMM = ["method=magnitude", "sparsity=2:4", "model=timm"]


def test_a_network_that_only_building_tells_is_built_for_one_cell(pictures, capsys):
    assert main.main(["check", *TIMM, "model.arch=test_vit"]) == 0
    found = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    assert found["dense"] == "besides   cls_token, pos_embed (2 parameters that no mask is put on, 384 numbers)"
    assert found["parameters"].endswith("24 sparse layers") and {"MACs", "training", "cost"} <= found.keys()
    assert "note" not in found, "nothing is left to be known later"
    assert list(Path().iterdir()) == []


def test_what_a_run_would_refuse_once_it_is_built_is_refused(pictures, capsys):
    assert main.main(["check", *TIMM, "model.arch=test_nfnet"]) == 2
    line = capsys.readouterr().err
    assert "is standardised or normed first" in line and line.count("\n") == 1


@pytest.mark.parametrize("words", [["trainer.batch_size=4", "trainer.accumulate=4"], ["trainer.batch_size=1"]])
def test_a_lone_value_of_a_network_that_only_building_tells_is_refused(words, monkeypatch, tmp_path, capsys):
    """ResNet-18 leaves one place of 8 x 8 pixels to its last batch normalisations."""
    monkeypatch.setenv("SPARSELAB_CACHE", str(tmp_path / "cache"))
    cell = ["method=dense", "model=timm", "model.arch=resnet18", *words]
    for _ in range(2):  # the second time the spec comes from the cache
        assert main.main(["check", *cell]) == 2
        line = capsys.readouterr().err
        assert line.startswith(f"{words[-1]}: batch normalisation sees one value a channel") and line.count("\n") == 1
    assert main.main(["check", *cell, "trainer.max_epochs=null", "trainer.max_steps=0"]) == 0
    assert application.main([*cell, f"runs_dir={tmp_path}"]) == 2
    assert f"{words[-1]}: batch normalisation sees one value" in capsys.readouterr().err


def test_many_such_cells_are_built_once_and_then_no_more(pictures, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("SPARSELAB_CACHE", str(tmp_path / "cache"))
    built, trace = [], TimmModel.traced_spec
    monkeypatch.setattr(TimmModel, "traced_spec", lambda *args: built.append(args) or trace(*args))
    for words in (["-m", *TIMM, "model.arch=test_vit", "seed=0,1"], [*TIMM, "model.arch=test_vit"]):
        assert main.main(["check", *words]) == 0
        out = capsys.readouterr().out
        assert "2 to run · 1,716 updates · about" in out or "24 sparse layers" in out
    assert len(built) == 1
    assert main.main(["check", "-m", *TIMM, "model.arch=test_vit,test_nfnet"]) == 2
    out, err = capsys.readouterr()
    assert "2 cells: 0 finished, 2 to run" in out and "is standardised or normed first" in err and err.count("\n") == 1


@pytest.mark.parametrize("sweep", [[], ["-m"]])
def test_costs_are_told_without_the_data_that_they_do_not_need(sweep, capsys):
    cells = ["method=rigl", "sparsity=0.95", "model=resnet50", "dataset=imagenet", *(["seed=0,1"] if sweep else [])]
    assert main.main(["check", *sweep, *cells]) == 2
    out, err = capsys.readouterr()
    assert ("2 cells: 0 finished, 2 to run" if sweep else "MACs") in out and "about" in out.splitlines()[-1]
    assert err == (
        "dataset=imagenet: no local copy, and HF_HUB_OFFLINE=1 keeps the hub off — put"
        " imagenet/{train,val}/<wnid>/*.JPEG in data_dir, or unset it\n"
    )
