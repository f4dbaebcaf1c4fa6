"""SquareHead by hand (arXiv 2310.06927 and its code), where its states come from, and that it composes."""

from __future__ import annotations

import pytest
import torch
from data_specs import image_data, text_data
from recipes import plain
from safetensors.torch import save_file
from torch import tensor
from torch.nn import functional as F

from sparselab.core.errors import ConfigError
from sparselab.core.options import Options
from sparselab.inputs.models.family import MODELS
from sparselab.running.planning import plan_of
from sparselab.training.loop.module import TaskModule
from sparselab.training.losses.extra_loss import LOSSES
from sparselab.training.losses.squarehead import squarehead
from sparselab.training.tasks.task import TASKS

TEXT = text_data(6, 11)
FAMILIES = {name: MODELS[name](MODELS[name].Options(width=8, depth=3, heads=2, ff=12)) for name in ("gpt", "llama")}


def states(count, seed, shape=(2, 5, 4)):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for _ in range(count)]


# -- the value -----------------------------------------------------------------------------------------------------


def test_one_token_two_features():
    assert float(squarehead([tensor([[1.0, 2.0]])], [tensor([[1.0, 0.0]])])) == pytest.approx(2 / 0.5078125, rel=1e-6)


def test_a_student_like_its_teacher_has_no_loss():
    assert float(squarehead(states(3, 0), states(3, 0))) == 0


def test_a_teacher_of_zeros_leaves_eps():
    assert float(squarehead([torch.ones(1, 3)], [torch.zeros(1, 3)])) == pytest.approx(128)


def test_the_scale_of_both_shows_through_eps_only():
    students, teachers = states(2, 0), states(2, 1)
    for factor in (3.0, 100.0):
        scaled = squarehead([factor * s for s in students], [factor * t for t in teachers], eps=factor**2 * 0.01)
        assert float(scaled) == pytest.approx(float(squarehead(students, teachers, eps=0.01)), rel=1e-5)


def test_layers_are_added_or_averaged():
    students, teachers = states(2, 0), states(2, 1)
    once = float(squarehead(students, teachers))
    assert float(squarehead(2 * students, 2 * teachers)) == pytest.approx(2 * once, rel=1e-6)
    assert float(squarehead(students, teachers, reduce="mean")) == pytest.approx(once / 2, rel=1e-6)


def test_padding_plays_no_part():
    students, teachers = states(3, 0), states(3, 1)
    present = tensor([[True] * 5, [True, True, False, False, False]])
    want = float(squarehead([s[present] for s in students], [t[present] for t in teachers]))
    assert float(squarehead(students, teachers, present=present)) == pytest.approx(want, rel=1e-6)
    for state in (*students, *teachers):
        state[~present] = 1e3
    assert float(squarehead(students, teachers, present=present)) == pytest.approx(want, rel=1e-6)


def test_half_precision_is_compared_in_single():
    students, teachers = ([300 * s.bfloat16() for s in states(1, seed)] for seed in (0, 1))
    loss = squarehead(students, teachers)
    assert loss.dtype == torch.float32
    assert float(loss) == float(squarehead([students[0].float()], [teachers[0].float()]))


