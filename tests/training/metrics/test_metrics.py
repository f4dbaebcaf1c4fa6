"""Calibration, outsiders and attacks: hand-made tables, and a network whose gradient is known."""

from __future__ import annotations

import math

import pytest
import torch
from data_specs import image_data, text_data
from torch import nn

from sparselab.core.data_types import spoken
from sparselab.core.errors import WIDTH, ConfigError, RunFailed
from sparselab.core.options import validate
from sparselab.running.planning import plan_of
from sparselab.training.measure import measure
from sparselab.training.metrics.adversarial import attack
from sparselab.training.metrics.corrupted import CORRUPTIONS, corrupt
from sparselab.training.metrics.metric import METRICS, Subject
from sparselab.training.metrics.ood import CHANGES, auroc

DATA = image_data((1, 9, 8), 2)
WORDS = text_data(12, 60)
CELL = ["model=mlp", "model.hidden=[8]", "method=dense", "trainer.max_epochs=null", "trainer.max_steps=3"]


def metric(name: str, data_dir: str | None = None, **options: object):
    cls = METRICS[name]
    return cls(validate(cls.Options, options, f"metric.{name}"), data_dir)


def subject(logits, batches, shape=(1, 9, 8), classes=2, mean=(0.5,), std=(0.25,)) -> Subject:
    data = image_data(shape, classes)
    return Subject(nn.Linear(1, 1), logits, lambda: iter(batches), data, mean, std)


def logs(*probabilities: float) -> torch.Tensor:
    return torch.tensor(probabilities).log()


def test_calibration_of_a_hand_made_table():
    """Four answers at 0.9 of which three are right, and one at 0.6 that is wrong: 4/5 |.75 - .9| + 1/5 |0 - .6|."""
    table = torch.stack([logs(0.9, 0.1)] * 4 + [logs(0.6, 0.4)])
    labels = torch.tensor([0, 0, 0, 1, 1])
    found = metric("calibration", bins=10).measure(
        subject(lambda x: x, [(table[:2], labels[:2]), (table[2:], labels[2:])])
    )
    assert found["ece"] == pytest.approx(0.8 * 0.15 + 0.2 * 0.6, abs=1e-6)
    assert found["nll"] == pytest.approx(-(3 * math.log(0.9) + math.log(0.1) + math.log(0.4)) / 5, abs=1e-6)


def test_a_network_that_is_as_sure_as_it_is_right_has_no_error():
    table = torch.stack([logs(0.75, 0.25)] * 4)
    found = metric("calibration").measure(subject(lambda x: x, [(table, torch.tensor([0, 0, 0, 1]))]))
    assert found["ece"] == pytest.approx(0, abs=1e-6)


def test_area_under_the_curve():
    scores = torch.tensor([0.2, 0.9, 0.4])
    assert auroc([scores], iter([scores])) == pytest.approx(0.5)
    assert auroc([torch.tensor([0.8, 0.9])], iter([torch.tensor([0.1]), torch.tensor([0.2])])) == 1.0
    assert auroc([torch.tensor([0.1, 0.3])], iter([torch.tensor([0.2])])) == pytest.approx(0.5)


def test_images_that_look_the_same_to_the_network_cannot_be_told_apart():
    batches = [(torch.randn(6, 1, 9, 8), torch.zeros(6, dtype=torch.int64))]
    blind = subject(lambda x: torch.zeros(len(x), 2), batches)
    found = metric("ood").measure(blind)
    assert found == {"auroc_noise": 0.5, "auroc_shuffled": 0.5, "auroc_negative": 0.5}


@pytest.mark.parametrize("name", CHANGES)
def test_changed_images_are_the_same_each_time(name):
    pixels = torch.rand(5, 3, 9, 8)
    before = pixels.clone()
    first = CHANGES[name](pixels, 2)
    assert torch.equal(first, CHANGES[name](pixels, 2)) and torch.equal(pixels, before)
    assert first.shape == pixels.shape and float(first.min()) >= 0 and float(first.max()) <= 1
    assert not torch.equal(first, pixels)
    assert name == "negative" or not torch.equal(first, CHANGES[name](pixels, 3))


