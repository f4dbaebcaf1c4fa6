"""From a plan to its numbers: load, calibrate, score the network (or what it writes) with its rules and without, count."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sparselab.core.errors import RunFailed, refuse
from sparselab.core.model_spec import EXPERTS
from sparselab.core.seeds import derive_seed
from sparselab.inference.activation.frozen.masking import Masking
from sparselab.inference.activation.frozen.network import Network
from sparselab.inference.attention.tiled.attach import Attached, check_applies
from sparselab.inference.attention.tiled.calibrate import calibrate
from sparselab.inference.count import active_share, counted, macs_per_token, realised
from sparselab.inference.parts import Bench
from sparselab.inference.routing.tokens.cell import Scores, account, measure, score_windows
from sparselab.inference.routing.tokens.cell import metrics_of as routing_metrics
from sparselab.inference.routing.tokens.cell import realised as routing_realised
from sparselab.inference.routing.tokens.frozen import Frozen
from sparselab.inference.routing.tokens.trunk import Trunk
from sparselab.inference.score import Score, score
from sparselab.inference.windows import Batch, batches, draw
from sparselab.inputs.data.seeds import generator
from sparselab.inputs.data.splits import loaded
from sparselab.inputs.models.trace import traced
from sparselab.running.single_process import Outcome
from sparselab.storage.ids import canonical

if TYPE_CHECKING:
    from sparselab.core.model_spec import ModelSpec
    from sparselab.inference.parts import Activations, InferenceOptions, Parts
    from sparselab.running.engine import Plan
    from sparselab.running.signals import StopFlag


def execute(plan: Plan, options: InferenceOptions, stop: StopFlag) -> Outcome:
    """The outcome of an intervening cell."""
    parts: Parts = plan.parts
    host = plan.config["trainer"]
    cuda = torch.cuda.is_available() and host["accelerator"] != "cpu"
    device = torch.device("cuda" if cuda else "cpu")
    with stop.at_once("while the data was loaded"):
        splits: Any = parts.dataset.load()
    torch.manual_seed(derive_seed(parts.cell.seed, "init"))
    model = parts.family.build(parts.data).to(device).eval().requires_grad_(False)
    model_spec = parts.model_spec or traced(parts.family, model, parts.data)
    if parts.activation is not None:
        without_experts(model_spec)
    seed, block, size = parts.cell.seed, parts.data.shape[0], options.batch_size

    def windows(purpose: str, at_once: int | None) -> list[Tensor]:
        drawn = draw(splits.train, block, options.windows, seed, purpose)
        if at_once is not None and len(drawn) > at_once:
            drawn = drawn[: len(drawn) // at_once * at_once]  # of a short text: whole groups only
        return [inputs for inputs, _ in batches(splits.train, drawn, block, at_once or size, device)]

    def held_out() -> list[Batch]:
        drawn = draw(splits.val, block, options.windows, seed, "search")
        if not len(drawn):
            raise RunFailed(f"dataset.block={block}: the validation split has no whole window — write a smaller one")
        return list(batches(splits.val, drawn, block, size, device))

    count = None if options.tokens is None else max(options.tokens // block, 1)
    starts = draw(splits.test, block, count, seed, "test", options.stride)
    if not len(starts):
        raise RunFailed(f"dataset.block={block}: the test split has no whole window — write a smaller one")

    def test() -> Iterator[Batch]:
        for batch in batches(splits.test, starts, block, size, device):
            stop.check("between two batches")
            yield batch

    def logits(tokens: Tensor) -> Tensor:
        return parts.family.logits(model, tokens)

    first = batch_of(splits.test, starts[:1], block, device)
    if parts.routing is not None:
        trunk = Trunk(model, logits, parts.family.blocks(model), parts.family.norm(model))
        return tokens_routed(parts, options, trunk, model_spec, splits, stop, test, first)
    if parts.attention is not None:
        check_applies(model, logits, parts.attention, options.phase, first)

    network = Network(model, logits, windows, parts.target or 0.0, stop.check, held_out)

    @contextmanager
    def ruled() -> Iterator[tuple[Activations | None, Masking | None, Attached | None]]:
        """The network under its rules, calibrated."""
        with ExitStack() as stack:
            active = masking = attached = None
            if parts.activation is not None:
                active = parts.activation.prepare(network)
                masking = stack.enter_context(
                    Masking(parts.activation, active.places, active.gates, parts.activation.options.dense_prefix)
                )
            if parts.attention is not None:
                if parts.attention.calibrated:
                    fit_attention(parts, options, model, logits, splits.train, device)
                attached = Attached(model, parts.attention, options.phase)
                stack.enter_context(attached)
            yield active, masking, attached

    with torch.no_grad():
        if parts.decoding is not None:
            return parts.decoding.outcome(Bench(parts, model, model_spec, splits, stop, ruled))
        dense = kept_dense(parts, options, device, lambda: score(logits, test()))
        with ruled() as (active, masking, attached):
            under = score(logits, test()) if parts.activation or parts.attention else dense
    ledger = None if attached is None else attached.ledger
    cost, measured = counted(model_spec, active, masking, ledger, block)
    metrics = {**scores(under, dense, splits.bytes_per_token["test"]), **measured}
    metrics["test.length"] = block
    share = metrics["test.active_share"] = active_share(model_spec, active, masking)
    metrics["test.macs_per_token"] = macs_per_token(model_spec, 1 - share)
    return Outcome(
        metrics=metrics,
        sparsity=realised(parts, active, masking, ledger),
        cost=cost,
        data=loaded(parts.data, splits),
    )


def tokens_routed(
    parts: Parts, options: InferenceOptions, trunk: Trunk, model_spec: ModelSpec, splits: Any, stop: StopFlag,
    test: Callable[[], Iterator[Batch]], first: Tensor,
) -> Outcome:  # fmt: skip
    """The outcome of a cell whose tokens skip blocks.

    Args:
        parts: of the cell
        options: of the engine
        trunk: the network
        model_spec: its layers
        splits: the text
        stop: the wish of somebody that it ends
        test: to batches of test windows, anew at each call
        first: (1, t) int64, a window to try the network on
    """
    text, block, seed, device = splits.train, parts.data.shape[0], parts.cell.seed, first.device

    def calibration(purpose: str) -> list[Batch]:
        starts = draw(text, block, options.windows, seed, purpose)
        if not len(starts):
            raise RunFailed(f"dataset.block={block}: the train split has no whole window — write a smaller one")
        return list(batches(text, starts, block, options.batch_size, device))

    def drawn(purpose: str, number: int) -> Batch:
        start = generator(purpose, seed, number).integers(0, len(text) - block, 1)
        return next(batches(text, start, block, 1, device))

    about = _about(parts, options, device) + canonical(options.windows)
    frozen = Frozen(trunk, calibration, drawn, parts.target or 0.0, seed, stop.check, about)
    with torch.no_grad():
        whole = _whole.get(key := _about(parts, options, device)) or score_windows(trunk.logits, test())
        _whole[key] = whole
        found = measure(parts, frozen, test, first)
    metrics = scores(found.under.every, whole.every, splits.bytes_per_token["test"])
    return Outcome(
        metrics={**metrics, **routing_metrics(found, whole, model_spec, trunk), "test.length": block},
        sparsity=routing_realised(found, trunk, parts.target),
        cost=account(found, model_spec, trunk),
        data=loaded(parts.data, splits),
    )


_dense: dict[str, Score] = {}


def kept_dense(parts: Parts, options: InferenceOptions, device: torch.device, measure: Callable[[], Score]) -> Score:
    """The score of the network without rules: the cells of a sweep that differ in their rules alone share it."""
    key = _about(parts, options, device)
    if key not in _dense:
        _dense[key] = measure()
    return _dense[key]


_whole: dict[str, Scores] = {}


def _about(parts: Parts, options: InferenceOptions, device: torch.device) -> str:
    """Name all that the score of the network without rules depends on."""
    cell, computing = parts.cell, [str(device), torch.get_num_threads()]
    about = [parts.source, cell.model, cell.dataset, cell.seed, options.tokens, options.batch_size, options.stride]
    return canonical([*about, *computing])


def without_experts(model_spec: ModelSpec) -> None:
    """Refused where a network has experts: they are no modules that a rule on inputs could hook, and would stay as they are."""
    stack = next((layer.name for layer in model_spec.layers if layer.kind in EXPERTS), None)
    if stack is not None:
        problem = f"{stack} is a stack of experts, which a rule on activations would leave out"
        refuse("activation", problem, "choose a model without experts")


def batch_of(tokens: Tensor, starts: Any, block: int, device: torch.device) -> Tensor:
    """Cut windows out of a text.

    Args:
        tokens: (n,) integers
        starts: of the windows
        block: tokens of a window
        device: of what is returned

    Returns:
        (windows, block) int64.
    """
    return next(batches(tokens, starts, block, len(starts), device))[0]


def scores(under: Score, dense: Score, bytes_per_token: float) -> dict[str, float]:
    """Return the metrics; both scores are of the same tokens, so their difference has no noise of the sample."""
    return {
        "test.loss": under.loss,
        "test.perplexity": under.perplexity,
        "test.bits_per_byte": under.loss / math.log(2) / bytes_per_token,
        "test.accuracy": under.accuracy,
        "test.n": under.n,
        "test.dense_loss": dense.loss,
        "test.dense_perplexity": dense.perplexity,
        "test.dense_accuracy": dense.accuracy,
        "test.loss_rise": under.loss - dense.loss,
        "test.accuracy_drop": dense.accuracy - under.accuracy,
    }


def fit_attention(
    parts: Parts, options: InferenceOptions, model: nn.Module, logits: Callable[[Tensor], Tensor], text: Tensor,
    device: torch.device,
) -> None:  # fmt: skip
    """Fit a rule that wants it to the sparsity asked for, on windows of its own lengths.

    Args:
        parts: of the cell
        options: of the engine
        model: the network
        logits: (n, t) int64 to (n, t, vocabulary)
        text: (n,) tokens of the train split
        device: of the network
    """
    rule: Any = parts.attention
    if rule.own_limit is not None:
        return

    def windows(length: int) -> Iterator[Tensor]:
        starts = draw(text, length, options.windows, parts.cell.seed, "calibrate")
        if not len(starts):
            problem = f"the train split ({len(text):,} tokens) has no window of {length:,}"
            raise RunFailed(f"attention.lengths: {problem} — write shorter ones")
        return (inputs for inputs, _ in batches(text, starts, length, options.batch_size, device))

    phases = ("prefill", "decode") if options.phase == "both" else (options.phase,)
    rule.limits = calibrate(model, logits, rule, windows, phases)
