from __future__ import annotations

import hashlib

import pytest
import torch

from sparselab.core.errors import RunFailed
from sparselab.storage import tensors
from sparselab.storage.export import export


def test_files_and_their_facts(tmp_path):
    mask = torch.tensor([[True, False], [False, True]])
    files = export(tmp_path / "run", {"fc.weight": torch.eye(2), "fc.bias": torch.ones(2)}, {"fc.weight": mask})
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == sorted(files)
    for name, facts in files.items():
        data = (tmp_path / "run" / name).read_bytes()
        assert facts == {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert torch.equal(tensors.load_masks(tmp_path / "run" / "masks.safetensors")["fc.weight"], mask)
    assert torch.equal(tensors.load(tmp_path / "run" / "model.safetensors")["fc.weight"], torch.eye(2))
    assert (
        export(tmp_path / "again", {"fc.bias": torch.ones(2), "fc.weight": torch.eye(2)}, {"fc.weight": mask}) == files
    )


def test_a_dense_network_has_an_empty_masks_file(tmp_path):
    export(tmp_path, {"w": torch.ones(2)}, {})
    assert tensors.load_masks(tmp_path / "masks.safetensors") == {}


def test_tied_tensors_are_stored_once_and_come_back_tied(tmp_path):
    weight = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    state = {"wte.weight": weight, "other": weight[:1], "lm_head.weight": weight, "same": weight.clone()}
    export(tmp_path, state, {"lm_head.weight": weight != 0})
    header = tensors.read_header(tmp_path / "model.safetensors")
    assert set(header.tensors) == {"wte.weight", "other", "same"}
    assert header.aliases == {"lm_head.weight": "wte.weight"}
    read = tensors.load(tmp_path / "model.safetensors", state)
    assert read["lm_head.weight"] is read["wte.weight"] and torch.equal(read["other"], weight[:1])
    assert set(tensors.load_masks(tmp_path / "masks.safetensors")) == {"wte.weight"}


@pytest.mark.parametrize(
    ("masks", "said"),
    [
        ({"w": torch.tensor([[True, False]])}, "w: its mask has another shape"),
        ({"x": torch.tensor([True])}, "x: there is a mask and no such tensor"),
        ({"w": torch.tensor([[False, True], [True, True]])}, "w: 1 pruned weights are not zero"),
    ],
)
def test_a_mask_that_the_weights_do_not_obey_is_never_exported(tmp_path, masks, said):
    with pytest.raises(RunFailed) as failed:
        export(tmp_path, {"w": torch.ones(2, 2)}, masks)
    assert str(failed.value).startswith(said) and not list(tmp_path.iterdir())


def _prune(model, kind):
    masks = {}
    for name, module in model.named_modules():
        if isinstance(module, kind):
            mask = torch.arange(module.weight.numel()).view_as(module.weight) % 2 == 0
            module.weight.data.mul_(mask)
            masks[f"{name}.weight"] = mask
    return masks


def test_loads_into_plain_timm(tmp_path):
    import timm

    model = timm.create_model("test_vit", num_classes=3).eval()
    masks = _prune(model, torch.nn.Linear)
    export(tmp_path, model.state_dict(), masks)
    other = timm.create_model("test_vit", num_classes=3, checkpoint_path=str(tmp_path / "model.safetensors")).eval()
    images = torch.rand(2, 3, *model.default_cfg["input_size"][1:])
    assert torch.equal(model(images), other(images))
    assert all(bool((other.get_parameter(name)[~mask] == 0).all()) for name, mask in masks.items())


@pytest.mark.parametrize("tied", [True, False])
def test_loads_into_plain_transformers(tmp_path, tied):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=32, n_positions=8, n_embd=8, n_layer=1, n_head=2, tie_word_embeddings=tied)
    model = GPT2LMHeadModel(config).eval()
    masks = _prune(model, torch.nn.Linear)
    assert "lm_head.weight" in masks
    export(tmp_path, model.state_dict(), masks)
    config.save_pretrained(tmp_path)
    other = GPT2LMHeadModel.from_pretrained(tmp_path).eval()
    tokens = torch.arange(8)[None]
    assert torch.equal(model(tokens).logits, other(tokens).logits)
    assert (other.lm_head.weight.data_ptr() == other.transformer.wte.weight.data_ptr()) is tied
