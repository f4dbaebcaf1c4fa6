"""The `inference` engine: a frozen language model with rules on its activations or its attention, beside itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparselab.config.schema import Common
from sparselab.core.data_types import NextTokens, Tokens
from sparselab.core.errors import Issue, Issues, short, spell
from sparselab.core.memo import once
from sparselab.core.options import off
from sparselab.core.registry import build
from sparselab.core.sparsity import Sparsity
from sparselab.inference.activation.rule import ACTIVATIONS
from sparselab.inference.attention.rule import ATTENTIONS
from sparselab.inference.decoding.decoding import DECODINGS
from sparselab.inference.parts import InferenceOptions, Parts
from sparselab.inference.routing.rule import ROUTINGS, blocks_of
from sparselab.inputs.data.dataset import DATASETS
from sparselab.inputs.local_copies import near_data
from sparselab.inputs.models.family import MODELS
from sparselab.inputs.tokenizers import choose_tokenizer
from sparselab.running.engine import ENGINES
from sparselab.running.identity import content
from sparselab.running.parts import without_pending
from sparselab.running.single_process import Job, Outcome, SingleProcessEngine
from sparselab.storage.ids import canonical

if TYPE_CHECKING:
    from sparselab.core.data_spec import DataSpec
    from sparselab.core.model_spec import ModelSpec
    from sparselab.inference.decoding.decoding import Decoding
    from sparselab.inputs.models.family import Family
    from sparselab.running.engine import Plan
    from sparselab.running.signals import StopFlag


@ENGINES.register("inference")
class Inference(SingleProcessEngine):
    """Scores a trained network as it is and under its rules, on the same windows of text.

    Nothing is trained. ``activation`` zeroes entries of what linear layers read, ``attention`` skips tiles of keys;
    without either the cell is the dense network's. Calibration reads the train split, scores come from the test split;
    the seed draws the windows of both. With ``decoding`` no windows are scored: the network writes on from prompts of the
    test split, and what it writes is compared with what it writes without its rules. With ``routing`` tokens skip
    blocks, and the token after each window is scored beside all others.
    """

    Options = InferenceOptions

    class Top(Common):
        model: dict[str, Any]
        dataset: dict[str, Any]
        sparsity: Any
        activation: dict[str, Any] | None
        attention: dict[str, Any] | None
        decoding: dict[str, Any] | None = off(None, description="a loop by which texts are written, or null")
        routing: dict[str, Any] | None = off(None, description="a rule for which tokens skip which blocks, or null")

    options: InferenceOptions
    reads = ("model", "dataset", "sparsity", "activation", "attention", "decoding", "routing")
    paced = ("model", "dataset")
    guess = 2e10  # multiply-accumulates a second
    uses_torch = True

    def complete(self, config: dict[str, Any], invalid: frozenset[str]) -> dict[str, list[Issue]]:
        wrong = choose_tokenizer(config, invalid)
        return {"dataset": wrong} if wrong else {}

    def gather(self, cell: Any, issues: Issues, invalid: frozenset[str], dependencies: Mapping[str, str]) -> Job | None:
        made: dict[str, Any] = dict.fromkeys(("activation", "attention", "target", "decoding", "routing"))
        with issues.collect():
            if "sparsity" not in invalid:
                made["target"] = _target(cell.sparsity)
        if cell.activation is not None and "activation" not in invalid:
            with issues.collect():
                made["activation"] = build(ACTIVATIONS, cell.activation, "activation")
                issues.found += made["activation"].unfit(self.options.windows)
                if "sparsity" not in invalid:
                    issues.found += made["activation"].aimless(made["target"])
        if cell.attention is not None and "attention" not in invalid:
            with issues.collect():
                own = (
                    made["target"] if cell.activation is None else None
                )  # of two rules the sparsity is the activations'
                made["attention"] = build(ATTENTIONS, cell.attention, "attention", own)
        if cell.decoding is not None and "decoding" not in invalid:
            with issues.collect():
                made["decoding"] = build(DECODINGS, cell.decoding, "decoding")
                issues.found += self._unwritable(cell, made["decoding"], made["attention"])
        if cell.routing is not None and "routing" not in invalid:
            with issues.collect():
                made["routing"] = build(ROUTINGS, cell.routing, "routing")
                issues.found += self._not_alone(cell, made["routing"].name)
                if "sparsity" not in invalid:
                    issues.found += made["routing"].aimless(made["target"])
        issues.found += [] if "sparsity" in invalid else self._misfits(cell, made)
        if "dataset" not in invalid:
            with issues.collect():
                made["dataset"] = build(DATASETS, cell.dataset, "dataset", cell.data_dir)
        if "dataset" in made and "data_dir" not in invalid:
            with issues.collect():
                data = once(("data", cell.data_dir, canonical(cell.dataset)), made["dataset"].spec)
                made["data"] = data if made["decoding"] is None else made["decoding"].sees(data)
        if "model" not in invalid and "data" in made:
            with issues.collect():
                model = near_data(cell.model, made["dataset"].folder())
                made["family"] = build(MODELS, model, "model")
                checked = without_pending(model, dependencies)
                family = made["family"] if checked is model else build(MODELS, checked, "model")
                possible = ("activation", "attention", "decoding", "routing")
                rules = [key for key in possible if getattr(cell, key) is not None]
                made["model_spec"] = self._spec_of(family, made["data"], rules, made["decoding"], issues)
                if made["activation"] is not None and made["model_spec"] is not None:
                    issues.found += made["activation"].misfits(made["model_spec"])
                if made["routing"] is not None and made["model_spec"] is not None:
                    depth = blocks_of(made["model_spec"])
                    issues.found += made["routing"].unfit(depth, made["target"]) if depth else []
                if made["attention"] is not None and family.decoder:
                    issues.found += made["attention"].too_long(family.where, family.longest(made["data"]))
                if made["activation"] is not None and family.decoder and made["decoding"] is None:
                    issues.found += made["activation"].idle(made["data"].shape[0])
                if made["decoding"] is not None:
                    issues.found += self._no_room(made["decoding"], family, made["dataset"], made["data"])
        if issues.found or invalid or "model_spec" not in made:
            return None
        return self._job(Parts(cell=cell, batch_size=self.options.batch_size, **made), dependencies)

    def _spec_of(
        self, family: Family, data: DataSpec, rules: list[str], decoding: Decoding | None, issues: Issues
    ) -> ModelSpec | None:
        where = f"model={family.name}"
        if (Tokens, NextTokens) not in family.heads:
            fix = "choose a model of text, such as model=llama_tiny or model=hf"
            issues.found.append(Issue(where, "engine=inference reads language models", fix))
            return None
        if rules and not family.decoder:
            problem = f"{' and '.join(rules)} rules work on the blocks of a transformers decoder"
            if rules == ["decoding"] and decoding is not None:
                problem = decoding.on_decoders
            found = [Issue(where, problem, "choose model=llama_tiny, model=gpt_tiny or model=hf")]
        else:
            found = family.issues(data) + ([] if decoding is None else decoding.unreadable(family, data))
        if data.inputs.ordered:
            problem = "engine=inference reads each window by itself"
            found.append(Issue("dataset.windows=streams", problem, "write dataset.windows=drawn"))
        issues.found += found
        return None if found else family.model_spec(data)

    def _unwritable(self, cell: Any, decoding: Decoding, attention: Any) -> list[Issue]:
        """Why a way of decoding would have nothing to do, or not what its rules are for."""
        found = decoding.misfits() + decoding.unfit(cell.activation is not None, attention, self.options.phase)
        if decoding.needs_rules and cell.activation is None and cell.attention is None:
            where = f"decoding={decoding.name}"
            found.append(Issue(where, "needs a rule under which the network drafts", "add activation=griffin"))
        return found

    def _not_alone(self, cell: Any, name: str) -> list[Issue]:
        """Faults where something else takes part in what a rule of routing changes."""
        beside = [key for key in ("activation", "attention", "decoding") if getattr(cell, key) is not None]
        problem = "routes whole windows of text, with no other rule and no loop"
        return [Issue(f"routing={name}", problem, f"leave {key} out") for key in beside]

    def _no_room(self, loop: Decoding, family: Family, dataset: Any, data: DataSpec) -> list[Issue]:
        """A fault where a prompt and what follows it are longer than the network reads."""
        prompt, longest = dataset.prompt_length(), family.longest(data)
        if prompt is None or longest is None:
            return []
        whole = prompt + loop.options.tokens + loop.ahead
        if whole <= longest:
            return []
        problem = f"{family.where} reads at most {longest:,} tokens, and a prompt with what follows has {whole:,}"
        return [Issue(f"decoding.tokens={loop.options.tokens}", problem, "write fewer, or a smaller dataset.block")]

    def _misfits(self, cell: Any, made: dict[str, Any]) -> list[Issue]:
        """Rules and the sparsity: does each have one, and is there one for each?"""
        rule, target, found = made["attention"], made["target"], []
        if target and cell.activation is None and cell.attention is None and cell.routing is None:
            found.append(
                Issue(f"sparsity={spell(cell.sparsity)}", "no rule to reach it", "add activation=wina or leave it out")
            )
        if rule is None:
            return found
        if rule.needs_steps and cell.decoding is None:
            problem = "is for texts that are written in several passes, and windows are read in one"
            found.append(Issue(f"attention={rule.name}", problem, "add decoding=denoise"))
        own = rule.own_limit
        if own and target and cell.activation is None:
            found.append(Issue(f"attention.{own}", "sparsity= asks for a fit instead", "leave one of the two out"))
        if not own and rule.sparsity is None:
            fix = (
                "write sparsity=0.5"
                if cell.activation is None
                else "write attention.threshold=…, or leave activation out"
            )
            found.append(Issue(f"attention={rule.name}", "has no sparsity to reach", fix))
        return found

    def _job(self, parts: Parts, dependencies: Mapping[str, str]) -> Job:
        rules = [rule for rule in (parts.activation, parts.attention, parts.routing) if rule is not None]
        files = {
            f"model.{option}": [content(path, dependencies, f"model.{option}") for path in paths]
            for option, paths in parts.family.files().items()
        }
        block, macs = parts.data.shape[0], parts.model_spec.macs if parts.model_spec else 0
        windows = (self.options.tokens or parts.data.test * block) / block
        prepared = 0 if parts.activation is None else parts.activation.passes
        calibrating = self.options.windows * (prepared + (parts.attention is not None))
        passes = 2 * windows + calibrating
        if parts.routing is not None:
            depth = blocks_of(parts.model_spec) if parts.model_spec else 0
            passes += windows + parts.routing.read(self.options.windows, depth)
        if (loop := parts.decoding) is not None:
            passes = loop.reads(block) / block + calibrating
        at = "dense" if parts.target is None and not rules else f"sparsity {parts.target or 'of its own'}"
        tokenizer = getattr(parts.dataset.options, "tokenizer", "")
        extra: dict[str, Any] = {
            "data": parts.data.fingerprint,
            "files": files,
            "rules": {rule.name: rule.version for rule in rules},
        }
        if loop is not None:
            extra["decoding"] = loop.version
        if self._weighs_windows(parts):
            extra["windows"] = 2  # those of a shorter last batch once counted more
        data = parts.data
        size = f"{data.test:,} test windows" if data.known else "test windows"
        facts = [
            ("rules", " · ".join([*(f"{rule.name}" for rule in rules), at])),
            ("data", f"{data.title or data.name}: {size} of {block} tokens ({data.source})"),
        ]
        if loop is not None:
            texts = f"{loop.options.prompts:,} prompts, up to {loop.options.tokens:,} tokens each"
            facts = [
                facts[0],
                ("decoding", f"{loop.name}: {texts}"),
                ("data", f"{data.title or data.name} ({data.source})"),
            ]
        notes = []
        if parts.model_spec is None:
            notes.append("the layers of this model are known once it is built; they are checked then")
        else:
            facts.append(("MACs", f"{macs // block:,} a token, dense"))
        return Job(
            parts=replace(parts, source=canonical({"files": files, "data": parts.data.fingerprint})),
            size=f"{self.options.tokens or 'all'} tokens" if loop is None else f"{loop.options.prompts} texts",
            work=float(passes * macs),
            facts=facts,
            notes=notes,
            extra=extra,
            spent=(*files, *(["dataset.tokenizer"] if Path(tokenizer).expanduser().is_dir() else [])),
        )

    def _weighs_windows(self, parts: Parts) -> bool:
        """True if calibration weighs windows against each other: a shared threshold, or a search over several batches."""
        if parts.activation is None:
            return False
        return parts.activation.weighs_windows(self.options.windows > self.options.batch_size)

    def execute(self, plan: Plan, stop: StopFlag) -> Outcome:
        from sparselab.inference.runner import execute

        return execute(plan, self.options, stop)

    @classmethod
    def summary(cls, record: dict[str, Any]) -> list[tuple[str, str]]:
        metrics, cost = record["metrics"], record["account"]
        if (decoding := record["config"].get("decoding")) is not None:
            return DECODINGS[decoding["name"]].lines(metrics)
        ends = [] if "test.last_accuracy" not in metrics else [
            ("after a window", f"{100 * metrics['test.last_accuracy']:.2f} % right (dense"
                               f" {100 * metrics['test.dense_last_accuracy']:.2f} %, n = {metrics['test.contexts']:,.0f})"),
            ("tokens skipped", f"{100 * metrics['routing.sparsity']:.2f} %"),
        ]  # fmt: skip
        shown = {kind: metrics.get(f"{kind}.sparsity") for kind in ("activation", "attention")}
        return [
            ("test perplexity", f"{metrics['test.perplexity']:.4f} (dense {metrics['test.dense_perplexity']:.4f},"
                                f" n = {metrics['test.n']:,.0f} tokens)"),
            ("next token", f"{100 * metrics['test.accuracy']:.2f} % (dense {100 * metrics['test.dense_accuracy']:.2f} %)"),
            *ends,
            *((f"{kind} zeros", f"{100 * share:.2f} %") for kind, share in shown.items() if share is not None),
            ("MACs", f"{cost['macs_dense']:,} → {cost['macs']:,} per window"),
        ]  # fmt: skip


def _target(value: Any) -> float | None:
    """The sparsity that is asked for: a fraction, or None where nothing is asked."""
    if value is None:
        return None
    parsed = Sparsity.parse(value)
    if parsed.prunes and not parsed.free:
        Issues(
            [Issue(short(f"sparsity={spell(value)}"), "engine=inference takes a fraction", "write 0.5")]
        ).raise_if_any()
    return parsed.sparsity
