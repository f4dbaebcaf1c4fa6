"""The outcome of a cell whose network writes by masked diffusion: beside itself with full attention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sparselab.core.errors import RunFailed
from sparselab.inference.attention.rule import Step
from sparselab.inference.attention.tiled.attach import Attached
from sparselab.inference.attention.tiled.tiles import Ledger
from sparselab.inference.count import realised
from sparselab.inference.decoding.denoise import Denoise
from sparselab.inference.decoding.denoising.steps import (
    Group,
    Logits,
    Written,
    grouped,
    schedule,
    without_mask,
    write,
)
from sparselab.inputs.data.prompts import Prompt
from sparselab.inputs.data.splits import loaded
from sparselab.running.single_process import Outcome
from sparselab.storage.ids import canonical

if TYPE_CHECKING:
    from sparselab.inference.parts import Bench, Parts

ENDS = 0.2
"""Share of a text's steps that are its first ones, or its last ones, in metrics."""


def outcome(loop: Denoise, bench: Bench) -> Outcome:
    """Write texts in steps, and compare them with those of full attention.

    Args:
        loop: with its options
        bench: the network, its rules and the data

    Returns:
        Numbers about all texts.

    Raises:
        RunFailed: there is no room for a text, or an output is not finite.
    """
    parts, dataset = bench.parts, bench.parts.dataset
    prompts: list[Prompt] = dataset.prompts(bench.splits, loop.options.prompts, parts.cell.seed)  # type: ignore[attr-defined]
    check_room(prompts, loop, parts.family.longest(parts.data))
    device = next(bench.model.parameters()).device
    groups = grouped(prompts, bench.parts.batch_size, device)
    mask, seed = loop.mask(parts.data), parts.cell.seed

    def plain(tokens: Tensor, step: Step | None) -> Tensor:
        logits = parts.family.logits(bench.model, tokens).float()
        return torch.cat((logits[:, :1], logits[:, :-1]), 1) if loop.options.shifted else logits

    def all_of(logits_of: Logits) -> list[Written]:
        found = []
        for group in groups:
            bench.stop.check("between two groups of prompts")
            found.append(write(loop, logits_of, group, mask, seed))
        return found

    dense = kept_texts(bench, loop, lambda: all_of(plain))
    with bench.ruled() as (_, _, attached):
        if attached is None:
            written, ledger, last, drift, spent = dense, None, 1.0, Drift.none(loop.options.steps), 0.0
        else:
            work = Work(loop, attached, plain)
            written = all_of(work.step)
            ledger, last, spent = attached.ledger, work.last_density, attached.rule.spent
            attached.ledger = Ledger(saves=attached.rule.saves)  # what follows looks on, and writes nothing
            drift = Drift.along(loop, groups, dense, plain, work.step, attached, mask)
    metrics = {
        **scores(dataset, prompts, groups, written, dense),
        **drift.metrics(),
        **costs(ledger, spent, last, loop.options.steps),
        **({} if attached is None else {f"attention.{name}": v for name, v in attached.rule.measures().items()}),
    }
    return Outcome(
        metrics=metrics,
        sparsity=realised(parts, None, None, ledger),
        cost=account(bench, loop, groups, metrics["attention.cost"]),
        data=loaded(parts.data, bench.splits),
    )


def check_room(prompts: Sequence[Prompt], loop: Denoise, longest: int | None) -> None:
    """RunFailed where a prompt and its text are longer than the network reads."""
    whole = max(len(prompt.tokens) for prompt in prompts) + loop.options.tokens
    if longest is not None and whole > longest:
        problem = f"a prompt with its text has {whole:,} tokens, and the network reads at most {longest:,}"
        raise RunFailed(f"decoding.tokens={loop.options.tokens}: {problem} — write fewer, or other prompts")


class Work:
    """Passes under the rule, which hears of every step. last_density: share of the tiles that the last steps kept."""

    def __init__(self, loop: Denoise, attached: Attached, plain: Any):
        self.loop, self.attached, self.plain = loop, attached, plain
        self._valid = self._kept = 0

    def step(self, tokens: Tensor, step: Step) -> Tensor:
        """One pass. tokens: (n, t) int64. Returns (n, t, vocabulary) float32."""
        self.attached.rule.begin(step)
        is_last = step.number == step.steps - 1
        before = self.attached.ledger.totals() if is_last else (0, 0, 0)
        logits: Tensor = self.plain(tokens, step)
        if is_last:
            valid, kept, _ = self.attached.ledger.totals()
            self._valid, self._kept = self._valid + valid - before[0], self._kept + kept - before[1]
        return logits

    @property
    def last_density(self) -> float:
        return self._kept / self._valid if self._valid else 1.0


