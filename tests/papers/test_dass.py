"""DASS (arXiv 2207.06968): what its dossier says can be checked exactly.

The items are numbered as there: 1 masks and counts, 2 the straight-through gradient, 3 scaled scores, 4 what rests in which
phase, 5 genotypes, 6 the gradient of a look ahead, 7 the sparse copy of the search, 8 parameters in closed form.
"""

from __future__ import annotations

import json
import re
import sys
from math import sqrt
from pathlib import Path

import pytest
import torch
from data_specs import image_data
from safetensors.torch import load_file

from sparselab.cli.application import _run_with_parents
from sparselab.core.errors import ConfigError
from sparselab.core.model_spec import Layer
from sparselab.core.options import validate
from sparselab.core.sparsity import Sparsity
from sparselab.experiments.tables.grid import expand
from sparselab.experiments.tables.load import load
from sparselab.inputs.models.family import MODELS
from sparselab.inputs.models.genotype import FILE, OPERATIONS, RELEASED, derived, drawn, edges, read, read_tree
from sparselab.running.planning import plan_of
from sparselab.storage.checkpoints import Checkpoints
from sparselab.storage.tensors import load_masks
from sparselab.training.loop.loop import Loop
from sparselab.training.searches.picture import picture
from sparselab.training.searches.torch_side.architect import Architect, _steps, looked_ahead, smaller_away
from sparselab.weights.distributions import DISTRIBUTIONS
from sparselab.weights.method import METHODS
from sparselab.weights.patterns.pattern import Pattern
from sparselab.weights.slot import Slot

torch.set_num_threads(1)

LAYERWISE = DISTRIBUTIONS["layerwise"](DISTRIBUTIONS["layerwise"].Options())


# -- 1 to 3: masks and scores ------------------------------------------------------------------------------------------


def test_1_the_mask_of_four_scores():
    scores = torch.tensor([0.1, -0.9, 0.3, 0.2])
    pattern = Pattern.of(Sparsity.parse(0.5))
    assert pattern.mask(scores.abs()[None], 0.5)[0].tolist() == [False, True, True, False]
    assert pattern.mask(scores.abs()[None], 1.0)[0].all()
    assert smaller_away(scores, 0.5).tolist() == [False, True, True, False]


@pytest.mark.parametrize("kept", [0.01, 0.02, 0.1, 0.35, 0.5])
def test_1_the_count_of_a_layer(kept):
    sizes = [1, 9, 27, 54, 144, 1000]
    layers = [Layer(str(size), "linear", (1, size), size) for size in sizes]
    counts = LAYERWISE.allocate(layers, Sparsity.parse(round(1 - kept, 4)).density)
    assert counts == {str(size): size - int((1 - kept) * size) for size in sizes}
    assert all(int(smaller_away(torch.randn(size), 1 - kept).sum()) == counts[str(size)] for size in sizes)


def slot_of(weight: torch.Tensor, **options: object) -> tuple[Slot, object]:
    cls = METHODS["hydra_mask"]
    layer = Layer("layer", "conv", tuple(weight.shape), weight.numel())
    pattern = Pattern.of(Sparsity.parse(0.5), "conv")
    slot = Slot(layer, torch.nn.Parameter(weight.clone()), pattern, torch.ones_like(weight, dtype=torch.bool))
    slot.keep_master()
    return slot, cls(cls.Options(**options))


def test_2_scores_follow_the_sign_of_theirs_pruned_or_not():
    """dL/dz = sign(z) w dL/dw_eff, at entries outside of the mask as well."""
    slot, method = slot_of(torch.randn(3, 2, 3, 3), score_init="scaled")
    slot.learned = torch.nn.Parameter(torch.randn(3, 2, 3, 3))
    slot.mask = torch.rand(3, 2, 3, 3) > 0.5
    gradient = slot.param.grad = torch.randn(3, 2, 3, 3)
    with torch.no_grad():
        found = method.learn(slot)
    assert torch.equal(found, slot.master * gradient * slot.learned.sign())
    assert bool((found[~slot.mask] != 0).all())


def test_3_scaled_scores_rank_as_the_weights():
    weight = torch.randn(5, 4, 3, 3)
    slot, method = slot_of(weight, score_init="scaled")
    scores = method.learned(slot)
    assert float(scores.abs().max()) == pytest.approx(sqrt(6 / 36))
    assert torch.equal(scores.abs().flatten().argsort(), weight.abs().flatten().argsort())
    assert not method.learned(slot_of(torch.zeros(2, 2, 1, 1), score_init="scaled")[0]).any()


