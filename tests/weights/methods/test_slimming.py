"""Units by the scales of norms (network slimming, the masks of MaskSparsity): items of the dossier by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sparselab.core.errors import ConfigError, RunFailed, Stopped
from sparselab.core.model_spec import Layer
from sparselab.core.sparsity import Sparsity
from sparselab.running.planning import plan_of
from sparselab.running.run_cell import run_cell
from sparselab.storage import record, tensors
from sparselab.training.loop.stopping import StopFlag
from sparselab.training.runner import execute
from sparselab.weights.methods.slimming import Slimming, common, energy_threshold, ranked
from sparselab.weights.patterns.pattern import Pattern
from sparselab.weights.slot import Slot

TINY = [
    "model=resnet20", "model.depth=8", "model.width=4", "dataset=digits", "trainer=digits", "targets.include=[*.conv1]",
    "trainer.max_epochs=null", "trainer.progress=none", "trainer.accelerator=cpu", "trainer.threads=1",
]  # fmt: skip


def slots_of(*scales, adds="", sparsity="unit:0.5"):
    made = []
    for i, scale in enumerate(scales):
        param = nn.Parameter(torch.randn(len(scale), 3, 3, 3))
        layer = Layer(f"layer{i}", "conv", tuple(param.shape), 0, norm=f"norm{i}", readers=("next",), adds=adds)
        slot = Slot(
            layer, param, Pattern.of(Sparsity.parse(sparsity), "conv"), torch.ones_like(param, dtype=torch.bool)
        )
        slot.scale = nn.Parameter(torch.tensor(scale))
        made.append(slot)
    return made


def units(slots, **options):
    method = Slimming(Slimming.Options(**options))
    method.allocated(slots, {})
    return [method.remask(slot, 0, None).flatten(1).any(1).tolist() for slot in slots]


def test_energy_drops_what_is_nothing_beside_the_rest():
    """Item: [1, 1, 0.001] has its limit midway between 0.001 and 1; of [1, 1, 1] nothing goes; tiny layers go whole."""
    assert energy_threshold(torch.tensor([1.0, 1.0, 0.001]), 1e-4) == pytest.approx((0.001 + 1) / 2, abs=1e-6)
    assert energy_threshold(torch.tensor([1.0, 1.0, 1.0]), 1e-4) == 0
    assert energy_threshold(torch.tensor([9e-4, 1e-5]), 1e-4) == 1
    assert units(slots_of([1.0, -1.0, 0.001], [1.0, 1.0, 1.0]), select="energy") == [[True, True, False], [True] * 3]
    assert units(slots_of([1e-5, 9e-4, 1e-4]), select="energy") == [[False, True, False]], "one unit stays"


def test_a_limit_for_the_size_of_scales():
    assert units(slots_of([0.01, -0.02, 0.0], [0.0, 0.001, 0.0]), select="threshold") == [
        [False, True, False],
        [False, True, False],
    ]
    assert units(slots_of([0.1, 0.2, 0.05]), select="threshold", threshold=0.08, least=3) == [[True] * 3]


def test_votes_of_a_stream():
    """Item: {1,1,0} and {1,0,0} both lose channel 0 and nothing else; a union loses both; levels fall until enough go."""
    gone = torch.tensor([[1, 1, 0], [1, 0, 0]], dtype=torch.bool)
    assert common(gone).tolist() == [True, False, False]
    assert common(gone, "union").tolist() == [True, True, False]
    three = torch.tensor([[1, 1, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0]], dtype=torch.bool)
    assert common(three).tolist() == [False, True, True, False], "all three agree on one, and two have to go: two votes"
    none = torch.tensor([[1, 1, 0], [0, 0, 0]], dtype=torch.bool)
    assert common(none).tolist() == [False] * 3, "a layer that loses none keeps the stream whole"
    slots = slots_of([0.1, 0.2, 1.0], [0.1, 2.0, 3.0], adds="stream", sparsity="shared_unit:0.5")
    assert units(slots, select="threshold", threshold=0.5) == [[False, True, True]] * 2


def test_votes_that_would_empty_a_stream_are_refused():
    slots = slots_of([0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0], adds="stream", sparsity="shared_unit:0.5")
    with pytest.raises(RunFailed, match="the layers of stream would leave 0 of its 4 units — ask for less"):
        units(slots, select="threshold", threshold=0.5)


def test_half_of_all_units_wherever_they_are_and_one_of_each_layer():
    large, small = [1.0, 2.0, 3.0, 4.0], [0.01, 0.02, 0.03, 0.04]
    assert units(slots_of(large, small)) == [[False, True, True, True], [False, False, False, True]]
    assert units(slots_of(large, small), select="layer") == [[False, False, True, True]] * 2
    ties = ranked({"a": torch.zeros(3), "b": torch.zeros(3)}, 3, 1)
    assert ties["a"].tolist() == [True, True, False] and ties["b"].tolist() == [True, False, False], "first come first"


def test_the_size_counts_not_the_sign():
    assert units(slots_of([-3.0, 0.5, 1.0, -0.1])) == [[True, False, True, False]]


@pytest.mark.parametrize("select", ["ratio", "layer", "threshold", "energy"])
def test_scales_that_cannot_be_ranked_are_refused(select):
    with pytest.raises(RunFailed, match=r"layer1.weight: scales behind it hold NaN or infinite values"):
        units(slots_of([0.1, 0.2], [float("nan"), 0.2]), select=select)


def test_a_layer_with_fewer_units_than_have_to_stay_keeps_all():
    assert units(slots_of([0.1, 0.2], [1.0, 2.0, 3.0, 4.0]), least=3) == [[True, True], [False, True, True, True]]


def test_a_run_cuts_what_it_found_and_a_ticket_keeps_as_much(tmp_path):
    """Half of all units, ranked together, is not half of the weights: both cells say what they have, and no total is missed."""
    words = [*TINY, f"runs_dir={tmp_path}"]
    plan = plan_of([*words, "method=slimming", "sparsity=unit:0.5", "trainer.max_steps=0"])
    assert run_cell(plan) == 0
    masks = tensors.load_masks(f"{plan.folder}/masks.safetensors")
    kept = [int(mask.flatten(1).any(1).sum()) for mask in masks.values()]
    assert kept == [4, 8, 2], "scales of a new network are all 1: the first 14 of 28 stay"
    ticket = [*words, "method=ticket", "distribution=uniform", "sparsity=unit:0.5", "trainer.max_steps=0"]
    given = f"targets.masks={plan.folder}/masks.safetensors"
    again = plan_of([*ticket, "method.count=found", given])
    assert run_cell(again) == 0
    found = record.read(again.folder, again.id)
    assert found["sparsity"]["kept"] == sum(int(mask.sum()) for mask in masks.values())


def test_what_is_refused(tmp_path):
    words = [
        "dataset=digits",
        "method=slimming",
        "trainer.max_steps=0",
        "trainer.max_epochs=null",
        f"runs_dir={tmp_path}",
    ]
    with pytest.raises(ConfigError, match=r"there is no norm behind layers.0 whose scales method=slimming could rank"):
        plan_of([*words, "model=mlp", "sparsity=unit:0.5"])
    streams = ["model=resnet18", "sparsity=shared_unit:0.5", "targets.exclude=[@head]"]
    assert plan_of([*words, *streams]).parts.kept
    with pytest.raises(ConfigError, match=r"the outputs of layer1.1.conv2 and conv1 are added, and conv1 would keep"):
        plan_of([*words, *streams[:2], "targets.exclude=[@head, @stem]"])


def test_a_cut_in_the_middle_of_a_run_resumes_bit_for_bit(tmp_path):
    """With micro-batches, loss scaling, an average and the penalty: stopped behind the cut and run again, the same network."""
    words = [
        *TINY, "method=slimming", "schedule=one_shot", "schedule.at=0.5", "sparsity=unit:0.5", "trainer.max_steps=8",
        "trainer.batch_size=16", "trainer.accumulate=2", "trainer.precision='16'", "trainer.ema=0.9", "trainer.evals=1",
        "optim=sgd", "loss=[norm_scales]", "loss.norm_scales.weight=0.05",
    ]  # fmt: skip
    whole = execute(plan_of([*words, f"runs_dir={tmp_path / 'whole'}"]))

    class Late(StopFlag):
        looks = 0

        def __bool__(self):
            self.looks += 1
            return self.looks > 5

    flag = Late()
    flag.name = "test"
    stopped = [*words, f"runs_dir={tmp_path / 'stopped'}"]
    with pytest.raises(Stopped):
        execute(plan_of(stopped), flag)
    resumed = execute(plan_of(stopped))
    assert resumed.resumed_from
    assert all(torch.equal(value, resumed.state[name]) for name, value in whole.state.items())
    for slot in whole.sparsifier.slots:
        gone = ~slot.mask.flatten(1).any(1)
        assert gone.any() or slot.kept == slot.mask.numel()
        assert not whole.state[f"{slot.layer.norm}.bias"][gone].any()