def test_shuffled_images_keep_their_pixels():
    pixels = torch.rand(5, 3, 9, 8)
    moved = CHANGES["shuffled"](pixels, 0)
    assert torch.equal(moved[:, :, 8:], pixels[:, :, 8:])  # the border that 4 does not divide
    inner, was = moved[:, :, :8].flatten(1), pixels[:, :, :8].flatten(1)
    assert torch.equal(inner.sort(1).values, was.sort(1).values)
    tiles = {
        tuple(tile.flatten().tolist())
        for tile in pixels[0, :, :8].unfold(1, 2, 2).unfold(2, 2, 2).flatten(1, 2).unbind(1)
    }
    assert {
        tuple(t.flatten().tolist()) for t in moved[0, :, :8].unfold(1, 2, 2).unfold(2, 2, 2).flatten(1, 2).unbind(1)
    } == tiles
    assert not torch.equal(moved[0], moved[1])


WEIGHTS = torch.linspace(-1, 1, 72).view(1, 1, 9, 8)  # no zero among them


def slanted(inputs: torch.Tensor) -> torch.Tensor:
    """Two classes by the sign of a weighted sum: the gradient of either loss is along +-WEIGHTS."""
    total = (inputs * WEIGHTS).flatten(1).sum(1)
    return torch.stack([total, -total], 1)


@pytest.mark.parametrize("label", [0, 1])
def test_fgsm_moves_every_pixel_by_exactly_eps(label):
    pixels = torch.rand(4, 1, 9, 8) * 0.8 + 0.1
    moved = attack(subject(slanted, []), pixels, torch.full((4,), label), 0.05, 1, 0.05)
    expected = pixels + 0.05 * (1 if label else -1) * WEIGHTS.sign()
    assert torch.equal(moved, expected)
    assert torch.equal((moved - pixels).abs() > 0.049, torch.ones_like(pixels, dtype=torch.bool))


def test_attacks_stay_within_eps_and_within_pixels():
    pixels = torch.rand(4, 1, 9, 8).round(decimals=1)
    labels = torch.tensor([0, 1, 0, 1])
    one = attack(subject(slanted, []), pixels, labels, 0.1, 1, 0.1)
    many = attack(subject(slanted, []), pixels, labels, 0.1, 7, 0.03)
    for moved in (one, many):
        assert float(moved.min()) >= 0 and float(moved.max()) <= 1
        assert float((moved - pixels).abs().max()) <= 0.1 + 1e-6
    torch.testing.assert_close(many, one)  # of a linear network the best place is a corner, reached by either
    assert torch.equal(attack(subject(slanted, []), pixels, labels, 0.1, 0, 0.03), pixels)


def test_attacked_accuracy():
    """A network that is right by a margin of 0.02 a pixel: wrong under eps 0.03, right under eps 0.01."""
    pixels = 0.5 + 0.02 * WEIGHTS.sign().expand(3, -1, -1, -1)
    one = subject(slanted, [((pixels - 0.5) / 0.25, torch.zeros(3, dtype=torch.int64))])
    assert metric("adversarial", eps=0.03, step=0.01).measure(one) == {"fgsm_accuracy": 0.0, "pgd_accuracy": 0.0}
    assert metric("adversarial", eps=0.01, steps=0).measure(one) == {"fgsm_accuracy": 1.0}


