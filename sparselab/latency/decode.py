"""Latency of writing tokens with a language model under a kernel, and under others in the same run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from sparselab.config.schema import Common
from sparselab.core.data_types import NextTokens, Tokens
from sparselab.core.errors import Issue, Issues, spell
from sparselab.core.memo import once
from sparselab.core.options import Options
from sparselab.core.registry import build
from sparselab.core.sparsity import Sparsity
from sparselab.inputs.data.dataset import DATASETS
from sparselab.inputs.local_copies import near_data
from sparselab.inputs.models.family import MODELS
from sparselab.inputs.tokenizers import choose_tokenizer
from sparselab.latency.kernels.decoders import Decodes
from sparselab.latency.kernels.kernel import KERNELS
from sparselab.latency.networks.architectures import misfit
from sparselab.latency.workloads.decode import Decode as DecodeWorkload
from sparselab.latency.workloads.workload import WORKLOADS, strangers
from sparselab.running.engine import ENGINES, Plan
from sparselab.running.identity import content
from sparselab.running.parts import without_pending
from sparselab.running.signals import StopFlag
from sparselab.running.single_process import Job, Outcome, SingleProcessEngine
from sparselab.storage.ids import canonical

if TYPE_CHECKING:
    from sparselab.core.data_spec import DataSpec
    from sparselab.inputs.data.dataset import Dataset
    from sparselab.inputs.models.family import Family


@dataclass
class Parts:
    """The parts of a cell. sparsity: of inputs or of weights, as the kernel has it."""

    kernel: Decodes
    others: dict[str, Decodes]
    workload: DecodeWorkload
    dataset: Dataset
    data: DataSpec
    family: Family
    sparsity: Sparsity
    seed: int


class DecodeOptions(Options):
    """Options of the engine."""

    rounds: int = Field(ge=2, description="times that every token is timed, at least 2")
    against: list[str] = Field(min_length=1, description="kernels timed in turns with it, such as [rows, torch_decode]")
    windows: int = Field(ge=1, description="windows of dataset.block tokens to calibrate on, at least 1")
    tokens: int = Field(ge=2, description="test tokens that are scored, about")


@ENGINES.register("decode")
class Decode(SingleProcessEngine):
    """Milliseconds and bytes for one token of one text, and the loss that they buy.

    The kernels take turns at every token, so that whatever else the machine does meets all of them; of each place the
    fastest round counts. The same decoder then scores held-out text, so time and quality are of one network.
    """

    Options = DecodeOptions
    reads = ("kernel", "workload", "model", "dataset", "sparsity")
    paced = ("model", "dataset")
    uses_torch = True
    repeatable = False
    options: DecodeOptions

    class Top(Common):
        kernel: dict[str, Any]
        workload: dict[str, Any]
        model: dict[str, Any]
        dataset: dict[str, Any]
        sparsity: Any

    def complete(self, config: dict[str, Any], invalid: frozenset[str]) -> dict[str, list[Issue]]:
        wrong = choose_tokenizer(config, invalid)
        return {"dataset": wrong} if wrong else {}

    def gather(self, cell: Any, issues: Issues, invalid: frozenset[str], dependencies: Mapping[str, str]) -> Job | None:
        made: dict[str, Any] = {}
        for where, registry in (("kernel", KERNELS), ("workload", WORKLOADS)):
            if where not in invalid:
                with issues.collect():
                    made[where] = build(registry, getattr(cell, where), where)
        if "sparsity" not in invalid:
            with issues.collect():
                made["sparsity"] = Sparsity.parse("dense" if cell.sparsity is None else cell.sparsity)
        made["others"] = {}
        for name in self.options.against:
            with issues.collect():
                made["others"][name] = build(KERNELS, {"name": name}, "engine.against")
        written = [(f"{where}={made[where].name}", made[where]) for where in ("kernel", "workload") if where in made]
        beside = [(f"engine.against={name}", one) for name, one in made["others"].items()]
        odd = strangers(self.name, [*written, *beside])
        issues.found += odd
        if not odd and {"kernel", "workload", "sparsity"} <= set(made):
            issues.found += self._misfits(cell, made)
        self._network(cell, made, issues, invalid, dependencies)
        if issues.found or invalid or "family" not in made:
            return None
        parts = Parts(**made, seed=cell.seed)
        return self._job(parts, dependencies, cell)

    def _misfits(self, cell: Any, made: dict[str, Any]) -> list[Issue]:
        kernel, sparsity, found = made["kernel"], made["sparsity"], []
        half = made["workload"].half
        for where, one in [
            (f"kernel={kernel.name}", kernel),
            *((f"engine.against={n}", o) for n, o in made["others"].items()),
        ]:
            found += one.issues()
            if (why := one.unfit(half)) is not None:
                found.append(Issue(where, why, "leave it out, or write workload.precision=float32"))
        if all(one.sparse for one in made["others"].values()):
            found.append(Issue(f"engine.against={spell(self.options.against)}", "none of them is dense", "add rows"))
        asked = f"sparsity={spell(cell.sparsity)}"
        if sparsity.prunes and not (kernel.skips or kernel.prunes):
            found.append(Issue(asked, f"kernel={kernel.name} is dense", "write kernel=columns or kernel=coded"))
        if sparsity.prunes and kernel.skips and not sparsity.free:
            found.append(Issue(asked, "inputs are skipped by a fraction", "write 0.5, or kernel=coded"))
        return found

    def _network(
        self, cell: Any, made: dict[str, Any], issues: Issues, invalid: frozenset[str], dependencies: Mapping[str, str]
    ) -> None:
        if "dataset" not in invalid:
            with issues.collect():
                made["dataset"] = build(DATASETS, cell.dataset, "dataset", cell.data_dir)
        if "dataset" in made and "data_dir" not in invalid:
            with issues.collect():
                made["data"] = once(("data", cell.data_dir, canonical(cell.dataset)), made["dataset"].spec)
        if "model" in invalid or "data" not in made:
            return
        with issues.collect():
            model = near_data(cell.model, made["dataset"].folder())
            family = build(MODELS, model, "model")
            checked = without_pending(model, dependencies)
            known = family if checked is model else build(MODELS, checked, "model")
            if (Tokens, NextTokens) not in family.heads or not family.decoder:
                fix = "choose model=llama_tiny or model=hf"
                issues.add(f"model={family.name}", "engine=decode reads decoders of transformers", fix)
                return
            found = known.issues(made["data"])
            folder = Path(str(model.get("path", ""))).expanduser()
            if not found and model.get("path") and folder.is_dir():
                found = [one for one in [misfit(folder, family.where)] if one is not None]
            found += self._no_room(family, made)
            issues.found += found
            if not found:
                made["family"] = family

    def _no_room(self, family: Family, made: dict[str, Any]) -> list[Issue]:
        """A fault where what is written is longer than the network reads."""
        workload, longest = made.get("workload"), family.longest(made["data"])
        if not isinstance(workload, DecodeWorkload) or longest is None:
            return []
        whole = workload.options.prompt + workload.options.new
        if whole <= longest:
            return []
        problem = f"{family.where} reads at most {longest:,} tokens, and a prompt with what follows has {whole:,}"
        return [Issue(f"workload.new={workload.options.new}", problem, "write fewer")]

    def _job(self, parts: Parts, dependencies: Mapping[str, str], cell: Any) -> Job:
        files = {
            f"model.{option}": [content(path, dependencies, f"model.{option}") for path in paths]
            for option, paths in parts.family.files().items()
        }
        spec = None if dependencies else parts.family.model_spec(parts.data)
        macs = (spec.macs if spec else 0) / parts.data.shape[0]
        o, w, block = self.options, parts.workload.options, parts.data.shape[0]
        timed = (w.prompt + o.rounds * w.new * 2) * (2 + len(parts.others))
        work = macs * (timed + 2 * o.tokens + o.windows * block)
        tokenizer = getattr(parts.dataset.options, "tokenizer", "")
        return Job(
            parts=parts,
            size=f"{w.new} tokens, {o.rounds} rounds",
            work=float(work),
            facts=[
                ("workload", f"{w.prompt} tokens read, {w.new} written, {w.precision}, threads: {w.threads}"),
                ("kernel", f"{parts.kernel.name} against {', '.join(parts.others)} · sparsity {parts.sparsity}"),
            ],
            extra={
                "sparsity": str(parts.sparsity),
                "data": parts.data.fingerprint,
                "files": files,
            },
            spent=("sparsity", *files, *(["dataset.tokenizer"] if Path(tokenizer).expanduser().is_dir() else [])),
        )

    def execute(self, plan: Plan, stop: StopFlag) -> Outcome:
        from sparselab.latency.decoded import execute

        return execute(plan.parts, self.options, stop)

    @classmethod
    def summary(cls, record: dict[str, Any]) -> list[tuple[str, str]]:
        m = record["metrics"]
        rows = [
            ("speed", f"{m['test.tokens_per_second']:.1f} tokens a second, {m['test.ms']:.2f} ms each"),
            ("memory", f"{m['test.megabytes']:.1f} MB a token; reading them takes {m['test.limit_ms']:.2f} ms"
                       f" at {m['test.bandwidth']:.1f} GB/s, {100 * m['test.reached']:.0f} % of the time"),
        ]  # fmt: skip
        for name in record["config"]["engine"]["against"]:
            ratio, alone = m[f"test.speedup_{name}"], m[f"test.products_speedup_{name}"]
            told = f"{ratio:.2f}x as fast ({m[f'test.{name}_ms']:.2f} ms); products alone {alone:.2f}x"
            rows += [(f"against {name}", told)]
        rows.append(("loss", f"{m['test.loss']:.4f} (dense {m['test.dense_loss']:.4f}, n = {m['test.n']:,.0f} tokens)"))
        rows.append(("error", f"{m['test.error']:.1e} of the largest logit, against torch"))
        return rows