# -- 5: genotypes ------------------------------------------------------------------------------------------------------


def reference(weights: torch.Tensor) -> list[tuple[str, int]]:
    """The rule of quark0/darts, cnn/model_search.py, over again: best by the softmax, two edges a node."""
    shares, found, start, states = weights.softmax(-1).tolist(), [], 0, 2
    while start < len(shares):
        rows = shares[start : start + states]
        kept = sorted(range(states), key=lambda j, rows=rows: -max(rows[j][1:]))[:2]
        found += [(OPERATIONS[1 + rows[j][1:].index(max(rows[j][1:]))], j) for j in kept]
        start, states = start + states, states + 1
    return found


@pytest.mark.parametrize("seed", range(20))
def test_5_a_node_keeps_two_inputs_and_none_is_never_chosen(seed):
    torch.manual_seed(seed)
    normal, reduction = (torch.randn(14, 8, dtype=torch.double) for _ in range(2))
    normal[:, 0] += 3  # `none` is the favourite
    found = derived(normal.tolist(), reduction.tolist(), OPERATIONS)
    for nodes, weights in ((found.normal, normal), (found.reduce, reduction)):
        assert len(nodes) == 4 and [edge for node in nodes for edge in node] == reference(weights)
        assert all(len({state for _, state in node}) == 2 for node in nodes)
        assert all(name != "none" for node in nodes for name, _ in node)
    assert read_tree(json.loads(found.rendered()), "file") == found


def test_5_random_cells_are_cells_and_addressed():
    assert drawn(1, 4, OPERATIONS) == drawn(1, 4, OPERATIONS) != drawn(2, 4, OPERATIONS)
    for seed in range(30):
        genotype = drawn(seed, 3, ["none", "skip_connect", "sep_conv_3x3"])
        assert read_tree(genotype.tree(), "drawn") == genotype
    assert edges(4) == 14


def test_a_genotype_is_drawn():
    png = picture(RELEASED["dass"])
    assert png[:8] == b"\x89PNG\r\n\x1a\n" and png == picture(RELEASED["dass"])


# -- 6 and 7: the gradient of the search -------------------------------------------------------------------------------

C, D, E, F, RATE, DECAY = 1.7, 0.6, -0.4, 0.9, 0.1, 0.05


def train(w, a):
    return (0.5 * C * w**2 + D * w * a + 0.3 * a**2).sum()


def held_out(w, a):
    return (0.5 * (w - E) ** 2 + F * w * a - 0.2 * a**2).sum()


@pytest.mark.parametrize("momentum", [None, 0.25])
def test_6_the_look_ahead_on_a_quadratic(momentum):
    """One weight, one choice: the exact derivative through the step, by differentiating twice."""
    w, a = (torch.tensor([value], dtype=torch.double, requires_grad=True) for value in (0.8, 1.3))
    slope = torch.autograd.grad(train(w, a), w, create_graph=True)[0]
    ahead = w - RATE * (slope + DECAY * w + (momentum or 0.0))
    exact = torch.autograd.grad(held_out(ahead, a), a)[0]
    before = w.detach().clone()
    moment = None if momentum is None else torch.tensor([momentum], dtype=torch.double)
    (found,) = looked_ahead(lambda: train(w, a), lambda: held_out(w, a), [w], [a], RATE, [DECAY], [moment])
    assert float(found) == pytest.approx(float(exact), abs=1e-3)
    first = torch.autograd.grad(held_out(ahead.detach(), a), a)[0]
    assert abs(float(first - exact)) > 1e-2  # the second order counts
    assert torch.equal(w.detach(), before)
    (plain,) = looked_ahead(lambda: train(w, a), lambda: held_out(w, a), [w], [a], 0.0)
    assert torch.equal(plain, torch.autograd.grad(held_out(w, a), a)[0])


