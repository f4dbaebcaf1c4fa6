"""The penalty on scales of batch norms: what it adds to gradients, where, and how far it moves a scale."""

from __future__ import annotations

import pytest
import torch

from sparselab.core.errors import ConfigError
from sparselab.running.planning import plan_of
from sparselab.storage.tensors import save_masks
from sparselab.training.losses.norm_scales import penalised
from sparselab.training.runner import execute

CELL = [
    "model=mlp", "model.hidden=[16,8]", "model.batch_norm=true", "dataset=digits", "method=dense", "optim=sgd", "optim.lr=0.1",
    "optim.warmup=0", "trainer.clip=null", "trainer.max_epochs=null", "trainer.max_steps=6", "trainer.batch_size=16",
    "trainer.evals=1", "trainer.progress=none", "trainer.accelerator=cpu", "trainer.threads=1", 'trainer.precision="32"',
]  # fmt: skip


def gradient(values, lam, removed=None, penalty="l1", near=0.0):
    scale = torch.tensor(values, requires_grad=True)
    each = penalised(scale, penalty, near)
    (lam * (each if removed is None else each * torch.tensor(removed))).sum().backward()
    return scale.grad.tolist()


def test_the_added_gradient_by_hand():
    """Item: lambda 1e-3 adds 1e-3, -1e-3, 0 to gamma = 0.5, -0.2, 0; with M = 0, 1, 0 only the second."""
    assert gradient([0.5, -0.2, 0.0], 1e-3) == pytest.approx([1e-3, -1e-3, 0.0])
    assert gradient([0.5, -0.2, 0.0], 1e-3, [1.0, 1.0, 1.0]) == pytest.approx([1e-3, -1e-3, 0.0])
    assert gradient([0.5, -0.2, 0.0], 1e-3, [0.0, 1.0, 0.0]) == pytest.approx([0.0, -1e-3, 0.0])
    assert gradient([0.5, -0.2, 0.0], 1e-3, penalty="l2") == pytest.approx([5e-4, -2e-4, 0.0])
    assert gradient([0.5, -0.05, 0.0], 1e-3, penalty="smooth_l1", near=0.1) == pytest.approx([1e-3, -5e-5, 0.0])


def masks_of(folder, kept):
    """Masks of the perceptron's two hidden layers that keep all units, none that matter, or the first half."""
    path = folder / f"{kept}.safetensors"
    shapes = {"layers.0.weight": (16, 64), "layers.1.weight": (8, 16)}
    masks = {name: torch.zeros(shape, dtype=torch.bool) for name, shape in shapes.items()}
    for mask in masks.values():
        mask[: {"all": len(mask), "none": 0, "half": len(mask) // 2}[kept]] = True
    save_masks(path, masks)
    return path


def trained(folder, *words):
    return execute(plan_of([*CELL, f"runs_dir={folder}", *words])).state


def test_masks_of_all_and_of_nothing(tmp_path):
    """Item: M all ones is network slimming step for step, M all zeros is plain training, bit for bit."""
    loss = ["loss=[norm_scales]", "loss.norm_scales.weight=0.05"]
    plain, slim = trained(tmp_path / "a"), trained(tmp_path / "b", *loss)
    ones = trained(tmp_path / "c", *loss, f"loss.norm_scales.masks={masks_of(tmp_path, 'none')}")
    zeros = trained(tmp_path / "d", *loss, f"loss.norm_scales.masks={masks_of(tmp_path, 'all')}")
    half = trained(tmp_path / "e", *loss, f"loss.norm_scales.masks={masks_of(tmp_path, 'half')}")
    assert all(torch.equal(plain[name], zeros[name]) for name in plain)
    assert all(torch.equal(slim[name], ones[name]) for name in plain)
    assert not torch.equal(plain["norms.0.weight"], slim["norms.0.weight"])
    kept, gone = half["norms.0.weight"][:8], half["norms.0.weight"][8:]
    assert gone.mean() < slim["norms.0.weight"][:8].mean() + 0.05 < kept.mean()


def test_the_budget_moves_a_scale_that_nothing_opposes():
    """Item: SGD with momentum mu moves it by about lambda x sum of rates / (1 - mu); less than |gamma_0| leaves it there."""
    for lam, arrives in ((0.0004, False), (0.004, True)):
        scale = torch.nn.Parameter(torch.ones(1))
        optimizer = torch.optim.SGD([scale], lr=0.1, momentum=0.9)
        steps, moved = 1000, 0.0
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = 0.1 * (1 - step / steps)
            moved += lam * optimizer.param_groups[0]["lr"] / 0.1
            optimizer.zero_grad()
            (lam * penalised(scale, "l1", 0.0)).sum().backward()
            optimizer.step()
        assert (abs(float(scale)) < 0.05) is arrives
        if not arrives:
            assert 1 - float(scale) == pytest.approx(moved, rel=0.1)


def test_what_is_refused(tmp_path):
    words = [*CELL, f"runs_dir={tmp_path}", "loss=[norm_scales]"]
    with pytest.raises(ConfigError, match=r"loss.norm_scales: no layer of this network has a norm"):
        plan_of([*words, "model.batch_norm=false"])
    save_masks(tmp_path / "head.safetensors", {"head.weight": torch.ones(10, 8, dtype=torch.bool)})
    with pytest.raises(ConfigError, match=r"masks head, behind which no norm is known"):
        plan_of([*words, f"loss.norm_scales.masks={tmp_path}/head.safetensors"])
    save_masks(tmp_path / "wide.safetensors", {"layers.0.weight": torch.ones(17, 64, dtype=torch.bool)})
    with pytest.raises(ConfigError, match=r"shape of layers.0.weight is \[17, 64\], not \[16, 64\]"):
        plan_of([*words, f"loss.norm_scales.masks={tmp_path}/wide.safetensors"])