@dataclass
class Drift:
    """Divergence of the rule's predictions from full attention's, step by step, on the states of full attention's own texts.

    nats: sum over the hidden tokens of each step of KL(full || rule). hidden: how many there were.
    """

    nats: list[float]
    hidden: list[int]

    @classmethod
    def none(cls, steps: int) -> Drift:
        """That of full attention from itself."""
        return cls([0.0] * steps, [1] * steps)

    @classmethod
    def along(
        cls, loop: Denoise, groups: Sequence[Group], dense: Sequence[Written], plain: Any, ruled: Logits, attached: Attached,
        mask: int,
    ) -> Drift:  # fmt: skip
        """Read the states of full attention's texts again, with and without the rule."""
        steps = loop.options.steps
        found = cls([0.0] * steps, [0] * steps)
        for group, text in zip(groups, dense, strict=True):
            prompt = group.prompts.shape[1]

            def told(state: Tensor, step: Step, logits_of: Any) -> Tensor:
                """(hidden, vocabulary) log-likelihoods of the hidden tokens of a state."""
                return without_mask(logits_of(state, step), mask)[state == mask].log_softmax(-1)

            walk = [(step, state) for (step, _, _), state in zip(schedule(loop, prompt), text.states, strict=True)]
            attached.pause()
            full = [told(state, step, plain) for step, state in walk]
            attached.resume()
            for (step, state), wanted in zip(walk, full, strict=True):
                given = told(state, step, ruled)
                terms = wanted.exp() * (wanted - given).nan_to_num(nan=0.0)  # -inf less -inf: the mask's own
                found.nats[step.number] += float(terms.double().sum())
                found.hidden[step.number] += len(wanted)
        return found

    def metrics(self) -> dict[str, float]:
        """Means over hidden tokens.

        Returns:
            test.kl: of all steps. test.kl_early, test.kl_late: of the first and the last fifth of them. test.kl_fall: their
                difference.

        Raises:
            RunFailed: one is not finite.
        """
        ends = max(1, math.ceil(len(self.nats) * ENDS))
        parts = {"kl": slice(None), "kl_early": slice(ends), "kl_late": slice(-ends, None)}
        found = {f"test.{name}": sum(self.nats[part]) / sum(self.hidden[part]) for name, part in parts.items()}
        found["test.kl_fall"] = found["test.kl_early"] - found["test.kl_late"]
        if not math.isfinite(found["test.kl"]):
            raise RunFailed(f"test.kl is {found['test.kl']} — the network's output is not finite")
        return found


def scores(
    dataset: Any,
    prompts: Sequence[Prompt],
    groups: Sequence[Group],
    written: Sequence[Written],
    dense: Sequence[Written],
) -> dict[str, float]:
    """Metrics of texts beside those of full attention.

    Args:
        dataset: whose prompts they are
        prompts: all of them
        groups: of prompts
        written: the texts of each
        dense: those of full attention

    Returns:
        By the name that a table reads.
    """
    tokens = torch.cat([text.tokens for text in written])
    own = torch.cat([text.tokens for text in dense])
    same = tokens == own
    found = {
        "test.agreement": same.float().mean().item(),
        "test.identical": same.all(1).float().mean().item(),
        "test.n": float(tokens.numel()),
        "test.texts": float(len(tokens)),
    }
    answers = [prompts[number].answer for group in groups for number in group.numbers]
    if any(answer is not None for answer in answers):
        tokenizer = dataset.tokenizer()
        for kind, some in (("", tokens), ("dense_", own)):
            given = [dataset.answer(tokenizer.spelled(row)) for row in some.tolist()]
            pairs = list(zip(given, answers, strict=True))
            found[f"test.{kind}exact_match"] = sum(a == b for a, b in pairs) / len(pairs)
            found[f"test.{kind}answer_share"] = sum(shared(a or "", b or "") for a, b in pairs) / len(pairs)
    return found


def shared(given: str, answer: str) -> float:
    """Share of an answer's characters that stand where they should."""
    return sum(a == b for a, b in zip(given, answer, strict=False)) / max(len(answer), 1)


def costs(ledger: Ledger | None, spent: float, last: float, steps: int) -> dict[str, float]:
    """Return the cost of attention in all steps of all texts, beside full attention.

    Args:
        ledger: of tiles; None: full attention
        spent: multiply-accumulates that were made to choose tiles
        last: share of the tiles that the last steps kept
        steps: of a text

    Returns:
        attention.density: share of the tiles, all steps. attention.last_density: in the last step. attention.masks: how often a
            layer chose tiles for a text. attention.cost: share of the multiply-accumulates, with those that masks took.
    """
    if ledger is None:
        return {"attention.density": 1.0, "attention.last_density": 1.0, "attention.masks": 0.0, "attention.cost": 1.0}
    valid, kept, pairs = ledger.totals()
    density, chosen = kept / valid, spent / pairs
    return {
        "attention.density": density,
        "attention.last_density": last,
        "attention.masks": chosen * steps,
        "attention.cost": 1 - ledger.saves * (1 - density) + chosen / 2,
    }


def account(bench: Bench, loop: Denoise, groups: Sequence[Group], share: float) -> dict[str, Any]:
    """The account of a text of mean length. share: of attention's products that are made."""
    spec, block = bench.model_spec, bench.parts.data.shape[0]
    lengths = [group.prompts.shape[1] + loop.options.tokens for group in groups for _ in group.numbers]
    steps, products = loop.options.steps, sum(spec.fixed_macs.values())
    linear = steps * (spec.macs - products) * sum(lengths) / len(lengths) / block
    attention = steps * products * sum(length**2 for length in lengths) / len(lengths) / block**2
    return {
        "params": spec.params,
        "params_nonzero": spec.params,
        "macs_dense": round(linear + attention),
        "macs": round(linear + attention * share),
    }


_texts: dict[str, list[Written]] = {}


def kept_texts(bench: Bench, loop: Denoise, make: Any) -> list[Written]:
    """The texts of full attention: the cells of a sweep that differ in their rule alone share them."""
    parts: Parts = bench.parts
    cell, computing = parts.cell, [str(next(bench.model.parameters()).device), torch.get_num_threads()]
    key = canonical([parts.source, cell.model, cell.dataset, cell.decoding, cell.seed, parts.batch_size, *computing])
    if key not in _texts:
        _texts[key] = make()
    return _texts[key]
