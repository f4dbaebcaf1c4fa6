"""`sparselab speed`: a finished cell is timed, and what cannot be is one line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sparselab.cli import main as application
from sparselab.cli.main import main
from sparselab.core.data_types import Images
from sparselab.core.errors import ConfigError
from sparselab.running.planning import plan_of
from sparselab.running.run_cell import run_cell
from sparselab.tools.deploy import speed
from sparselab.tools.deploy.form import FORMS


def cell(runs, *overrides):
    common = ["model=mlp", "model.hidden=[64]", "trainer.max_steps=2", "trainer.max_epochs=null", "trainer.evals=0"]
    plan = plan_of([*overrides, *common, "trainer.progress=none", "trainer.accelerator=cpu", f"runs_dir={runs}"])
    assert run_cell(plan) == 0
    return Path(plan.folder)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def folder(runs):
    return cell(runs, "method=random", "sparsity=0.9")


def test_a_finished_cell_is_timed_beside_itself(folder, capsys):
    assert main(["speed", str(folder), "batch=4", "rounds=3", "device=cpu"]) == 0
    out = capsys.readouterr().out
    table = [line.split() for line in out.splitlines()]
    assert "batches of 4" in out and [row[0] for row in table[1:3]] == ["form", "csr"]
    assert int(table[2][1]) == 1 and float(table[2][-1]) < 1e-5
    assert "bsr" in out and "do not come in blocks" in out, "a form that does not fit is said, not dropped"


def test_what_is_compared_is_the_network_of_the_record(folder):
    made = speed.subject(folder)
    both = speed.pair(made, FORMS["csr"](), 8, "cpu")
    with torch.no_grad():
        inputs = speed.sample(made.data, 8, "cpu", torch.float32)
        assert torch.equal(both.dense(), made.network(inputs)), "noise that is the same at every call"
        torch.testing.assert_close(both.sparse(), both.dense())
    zeros = [(made.network.get_submodule(name).weight == 0).float().mean() for name in made.sparse]
    assert all(share > 0.5 for share in zeros)


@pytest.mark.parametrize(
    "words, message",
    [
        ([], "speed: one run folder is needed"),
        (["a", "b"], "speed a b: one run folder is needed"),
        (["FOLDER", "batch=0"], "batch=0: is no such number — write a whole number from 1"),
        (["FOLDER", "rounds=two"], "rounds=two: is no such number — write a whole number from 3"),
        (["FOLDER", "device=gpu"], "gpu: no such device"),
        (["FOLDER", "bach=3"], 'bach=3: sparselab speed has no such key — did you mean "batch"?'),
        (["nowhere"], "no record here"),
    ],
)
def test_what_is_refused(words, message, folder, capsys):
    assert application.main(["speed", *(str(folder) if word == "FOLDER" else word for word in words)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and message in lines[0], lines


def test_a_dense_network_has_nothing_to_gain(runs, capsys):
    dense = cell(runs, "method=dense")
    assert main(["speed", str(dense)]) == 2
    assert "its network is dense — give the folder of a sparse cell" in capsys.readouterr().err


def test_help(capsys):
    assert main(["speed", "--help"]) == 0 and "speed <run folder>" in capsys.readouterr().out


class Reader(torch.nn.Module):
    """Two layers; as in timm's EVA, the weight of one is read past its module."""

    def __init__(self):
        super().__init__()
        self.qkv, self.proj = torch.nn.Linear(8, 8), torch.nn.Linear(8, 4)

    def forward(self, x):
        return self.proj(torch.nn.functional.linear(x, self.qkv.weight, self.qkv.bias))


class Plainly:
    """A family's one method that is needed here."""

    @staticmethod
    def logits(network, inputs):
        return network(inputs)


def test_a_layer_whose_weight_is_read_past_it_stays_dense():
    data = plan_of(["method=dense", "model=mlp"]).parts.data
    made = speed.Subject(Plainly(), replace(data, inputs=Images(1, 1, 8)), Reader().eval(), ["qkv", "proj"])
    both = speed.pair(made, FORMS["csr"](), 3, "cpu")
    assert both.layers == 1 and [str(issue) for issue in both.left] == [
        "qkv: the network reads its weight and never calls the layer — leave it dense"
    ]
    assert both.difference() < 1e-5
    with pytest.raises(ConfigError, match="qkv: the network reads its weight"):
        speed.pair(replace(made, sparse=["qkv"]), FORMS["csr"](), 3, "cpu")
