"""Latency of a workload under a kernel, and under others in the same run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import Field

from sparselab.config.schema import Common
from sparselab.core.errors import Issue, Issues, spell
from sparselab.core.model_spec import Layer
from sparselab.core.options import Options
from sparselab.core.registry import build
from sparselab.core.sparsity import Sparsity
from sparselab.latency.decode import Decode
from sparselab.latency.kernels.kernel import KERNELS, Kernel
from sparselab.latency.workloads.workload import WORKLOADS, Step, Workload, strangers
from sparselab.running.engine import ENGINES, Plan
from sparselab.running.signals import StopFlag
from sparselab.running.single_process import Job, Outcome, SingleProcessEngine
from sparselab.weights.patterns.fit import misfit

if TYPE_CHECKING:
    from sparselab.latency.workloads.weights import Weighted

__all__ = ["Decode", "Measure"]


@dataclass
class Parts:
    """The parts of a measurement: kernel, workload, and what it is compared with."""

    kernel: Kernel
    others: dict[str, Kernel]
    workload: Workload
    steps: list[Step]
    sparsity: Sparsity
    seed: int


class MeasureOptions(Options):
    """Options of a latency measurement."""

    rounds: int = Field(ge=3, description="timed runs of each kernel, at least 3")
    against: list[str] = Field(min_length=1, description="kernels timed in turns with it, such as [dense, csr]")
    block_from: int = Field(
        ge=0, description="pointwise layer from which a block pattern begins; before it: single weights"
    )


@ENGINES.register("measure")
class Measure(SingleProcessEngine):
    """Milliseconds for one image on one thread.

    The kernels take turns, round by round, so that whatever else the machine does meets all of them; the fastest round of
    each counts, and ratios are of these. Weights are random, pruned by magnitude in the 1x1 convolutions only.
    """

    Options = MeasureOptions
    reads = ("kernel", "workload", "sparsity")
    paced = ("workload",)
    uses_torch = True
    repeatable = False
    options: MeasureOptions

    class Top(Common):
        kernel: dict[str, Any]
        workload: dict[str, Any]
        sparsity: Any

    def gather(self, cell: Any, issues: Issues, invalid: frozenset[str], dependencies: Mapping[str, str]) -> Job | None:
        made: dict[str, Any] = {}
        for where, registry in (("kernel", KERNELS), ("workload", WORKLOADS)):
            if where not in invalid:
                with issues.collect():
                    made[where] = build(registry, getattr(cell, where), where)
        if "sparsity" not in invalid:
            with issues.collect():
                made["sparsity"] = Sparsity.parse("dense" if cell.sparsity is None else cell.sparsity)
        others: dict[str, Kernel] = {}
        for name in self.options.against:
            with issues.collect():
                others[name] = build(KERNELS, {"name": name}, "engine.against")
        written = [(f"{where}={one.name}", one) for where, one in made.items() if where != "sparsity"]
        issues.found += strangers(self.name, [*written, *((f"engine.against={n}", one) for n, one in others.items())])
        for kernel in [*([made["kernel"]] if "kernel" in made else []), *others.values()]:
            issues.found += kernel.issues()
        if others and not any(not kernel.sparse for kernel in others.values()):
            issues.add(f"engine.against={spell(self.options.against)}", "none of them is dense", "add dense")
        if "trainer" not in invalid and cell.trainer.threads not in (None, 1):
            issues.add(
                f"trainer.threads={cell.trainer.threads}", "latency is of one thread", "write 1, or leave it out"
            )
        if "workload" in made and "sparsity" in made and not issues.found:
            issues.found += self._misfits(made["workload"].steps(), made["sparsity"])
        if issues.found or len(made) < 3:
            return None
        steps = made["workload"].steps()
        macs = sum(step.macs for step in steps)
        rounds = (self.options.rounds + 3) * (1 + len(others))
        return Job(
            parts=Parts(made["kernel"], others, made["workload"], steps, made["sparsity"], cell.seed),
            size=f"{self.options.rounds} rounds",
            work=float(macs * rounds),
            facts=[
                ("workload", f"{made['workload'].name}: {len(steps)} layers, {macs:,} MACs dense"),
                ("kernel", f"{made['kernel'].name} against {', '.join(others)} · sparsity {made['sparsity']}"),
            ],
            extra={"sparsity": str(made["sparsity"])},
            spent=("sparsity",),
        )

    def _misfits(self, steps: list[Step], sparsity: Sparsity) -> list[Issue]:
        pointwise = [step for step in steps if step.kind == "pointwise"]
        layers = [
            Layer(f"pointwise.{number}", "linear", (step.outputs, step.inputs), step.macs)
            for number, step in enumerate(pointwise)
            if number >= self.options.block_from
        ]
        if not sparsity.prunes:
            return []
        return [issue for layer in layers if (issue := misfit(layer, sparsity, "in"))][:3]

    def execute(self, plan: Plan, stop: StopFlag) -> Outcome:
        import torch

        from sparselab.latency.timing import compare, layers_of

        parts: Parts = plan.parts
        torch.set_num_threads(1)
        layers = layers_of(parts.steps, parts.sparsity, self.options.block_from, parts.seed)
        stop.check("before the first round")
        with torch.inference_mode():
            metrics = compare(parts.kernel, parts.others, layers, self.options.rounds, parts.seed, stop)
        return Outcome(
            metrics,
            sparsity=realised(parts.sparsity, layers),
            cost=counted(layers),
            data={"name": parts.workload.name, "title": f"{parts.workload.name}, random weights", "source": "bundled"},
        )

    @classmethod
    def summary(cls, record: dict[str, Any]) -> list[tuple[str, str]]:
        metrics, sparse = record["metrics"], record["sparsity"]
        rows = [
            ("latency", f"{metrics['test.ms']:.2f} ms an image, 1x1 convolutions {metrics['test.pointwise_ms']:.2f} ms")
        ]
        for name in record["config"]["engine"]["against"]:
            ms, ratio = metrics[f"test.{name}_ms"], metrics[f"test.speedup_{name}"]
            rows.append((f"against {name}", f"{ratio:.2f}x as fast ({ms:.2f} ms)"))
        rows.append(
            ("sparsity", f"{sparse['requested']} → {sparse['realised']:.4g} of {sparse['weights']:,} 1x1 weights")
        )
        rows.append(("MACs", f"{record['account']['macs_dense']:,} → {record['account']['macs']:,} per image"))
        rows.append(("error", f"{metrics['test.error']:.1e} of the largest logit, against {cls.reference(record)}"))
        return rows

    @staticmethod
    def reference(record: dict[str, Any]) -> str:
        """The kernel whose logits the error is against."""
        return str(record["config"]["engine"]["against"][0])


def realised(sparsity: Sparsity, layers: list[Weighted]) -> dict[str, Any]:
    """Return the realised sparsity of the pointwise weights."""
    sparse = [one for one in layers if one.step.kind == "pointwise"]
    total = sum(one.weight.size for one in sparse)
    kept = sum(int((one.weight != 0).sum()) for one in sparse)
    return {"requested": str(sparsity), "realised": 1 - kept / total, "weights": total, "kept": kept}


def counted(layers: list[Weighted]) -> dict[str, Any]:
    """Parameters (weights and biases) and multiply-accumulates."""
    params = sum(one.weight.size + one.bias.size for one in layers)
    zeros = sum(int((one.weight == 0).sum()) for one in layers)
    macs = sum(int((one.weight != 0).sum()) * one.step.pixels for one in layers)
    return {
        "params": params,
        "params_nonzero": params - zeros,
        "macs_dense": sum(one.step.macs for one in layers),
        "macs": macs,
    }