# -- the states ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_the_states_are_transformers_hidden_states_without_the_embedding(name):
    """``normed`` is its list from index 1 on; ``block`` differs in the last one, which the final norm turns into it."""
    family = FAMILIES[name]
    network = family.build(TEXT).eval()
    tokens = torch.arange(12).view(2, 6) % 11
    recorder = family.recorder(network)
    with recorder:
        network(input_ids=tokens, use_cache=False)
    seen = recorder.take()
    want = network(input_ids=tokens, use_cache=False, output_hidden_states=True).hidden_states
    assert len(want) == 4 and len(seen.blocks) == 3
    for ours, theirs in zip(seen.chosen("normed"), want[1:], strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(family.norm(network)(seen.chosen("block")[-1]), want[-1])


def test_a_closed_tap_keeps_nothing():
    family = FAMILIES["gpt"]
    network = family.build(TEXT)
    recorder = family.recorder(network)
    network(input_ids=torch.zeros(1, 6, dtype=torch.long))
    assert recorder.kept == {}


# The batch decides the shape of the images, the family how many states there are.
BUILT = {
    "mlp": ({"hidden": [6, 5]}, (1, 8, 8), 2), "vit": ({"width": 8, "depth": 2, "heads": 2}, (1, 8, 8), 2),
    "cifar_resnet": ({"depth": 8, "width": 4}, (3, 8, 8), 3), "wrn": ({"depth": 10, "widen": 1}, (3, 8, 8), 3),
    "resnet": ({"depth": 18}, (3, 8, 8), 8),
}  # fmt: skip


@pytest.mark.parametrize("name", BUILT)
def test_families_of_images_name_their_blocks(name):
    options, shape, count = BUILT[name]
    family = MODELS[name](MODELS[name].Options(**options))
    network = family.build(image_data(shape, 3)).eval()
    recorder = family.recorder(network)
    with recorder:
        network(torch.randn(2, *shape))
    assert len(recorder.take().chosen("normed")) == count


# -- in a task -----------------------------------------------------------------------------------------------------


def make(tmp_path, losses, name="llama", **options):
    """A student, and in a file a teacher of its architecture with other weights."""
    family = FAMILIES[name]
    torch.manual_seed(1)
    save_file({k: v.clone() for k, v in family.build(TEXT).state_dict().items()}, tmp_path / "model.safetensors")
    torch.manual_seed(0)
    made = [
        LOSSES[extra](LOSSES[extra].Options(**{"teacher": str(tmp_path), **chosen})) for extra, chosen in losses.items()
    ]
    task = TaskModule(
        TASKS["language_modeling"](Options()),
        family.build(TEXT),
        family,
        TEXT,
        plain(),
        made,
        10,
    )
    for extra in made:
        extra.prepare(task)
    return task


def batch(seed=0):
    tokens = torch.randint(11, (2, 7), generator=torch.Generator().manual_seed(seed))
    return tokens[:, :-1], tokens[:, 1:].contiguous()


def hidden(network, tokens):
    return network(input_ids=tokens, use_cache=False, output_hidden_states=True).hidden_states[1:]


def test_the_whole_loss(tmp_path):
    """CE + KL + SquareHead, each with its weight, from the networks' own outputs."""
    losses = {"distill": {"weight": 0.5, "temperature": 2.0, "task_share": 1.0}, "squarehead": {"weight": 3.0}}
    task = make(tmp_path, losses)
    tokens, targets = batch()
    teacher = task.losses[0].teacher.network
    student_logits, teacher_logits = (net(input_ids=tokens).logits for net in (task.network, teacher))
    ce = F.cross_entropy(student_logits.flatten(0, 1), targets.flatten())
    kl = 4 * F.kl_div(
        (student_logits / 2).log_softmax(-1).flatten(0, 1), (teacher_logits / 2).softmax(-1).flatten(0, 1),
        reduction="batchmean",
    )  # fmt: skip
    feature = sum(
        F.mse_loss(s, t) / (t.square().mean() + 2**-7)
        for s, t in zip(hidden(task.network, tokens), hidden(teacher, tokens), strict=True)
    )
    want = ce + 0.5 * kl + 3 * feature
    assert float(task.training_step((tokens, targets), 0)) == pytest.approx(float(want), rel=1e-5)


def test_two_terms_look_at_one_teacher_once(tmp_path):
    task = make(tmp_path, {"distill": {}, "squarehead": {}})
    assert task.losses[0].teacher is task.losses[1].teacher
    looks = []
    task.losses[0].teacher.network.register_forward_hook(lambda *_: looks.append(1))
    for seed in range(3):
        task.training_step(batch(seed), 0)
    assert len(looks) == 3
    assert task.states is None and task.losses[0].teacher._seen is None, "nothing is kept between batches"


def test_targets_that_do_not_count_are_still_compared(tmp_path):
    """-100 takes a token out of the loss of the task; its hidden states are compared all the same."""
    task = make(tmp_path, {"squarehead": {}})
    tokens, targets = batch()
    blank = torch.full_like(targets, -100)
    blank[:, 0] = targets[:, 0]
    base = task.training_step((tokens, targets), 0) - task.criterion(task.logits(tokens), (tokens, targets))
    some = task.training_step((tokens, blank), 0) - task.criterion(task.logits(tokens), (tokens, blank))
    assert float(some) == pytest.approx(float(base), rel=1e-5)


def test_padding_is_taken_from_the_batch(tmp_path):
    task = make(tmp_path, {"squarehead": {}})
    tokens, targets = batch()
    present = torch.ones_like(tokens, dtype=torch.bool)
    present[1, 3:] = False
    targets = targets.masked_fill(~present, -100)
    first = float(task.training_step((tokens, targets, present), 0))
    other = torch.where(present, tokens, (tokens + 1) % 11)
    assert float(task.training_step((other, targets, present), 0)) == pytest.approx(first, rel=1e-5)


def test_at_weight_0_training_is_that_of_the_task_bit_for_bit(tmp_path):
    grads = []
    for losses in ({}, {"squarehead": {"weight": 0.0}, "distill": {"weight": 0.0}}):
        task = make(tmp_path, losses)
        task.training_step(batch(), 0).backward()
        grads.append([p.grad for p in task.network.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_the_starting_network_as_teacher(tmp_path):
    """``teacher=start`` is what training starts from, also after a step; without given weights it is refused."""
    family = FAMILIES["gpt"]
    torch.manual_seed(3)
    start = family.build(TEXT).state_dict()
    save_file({k: v.clone() for k, v in start.items() if k != "lm_head.weight"}, tmp_path / "start.safetensors")
    family = MODELS["gpt"](family.options.model_copy(update={"weights": str(tmp_path / "start.safetensors")}))
    extra = LOSSES["squarehead"](LOSSES["squarehead"].Options(teacher="start"))
    task = TaskModule(
        TASKS["language_modeling"](Options()),
        family.build(TEXT),
        family,
        TEXT,
        plain(),
        [extra],
        10,
    )
    task.network.requires_grad_(True).transformer.wte.weight.data.mul_(2)
    extra.prepare(task)
    for name, value in extra.teacher.network.state_dict().items():
        assert torch.equal(value, start[name]), name
    assert extra.files() == {}
    with pytest.raises(ConfigError, match="starts from random weights"):
        plan_of(["method=dense", "model=mlp", "loss=[squarehead]", "loss.squarehead.teacher=start"])


def test_a_model_without_known_blocks_is_refused():
    teacher = "loss.squarehead.teacher='cell:method=dense model=timm model.arch=resnet26'"
    with pytest.raises(ConfigError, match="no known blocks"):
        plan_of(["method=dense", "model=timm", "model.arch=resnet26", "loss=[squarehead]", teacher])