@pytest.mark.parametrize("momentum, nesterov", [(0.0, False), (0.9, False), (0.9, True)])
def test_6_the_step_ahead_is_the_optimisers(momentum, nesterov):
    """After several updates the weights that the held-out loss sees are those of the next update, to rounding."""
    w, a = (torch.tensor([value], dtype=torch.double, requires_grad=True) for value in (0.8, 1.3))
    sgd = torch.optim.SGD([w], lr=RATE, momentum=momentum, nesterov=nesterov, weight_decay=DECAY)
    for _ in range(3):
        weights, decays, momenta, rate = _steps(sgd)
        seen = []

        def look(w=w, a=a, seen=seen):
            seen.append(float(w))
            return held_out(w, a)

        looked_ahead(lambda: train(w, a), look, weights, [a], rate, decays, momenta)
        w.grad = torch.autograd.grad(train(w, a), w)[0]
        sgd.step()
        assert seen == pytest.approx([float(w)], rel=1e-12)


def test_7_the_copy_is_pruned_and_the_network_is_not():
    """The held-out loss sees k of the weights, the training loss all of them, and afterwards they are the same bits."""
    torch.manual_seed(0)
    w = torch.randn(50, dtype=torch.double, requires_grad=True)
    a = torch.randn(50, dtype=torch.double, requires_grad=True)
    before, seen = w.detach().clone(), {"train": [], "held out": []}

    def look(name, loss):
        def value():
            seen[name].append(int(torch.count_nonzero(w)))
            return loss(w, a)

        return value

    (found,) = looked_ahead(
        look("train", train), look("held out", held_out), [w], [a], RATE, [DECAY], [None],
        lambda values: [smaller_away(value, 0.9) for value in values],
    )  # fmt: skip
    assert seen == {"train": [50, 50, 50], "held out": [5]}
    assert torch.equal(w.detach(), before)
    slope = torch.autograd.grad(train(w, a), w, create_graph=True)[0]
    ahead = w - RATE * (slope + DECAY * w)
    exact = torch.autograd.grad(held_out(ahead * smaller_away(ahead, 0.9), a), a)[0]
    assert torch.allclose(found, exact, atol=1e-3)


# -- 8: closed forms ---------------------------------------------------------------------------------------------------


def spec(genotype: str, channels: int, cells: int):
    options = {"genotype": genotype, "channels": channels, "cells": cells}
    family = MODELS["darts"](validate(MODELS["darts"].Options, options, "model"))
    return family.model_spec(image_data((3, 32, 32), 10))


@pytest.mark.parametrize(
    ("channels", "cells", "dass", "norms", "dense"),
    [(30, 16, 0.989, 8.6, 1.678), (36, 20, 1.714, 12.3, 2.942), (86, 12, 5.379, 19.1, 8.565), (108, 14, 10.569, 27.9, 17.232)],
)  # fmt: skip
def test_8_parameters_of_the_released_cells(channels, cells, dass, norms, dense):
    found = spec("dass", channels, cells)
    weights = sum(layer.numel for layer in found.layers)
    assert found.params / 1e6 == pytest.approx(dass, abs=5e-4)
    assert (found.params - weights - 10) / 1e3 == pytest.approx(norms, abs=0.05)
    kept = LAYERWISE.allocate(list(found.layers), 0.01)
    assert sum(kept.values()) == pytest.approx(weights / 100, rel=0.02)
    assert spec("darts_original", channels, cells).params / 1e6 == pytest.approx(dense, abs=5e-4)


def test_8_the_known_size_of_darts():
    assert spec("darts_v2", 36, 20).params == 3_349_342


# -- 4: the phases -----------------------------------------------------------------------------------------------------

BASE = [
    "model=darts_search", "model.channels=2", "model.cells=2", "model.nodes=2", "model.ops=[skip_connect,sep_conv_3x3]",
    "dataset=digits", "dataset.val=600", "targets.exclude=[]", "distribution=layerwise", "trainer.batch_size=64",
    "trainer.max_epochs=null", "trainer.max_steps=3", "trainer.evals=0", "trainer.threads=1", "trainer.progress=none",
    "trainer.precision='32'", "trainer.accelerator=cpu",
]  # fmt: skip
PRETRAIN = [*BASE, "method=dense", "search=darts", "search.sparsity=0.9"]


def cell(overrides: list[str]) -> str:
    return "{" + ", ".join(f"{key}: {value}" for key, _, value in (text.partition("=") for text in overrides)) + "}"


