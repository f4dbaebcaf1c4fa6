"""Reprogramming of lottery tickets (arXiv 2308.14969): what its dossier says can be checked exactly.

The items are numbered as there: 1 pads and free entries, 2 the border, 3 the greedy mapping, 4 distinct sources, 5 a frozen
network, 6 calibration, 7 kept features, 8 shots (tests/inputs/data/test_shots.py), 9 learning rates.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from data_specs import image_data
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn, tensor

from sparselab.core.errors import ConfigError
from sparselab.running.planning import plan_of
from sparselab.running.run_cell import run_cell
from sparselab.storage.checkpoints import Checkpoints
from sparselab.training.adapts.torch_side.prompt import Border, attach, frequencies, greedy, pads
from sparselab.training.adapts.visual_prompt import VisualPrompt
from sparselab.training.loop.loop import Loop
from sparselab.training.metrics.calibration import binned, expected_error
from sparselab.training.optim.optim import OPTIMS

torch.set_num_threads(1)


# -- 1 and 2: the border ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("side", "canvas", "before_after"),
    [(32, 224, (96, 96)), (128, 224, (48, 48)), (28, 32, (2, 2)), (27, 32, (3, 2)), (16, 32, (8, 8))],
)
def test_1_pads(side, canvas, before_after):
    assert pads(side, canvas) == before_after
    border = Border((3, side, side), canvas, (0.0,), (1.0,))
    assert border(torch.zeros(1, 3, side, side)).shape == (1, 3, canvas, canvas)


@pytest.mark.parametrize(("side", "free"), [(32, 147_456), (128, 101_376)])
def test_1_free_entries_of_the_program(side, free):
    assert Border((3, side, side), 224, (0.0,), (1.0,)).free == free == 3 * (224**2 - side**2)


def test_2_the_border_starts_grey_and_the_image_keeps_every_bit():
    """In pixels (mean 0, deviation 1): the image bitwise, 0.5 around it; after any updates the border is inside (0, 1)."""
    torch.manual_seed(0)
    images = torch.rand(4, 3, 5, 5)
    border = Border((3, 5, 5), 12, (0.0,), (1.0,))
    inside = (slice(None), slice(None), slice(4, 9), slice(4, 9))
    on = border.border.bool().expand(4, 3, 12, 12)
    shown = border(images)
    assert torch.equal(shown[inside], images)
    assert bool((shown[on] == 0.5).all())
    optimizer = torch.optim.Adam([border.delta], lr=0.3)
    target = torch.randn(12, 12)
    for _ in range(60):
        optimizer.zero_grad()
        (border(images) * target).sum().backward()
        assert bool((border.delta.grad[:, ~border.border.bool()] == 0).all())
        optimizer.step()
    shown = border(images).detach()
    assert torch.equal(shown[inside], images)
    assert bool((border.delta[:, ~border.border.bool()] == 0).all())
    assert 0 < float(shown[on].min()) < 0.1 and 0.9 < float(shown[on].max()) < 1


def test_2_what_is_normalised_afterwards_is_the_same():
    """The paper normalises pad(x) + sigmoid(delta) B; here the image comes normalised and the border is so by itself."""
    torch.manual_seed(1)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    column = [tensor(numbers).view(-1, 1, 1) for numbers in (mean, std)]
    images, border = torch.rand(2, 3, 6, 6), Border((3, 6, 6), 11, mean, std, "normal")
    plain = nn.functional.pad(images, border.pads) + border.delta.sigmoid() * border.border
    theirs = (plain - column[0]) / column[1]
    assert torch.allclose(border((images - column[0]) / column[1]), theirs, atol=1e-6)


# -- 3 and 4: the mapping --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "found"),
    [([[5, 9], [7, 8], [0, 1], [2, 0]], [1, 0]), ([[9, 8], [1, 7], [0, 0], [0, 0]], [0, 1])],
)
def test_3_greedy_takes_the_largest_count_first(counts, found):
    assert greedy(tensor(counts)).tolist() == found


def test_3_counts_are_of_source_and_target():
    found = frequencies(tensor([2, 2, 0, 1]), tensor([1, 1, 0, 1]), 3, 2)
    assert found.tolist() == [[1, 0], [0, 1], [0, 2]]


@given(st.lists(st.lists(st.integers(0, 4), min_size=3, max_size=3), min_size=3, max_size=7))
def test_4_sources_are_distinct(counts):
    found = greedy(tensor(counts))
    assert len(set(found.tolist())) == 3
    assert bool((found >= 0).all()) and bool((found < len(counts)).all())


def test_4_fewer_sources_than_targets_are_refused():
    with pytest.raises(ValueError, match="3 target classes need as many source classes, there are 2"):
        greedy(torch.zeros(2, 3, dtype=torch.int64))


class Flat(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3 * 36, 5)

    def forward(self, images):
        return self.head(images.flatten(1))


def test_the_network_keeps_its_names_and_reads_mapped_logits():
    torch.manual_seed(0)
    network = Flat()
    images = torch.rand(2, 3, 4, 4)
    names = set(network.state_dict())
    attach(network, image_data((3, 4, 4), 2), VisualPrompt.Options(canvas=6, classes=5), (0.0,), (1.0,))
    network.label_mapping.sources.copy_(tensor([4, 1]))
    logits = network.head(network.prompt(images).flatten(1))
    assert torch.equal(network(images), logits[:, [4, 1]])
    assert set(network.state_dict()) - names == {"prompt.delta", "label_mapping.sources"}


# -- 6: calibration --------------------------------------------------------------------------------------------------


def test_6_ece_by_hand():
    """.9, .9, .6, .6 with 1, 0, 1, 1: half of |.9 - .5| and half of |.6 - 1|."""
    table = tensor([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    assert expected_error(table, tensor([0, 1, 0, 0])) == pytest.approx(0.4, abs=1e-6)


def test_6_a_calibrated_constant_has_no_error():
    assert expected_error(tensor([[0.75, 0.25]] * 4), tensor([0, 0, 0, 1])) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("logits", [[[2.0, -1.0]], [[0.9, 0.3]], [[0.2, 0.2]]])
def test_6_logits_are_refused(logits):
    with pytest.raises(ValueError, match="take a softmax of logits first"):
        expected_error(tensor(logits), tensor([0]))


def test_6_the_released_code_bins_logits():
    """Bins end at .5 and 1; all above 1 is in the last. Two right at 3 and 1.5, one wrong at .2: |2.25 - 1| 2/3 + .2 / 3."""
    assert binned(tensor([3.0, 1.5, 0.2]), tensor([1.0, 1.0, 0.0]), 2) == pytest.approx((2.5 + 0.2) / 3)
    assert binned(tensor([0.5, -4.0]), tensor([1.0, 0.0]), 2) == pytest.approx(4.5 / 2)


# -- 9: the schedule -------------------------------------------------------------------------------------------------


def test_9_learning_rates_of_a_hundred_epochs():
    options = OPTIMS["adamw"].Options(lr=0.01, schedule="step", milestones=[0.5, 0.72], warmup=0.0)
    recipe, per_epoch = OPTIMS["adamw"](options), 7
    rates = [0.01 * recipe.factor(epoch * per_epoch, 100 * per_epoch) for epoch in (0, 49, 50, 71, 72, 99)]
    assert rates == pytest.approx([0.01, 0.01, 0.001, 0.001, 0.0001, 0.0001])


# -- 5 and 7: whole cells --------------------------------------------------------------------------------------------

SHARED = [
    "model=mlp", "model.hidden=[24]", "model.batch_norm=true", "model.dropout=0.3", "dataset.augment={}", "dataset.val=0",
    "dataset.limit_test=100", "optim=adamw", "optim.lr=0.01", "trainer.batch_size=50", "trainer.max_epochs=null",
    "trainer.precision=32", "trainer.threads=1", "trainer.progress=none", "trainer.evals=1",
]  # fmt: skip
TICKET = ["method=random", "sparsity=0.5", "distribution=uniform", "dataset.resize=12", "trainer.max_steps=12"]
FROZEN = ["method=ticket", "sparsity=0.5", "trainer.max_steps=20", "dataset.n_shot=10"]
PROMPT = ["adapt=visual_prompt", "adapt.canvas=12"]
PROBE = ["adapt=linear_probe", "dataset.resize=12"]


def made(folder: Path, *words: str) -> tuple[Path, dict]:
    plan = plan_of([*SHARED, *words, f"runs_dir={folder}"])
    assert run_cell(plan) == 0
    return Path(plan.folder), json.loads((Path(plan.folder) / "record.json").read_text())


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


@pytest.fixture(scope="module")
def ticket(tmp_path_factory) -> Path:
    folder, _ = made(tmp_path_factory.mktemp("runs"), *TICKET)
    return folder


def from_ticket(ticket: Path) -> list[str]:
    return [f"model.weights={ticket / 'model.safetensors'}", f"targets.masks={ticket / 'masks.safetensors'}"]


def test_5_a_prompted_ticket_is_frozen_to_the_bit(ticket, tmp_path):
    """Parameters and the buffers of batch normalisation, dropout off; the border and the mapping are what moved."""
    folder, record = made(
        tmp_path, *FROZEN, *PROMPT, *from_ticket(ticket), "metric=[calibration,brier,ece_released_code]"
    )
    before, after = load_file(ticket / "model.safetensors"), load_file(folder / "model.safetensors")
    assert "norms.0.running_mean" in before and after.keys() == before.keys()
    for name, value in before.items():
        assert torch.equal(after[name], value), name
    after = load_file(folder / "adapt.safetensors")
    assert set(after) == {"prompt.delta", "label_mapping.sources"} and "adapt.safetensors" in record["files"]
    border = Border((1, 8, 8), 12, (0.0,), (1.0,)).border.bool()
    assert bool((after["prompt.delta"][0, border] != 0).all()) and bool((after["prompt.delta"][0, ~border] == 0).all())
    assert sorted(after["label_mapping.sources"].tolist()) == list(range(10))
    assert record["sparsity"]["realised"] == pytest.approx(0.5, abs=1e-3)
    assert record["metrics"]["train.params_trained"] == 144 - 64
    assert {"test.ece", "test.nll", "test.brier", "test.ece_released_code"} <= set(record["metrics"])
    # 20 updates of 50 examples forward and back to the border, and ten counts of 100 shots
    passes = 2 * 20 * 50 + 10 * 100
    assert record["account"]["flops_train"] == record["account"]["flops"] * passes


def test_5_and_7_a_probe_is_frozen_and_kept_features_train_the_same_head(ticket, tmp_path):
    through, _ = made(tmp_path, *FROZEN, *PROBE, *from_ticket(ticket))
    cached, record = made(tmp_path, *FROZEN, *PROBE, "adapt.cache=true", *from_ticket(ticket))
    before = load_file(ticket / "model.safetensors")
    after, kept = load_file(through / "model.safetensors"), load_file(cached / "model.safetensors")
    assert set(after) == set(before)
    for name, value in before.items():
        if name.startswith("head."):
            assert not torch.equal(after[name], value)
            assert torch.allclose(after[name], kept[name], atol=1e-5), name
        else:
            assert torch.equal(after[name], value) and torch.equal(kept[name], value), name
    assert record["metrics"]["train.params_trained"] == 10 * 24 + 10
    assert record["account"]["flops_train"] == record["account"]["flops"] * 100


class Crash(BaseException):
    pass


@pytest.mark.parametrize("words", [PROMPT, [*PROBE, "adapt.cache=true"]], ids=["prompt", "probe"])
def test_a_broken_run_goes_on_and_its_checkpoint_holds_only_what_trains(ticket, words, tmp_path, monkeypatch):
    words = [
        *FROZEN,
        *words,
        f"model.weights={ticket / 'model.safetensors'}",
        f"targets.masks={ticket / 'masks.safetensors'}",
    ]
    whole, _ = made(tmp_path / "whole", *words)
    real = Loop.on_train_batch_start

    def dies(loop, trainer, task, batch, index):
        if trainer.global_step == 12:
            raise Crash
        real(loop, trainer, task, batch, index)

    plan = plan_of([*SHARED, *words, "trainer.checkpoint_every=4", f"runs_dir={tmp_path / 'broken'}"])
    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(Loop, "on_train_batch_start", dies)
        run_cell(plan)
    found = Checkpoints(Path(plan.folder) / "checkpoints", plan.id).load_latest()
    assert found.step == 12
    names = {name.removeprefix("network.") for name in found.state["state_dict"]}
    trained = (
        {"head.weight", "head.bias"} if "adapt=linear_probe" in words else {"prompt.delta", "label_mapping.sources"}
    )
    assert names == trained
    moments = found.state["optimizer_states"][0]["state"]
    assert len(moments) == len(trained - {"label_mapping.sources"})
    again = plan_of([*SHARED, *words, "trainer.checkpoint_every=4", f"runs_dir={tmp_path / 'broken'}"])
    assert run_cell(again) == 0
    one, other = (tensors_of(folder) for folder in (whole, Path(again.folder)))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_that_broke_within_an_epoch_keeps_the_mapping_of_that_epoch(ticket, tmp_path, monkeypatch):
    """The mapping of updates 8 and 9 is counted before 8: a run that goes on at 9, of micro-batches, must not count again."""
    words = [*FROZEN, *PROMPT, *from_ticket(ticket), "trainer.max_steps=11", "trainer.accumulate=2", "optim.lr=0.5"]
    whole, _ = made(tmp_path / "whole", *words)
    real = Loop.on_train_batch_start

    def dies(loop, trainer, task, batch, index):
        if trainer.global_step == 10:
            raise Crash
        real(loop, trainer, task, batch, index)

    words += ["trainer.checkpoint_every=9", f"runs_dir={tmp_path / 'broken'}"]
    plan = plan_of([*SHARED, *words])
    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(Loop, "on_train_batch_start", dies)
        run_cell(plan)
    assert Checkpoints(Path(plan.folder) / "checkpoints", plan.id).load_latest().step == 9
    assert run_cell(plan_of([*SHARED, *words])) == 0
    one, other = (tensors_of(folder) for folder in (whole, Path(plan.folder)))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_moving_average_of_the_border_leaves_the_mapping_a_mapping(ticket, tmp_path):
    folder, _ = made(tmp_path, *FROZEN, *PROMPT, *from_ticket(ticket), "trainer.ema=0.5", "optim.lr=0.5")
    after = load_file(folder / "adapt.safetensors")
    assert sorted(after["label_mapping.sources"].tolist()) == list(range(10))
    before, given = load_file(ticket / "model.safetensors"), load_file(folder / "model.safetensors")
    assert all(torch.equal(given[name], before[name]) for name in before)


def test_micro_batches_and_mixed_precision_train_the_same_border(ticket, tmp_path):
    """Two micro-batches an update are one batch, mapping and all; under bf16 the given network keeps its bits, too."""
    words = [*FROZEN, *PROMPT, *from_ticket(ticket)]
    one, two, mixed = (
        made(tmp_path, *words, *more)[0] for more in ([], ["trainer.accumulate=2"], ["trainer.precision=bf16"])
    )
    deltas = [load_file(folder / "adapt.safetensors") for folder in (one, two, mixed)]
    assert torch.equal(deltas[0]["label_mapping.sources"], deltas[1]["label_mapping.sources"])
    assert torch.allclose(deltas[0]["prompt.delta"], deltas[1]["prompt.delta"], atol=1e-4)
    before, after = load_file(ticket / "model.safetensors"), load_file(mixed / "model.safetensors")
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.slow
def test_two_processes_train_the_border_that_one_does(ticket, tmp_path):
    words = [*FROZEN, *PROMPT, *from_ticket(ticket), "trainer.max_steps=6", "trainer.accelerator=cpu"]
    one, two = (
        load_file(made(tmp_path / devices, *words, f"trainer.devices={devices}")[0] / "adapt.safetensors")
        for devices in ("1", "2")
    )
    assert torch.equal(one["label_mapping.sources"], two["label_mapping.sources"])
    assert torch.allclose(one["prompt.delta"], two["prompt.delta"], atol=1e-4)


@pytest.mark.parametrize("mapping", ["flm", "rlm"])
def test_a_mapping_that_is_made_once_stays(ticket, mapping, tmp_path):
    words = [*FROZEN, *PROMPT, *from_ticket(ticket), f"adapt.mapping={mapping}", "adapt.classes=10"]
    none, _ = made(tmp_path, *words, "trainer.max_steps=0")
    some, _ = made(tmp_path, *words)
    first, last = (load_file(folder / "adapt.safetensors")["label_mapping.sources"] for folder in (none, some))
    assert torch.equal(first, last) and len(set(last.tolist())) == 10


def test_full_fine_tuning_starts_with_a_new_head_and_moves_everything(ticket, tmp_path):
    words = ["method=dense", "adapt=full", "dataset.resize=12", from_ticket(ticket)[0]]
    folder, _ = made(tmp_path, *words, "trainer.max_steps=2")
    before, after = load_file(ticket / "model.safetensors"), load_file(folder / "model.safetensors")
    assert not any(torch.equal(after[name], before[name]) for name in before if name != "norms.0.num_batches_tracked")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            [*PROMPT, "adapt.classes=5"],
            "adapt.classes=5: digits has 10 classes, and each needs one of the network's own",
        ),
        (
            ["adapt=visual_prompt", "adapt.canvas=6"],
            "adapt.canvas=6: images of 8x8 pixels are larger — write adapt.canvas=10",
        ),
        (["adapt=visual_prompt", "adapt.canvas=8"], "adapt.canvas=8: images of 8x8 pixels leave no border to learn"),
        (["adapt=linear_probe", "dataset.n_shot=0"], "dataset.n_shot=0: input should be greater than or equal to 1"),
        (
            ["adapt=linear_probe", "adapt.cache=true", "dataset.augment={flip: true}"],
            "adapt.cache=true: features are kept",
        ),
        ([*PROMPT, "loss=[l1]"], "loss.l1: is computed from the network's own inputs and weights"),
    ],
)
def test_bad_requests_are_refused_in_a_line(words, line):
    with pytest.raises(ConfigError) as refused:
        plan_of([*SHARED, "method=dense", "trainer.max_steps=3", *words])
    assert any(str(issue).startswith(line) for issue in refused.value.issues), [str(i) for i in refused.value.issues]


def test_a_method_that_moves_masks_is_refused_under_a_frozen_network():
    words = [*SHARED, "trainer.max_steps=50", "adapt=linear_probe", "sparsity=0.5"]
    for more, line in (
        (["method=ste"], "method=ste: trains weights that"),
        (["method=set", "schedule.every=10"], "schedule=periodic: masks would move"),
        (["method=magnitude", "schedule.at=0.5"], "schedule=one_shot: masks would move"),
    ):
        with pytest.raises(ConfigError) as refused:
            plan_of([*words, *more])
        assert any(str(issue).startswith(line) for issue in refused.value.issues), [
            str(i) for i in refused.value.issues
        ]


def test_a_ticket_of_another_network_is_refused(ticket):
    words = [*SHARED, *FROZEN, *PROMPT, "model.hidden=[20]", *from_ticket(ticket)]
    with pytest.raises(ConfigError) as refused:
        plan_of(words)
    lines = " / ".join(map(str, refused.value.issues))
    assert "shape of layers.0.weight" in lines and "match model and dataset to the file" in lines


def test_the_head_of_a_probe_may_be_for_other_classes(ticket):
    """What a prompted network is made for decides which files fit; a probe takes any head."""
    words = [*SHARED, "method=dense", "trainer.max_steps=3", from_ticket(ticket)[0]]
    with pytest.raises(ConfigError) as refused:
        plan_of([*words, *PROMPT, "adapt.classes=12"])
    assert "shape of head.weight is [10, 24], not [12, 24]" in " / ".join(map(str, refused.value.issues))
    assert plan_of([*words, *PROBE]).parts.family.fresh_head
