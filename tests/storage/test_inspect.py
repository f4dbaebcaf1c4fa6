from __future__ import annotations

import pytest
import torch

from sparselab.cli.inspect import examine, inspect, tightest
from sparselab.cli.inspect import run as command
from sparselab.core.errors import ConfigError
from sparselab.storage import record, tensors
from sparselab.storage.export import export

ID = "0123456789ab"
TWO_FOUR = torch.tensor([1.0, 1.0, 0.0, 0.0]).repeat(4, 2)  # (4, 8)
MASKS = {"blocks.0.fc.weight": TWO_FOUR != 0}


@pytest.fixture
def run(tmp_path):
    """A run folder with one 2:4 layer, one dense layer and a bias."""
    weights = {"blocks.0.fc.weight": TWO_FOUR, "head.weight": torch.ones(3, 4), "head.bias": torch.zeros(3)}
    files = export(tmp_path, weights, MASKS)
    _write(tmp_path, files)
    return tmp_path


def _write(folder, files, **changes):
    layer = {"name": "blocks.0.fc", "shape": [4, 8], "pattern": "2:4", "density": 0.5, "nonzero": 16} | changes
    sparsity = {"requested": "2:4", "realised": 0.5, "pattern_holds": True, "layers": [layer]}
    whole = {"id": ID, "status": "finished", "config": {}, "metrics": {"test.accuracy": 0.5}, "files": files}
    record.write(folder, whole | {"sparsity": sparsity})


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ([1, 1, 0, 0] * 2, "2:4"),
        ([1, 0] * 4, "1:2"),
        ([1, 1, 0, 0, 0, 0, 1, 1], "2:4"),
        ([1, 1, 1, 0, 0, 0, 0, 1], "4:8"),
        ([1, 0, 0, 0] * 2, "1:4"),
        ([1, 1, 0, 0, 0, 0, 0, 0], "2:8"),
        ([1, 0, 0, 0, 0, 0, 0, 0], "1:8"),
        ([1] + [0] * 15, "1:16"),
        ([1] + [0] * 31, "1:32"),
        ([1, 1, 1, 0], "3:4"),
        ([1, 0, 0, 0, 1, 1, 0, 0], "3:8"),
        ([1, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0], "3:16"),
        ([1, 0, 0, 0, 0, 0], "≤1:2"),
        ([1] * 8, ""),
        ([1, 0, 1], ""),
        ([0] * 4, "0:2"),
    ],
)
def test_tightest(row, found):
    there = torch.tensor([row]).bool()
    assert tightest(there, "linear", "in") == found
    assert tightest(there.t(), "linear", "out") == found
    assert tightest(there[:, :, None, None].expand(-1, -1, 3, 3), "conv", "in") == found


def test_run_folder(run, capsys):
    assert inspect(str(run), layers=False) == 0
    out, err = capsys.readouterr()
    assert not err
    line = next(line for line in out.splitlines() if line.startswith("blocks.0.fc.weight"))
    assert line.split() == [
        "blocks.0.fc.weight",
        "4x8",
        "0.5000",
        "2:4",
        "-",
        "4",
        "0",
        "2:4:",
        "8",
        "of",
        "8",
        "agrees",
    ]
    assert "head.weight" not in out and "1 dense tensors not shown (12 weights)" in out
    assert "47 parameters, 28 not zero (density 0.5957)" in out
    assert f"cell {ID}, finished, requested 2:4, realised 0.5, 1 of 1 layers hold" in out
    assert inspect(str(run), layers=True) == 0
    assert "head.weight" in capsys.readouterr().out
    assert inspect(str(run / "record.json"), layers=True) == 0


def test_plain_file_and_masks(run, capsys):
    assert inspect(str(run / "model.safetensors"), layers=False) == 0
    assert "agrees" in capsys.readouterr().out
    assert inspect(str(run / "masks.safetensors"), layers=False) == 0
    assert "2:4" in capsys.readouterr().out
    (run / "masks.safetensors").unlink()
    assert inspect(str(run / "model.safetensors"), layers=False) == 0


def test_a_tensor_that_is_not_called_weight_is_found(tmp_path):
    """A recurrent module has several matrices, and each of them is a layer."""
    name = "rnns.0.weight_hh_l0"
    files = export(tmp_path, {name: TWO_FOUR}, {name: TWO_FOUR != 0})
    _write(tmp_path, files, name=name, kind="gates", axis="in")
    findings = examine(tmp_path)
    assert not findings.broken
    (row,) = findings.rows
    assert row.name == name and not row.broken and row.along["in"] == "2:4"