PRUNE = [
    *BASE, "method=hydra_mask", "sparsity=0.9", "method.search=1.0", "method.score_init=scaled", "method.unmasked=both",
    f"model.weights={{cell: {cell(PRETRAIN)}}}",
]  # fmt: skip
FINETUNE = [
    *BASE,
    "method=ticket",
    "sparsity=0.9",
    "search=darts",
    f"model.weights={{cell: {cell(PRUNE)}, take: both}}",
]
LAST = [
    text for text in BASE if not text.startswith(("model", "dataset.val", "trainer.max_steps"))
] + ["model=darts", "model.channels=2", "model.cells=2", "method=dense", "trainer.max_steps=1",
     f"model.genotype={{cell: {cell(FINETUNE)}}}"]  # fmt: skip


def run(overrides: list[str], folder: Path, *more: str) -> Path:
    plan = plan_of([*overrides, f"runs_dir={folder}", *more])
    assert _run_with_parents(plan) == 0
    return Path(plan.folder)


@pytest.fixture(scope="module")
def phases(tmp_path_factory):
    """Folders of the search's phases, and of a network of the cells that it found."""
    folder = tmp_path_factory.mktemp("dass")
    last = run(LAST, folder)
    names = {"pretrain": PRETRAIN, "prune": PRUNE, "finetune": FINETUNE}
    return {name: Path(plan_of([*own, f"runs_dir={folder}"]).folder) for name, own in names.items()} | {"last": last}


def test_4_in_the_prune_phase_weights_and_operations_rest(phases):
    before, after = (load_file(phases[name] / "model.safetensors") for name in ("pretrain", "prune"))
    masks = load_masks(phases["prune"] / "masks.safetensors")
    for name, mask in masks.items():
        assert torch.equal(after[name], before[name] * mask)
    for name in ("choices_normal", "choices_reduce"):
        assert torch.equal(after[name], before[name])
    assert not torch.equal(after["stem_norm.weight"], before["stem_norm.weight"])
    assert all(bool((before[name] != 0).all()) for name in masks)  # the copy was pruned, the network was not


def test_4_the_tuned_network_keeps_the_mask_and_its_operations_move(phases):
    one, other = (load_masks(phases[name] / "masks.safetensors") for name in ("prune", "finetune"))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    before, after = (load_file(phases[name] / "model.safetensors") for name in ("prune", "finetune"))
    assert not torch.equal(before["choices_normal"], after["choices_normal"])
    for name, mask in one.items():
        assert int(mask.sum()) == mask.numel() - int(0.9 * mask.numel()), name


def test_the_record_has_the_genotype_and_the_next_cell_is_made_of_it(phases):
    record = json.loads((phases["finetune"] / "record.json").read_text())
    tables = load_file(phases["finetune"] / "model.safetensors")
    found = derived(
        *(tables[f"choices_{name}"].double().tolist() for name in ("normal", "reduce")),
        ["skip_connect", "sep_conv_3x3"],
    )
    assert record["genotype"] == found.tree() == json.loads((phases["finetune"] / FILE).read_text())
    assert record["files"]["genotype.png"]["size"] > 1000
    assert json.loads((phases["last"] / "record.json").read_text())["genotype"] == found.tree()
    assert read(str(phases["finetune"] / FILE), "model.genotype") == found
    assert read(str(phases["finetune"] / "model.safetensors"), "model.genotype") == found


# -- resume and what is seen -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["search.unrolled=true", "search.unrolled=false"])
def test_a_search_goes_on_in_the_middle_of_an_epoch(order, tmp_path, monkeypatch, unsynced):
    """Stopped after an update and run again: the same weights, operations and genotype, to the bit."""
    own = [*PRETRAIN, order, "trainer.checkpoint_every=1"]
    whole = run(own, tmp_path / "whole")
    end = Loop.on_train_batch_end

    class Gone(BaseException):
        pass

    def dies(loop, trainer, task, outputs, batch, batch_idx):
        end(loop, trainer, task, outputs, batch, batch_idx)
        if trainer.global_step == 2:
            raise Gone

    with monkeypatch.context() as patch, pytest.raises(Gone):
        patch.setattr(Loop, "on_train_batch_end", dies)
        run(own, tmp_path / "broken")
    folder = Path(plan_of([*own, f"runs_dir={tmp_path / 'broken'}"]).folder)
    assert Checkpoints(folder / "checkpoints", folder.name).load_latest().step == 2
    run(own, tmp_path / "broken")
    for name in ("model.safetensors", FILE):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()


