"""Drill V2: any small change of a good request gives a good request or short lines, never a traceback.

A mutation deletes, doubles, inserts or swaps characters, changes a value's type, or drops or doubles an override. All
are drawn from seeded generators, so a failure can be looked at again.
"""

from __future__ import annotations

import contextlib
import io
import random
from pathlib import Path

import pytest

from sparselab.cli.main import main
from sparselab.core.errors import WIDTH

GOOD = [
    "method=srste sparsity=2:4 model=vit_s",
    "method=ste sparsity=1:4 model=resnet18",
    "method=dense model=mlp dataset=digits trainer.max_epochs=5",
    "method=gmp sparsity=0.9 model=mlp model.hidden=[300,100] schedule.end=0.6 schedule.every=5",
    "method=rigl sparsity=0.9 model=resnet20 schedule.fraction=0.2 schedule.every=50",
    "method=set sparsity=0.8 model=mlp distribution=er",
    "method=magnitude sparsity=channel:0.5 schedule.at=0.5 model=mlp",
    "method=magnitude sparsity=in_channel:0.5 schedule.at=0.5 model=mlp",
    "method=magnitude sparsity=block:4x1:0.8 targets.include=['blocks.*']",
    "method=random sparsity=0.95 distribution=erk_plus distribution.fc_density=0.5 targets.exclude=['@stem'] model=mlp",
    "method=asp sparsity=2:4 optim=sgd optim.lr=0.05 optim.milestones=[0.5,0.75] optim.schedule=step",
    "method=gmp sparsity=0.9 distribution=global seed=3 trainer.precision=bf16 model=mlp",
    "sparsity=2:4 targets.patterns={@ff:1:8} model=vit_s model.transform={name:split_qkv}",
    "sparsity=4:8 targets.axis=out trainer.batch_size=32 trainer.accumulate=2 trainer.clip=null",
    "sparsity=2:4 tier=smoke logger=wandb logger.project=x trainer.ema=0.99",
    "sparsity=2:4 dataset.augment={flip:true,crop:1} dataset.val=100 dataset.limit_train=500",
    "method=gmp sparsity=0.5 distribution=per_layer distribution.layers={layers.0:0.9} model=mlp targets.exclude=[]",
    "method=dense model=gpt_tiny dataset=stdlib dataset.max_bytes=100000 dataset.block=32",
    "method=srste method.lambda_w=2e-4 sparsity=2:4 model=llama_tiny dataset=stdlib dataset.max_bytes=100000",
    "sparsity=2:4 runs_dir=some/where force=true trainer.threads=1 trainer.workers=0 trainer.progress=none",
    "sparsity=2:4 model=timm model.arch=resnet26 trainer.max_epochs=null trainer.max_steps=20",
    "sparsity=0.9 method=rigl schedule.stop=0.5 schedule.decay=linear trainer.devices=2 trainer.strategy=ddp",
]  # fmt: skip
VALUES = [
    "",
    "null",
    "true",
    "-1",
    "0",
    "1.5",
    "1e400",
    "nan",
    "[1,2]",
    "{a:1}",
    "[]",
    "{}",
    "'x'",
    '"',
    "é",
    "2:4",
    "???",
    "a,b",
]
LETTERS = "aeiz019_.:=,-+~@/$ {}[]()'\"\\#*é\t"
MUTATIONS = 500  # of which CI tries the first, and `make test-slow` all


def mutated(number):
    """The arguments of mutation ``number``."""
    rng = random.Random(number)
    words = GOOD[number % len(GOOD)].split(" ")
    at = rng.randrange(len(words))
    word = words[at]
    place = rng.randrange(len(word))
    key = word.partition("=")[0]
    kind = rng.randrange(9)
    if kind == 0:
        words[at] = word[:place] + word[place + 1 :]
    elif kind == 1:
        words[at] = word[:place] + rng.choice(LETTERS) + word[place:]
    elif kind == 2:
        words[at] = word[:place] + rng.choice(LETTERS) + word[place + 1 :]
    elif kind == 3:
        words[at] = word[:place] + word[place + 1 : place + 2] + word[place] + word[place + 2 :]
    elif kind == 4:
        words[at] = f"{key}={rng.choice(VALUES)}"
    elif kind == 5:
        words[at] = f"{key}={rng.choice(words).partition('=')[2]}"  # another key's value
    elif kind == 6:
        del words[at]
    elif kind == 7:
        words.insert(rng.randrange(len(words) + 1), word)
    else:
        words[at] = word.upper() if rng.random() < 0.5 else word.replace("=", " = ")
    return words


def answer(words):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["check", *words])
    return code, out.getvalue(), err.getvalue().splitlines()


def wrong_with(words):
    """What is wrong with the answer to a request, or None."""
    code, out, lines = answer(words)
    if code == 0:
        return None if out.startswith("cell ") and not lines else f"{words}: {lines}"
    fine = code == 2 and lines and not out and all(len(line) <= WIDTH and " — " in line for line in lines)
    return None if fine else f"{words}: {code} {lines}"


pytestmark = pytest.mark.usefixtures("no_data")


@pytest.mark.parametrize("request_", GOOD)
def test_v2_they_are_good_to_begin_with(request_):
    code, _, lines = answer(request_.split(" "))
    assert (code, lines) == (0, [])


@pytest.mark.parametrize("count", [120, pytest.param(MUTATIONS, marks=pytest.mark.slow)])
def test_v2_mutations_give_a_plan_or_short_lines(count):
    assert [wrong for number in range(count) if (wrong := wrong_with(mutated(number)))] == []
    assert list(Path().iterdir()) == []  # and nothing is left behind


def test_v2_control_the_mutations_do_break_requests():
    codes = [answer(mutated(number))[0] for number in range(60)]
    assert 0.2 < codes.count(2) / len(codes) < 1


def test_v2_control_hydra_alone_raises():
    from hydra import compose, initialize_config_dir

    from sparselab.config.members import CONFIGS

    raised = 0
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        for number in range(20):
            try:
                compose("config", mutated(number))
            except Exception:
                raised += 1
    assert raised > 3
