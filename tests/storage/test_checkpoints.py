from __future__ import annotations

import collections
import json
import logging
import os

import numpy as np
import pytest
import torch

from sparselab.core.errors import ConfigError, RunFailed
from sparselab.storage import atomic
from sparselab.storage.checkpoints import _DTYPES, Checkpoints
from sparselab.storage.ids import digest
from sparselab.storage.tensors import pack_masks, unpack_masks

CELL = "0123456789ab"


def state(step):
    return {"step": step, "weights": {"w": torch.full((4, 4), float(step))}, "rng": [1, 2, (3, None)], "note": "é"}


@pytest.fixture
def store(tmp_path):
    return Checkpoints(tmp_path / "checkpoints", CELL)


def _steps(store):
    return [int(path.name[5:15]) for path in sorted(store.folder.glob("*.ckpt"))]


def _refused(call):
    with pytest.raises(ConfigError) as refused:
        call()
    line = str(refused.value)
    assert "\n" not in line and len(line) <= 160
    return line


def _reseal(path, **changes):
    manifest = json.loads(path.read_text()) | changes
    manifest.pop("seal")
    atomic.write_json(path, manifest | {"seal": digest(manifest)})


def test_nothing_there(store):
    assert store.load_latest() is None and store.sweep() == 0


def test_round_trip(store):
    path = store.save(state(7), 7, {"density": 0.5})
    manifest = json.loads(path.with_name(path.name + ".json").read_text())
    assert set(manifest) == {"size", "sha256", "step", "cell", "schema", "facts", "seal"}
    assert (manifest["size"], manifest["step"], manifest["cell"]) == (path.stat().st_size, 7, CELL)
    found = store.load_latest()
    assert (found.path, found.step, found.facts) == (path, 7, {"density": 0.5})
    assert torch.equal(found.state["weights"]["w"], state(7)["weights"]["w"])
    assert {key: found.state[key] for key in ("step", "rng", "note")} == {
        "step": 7,
        "rng": [1, 2, (3, None)],
        "note": "é",
    }


def test_every_dtype_optimiser_states_and_masks_come_back(store):
    model = torch.nn.Linear(4, 2)
    optimiser = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 4)).sum().backward()
    optimiser.step()
    mask = {"weight": torch.tensor([[True, False] * 2] * 2)}
    tensors = {name: torch.arange(6).to(getattr(torch, name)) for name in _DTYPES}
    whole = {
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "masks": pack_masks(mask),
        "all": tensors,
    }
    store.save(whole, 1)
    read = store.load_latest().state
    assert type(read["model"]) is collections.OrderedDict
    assert torch.equal(read["model"]["weight"], model.weight)
    assert torch.equal(read["optimiser"]["state"][0]["exp_avg"], optimiser.state_dict()["state"][0]["exp_avg"])
    assert read["optimiser"]["param_groups"] == optimiser.state_dict()["param_groups"]
    assert torch.equal(unpack_masks(read["masks"])["weight"], mask["weight"])
    for name, tensor in tensors.items():
        assert read["all"][name].view(torch.uint8).tolist() == tensor.view(torch.uint8).tolist()


def test_shared_tensors_and_containers_stay_shared_and_views_stay_small(store):
    weight, betas = torch.ones(3), (0.9, 0.999)
    big = torch.zeros(1_000_000)
    path = store.save({"a": weight, "b": weight, "c": big[:2], "d": torch.ones(2, 3).t(), "groups": [betas, betas]}, 1)
    read = store.load_latest().state
    assert path.stat().st_size < 20_000 and read["groups"] == [betas, betas]
    assert read["a"].data_ptr() == read["b"].data_ptr()
    assert torch.equal(read["d"], torch.ones(3, 2))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (np.float64(1.0), "state.x[0] is a float64"),
        (np.zeros(2), "state.x[0] is a ndarray"),
        (object(), "state.x[0] is a object"),
        ({(1, 2): 3}, "state.x[0] has a key of type tuple"),
        ({1, 2}, "state.x[0] is a set"),
        (torch.zeros(2, dtype=torch.uint16), "a checkpoint cannot hold a tensor of torch.uint16"),
        (torch.eye(2).to_sparse(), "a checkpoint cannot hold a tensor of torch.float32 in torch.sparse_coo"),
    ],
)
def test_only_plain_state_is_saved(store, value, said):
    with pytest.raises(TypeError) as error:
        store.save({"x": [value]}, 1)
    assert str(error.value).startswith(said) and not store.folder.exists()
    loop = []
    loop.append(loop)
    with pytest.raises(TypeError, match="contains itself"):
        store.save({"x": loop}, 1)


def test_the_last_two_stay(store):
    for step in range(1, 6):
        store.save(state(step), step)
    assert _steps(store) == [4, 5] and len(list(store.folder.iterdir())) == 4
    store.clear()
    assert not list(store.folder.iterdir())
    with pytest.raises(ValueError, match="at least 2"):
        Checkpoints(store.folder, CELL, keep=1)


