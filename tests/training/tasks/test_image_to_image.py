"""Restoration: its scores by hand, what is refused, and a task of somebody else's that makes its own targets."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from recipes import plain
from torch import nn

from sparselab.core.data_spec import DataSpec
from sparselab.core.data_types import Classes, Images
from sparselab.inputs.models.family import MODELS
from sparselab.training.loop.evaluate import evaluate
from sparselab.training.loop.module import TaskModule
from sparselab.training.tasks.image_to_image import ImageToImage
from sparselab.training.tasks.task import TASKS

torch.set_num_threads(1)

SHAPE = Images(1, 12, 12)
DATA = DataSpec("pairs", SHAPE, SHAPE, 8, 8, 8, "", "local")
FAMILY = MODELS["dncnn"](MODELS["dncnn"].Options(depth=3, width=2))


class Full:
    """A precision plugin that does nothing."""

    def forward_context(self):
        return torch.autocast("cpu", enabled=False)


class Darker(nn.Module):
    """Takes 0.1 from every pixel."""

    def __init__(self):
        super().__init__()
        self.less = nn.Parameter(torch.tensor(0.1))

    def forward(self, images):
        return images - self.less


def module(network=None, data=DATA, task=None, **options):
    recipe = plain()
    task = task or ImageToImage(ImageToImage.Options(**options))
    return TaskModule(task, network or FAMILY.build(data), FAMILY, data, recipe, (), 10)


def test_scores_by_hand():
    """An error of 0.1 everywhere is 20 dB, of 0.2 it is 13.98; the mean over images is of decibels."""
    wanted = torch.full((3, 1, 12, 12), 0.5)
    given = wanted + torch.tensor([0.2, 0.3, 0.2]).view(3, 1, 1, 1)
    whole = evaluate(module(Darker()), [(given, wanted)], "test", Full())
    parts = evaluate(module(Darker()), [(given[:2], wanted[:2]), (given[2:], wanted[2:])], "test", Full())
    assert whole["psnr"] == pytest.approx((20 + 20 - 20 * math.log10(0.2)) / 3, rel=1e-5)
    assert whole["psnr_input"] == pytest.approx(-20 * (2 * math.log10(0.2) + math.log10(0.3)) / 3, rel=1e-5)
    assert whole["loss"] == pytest.approx((0.01 + 0.04 + 0.01) / 3, rel=1e-5) and whole["n"] == 3
    assert parts == pytest.approx(whole, rel=1e-6)


def test_decibels_are_of_pixels_in_range_and_the_loss_is_not():
    wanted = torch.zeros(1, 1, 12, 12)
    found = evaluate(module(Darker()), [(wanted + 0.05, wanted + 0.1)], "test", Full())
    assert found["psnr"] == pytest.approx(20) and found["loss"] == pytest.approx(0.15**2)


@pytest.mark.parametrize(("loss", "want"), [("mse", 0.01), ("l1", 0.1)])
def test_training_losses(loss, want):
    made, image = module(Darker(), loss=loss), torch.rand(2, 1, 12, 12)
    assert float(made.training_step((image, image), 0)) == pytest.approx(want)


def test_images_smaller_than_a_window_are_refused():
    small = replace(DATA, inputs=Images(1, 8, 8), targets=Images(1, 8, 8))
    (issue,) = ImageToImage(ImageToImage.Options()).issues(small)
    assert "whose window of 11 pixels is wider than images of 1x8x8" in str(issue)


def test_targets_of_another_size_are_refused():
    (issue,) = FAMILY.issues(replace(DATA, targets=Images(3, 12, 12)))
    assert "model=dncnn: gives images of 1x12x12" in str(issue)


def test_the_network_takes_what_it_puts_out_from_the_image():
    network, image = FAMILY.build(DATA).eval(), torch.rand(2, 1, 20, 14)  # of any size
    with torch.no_grad():
        assert torch.equal(network(image), image - network.dncnn(image))


def test_a_task_may_make_its_own_targets(monkeypatch):
    """An autoencoder on a set of labelled images: nothing but a class; datasets and families stay as they are."""
    TASKS._load()
    monkeypatch.setattr(TASKS, "_members", copy.copy(TASKS._members))

    @TASKS.register("autoencoding")
    class Autoencoding(ImageToImage):
        def sees(self, data):
            return replace(data, targets=data.inputs)

        def batch(self, batch):
            return batch[0], batch[0]

    labelled = DataSpec("pictures", SHAPE, Classes(3), 8, 8, 8, "", "local")
    task = Autoencoding(Autoencoding.Options())
    seen = task.sees(labelled)
    assert not task.issues(seen) and not FAMILY.issues(seen) and FAMILY.issues(labelled)
    assert "write task=image_classification" in str(task.issues(labelled)[0])
    made = module(Darker(), seen, task)
    images = torch.rand(2, 1, 12, 12)
    assert float(made.training_step((images, torch.tensor([0, 2])), 0)) == pytest.approx(0.01)
    assert float(made.criterion(images - 0.2, made.task.batch((images, torch.tensor([0, 2]))))) == pytest.approx(0.04)
