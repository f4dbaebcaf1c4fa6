"""The distillation loss by hand, and what becomes of the teacher."""

from __future__ import annotations

import math

import pytest
import torch
from data_specs import image_data
from hypothesis import given, settings
from hypothesis import strategies as st
from recipes import plain
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from sparselab.core.errors import ConfigError
from sparselab.core.options import Options
from sparselab.inputs.models.family import MODELS
from sparselab.running.planning import plan_of
from sparselab.training.describe import of_losses
from sparselab.training.loop.module import TaskModule
from sparselab.training.losses.distill import Distill, divergence
from sparselab.training.losses.taught import Teacher
from sparselab.training.tasks.task import TASKS

DATA = image_data((1, 2, 2), 3)
FAMILY = MODELS["mlp"](MODELS["mlp"].Options(hidden=[4], batch_norm=True, dropout=0.5))


def make(tmp_path, seed=1, **options):
    """A student and, in a file, a teacher of its architecture with other weights."""
    torch.manual_seed(seed)
    save_file(FAMILY.build(DATA).state_dict(), tmp_path / "model.safetensors")
    torch.manual_seed(0)
    extra = Distill(Distill.Options(**{"teacher": str(tmp_path), **options}))
    recipe = plain()
    task = TaskModule(TASKS["image_classification"](Options()), FAMILY.build(DATA), FAMILY, DATA, recipe, [extra], 10)
    extra.prepare(task)
    return task, extra


BATCH = (torch.linspace(-1, 1, 20).view(5, 1, 2, 2), torch.tensor([0, 1, 2, 0, 1]))


def teacher_of(extra):
    return extra.teacher.network


def test_the_loss_by_hand(tmp_path):
    """T^2 times the mean over examples of sum_c p_c (log p_c - log q_c), p and q softened by T."""
    task, extra = make(tmp_path, temperature=3.0)
    logits = torch.randn(5, 3)
    p = F.softmax(teacher_of(extra)(BATCH[0]) / 3, -1)
    q = F.softmax(logits / 3, -1)
    want = 9 * (p * (p.log() - q.log())).sum(-1).mean()
    assert float(extra.loss(task, BATCH, logits)) == pytest.approx(float(want), rel=1e-5)


def test_a_student_that_says_the_same_has_no_loss(tmp_path):
    task, extra = make(tmp_path)
    logits = teacher_of(extra)(BATCH[0]).requires_grad_()
    loss = extra.loss(task, BATCH, logits)
    loss.backward()
    assert abs(float(loss)) < 1e-7 and float(logits.grad.abs().max()) < 1e-7


@given(st.integers(0, 2**31), st.floats(0.5, 20))
@settings(max_examples=30)
def test_it_is_never_negative_and_blind_to_a_shift_of_the_logits(tmp_path_factory, seed, temperature):
    task, extra = make(tmp_path_factory.mktemp("teacher"), temperature=temperature)
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(seed))
    loss = float(extra.loss(task, BATCH, logits))
    assert loss >= -1e-5
    assert float(extra.loss(task, BATCH, logits + 4)) == pytest.approx(loss, rel=1e-3, abs=1e-5)


def test_the_whole_loss_is_a_mixture(tmp_path):
    task, extra = make(tmp_path, weight=0.3)
    task.network.eval()
    logits = task.logits(BATCH[0])
    want = 0.7 * task.criterion(logits, BATCH) + 0.3 * extra.loss(task, BATCH, logits)
    assert float(task.training_step(BATCH, 0)) == pytest.approx(float(want), rel=1e-6)


def test_every_token_counts_as_an_example(tmp_path):
    task, extra = make(tmp_path)
    extra.teacher = Teacher(FAMILY, nn.Linear(3, 3))
    tokens = torch.randn(2, 7, 3)
    logits = torch.randn(2, 7, 3)
    flat = extra.loss(task, (tokens.flatten(0, 1),), logits.flatten(0, 1))
    assert float(extra.loss(task, (tokens,), logits)) == pytest.approx(float(flat), rel=1e-6)