def test_contradictions_exit_with_one(run, capsys):
    revived = TWO_FOUR.clone()
    revived[0, 2] = 1
    tensors.save(run / "model.safetensors", {"blocks.0.fc.weight": revived})
    tensors.save_masks(run / "masks.safetensors", MASKS | {"ghost.weight": torch.ones(1, dtype=torch.bool)})
    _write(run, {})
    assert inspect(str(run), layers=False) == 1
    out = capsys.readouterr().out
    assert "blocks.0.fc.weight: 1 weights that the mask prunes are not zero" in out
    assert "blocks.0.fc.weight: nonzero is 16 in the record and 17 in the file" in out
    assert "masks.safetensors speaks of ghost.weight, which is not in model.safetensors" in out
    (run / "masks.safetensors").unlink()
    assert inspect(str(run), layers=False) == 1
    out = capsys.readouterr().out
    assert "1 of 8 groups break 2:4" in out and "2:4: 7 of 8" in out


@pytest.mark.parametrize(
    ("weight", "pattern", "extra", "groups", "holds"),
    [
        (TWO_FOUR.t(), "2:4", {}, 8, True),
        (TWO_FOUR.t(), "2:4", {"kind": "conv1d", "axis": "in"}, 8, True),
        (TWO_FOUR.t(), "2:4", {"kind": "linear", "axis": "in"}, 8, False),
        (TWO_FOUR[:, :, None, None].expand(-1, -1, 3, 3), "2:4", {"axis": "in"}, 72, True),
        (TWO_FOUR.view(2, 4, 2, 2), "2:4", {"axis": "kernel"}, 8, True),
        (torch.tensor([[1.0, 1], [1, 1], [0, 0], [0, 0]]), "block:2x2:0.5", {}, 2, True),
        (torch.tensor([[1.0, 1], [1, 1], [0, 0], [0, 1]]), "block:2x2:0.5", {}, 2, False),
        (torch.tensor([[1.0, 1], [0, 0]]), "channel:0.5", {}, 2, True),
        (torch.tensor([[1.0, 1], [0, 1]]), "channel:0.5", {"kind": "linear"}, 2, False),
        (torch.tensor([[1.0, 0], [1, 0]]), "in_channel:0.5", {"kind": "linear"}, 2, True),
        (torch.tensor([[1.0, 0], [0, 1]]), "in_channel:0.5", {}, 2, False),
    ],
)
def test_every_pattern(tmp_path, weight, pattern, extra, groups, holds):
    files = export(tmp_path, {"a.weight": weight}, {})
    shape, nonzero = list(weight.shape), int((weight != 0).sum())
    _write(tmp_path, files, name="a", pattern=pattern, shape=shape, nonzero=nonzero, **extra)
    (row,) = examine(tmp_path).rows
    assert (not row.broken) is holds
    assert row.requested.startswith(f"{pattern}: ") and row.requested.endswith(f" of {groups}")


def _damage(run, name):
    data = bytearray((run / name).read_bytes())
    data[-1] ^= 1
    (run / name).write_bytes(data)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda run: _damage(run, "model.safetensors"), "its hash is not the one in the record"),
        (lambda run: _damage(run, "record.json"), "corrupt or half-written record"),
        (lambda run: (run / "masks.safetensors").unlink(), "cannot be read (No such file or directory)"),
        (lambda run: (run / "model.safetensors").unlink(), "no model.safetensors in this folder"),
        (lambda run: (run / "model.safetensors").write_bytes(b"\x80\x02."), "a pickle, which could run code"),
        (lambda run: _write(run, {}, pattern="3:2"), "keeps 3 of every 2"),
        (lambda run: _write(run, {}, name=None), "a layer has no name or no pattern"),
        (lambda run: _write(run, {"../../etc/passwd": {"sha256": "0"}}), "cannot be read"),
        (lambda run: _write(run, "files"), "files: is not a dict"),
    ],
)
def test_what_cannot_be_read_is_one_line_and_exit_two(run, capsys, spoil, said):
    spoil(run)
    code = inspect(str(run), layers=True)
    out, err = capsys.readouterr()
    assert code == 2 and not out and said in err
    assert err.count("\n") == 1 and len(err) <= 161


