"""What is to be forgotten: fixed draws, disjoint parts, sizes that the plan knows before anything is read."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sparselab.core.errors import ConfigError
from sparselab.core.options import validate
from sparselab.inputs.data.dataset import DATASETS
from sparselab.inputs.data.forget import Forget
from sparselab.running.planning import plan_of


def digits(**options):
    cls = DATASETS["digits"]
    base = {"val": 100, "limit_train": 1000, "limit_test": 300, "augment": {}}
    return cls(validate(cls.Options, {**base, **options}, "dataset"))


@pytest.mark.parametrize("forget", ["class:3", "random:0.1"])
@pytest.mark.parametrize("train_on", ["all", "retain", "forget"])
def test_parts_are_disjoint_and_as_large_as_announced(forget, train_on):
    dataset = digits(forget=forget, train_on=train_on)
    spec, splits = dataset.spec(), dataset.load()
    assert spec.parts == ("retain", "forget")
    assert (spec.train, spec.val, spec.test) == (len(splits.train), len(splits.val), len(splits.test))
    parts = {**splits.others, "all": digits().load().train}
    assert {name: len(part) for name, part in parts.items()} == {"forget": 100, "retain": 900, "all": 1000}
    assert torch.equal(splits.train.images, parts[train_on].images)
    images = {part: {row.tobytes() for row in parts[part].images.numpy()} for part in parts}
    assert images["forget"].isdisjoint(images["retain"]) and images["forget"] | images["retain"] == images["all"]
    assert (splits.mean, splits.std) == (digits().load().mean, digits().load().std)  # of all that was trained on once


def test_a_forgotten_class_is_scored_nowhere():
    splits = digits(forget="class:3", train_on="retain").load()
    assert set(splits.others["forget"].labels.tolist()) == {3}
    for part in (splits.train, splits.val, splits.test, splits.others["retain"]):
        assert 3 not in part.labels
    whole = digits(forget="random:0.1").load()
    assert len(whole.test) == 300 and set(whole.others["forget"].labels.tolist()) == set(range(10))


def test_training_on_the_retained_part_never_reads_the_forgotten():
    """Forgotten images are given a colour that no other has, and no batch of training shows it."""
    splits = digits(forget="random:0.1", train_on="retain").load()
    splits.others["forget"].images.fill_(77)
    seen = torch.cat([inputs for inputs, _ in splits.loader("train", 50, seed=0)])
    marked = ((77 / 255 - splits.mean[0]) / splits.std[0],) * 64
    assert not np.isclose(seen.flatten(1).numpy(), marked).all(1).any()
    assert len(seen) == 900


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["dataset.forget=clas:0"], "dataset.forget=clas:0: is neither a class nor a fraction — write class:0 or"),
        (["dataset.forget=class:10"], "dataset.forget=class:10: there are 10 classes, from 0 — write class:9 or less"),
        (["dataset.forget=random:0.0"], "dataset.forget=random:0.0: is neither a class nor a fraction"),
        (["dataset.train_on=forget"], "dataset.train_on=forget: nothing is to be forgotten — write dataset.forget="),
        (["dataset.forget=class:0"], "dataset.forget=class:0: a class of digits has no known share of 1,257 images"),
        (["dataset.forget=class:0", "dataset.limit_train=1000", "dataset.val=15"], "dataset.forget=class:0: a class"),
        (["metric=[unlearning]"], "metric=unlearning: nothing is to be forgotten — write dataset.forget=class:0, say"),
    ],
)
def test_what_cannot_be_forgotten_is_refused(options, line):
    with pytest.raises(ConfigError) as refused:
        plan_of(["method=dense", "model=mlp", *options])
    assert any(str(issue).startswith(line) for issue in refused.value.issues), [*map(str, refused.value.issues)]


def test_forgetting_is_part_of_the_id_only_where_it_is_asked_for():
    base = ["method=dense", "model=mlp", "dataset.limit_train=1000", "dataset.limit_test=300"]
    plain = plan_of(base).id
    assert plan_of([*base, "dataset.train_on=all"]).id == plain
    asked = plan_of([*base, "dataset.forget=class:0"]).id
    assert len({plain, asked, plan_of([*base, "dataset.forget=class:0", "dataset.train_on=retain"]).id}) == 3


def test_the_draw_is_fixed():
    labels = np.arange(100) % 7
    assert np.array_equal(Forget.parse("random:0.3", 7).rows(labels), Forget.parse("random:0.3", 7).rows(labels))
    assert len(Forget.parse("random:0.3", 7).rows(labels)) == 30
