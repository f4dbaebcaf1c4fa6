"""The account: hand counts, torch's own counter, and the rule for training."""

from __future__ import annotations

import pytest
import torch
from data_specs import image_data, text_data
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from sparselab.core.model_spec import Layer, ModelSpec
from sparselab.core.options import validate
from sparselab.inputs.models.family import MODELS
from sparselab.weights.cost import cost_of, train_flops, train_flops_dense

OUTLINE = ModelSpec(
    "toy",
    (
        Layer("conv", "conv", (2, 1, 3, 3), 18 * 16),
        Layer("table", "embedding", (5, 2), 0),
        Layer("head", "linear", (4, 2), 8),
    ),
    params=50,
    fixed_macs={"attn": 100},
)


def test_dense() -> None:
    cost = cost_of(OUTLINE)
    assert (cost.params, cost.params_nonzero) == (50, 50)
    assert (cost.macs_dense, cost.macs, cost.flops_dense, cost.flops) == (396, 396, 792, 792)


def test_sparse_by_hand() -> None:
    cost = cost_of(OUTLINE, {"conv": 9, "table": 4, "head": 1})
    assert cost.params_nonzero == 50 - 9 - 6 - 7
    assert cost.macs == 9 * 16 + 0 + 1 + 100
    assert cost.flops == 2 * cost.macs and cost.macs_dense == 396
    assert [(layer.name, layer.params, layer.params_nonzero, layer.macs) for layer in cost.layers] == [
        ("conv", 18, 9, 144),
        ("table", 10, 4, 0),
        ("head", 8, 1, 1),
    ]
    assert cost.record()["layers"][2] == {
        "name": "head",
        "params": 8,
        "params_nonzero": 1,
        "macs_dense": 8,
        "macs": 1,
        "flops_dense": 16,
        "flops": 2,
    }


@pytest.mark.parametrize("kept", [{"heed": 1}, {"head": 9}, {"head": -1}])
def test_impossible_counts(kept: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"is no layer|cannot keep"):
        cost_of(OUTLINE, kept)


@given(st.integers(0, 18), st.integers(0, 10), st.integers(0, 8))
def test_what_is_kept_and_what_is_gone_add_up(conv: int, table: int, head: int) -> None:
    kept, gone = (
        {"conv": conv, "table": table, "head": head},
        {"conv": 18 - conv, "table": 10 - table, "head": 8 - head},
    )
    assert cost_of(OUTLINE, kept).macs + cost_of(OUTLINE, gone).macs == OUTLINE.macs + 100
    assert cost_of(OUTLINE, kept).params_nonzero + cost_of(OUTLINE, gone).params_nonzero == 50 + (50 - 36)


CASES = {
    "vit_s": ("vit", {}, image_data((3, 32, 32), 10)),
    "resnet20": ("cifar_resnet", {}, image_data((3, 32, 32), 10)),
    "resnet50": ("resnet", {"depth": 50}, image_data((3, 224, 224), 1000)),
    "llama": ("llama", {"width": 64, "depth": 2, "kv_heads": 2, "ff": 176}, text_data(32, 256)),
    "gpt": ("gpt", {"width": 64, "depth": 2}, text_data(32, 256)),
}


def built(case: str) -> tuple[ModelSpec, torch.nn.Module, torch.Tensor]:
    name, options, data = CASES[case]
    member = MODELS[name](validate(MODELS[name].Options, options, "model"))
    sample = data.inputs.zeros(torch.device("cpu"), torch.float32)
    return member.model_spec(data), member.build(data), sample


@pytest.mark.parametrize("case", sorted(CASES))
def test_equals_torchs_counter(case: str) -> None:
    """To the FLOP, attention included: both count all pairs of tokens, causal mask or not."""
    model_spec, model, sample = built(case)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(sample)
    assert cost_of(model_spec).flops_dense == counter.get_total_flops()


def test_equals_torchs_counter_with_products_written_out() -> None:
    model_spec, model, sample = built("llama")
    model.set_attn_implementation("eager")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(sample)
    assert cost_of(model_spec).flops_dense == counter.get_total_flops()


@pytest.mark.parametrize("case", ["resnet20", "llama"])
def test_dense_training_against_torchs_counter(case: str) -> None:
    """The rule counts the input gradient of the first layer; torch does not compute it for images."""
    model_spec, model, sample = built(case)
    if case == "llama":
        model.set_attn_implementation("eager")  # a fused backward pass multiplies q@k a second time
    with FlopCounterMode(display=False) as counter:
        output = model(sample)
        (output if isinstance(output, torch.Tensor) else output.logits).sum().backward()
    uncounted = 2 * sum(layer.macs for layer in model_spec.layers if "stem" in layer.roles)
    assert train_flops_dense(model_spec, 1, 1) - uncounted == counter.get_total_flops()