@pytest.mark.parametrize("path", ["", "nothing", "a\nb"])
def test_no_such_file(tmp_path, capsys, path):
    assert inspect(str(tmp_path / path), layers=False) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_command_line(run, capsys):
    assert command([str(run)]) == 0 and "head.weight" not in capsys.readouterr().out
    assert command(["--layers", str(run)]) == 0 and "head.weight" in capsys.readouterr().out
    assert command(["--help"]) == 0 and "sparselab inspect <run folder" in capsys.readouterr().out
    for wrong in ([], ["a", "b"], ["--layer"]):
        with pytest.raises(ConfigError, match="one path is needed"):
            command(wrong)


def test_markup_in_a_name_is_text(tmp_path, capsys):
    tensors.save(tmp_path / "x.safetensors", {"[red]w[/red]": TWO_FOUR})
    assert inspect(str(tmp_path / "x.safetensors"), layers=True) == 0
    assert "[red]w[/red]" in capsys.readouterr().out


def rows(path):
    return {row.name: row for row in examine(path).rows}


def test_a_layer_stored_in_out_is_read_that_way(tmp_path):
    """transformers' GPT-2: a bias as long as the second dimension tells, and square layers go with those of their name."""
    pruned = torch.ones(8, 24)
    pruned[2::4] = pruned[3::4] = 0  # inputs 2, 3, 6, 7 of all outputs
    pruned[:, 5] = 0
    square = torch.ones(8, 8)
    square[3] = 0
    state = {"h.0.attn.c_attn.weight": pruned, "h.0.attn.c_attn.bias": torch.ones(24)}
    state |= {"h.0.attn.c_proj.weight": square, "h.0.attn.c_proj.bias": torch.ones(8)}
    state |= {"h.0.mlp.c_proj.weight": torch.ones(32, 8), "h.0.mlp.c_proj.bias": torch.ones(8)}
    state |= {"wte.weight": torch.ones(60, 8), "fc.weight": square, "fc.bias": torch.ones(8)}
    tensors.save(tmp_path / "model.safetensors", state)
    found = rows(tmp_path / "model.safetensors")
    fused = found["h.0.attn.c_attn.weight"]
    assert fused.along == {"in": "≤2:4", "out": ""} and fused.zero_channels == {"in": 4, "out": 1}
    assert found["h.0.attn.c_proj.weight"].zero_channels == {"in": 1, "out": 0}
    assert found["fc.weight"].zero_channels == {"in": 0, "out": 1}


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("told", ["record", "shapes", "bias"])
def test_experts_are_matrices_of_their_own(tmp_path, turned, told):
    up, down = torch.ones(4, 16, 6), torch.ones(4, 6, 8)
    up[1, 3] = up[2, 5] = 0  # outputs
    up[:, :, 4:] = 0  # two inputs of each expert
    state = {"mlp.experts.gate_up_proj": up, "mlp.experts.down_proj": down}
    state = {name: (tensor.mT if turned else tensor).contiguous() for name, tensor in state.items()}
    if told == "bias":
        state = {"mlp.experts.w_in": state["mlp.experts.gate_up_proj"], "mlp.experts.w_in_bias": torch.ones(4, 16)}
    name = next(iter(state))
    files = export(tmp_path, state, {})
    facts = {"name": name, "shape": list(state[name].shape), "nonzero": int(state[name].count_nonzero())}
    if told == "record":
        _write(tmp_path, files, **facts, kind="experts1d" if turned else "experts", axis="in", pattern="0.5")
    found = rows(tmp_path if told == "record" else tmp_path / "model.safetensors")[name]
    assert found.zero_channels == {"in": 8, "out": 2}


def test_state_beside_parameters_is_no_parameter(tmp_path):
    """ResNet-20 has 269,722 parameters, and 1,395 numbers of running statistics."""
    from sparselab.inputs.models.networks import CifarResNet

    model = CifarResNet(3, 16, 3, 10)
    assert sum(p.numel() for p in model.parameters()) == 269_722
    state, listed = model.state_dict(), [name for name, _ in model.named_buffers()]
    for folder, buffers in (("known", None), ("listed", listed)):
        (tmp_path / folder).mkdir()
        export(tmp_path / folder, state, {}, buffers=buffers)
        assert examine(tmp_path / folder / "model.safetensors").parameters == 269_722
    odd = {"fc.weight": torch.ones(2, 2), "table": torch.ones(3, 3)}
    export(tmp_path, odd, {}, buffers=["table"])
    assert examine(tmp_path / "model.safetensors").parameters == 4
    tensors.save(
        tmp_path / "old.safetensors", odd | {"attn.bias": torch.ones(1, 1, 4, 4), "index": torch.ones(2, 2).int()}
    )
    assert examine(tmp_path / "old.safetensors").parameters == 13