def test_the_teacher_is_nobody_s_parameter(tmp_path):
    """Not in the state, not with the optimiser, not moved by training, not changed by the student's mode."""
    task, extra = make(tmp_path)
    teacher = teacher_of(extra)
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    own = {f"network.{name}" for name in FAMILY.build(DATA).state_dict()}
    assert set(task.state_dict()) == own
    optimizer = task.optim.build(task)
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == {
        id(p) for p in task.network.parameters()
    }
    task.train()
    assert not teacher.training and not any(p.requires_grad for p in teacher.parameters())
    for _ in range(3):
        optimizer.zero_grad()
        task.training_step(BATCH, 0).backward()
        optimizer.step()
    assert all(p.grad is None for p in teacher.parameters())
    for name, tensor in teacher.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_the_teacher_has_the_file_s_weights(tmp_path):
    _, extra = make(tmp_path, seed=7)
    torch.manual_seed(7)
    for name, tensor in FAMILY.build(DATA).state_dict().items():
        assert torch.equal(teacher_of(extra).state_dict()[name], tensor)


def test_a_folder_and_its_file_are_one_teacher(tmp_path):
    _, by_folder = make(tmp_path)
    _, by_file = make(tmp_path, teacher=str(tmp_path / "model.safetensors"))
    assert by_folder.files() == by_file.files() == {"teacher": str(tmp_path / "model.safetensors")}


def test_logits_that_are_not_finite_are_the_teacher_s_fault(tmp_path):
    task, extra = make(tmp_path)
    next(teacher_of(extra).parameters()).data.fill_(math.nan)
    with pytest.raises(FloatingPointError, match="the teacher's logits"):
        extra.loss(task, BATCH, torch.zeros(5, 3))


def test_the_teacher_s_forward_pass_is_in_the_account(tmp_path):
    """Two FLOPs a multiply-accumulate, for every sample of every update: a third of dense training."""
    family = MODELS["mlp"](MODELS["mlp"].Options(hidden=[16]))
    cell = ["method=dense", "model=mlp", "model.hidden=[16]", "trainer.max_epochs=null", "trainer.max_steps=3"]
    assert plan_of(cell).cost["flops_teacher"] == 0
    save_file(family.build(plan_of(cell).parts.data).state_dict(), tmp_path / "model.safetensors")
    cost = plan_of([*cell, "loss=[distill]", f"loss.distill.teacher={tmp_path}"]).cost
    assert cost["flops_teacher"] == 2 * (64 * 16 + 16 * 10) * 32 * 3 == cost["flops_train_dense"] // 3
    assert of_losses(cost) == ", extra losses 0.333x"


def test_a_teacher_of_another_shape_is_refused(tmp_path):
    task, extra = make(tmp_path)
    save_file({"head.weight": torch.zeros(2, 2)}, tmp_path / "model.safetensors")
    task.teachers.clear()
    with pytest.raises(ConfigError):
        extra.prepare(task)


def test_the_square_of_the_temperature():
    """At T = 2, by hand: 4 sum p log(p / q) with both softened by 2; a teacher that says the same has none."""
    taught, logits = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 0.0]])
    p = math.e / (math.e + 1)
    want = 4 * (p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p)))
    assert float(divergence(taught, logits, 2.0)) == pytest.approx(want, rel=1e-6)
    assert float(divergence(taught, taught, 2.0)) == 0


def test_targets_that_do_not_count_play_no_part():
    generator = torch.Generator().manual_seed(0)
    taught, logits = (torch.randn(2, 5, 7, generator=generator) for _ in range(2))
    counted = torch.tensor([[True] * 5, [True, False, False, True, False]])
    want = divergence(taught[counted], logits[counted], 1.5)
    assert float(divergence(taught, logits, 1.5, counted)) == pytest.approx(float(want), rel=1e-6)
    everything = divergence(taught, logits, 1.5, torch.ones(2, 5, dtype=torch.bool))
    assert float(everything) == pytest.approx(float(divergence(taught, logits, 1.5)), rel=1e-6)


def test_the_task_s_share_may_be_said(tmp_path):
    task, extra = make(tmp_path, weight=1.0, task_share=1.0)
    task.network.eval()
    logits = task.logits(BATCH[0])
    want = task.criterion(logits, BATCH) + extra.loss(task, BATCH, logits)
    assert float(task.training_step(BATCH, 0)) == pytest.approx(float(want), rel=1e-6)


def test_the_mixture_is_a_third_of_the_sum_at_two_to_one(tmp_path):
    """(1 - eta) CE + eta KL = (1 - eta) (CE + eta / (1 - eta) KL): at eta = 1/3 it is 2/3 (CE + KL / 2)."""
    task, extra = make(tmp_path, weight=1 / 3, temperature=1.0)
    task.network.eval()
    logits = task.logits(BATCH[0])
    want = 2 / 3 * (task.criterion(logits, BATCH) + 0.5 * extra.loss(task, BATCH, logits))
    assert float(task.training_step(BATCH, 0)) == pytest.approx(float(want), rel=1e-6)