def test_the_search_looks_at_the_validation_split(tmp_path, monkeypatch):
    seen = []

    def gradients(architect, batch, held_out, optimizer, scale=1.0):
        seen.append((batch, held_out))
        return [torch.ones_like(choice) for choice in architect.choices]

    monkeypatch.setattr(Architect, "gradients", gradients)
    run([*PRETRAIN, "trainer.max_steps=10", "dataset.augment={}"], tmp_path)
    rows = [
        {tuple(row.flatten().tolist()) for batch in batches for row in batch[0]} for batches in zip(*seen, strict=True)
    ]
    assert len(seen) == 10 and not rows[0] & rows[1]
    assert len(rows[1]) > 500  # of 600, in another order every epoch


# -- refusals ----------------------------------------------------------------------------------------------------------


NODE = "[[skip_connect, 0], [skip_connect, 1]]"


@pytest.mark.parametrize(
    ("genotype", "says"),
    [
        (f"{{normal: [[[sep_conv_9x9, 0], [skip_connect, 1]], {NODE}], reduce: []}}", "sep_conv_9x9: is no operation"),
        (f"{{normal: [[[skip_connect, 0], [skip_connect, 2]], {NODE}], reduce: []}}", "a node reads the 2 states before it"),
        (f"{{normal: [{NODE}], reduce: []}}", "at least as many nodes as inputs"),
        ("{normal: []}", "is no pair of cells"),
        ("dos", "is no released cell, and no file"),
        ("nowhere.json", "no such file"),
        ("{random: 0, nodes: 1}", "at least as many nodes as inputs"),
    ],
)  # fmt: skip
def test_a_genotype_that_does_not_fit_is_refused_in_a_line(genotype, says):
    with pytest.raises(ConfigError, match=says) as refused:
        plan_of(["method=dense", "model=darts", "model.cells=2", "model.channels=2", f"model.genotype={genotype}"])
    assert len(refused.value.issues) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="paths")
def test_a_file_that_is_no_genotype(tmp_path):
    (tmp_path / "a.json").write_text("{")
    (tmp_path / "model.safetensors").write_bytes(b"")
    found = {"a.json": "is not valid JSON", "model.safetensors": "there is no genotype.json"}
    for name, says in found.items():
        with pytest.raises(ConfigError, match=says):
            read(str(tmp_path / name), "model.genotype")


# -- the table ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tier", ["smoke", "cpu", "gpu", "paper"])
def test_the_sparse_search_sees_a_pruned_copy_from_its_first_phase_and_the_dense_one_never(tier):
    """At the sparsity of the masks that follow; without it the first phase would be that of the dense search."""
    (table,) = load("dass")
    found = {}
    for cell in expand(table, tier):
        if cell.seed == 0 and cell.column == "dense" and cell.row.endswith("-searched"):
            found[cell.row] = " ".join(cell.overrides)
    assert "sparsity: " not in found["dense-searched"]
    assert len(set(re.findall(r"(?<!search\.)sparsity: ([\d.]+)", found["sparse-searched"]))) == 1
    assert set(re.findall(r"search\.sparsity: ([\d.]+)", found["sparse-searched"])) == set(
        re.findall(r"(?<!search\.)sparsity: ([\d.]+)", found["sparse-searched"])
    )


def test_no_claim_of_cpu_and_gpu_counts_what_their_sizes_decide():
    """MobileNet-v2 of cpu, at a quarter of its width, has fewer multiply-accumulates than the emptiest cells there."""
    (table,) = load("dass")
    counted = [claim for claim in table.claims if claim.metric == "account.macs"]
    assert counted and all(set(claim.tiers) == {"paper"} for claim in counted)
    empty = "[[skip_connect, 0], [skip_connect, 1]], [[skip_connect, 0], [skip_connect, 1]]"
    base = ["method=dense", "dataset=cifar10", "dataset.published=true", "dataset.pool=2", "optim=sgd"]
    base += ["dataset.augment={crop: 2, flip: true}"]
    cells = [
        "model=darts",
        "model.channels=16",
        "model.cells=3",
        f"model.genotype={{normal: [{empty}], reduce: [{empty}]}}",
    ]
    least = plan_of([*base, *cells]).cost["macs"]
    assert plan_of([*base, "model=mobilenet_v2", "model.width=0.25"]).cost["macs"] < 1.1 * least
