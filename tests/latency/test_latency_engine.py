"""Latency cells: networks that give the same under every kernel, counts that are exact, requests that are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sparselab.cli import application
from sparselab.core import native_build as native
from sparselab.core.errors import ConfigError
from sparselab.core.sparsity import Sparsity
from sparselab.latency.kernels.kernel import KERNELS
from sparselab.latency.timing import layers_of
from sparselab.latency.workloads.workload import WORKLOADS
from sparselab.running.planning import plan_of

TINY = ["workload=mobilenet_v2", "workload.width=0.25", "workload.image=32", "workload.classes=10"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def kernel(name):
    return KERNELS[name](KERNELS[name].Options())


def steps(name, **options):
    cls = WORKLOADS[name]
    return cls(cls.Options(**options)).steps()


def macs(steps):
    return {kind: sum(s.macs for s in steps if s.kind == kind) for kind in ("stem", "depthwise", "pointwise", "head")}


def test_mobilenet_counts():
    """MobileNet v1 at 224: the dossier's numbers; v2's total is the 300 M multiply-adds of its paper (table 4)."""
    v1 = macs(steps("mobilenet_v1"))
    assert v1 == {"stem": 10_838_016, "depthwise": 17_385_984, "pointwise": 539_492_352, "head": 1_024_000}
    assert sum(v1.values()) - round(0.9 * v1["pointwise"]) == pytest.approx(83.2e6, rel=1e-3)
    assert sum(macs(steps("mobilenet_v2")).values()) == pytest.approx(300e6, rel=0.01)
    assert steps("mobilenet_v1")[-2].after == steps("mobilenet_v2")[-2].after == (7, 7)


def test_shapes_and_parameters_are_those_of_timm():
    import timm

    for ours, theirs in (("mobilenet_v1", "mobilenetv1_100"), ("mobilenet_v2", "mobilenetv2_100")):
        model = timm.create_model(theirs, pretrained=False)
        shapes = [tuple(p.shape) for p in model.parameters() if p.ndim >= 2]
        mine = [
            (s.outputs, 1 if s.kind == "depthwise" else s.inputs) + ((s.kernel,) * 2 if s.kind != "head" else ())
            for s in steps(ours)
        ]
        assert mine == shapes


@pytest.mark.parametrize("workload", ["mobilenet_v1", "mobilenet_v2"])
@pytest.mark.parametrize("sparsity", ["dense", "0.8", "block:4x1:0.75"])
def test_every_kernel_gives_the_same_network(workload, sparsity):
    layers = layers_of(steps(workload, width=0.25, image=32, classes=10), Sparsity.parse(sparsity), 0, seed=3)
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    names = [name for name in KERNELS if kernel(name).engine == "measure" and not kernel(name).issues()]
    with torch.inference_mode():
        found = {name: kernel(name).network(layers)(image).flatten().clone() for name in names}
        again = {name: kernel(name).network(layers) for name in names}
        twice = {name: [run(image).flatten().clone() for _ in range(2)] for name, run in again.items()}
    assert found["dense"].abs().max() > 0.01  # not all the bias
    for name in names:
        torch.testing.assert_close(found[name], found["dense"], rtol=1e-3, atol=1e-4)
        assert torch.equal(*twice[name])  # the places that kernels write into are their own


def test_weights_are_pruned_by_magnitude_in_the_pointwise_layers_only():
    shape = steps("mobilenet_v1", width=0.25, image=32)
    dense, pruned = (layers_of(shape, Sparsity.parse(s), 0, seed=0) for s in ("dense", "0.9"))
    mixed = layers_of(shape, Sparsity.parse("block:4x1:0.9"), 12, seed=0)
    for before, after in zip(dense, pruned, strict=True):
        zero = after.weight == 0
        if before.step.kind != "pointwise":
            np.testing.assert_array_equal(after.weight, before.weight)
        else:
            assert zero.sum() == before.weight.size - round(0.1 * before.weight.size)
            assert abs(before.weight[zero]).max() <= abs(before.weight[~zero]).min()
    pointwise = [one.weight[:, :, 0, 0] != 0 for one in mixed if one.step.kind == "pointwise"]
    whole = [(w.reshape(-1, 4, w.shape[1]).all(1) == w.reshape(-1, 4, w.shape[1]).any(1)).all() for w in pointwise]
    assert whole == [False] * 12 + [True]


@pytest.mark.skipif(native.compiler() is None, reason="no C compiler is here")
def test_a_cell(capsys):
    line = ["kernel=native", *TINY, "sparsity=0.9", "engine.rounds=3", "engine.against=[csr,dense]"]
    assert application.main(line) == 0
    out = capsys.readouterr().out
    record = json.loads(Path(out.split()[-1]).read_text())
    metrics = record["metrics"]
    assert metrics["test.error"] < 1e-4 and metrics["test.speedup"] == metrics["test.speedup_dense"] > 0
    assert metrics["test.speedup_csr"] == pytest.approx(metrics["test.csr_ms"] / metrics["test.ms"])
    assert record["sparsity"]["realised"] == pytest.approx(0.9, abs=0.001)
    assert record["account"]["macs"] < 0.4 * record["account"]["macs_dense"]
    assert record["environment"]["promise"] == "D"
    assert "x as fast" in out and "csr" in out


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["kernel=nativ"], 'kernel=nativ: no such kernel — did you mean "native"?'),
        (["engine.against=[csr]"], "engine.against=[csr]: none of them is dense — add dense"),
        (["engine.against=[dens]"], 'kernel=dens: no such kernel — did you mean "dense"?'),
        (["engine.rounds=2"], "engine.rounds=2: input should be greater than or equal to 3 — timed runs of each"),
        (["kernel.block=3"], "kernel.block=3: input should be 'auto', 1, 2 or 4 — auto, 1, 2 or 4"),
        (["kernel.vectors=9"], "kernel.vectors=9: input should be 'auto', 1, 2, 3, 4, 5, 6, 7 or 8 — auto, or 1 to 8"),
        (["kernel.spatial=own"], "kernel.spatial=own: input should be 'native' or 'torch' — native or torch"),
        (["trainer.threads=2"], "trainer.threads=2: latency is of one thread — write 1, or leave it out"),
        (["sparsity=3:5"], "sparsity="),
        (["model=mlp"], "model=mlp: engine=measure does not read it — leave it out, or choose engine="),
    ],
)
def test_what_cannot_be_measured_is_refused(more, line):
    with pytest.raises(ConfigError) as refused:
        plan_of(["kernel=native", *TINY, "sparsity=0.9", *more])
    assert any(str(issue).startswith(line) for issue in refused.value.issues), [*map(str, refused.value.issues)]


def test_without_a_compiler_the_native_kernel_is_refused_and_the_library_serves(monkeypatch):
    monkeypatch.setenv("SPARSELAB_NATIVE", "0")
    with pytest.raises(ConfigError, match=r"kernel=native: no C compiler is here — install gcc, or write kernel=csr"):
        plan_of(["kernel=native", *TINY])
    assert plan_of(["kernel=csr", *TINY, "sparsity=0.9"]).size == "15 rounds"


def test_without_a_workload_the_fix_is_named():
    with pytest.raises(ConfigError, match="workload: is required and has no value — write workload=…"):
        plan_of(["kernel=csr"])