def test_pixels_and_inputs_are_inverse():
    one = subject(slanted, [], mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    pixels = torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(one.pixels(one.inputs(pixels)), pixels)
    assert one.inputs(torch.full((1, 3, 1, 1), 0.3)).flatten().tolist() == pytest.approx([0.5, 0.2, 0.0])


def test_a_cell_can_ask_for_all_of_them(tmp_path):
    from sparselab.training.runner import execute

    words = [*CELL, f"runs_dir={tmp_path}", "metric=[calibration,ood,adversarial]", "metric.adversarial.steps=2",
             "trainer.precision='32'", "trainer.progress=none", "trainer.accelerator=cpu"]  # fmt: skip
    found = execute(plan_of(words)).metrics
    names = {"ece", "nll", "auroc_noise", "auroc_shuffled", "auroc_negative", "fgsm_accuracy", "pgd_accuracy"}
    assert {f"test.{name}" for name in names} <= found.keys()
    assert found["test.nll"] == pytest.approx(found["test.loss"], rel=1e-5)
    assert found["test.pgd_accuracy"] <= found["test.accuracy"]


def test_an_id_knows_what_is_measured():
    ids = [plan_of([*CELL, *more]).id for more in (
        [], ["metric=[]"], ["metric=[ood]"], ["metric=[ood]", "metric.ood.made=[noise]"], ["metric=[calibration]"],
    )]  # fmt: skip
    assert ids[0] == ids[1] and len(set(ids)) == 4


def test_numbers_that_are_not_finite_stop_the_run():
    class Task:
        network = nn.Linear(1, 1)
        data = DATA

        def logits(self, inputs):
            return torch.full((len(inputs), 2), math.nan)

    class Precision:
        def forward_context(self):
            return torch.no_grad()

    class Splits:
        mean, std = (0.5,), (0.5,)

    class Odd(METRICS["calibration"]):
        def measure(self, subject):
            return {"odd": float(next(subject.batches())[0].sum()) * math.nan}

    loader = [(torch.zeros(0, 1), torch.zeros(0)), (torch.ones(2, 1), torch.zeros(2))]
    with pytest.raises(RunFailed, match=r"test.odd is nan"):
        measure([Odd(METRICS["calibration"].Options())], Task(), {"test": loader}, Splits(), Precision())


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["metric=[odd]"], "metric=odd: no such metric — did you mean \"ood\"?"),
        (["metric=[ood]", "metric.ood.datasets=[mnst]"], "metric.ood.datasets=mnst: no such dataset — did you mean \"mnist\"?"),
        (["metric=[ood]", "metric.ood.datasets=[digits]"],
         "metric.ood.datasets=digits: is what the network is trained on — name another dataset"),
        (["metric=[ood]", "metric.ood.made=[]"], "metric.ood: has no set to compare with — write metric.ood.made=[noise]"),
        (["metric=[ood]", "metric.ood.datasets=[stdlib]"],
         "metric.ood.datasets=stdlib: is not a dataset of images — name another dataset"),
        (["metric=[adversarial]", "metric.adversarial.eps=8"],
         "metric.adversarial.eps=8: input should be less than 1 — largest change of a pixel, in (0, 1)"),
        (["metric.ood.made=[noise]"], "metric.ood.made: no such key — add metric=[ood]"),
    ],
)  # fmt: skip
def test_bad_requests_are_one_line(words, line):
    with pytest.raises(ConfigError) as refused:
        plan_of([*CELL, *words])
    assert str(refused.value) == line and len(line) <= WIDTH


def test_text_has_no_such_metrics():
    for name in [
        name for name in METRICS if METRICS[name].needs not in (None, WORDS.pair)
    ]:  # None: weights and masks alone
        (issue,) = metric(name).issues(WORDS)
        wanted = f"is for {spoken(METRICS[name].needs)}, and dataset words is tokens → next tokens"
        assert str(issue) == f"metric={name}: {wanted} — leave it out"