HALF = {"conv": 9, "head": 4}
DENSE, SPARSE = 396, 9 * 16 + 4 + 100


def test_rule_for_each_kind_of_method() -> None:
    ledger = [(0, HALF)]
    assert train_flops_dense(OUTLINE, 1, 10) == 2 * 10 * 3 * DENSE
    assert train_flops(OUTLINE, ledger, 1, "dense", steps=10) == 2 * 10 * (2 * SPARSE + DENSE)
    assert train_flops(OUTLINE, ledger, 1, "kept", steps=10) == 2 * 10 * 3 * SPARSE
    rigl = train_flops(OUTLINE, ledger, 1, "kept", steps=10, dense_steps=[5, 10, 10, 15])
    assert rigl == 2 * (8 * 3 * SPARSE + 2 * (2 * SPARSE + DENSE))
    assert train_flops(OUTLINE, ledger, 64, "kept", steps=10) == 64 * 2 * 10 * 3 * SPARSE


def test_rigl_as_sparse_ift_counts_it() -> None:
    """arXiv 2303.11525: (3 f_S D + 2 f_S + f_D) / (D + 1) a step, which is 0.3089 f_D at f_S = 0.1 f_D and D = 100.

    An exchange is one more update after D others, so here it is ``schedule.every = D + 1``.
    """
    model_spec = ModelSpec("one", (Layer("l", "linear", (2, 5), 10),), 10)
    cost = train_flops(model_spec, [(0, {"l": 1})], 1, "kept", steps=101, dense_steps=[101])
    assert cost == 2 * (3 * 1 * 100 + 2 * 1 + 10)
    assert cost / 2 / 101 / 10 == pytest.approx(0.3089, abs=5e-5)
    assert train_flops(model_spec, [(0, {"l": 1})], 1, "kept", steps=101) / 2 / 101 / 10 == pytest.approx(0.3)


def test_segments() -> None:
    """Made after update 3: updates 1 to 3 are dense, 4 to 10 sparse."""
    ledger = [(0, {}), (3, HALF)]
    assert train_flops(OUTLINE, ledger, 1, "kept", steps=10) == 2 * 3 * (3 * DENSE + 7 * SPARSE)
    mixed = train_flops(OUTLINE, ledger, 1, "kept", steps=10, dense_steps=[2, 4])
    assert mixed == 2 * (3 * 3 * DENSE + 6 * 3 * SPARSE + 2 * SPARSE + DENSE)
    assert train_flops(OUTLINE, [(0, {}), (10, HALF)], 1, "kept", steps=10) == train_flops_dense(OUTLINE, 1, 10)
    assert train_flops(OUTLINE, [(0, {}), (3, HALF), (12, {})], 1, "kept", steps=10) == train_flops(
        OUTLINE, ledger, 1, "kept", steps=10
    )


@pytest.mark.parametrize("ledger", [[], [(1, {})], [(0, {}), (0, {})], [(0, {}), (5, {}), (3, {})]])
def test_ledger_out_of_order(ledger: list) -> None:
    with pytest.raises(ValueError, match=r"starts at 0 and rises"):
        train_flops(OUTLINE, ledger, 1, "kept", steps=10)


def test_unknown_rule() -> None:
    with pytest.raises(ValueError, match=r"'dense' or 'kept'"):
        train_flops(OUTLINE, [(0, {})], 1, "periodic", steps=1)


@settings(max_examples=50)
@given(
    steps=st.integers(0, 20),
    cuts=st.lists(st.integers(1, 25), max_size=4, unique=True),
    updates=st.lists(st.integers(1, 25), max_size=5),
)
def test_a_ledger_is_the_sum_of_its_updates(steps: int, cuts: list[int], updates: list[int]) -> None:
    kept = [HALF, {"conv": 3}, {}, {"head": 1}, {"conv": 1, "head": 2}]
    ledger = [(0, kept[0]), *zip(sorted(cuts), kept[1:], strict=False)]
    expected = 0
    for step in range(1, steps + 1):
        sparse = cost_of(OUTLINE, next(k for first, k in reversed(ledger) if first < step)).macs
        expected += 2 * (2 * sparse + (DENSE if step in updates else sparse))
    assert train_flops(OUTLINE, ledger, 1, "kept", steps=steps, dense_steps=updates) == expected
