"""Whole cells on a CUDA device: every method runs there, random masks are a CPU's, a run goes on, updates wait for nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from whole_cell import overrides, replaced, run, saved, wait_for

from sparselab.storage import record
from sparselab.tools.bench.updates import Update
from sparselab.weights.method import METHODS

ROOT = Path(__file__).parents[2]
HERE = ("trainer.accelerator=gpu",)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]


@pytest.mark.parametrize("compiled", ["false", "true"])
@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_trains_on_the_device(tmp_path, method, compiled):
    if compiled == "true" and method not in ("random", "srste", "gmp"):
        pytest.skip("the network is compiled, not the method: three stand for all")
    done = run(tmp_path, method, *HERE, f"trainer.compile={compiled}")
    assert done.code == 0, done.err
    made = record.read(done.cell)
    assert made["status"] == "finished" and made["sparsity"]["pattern_holds"]
    assert made["environment"]["device"] == torch.cuda.get_device_name()


RECURRENT = (
    "model=lstm", "model.width=16", "model.depth=2", "model.carry=true", "dataset=stdlib", "dataset.max_bytes=4000",
    "dataset.windows=streams", "dataset.block=64", "trainer.batch_size=8",
)  # fmt: skip


@pytest.mark.parametrize("method", ["gmp", "srste", "rigl", "wanda", "grasp"])
def test_recurrent_networks_train_on_the_device(tmp_path, method):
    """GraSP differentiates twice, which cuDNN's recurrent kernels cannot."""
    done = run(tmp_path, method, *HERE, *RECURRENT)
    assert done.code == 0, done.err
    assert record.read(done.cell)["sparsity"]["pattern_holds"]


@pytest.mark.parametrize("asked", [["method=gmp", "sparsity=0.9"], ["method=srste", "sparsity=2:4"]])
def test_recurrent_weights_stay_in_the_buffer_that_cudnn_reads(asked):
    """It wants a module's weights in one piece; those of a method with a master leave it during the step and come back."""
    text = ["dataset=stdlib", "dataset.max_bytes=100000", "dataset.block=16", "targets.exclude=[]"]
    one = Update([*asked, "model=lstm", "model.width=16", *text], "cuda")
    for _ in range(3):
        one()
    if one.due:
        one.change()
    for rnn in one.network.rnns:
        assert len({weight.untyped_storage().data_ptr() for weight in rnn.parameters()}) == 1


def test_random_masks_are_those_of_a_cpu(tmp_path):
    there, here = run(tmp_path / "gpu", "random", *HERE), run(tmp_path / "cpu", "random")
    assert there.code == here.code == 0, there.err
    assert there.cell.name == here.cell.name
    assert (there.cell / "masks.safetensors").read_bytes() == (here.cell / "masks.safetensors").read_bytes()


def test_stopped_and_started_again_it_finishes(tmp_path):
    long = (*HERE, "trainer.max_steps=200", "trainer.checkpoint_every=4", f"runs_dir={tmp_path}")
    typed = [sys.executable, str(ROOT / "run.py"), *replaced(overrides("rigl"), long)]
    process = subprocess.Popen(typed, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: saved(tmp_path) >= 20)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert process.returncode == 75, err
    again = run(tmp_path, "rigl", *long[:-1])
    assert again.code == 0, again.err
    assert record.read(again.cell)["sparsity"]["pattern_holds"]


@pytest.mark.parametrize(
    "asked", [["method=random", "sparsity=0.9"], ["method=srste", "sparsity=2:4"], ["method=gmp", "sparsity=0.9"]]
)
def test_an_update_without_a_new_mask_waits_for_nothing(asked):
    """No synchronisation from the pull-back to the end of ``after_step``: the host runs ahead of the device."""
    one = Update([*asked, "model.width=64", "model.depth=2", "model.heads=2"], "cuda")
    one()  # compiles kernels, makes the optimiser's state
    torch.cuda.synchronize()
    one.network.zero_grad()
    one.parts.family.logits(one.network, one.inputs).float().sum().backward()
    one.step += 1
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as waits:
            warnings.simplefilter("always")
            one.sparsifier.before_step(one.step)
            one.optimizer.step()
            one.sparsifier.after_step(one.step, one.optimizer)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert not [str(w.message) for w in waits]