def test_another_dataset_is_brought_to_the_network_s_size():
    seen = []

    def logits(inputs):
        seen.append(inputs)
        return torch.zeros(len(inputs), 2)

    batches = [(torch.randn(6, 3, 12, 10), torch.zeros(6, dtype=torch.int64))]
    one = subject(logits, batches, (3, 12, 10), mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    assert metric("ood", made=[], datasets=["digits"]).measure(one) == {"auroc_digits": 0.5}
    assert seen[1].shape == (360, 3, 12, 10)
    pixels = one.pixels(seen[1])
    torch.testing.assert_close(pixels[:, 0], pixels[:, 2])
    assert float(pixels.min()) > -1e-4 and float(pixels.max()) < 1 + 1e-4


def test_the_worst_bin_and_the_worst_class():
    """Item 6 of sparse_soups: .9, .9, .6, .6 with 1, 0, 1, 1 right: |.5 - .9| / 2 + |1 - .6| / 2 = .4, the largest .4."""
    table = torch.stack([logs(0.9, 0.1), logs(0.9, 0.1), logs(0.6, 0.4), logs(0.6, 0.4)])
    labels = torch.tensor([0, 1, 0, 0])
    found = metric("calibration", worst=True).measure(subject(lambda x: x, [(table, labels)]))
    assert found["ece"] == pytest.approx(0.4, abs=1e-6) == found["mce"]
    assert found["worst_class"] == 0.0, "the one example of class 1 is read as class 0"


PICTURES = torch.randint(0, 256, (5, 3, 8, 7), generator=torch.Generator().manual_seed(3)).float() / 255


@pytest.mark.parametrize("kind", list(CORRUPTIONS))
def test_a_corruption_is_the_pictures_own_whatever_the_batch(kind):
    whole = corrupt(PICTURES, kind, 3)
    order = [3, 0, 4]
    assert torch.equal(torch.cat([corrupt(PICTURES[i : i + 1], kind, 3) for i in order]), whole[order])
    assert torch.equal((whole * 255).round() / 255, whole) and 0 <= float(whole.min()) <= float(whole.max()) <= 1
    apart = [float((corrupt(PICTURES, kind, severity) - PICTURES).abs().mean()) for severity in range(1, 6)]
    assert apart == sorted(apart) and apart[0] < apart[-1]


def test_corruptions_by_hand():
    """A flat picture has no contrast to lose and nothing to blur; noise of 0.08 has that standard deviation around 0.5."""
    flat = torch.full((2, 3, 64, 64), 128 / 255)
    assert torch.equal(corrupt(flat, "contrast", 5), flat) and torch.equal(corrupt(flat, "gaussian_blur", 5), flat)
    noisy = corrupt(flat, "gaussian_noise", 3) - flat
    assert float(noisy.std()) == pytest.approx(0.08, rel=0.03) and torch.equal(noisy[0], noisy[1]), (
        "same picture, same noise"
    )
    halves = torch.cat([torch.zeros(1, 1, 4, 2), torch.ones(1, 1, 4, 2)], 3)
    assert torch.equal(corrupt(halves, "contrast", 2), ((halves - 0.5) * 0.5 + 0.5).mul(255).round() / 255)
    point = torch.zeros(1, 1, 9, 9)
    point[0, 0, 4, 4] = 1.0
    assert float(corrupt(point, "gaussian_blur", 5)[0, 0, 4, 4]) == pytest.approx(1 / (2 * math.pi), abs=5e-3)


def test_accuracy_on_corrupted_pictures():
    """A network that looks whether the mean of a picture is above 1/2 is right on all flat pictures."""
    inputs = (torch.tensor([0.2, 0.9]).view(2, 1, 1, 1).expand(2, 1, 9, 8) - 0.5) / 0.25
    bright = lambda x: torch.stack([-x.mean((1, 2, 3)), x.mean((1, 2, 3))], 1)  # noqa: E731
    found = metric("corrupted", severities=[1, 5]).measure(subject(bright, [(inputs, torch.tensor([0, 1]))]))
    assert len(found) == 7 and set(found.values()) == {1.0}


def test_a_soup_beside_its_ingredients():
    """Three networks that say 0, 1 and 1 of everything, and a soup that says 1: on labels 1, 1, 1, 0 they have 1/4 and 3/4."""
    import dataclasses

    networks = [nn.Linear(2, 1, bias=False) for _ in range(3)]
    for network, vector in zip(networks, ([3.0, 0.0], [0.0, 4.0], [0.0, 4.0]), strict=True):
        network.weight.data = torch.tensor([vector])
    answer = {id(networks[0]): logs(0.9, 0.1), id(networks[1]): logs(0.2, 0.8), id(networks[2]): logs(0.3, 0.7)}
    labels = torch.tensor([1, 1, 1, 0])
    soup = dataclasses.replace(
        subject(lambda x: logs(0.4, 0.6).expand(len(x), 2), [(torch.zeros(4, 1, 9, 8), labels)]),
        parents=lambda: iter(networks),
        forward=lambda network, x: answer[id(network)].expand(len(x), 2),
    )
    found = metric("ingredients").measure(soup)
    assert [found[f"ingredients_{word}"] for word in ("mean", "best", "worst")] == pytest.approx([7 / 12, 0.75, 0.25])
    assert [found["over_mean"], found["over_best"]] == pytest.approx([0.75 - 7 / 12, 0.0])
    assert found["ensemble"] == 0.75 and found["ensemble_agreement"] == 1.0, "the mean probability of 1 is 1.6 / 3"
    assert [found["distance"], found["distance_max"]] == pytest.approx([10 / 3, 5.0])
    assert [found["angle"], found["angle_max"]] == pytest.approx([60.0, 90.0])
    assert found["to_mean_max"] == pytest.approx(10 / 3)
