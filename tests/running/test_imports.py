"""What a run must not load: seconds of start-up for nothing."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CODE = """
import sys
from sparselab.running.run_cell import guarded, run_cell
from sparselab.running.planning import plan_of
plan = plan_of(sys.argv[1:])
assert "torch" not in sys.modules
code = guarded(lambda: run_cell(plan))
names = ("transformers", "datasets", "wandb", "matplotlib", "pandas", "timm", "torchvision", "sklearn", "scipy")
print([name for name in names if name in sys.modules], code, file=sys.stderr)

from lightning_utilities.core.imports import RequirementCache
assert RequirementCache("transformers")  # kept out, but not for good
"""


VIT = """
import sys
from sparselab.inputs.models.lazy_timm import without
from sparselab.running.planning import plan_of
parts = plan_of(["method=dense", "model=vit_ti", "dataset=digits"]).parts
parts.family.build(parts.data)
print("timm" in sys.modules, "wandb" in sys.modules)
import wandb
with without("wandb", "nothing_of_this_name"):
    assert sys.modules["wandb"] is wandb
print(wandb.__name__, "nothing_of_this_name" in sys.modules)
"""


WAIT = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


@pytest.mark.parametrize(
    ("own", "found"),
    [
        ({}, ["PASSIVE", "10000"]),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, ["ACTIVE", "None"]),
        ({"GOMP_SPINCOUNT": "0"}, ["PASSIVE", "0"]),
    ],
)
def test_waiting_threads_spin_a_bounded_while_unless_the_user_says_otherwise(own, found):
    code = f"import sys, os, sparselab; print(*(os.environ.get(name) for name in {WAIT}), 'torch' in sys.modules)"
    environment = {key: value for key, value in os.environ.items() if key not in WAIT} | own
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.split() == [*found, "False"]


def test_a_network_of_timm_loads_no_tracker_which_is_still_there_to_be_loaded():
    done = subprocess.run([sys.executable, "-c", VIT], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["True", "False", "wandb", "False"], done.stderr


def test_an_image_run_loads_no_text_library_and_no_tracker(tmp_path):
    cell = ["method=dense", "model=mlp", "model.hidden=[8]", "dataset=digits", "trainer.max_steps=2"]
    more = [f"runs_dir={tmp_path}", "trainer.accelerator=cpu", "trainer.progress=none"]
    done = subprocess.run([sys.executable, "-c", CODE, *cell, *more], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stderr.splitlines()[-1] == "[] 0", done.stderr