def test_a_damaged_one_does_not_count_as_kept(store):
    store.save(state(1), 1)
    path = store.save(state(2), 2)
    path.write_bytes(b"\0" * path.stat().st_size)
    store.save(state(3), 3)
    assert _steps(store) == [1, 2, 3]  # 1 and 3 are the two good ones
    store.save(state(4), 4)
    assert _steps(store) == [3, 4]


def test_a_slower_writer_of_the_same_cell_harms_nothing(store):
    for step in (8, 9):
        store.save(state(step), step)
    assert Checkpoints(store.folder, CELL).save(state(1), 1).exists()
    assert store.load_latest().step == 9


def _rewrite(path, change):
    path.write_bytes(change(path.read_bytes()))


DAMAGES = {
    "bit": lambda path, manifest: _rewrite(path, lambda data: data[:500] + bytes([data[500] ^ 1]) + data[501:]),
    "truncated": lambda path, manifest: _rewrite(path, lambda data: data[:-1]),
    "empty": lambda path, manifest: _rewrite(path, lambda data: b""),
    "longer": lambda path, manifest: _rewrite(path, lambda data: data + b"0"),
    "folder": lambda path, manifest: (path.unlink(), path.mkdir()),
    "manifest empty": lambda path, manifest: _rewrite(manifest, lambda data: b""),
    "manifest without its last byte": lambda path, manifest: _rewrite(manifest, lambda data: data[:-1]),
    "manifest cut": lambda path, manifest: _rewrite(manifest, lambda data: data[:50]),
    "manifest folder": lambda path, manifest: (manifest.unlink(), manifest.mkdir()),
    "manifest of another step": lambda path, manifest: _reseal(manifest, step=3),
    "manifest is a list": lambda path, manifest: _rewrite(manifest, lambda data: b"[]"),
    "manifest without a seal": lambda path, manifest: _rewrite(manifest, lambda data: b"{}"),
    "manifest of another cell, not sealed": lambda path, manifest: _rewrite(
        manifest, lambda data: data.replace(CELL.encode(), b"f" * 12)
    ),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_falls_back_with_one_line(store, caplog, kind):
    store.save(state(1), 1)
    path = store.save(state(2), 2)
    DAMAGES[kind](path, path.with_name(path.name + ".json"))
    with caplog.at_level(logging.WARNING):
        found = store.load_latest()
    assert found.step == 1 and torch.equal(found.state["weights"]["w"], torch.ones(4, 4))
    (line,) = caplog.messages
    assert "\n" not in line and line.endswith("going on from step 1")


def test_all_damaged_starts_again_with_one_line(store, caplog):
    for step in (1, 2):
        os.truncate(store.save(state(step), step), 10)
    with caplog.at_level(logging.WARNING):
        assert store.load_latest() is None
    assert len(caplog.messages) == 1 and caplog.messages[0].endswith("starting from the beginning")


def test_a_file_without_a_manifest_is_no_checkpoint(store, caplog):
    paths = [store.save(state(step), step) for step in (1, 2)]
    paths[1].with_name(paths[1].name + ".json").unlink()
    with caplog.at_level(logging.WARNING):
        assert store.load_latest().step == 1
    assert not caplog.messages and store.sweep() == 0  # its writer may be about to write the manifest
    store.save(state(3), 3)
    assert store.sweep() == 1 and _steps(store) == [1, 3]


def test_another_cell_and_a_newer_schema_are_refused(store):
    path = store.save(state(1), 1)
    other = Checkpoints(store.folder, "ba9876543210")
    assert f"is of cell {CELL}, not ba9876543210" in _refused(other.load_latest)
    _reseal(path.with_name(path.name + ".json"), schema=2)
    assert "schema 2 is newer than 1 — update sparselab" in _refused(store.load_latest)


def test_a_disk_that_returns_other_bytes_is_noticed_while_the_old_ones_are_there(store, monkeypatch):
    for step in (1, 2):
        store.save(state(step), step)

    class Lying(atomic.Files):
        def write(self, descriptor, data):
            if len(data) > 1000:
                data = bytes(data[:-1]) + bytes([data[-1] ^ 1])
            return super().write(descriptor, data)

    monkeypatch.setattr(atomic, "FILES", Lying())
    with pytest.raises(RunFailed, match="reads back wrong"):
        store.save(state(3), 3)
    assert _steps(store) == [1, 2, 3] and store.load_latest().step == 2


def test_need_space(store, monkeypatch):
    monkeypatch.setattr(atomic, "free_bytes", lambda path: 2999)
    store.need_space(999)
    line = _refused(lambda: store.need_space(1000))
    assert "2,999 bytes free, 3,000 needed (3 checkpoints of 1,000)" in line


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "f").write_bytes(b"")
    store = Checkpoints(tmp_path / "f", CELL)
    assert "cannot be read (Not a directory)" in _refused(store.load_latest)
    with pytest.raises(RunFailed):
        store.save(state(1), 1)
