"""From a plan of engine=decode to its numbers: calibrate, write, time in turns, score, count bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sparselab.core.errors import RunFailed
from sparselab.core.seeds import derive_seed
from sparselab.inputs.data.splits import loaded
from sparselab.latency.kernels.decoders import Setting
from sparselab.latency.kernels.decoding.calibrating import skips_of
from sparselab.latency.kernels.decoding.plain import TorchDecoder
from sparselab.latency.kernels.decoding.skips import Skips
from sparselab.latency.kernels.decoding.traffic import active_share, bytes_of_products, bytes_per_token
from sparselab.latency.networks.architectures import KNOWN
from sparselab.latency.networks.folder import taken_apart
from sparselab.latency.networks.pruned import pruned, rounded, zeros
from sparselab.latency.turns import Bandwidth, mean_of_best, turns
from sparselab.running.single_process import Outcome

if TYPE_CHECKING:
    from sparselab.latency.decode import DecodeOptions, Parts
    from sparselab.latency.networks.network import Network
    from sparselab.running.signals import StopFlag

OWN = "own"
COMPARED = 8  # tokens whose logits are compared


def execute(parts: Parts, options: DecodeOptions, stop: StopFlag) -> Outcome:
    """The outcome of a cell."""
    torch.set_num_threads(parts.workload.options.threads)
    with stop.at_once("while the data was loaded"):
        splits: Any = parts.dataset.load()
    block, w = parts.data.shape[0], parts.workload.options
    longest = max(block, w.prompt + w.new)
    network = _network(parts, longest)
    setting = Setting(parts.workload.half, parts.workload.options.threads, longest)
    dense = _dense(network, setting, records=True)
    starts = {
        part: _starts(tokens, block, parts.seed, part)
        for part, tokens in (("train", splits.train), ("test", splits.test))
    }
    skips, own_network = Skips.none(network), network
    if parts.kernel.prunes and parts.sparsity.prunes:
        own_network = pruned(network, parts.sparsity)
    elif parts.kernel.skips and parts.sparsity.prunes:
        found = []
        for start in starts["train"][: options.windows]:
            for place, token in enumerate(splits.train[start : start + block].tolist()):
                stop.check("between two tokens of the calibration")
                dense.step(token, place)
                found.append(dense.last.copy())
        skips = skips_of(network, np.stack(found), 1 - parts.sparsity.density, parts.kernel.options.skip)
    own = parts.kernel.decoder(own_network, skips, setting)
    metrics = {"test.native": float(not isinstance(own, TorchDecoder))}
    prompt = splits.test[starts["test"][-1] :][: w.prompt].tolist()
    tokens, inputs = _written(dense, prompt, w.new)
    metrics["test.error"] = _error(own, _reference(own_network, skips, setting), tokens)
    scored = starts["test"][: max(1, options.tokens // block)]
    metrics |= _scores(own, dense, splits.test, scored, block, stop)
    decoders = {
        OWN: own,
        **{name: one.decoder(network, Skips.none(network), setting) for name, one in parts.others.items()},
    }
    before = own.active.copy()
    bandwidth = Bandwidth(parts.workload.options.threads)
    times = turns({n: d.step for n, d in decoders.items()}, tokens, w.prompt, options.rounds, stop, bandwidth)
    active = (own.active - before) / (options.rounds * w.new + w.prompt)
    for one in decoders.values():
        one.replaying(inputs)
    alone = turns(
        {n: _replaying(d) for n, d in decoders.items()}, tokens[:1] * w.new, 0, options.rounds, stop, bandwidth
    )
    metrics |= _times(parts, times, alone)
    read = bytes_per_token(own, active, w.prompt + w.new / 2)
    metrics["test.megabytes"] = read / 1e6
    metrics["test.dense_megabytes"] = bytes_per_token(dense, None, w.prompt + w.new / 2) / 1e6
    metrics["test.products_megabytes"] = bytes_of_products(own, active) / 1e6
    metrics["test.bandwidth"] = bandwidth.best
    metrics["test.limit_ms"] = read / bandwidth.best / 1e6
    metrics["test.reached"] = metrics["test.limit_ms"] / metrics["test.ms"]
    metrics["test.limit_speedup"] = metrics["test.dense_megabytes"] / metrics["test.megabytes"]
    share = active_share(own, active)
    total, kept = network.weights, network.weights - zeros(own_network)
    metrics["test.active_share"] = share
    return Outcome(
        metrics,
        sparsity={
            "requested": str(parts.sparsity), "realised": 1 - (share if parts.kernel.skips else kept / total),
            "weights": total, "kept": kept,
        },
        cost={"params": total + network.head.weight.size, "params_nonzero": kept + network.head.weight.size},
        data=loaded(parts.data, splits),
    )  # fmt: skip


def _network(parts: Parts, longest: int) -> Network:
    torch.manual_seed(derive_seed(parts.seed, "init"))
    model: Any = parts.family.build(parts.data).float().eval()
    kind = getattr(getattr(model, "config", None), "model_type", None)
    if kind not in KNOWN:
        raise RunFailed(
            f"{parts.family.where}: networks of model_type {kind} are not taken apart here — take one of {KNOWN}"
        )
    return taken_apart(model, longest)


def _dense(network: Network, setting: Setting, records: bool) -> Any:
    """A dense decoder that records its inputs."""
    from sparselab.core.native_build import Unavailable
    from sparselab.latency.kernels.decoding.decoder import Decoder

    try:
        skips = Skips.none(network)
        return Decoder(network, skips, setting.half, threads=setting.threads, longest=setting.longest, records=records)
    except Unavailable:
        return TorchDecoder(network, None, setting.half, setting.longest, records=records)


def _starts(tokens: Any, block: int, seed: int, part: str) -> list[int]:
    """Windows side by side, in an order that the seed draws."""
    fit = (len(tokens) - 1) // block
    if fit < 1:
        raise RunFailed(f"dataset.block={block}: the {part} split has no whole window — write a smaller one")
    return [block * int(i) for i in np.random.default_rng(derive_seed(seed, f"decode {part}")).permutation(fit)]


def _written(dense: Any, prompt: list[int], new: int) -> tuple[list[int], np.ndarray]:
    """The prompt with what the dense network writes (greedy), and its inputs (layers, sites, widest) at the last token."""
    tokens = list(prompt)
    for place in range(len(prompt) + new):
        logits = dense.step(tokens[place], place)
        if place + 1 >= len(tokens):
            tokens.append(int(logits.argmax()))
    return tokens[: len(prompt) + new], dense.last.copy()


def _reference(network: Network, skips: Skips, setting: Setting) -> TorchDecoder:
    """Torch in float32 on the weights as they are kept: what torch's own bfloat16 products round is no error of a kernel."""
    return TorchDecoder(rounded(network) if setting.half else network, skips, False, setting.longest)


def _error(own: Any, plain: TorchDecoder, tokens: list[int]) -> float:
    """The largest difference of logits, as a share of the largest logit."""
    worst = 0.0
    for place, token in enumerate(tokens[:COMPARED]):
        given, expected = own.step(token, place), plain.step(token, place)
        worst = max(worst, float(abs(given - expected).max() / abs(expected).max()))
    return worst


def _scores(own: Any, dense: Any, text: Any, starts: list[int], block: int, stop: StopFlag) -> dict[str, float]:
    """Loss and hits on held-out windows, of the kernel's own decoder and of the dense one."""
    sums = np.zeros((2, 2))
    for start in starts:
        window = text[start : start + block + 1].tolist()
        for place in range(block):
            stop.check("between two tokens that are scored")
            for number, one in enumerate((own, dense)):
                logits, target = one.step(window[place], place).astype(np.float64), window[place + 1]
                most = logits.max()
                sums[number] += most + np.log(np.exp(logits - most).sum()) - logits[target], logits.argmax() == target
    n = block * len(starts)
    (loss, hits), (dense_loss, dense_hits) = sums / n
    if not np.isfinite(sums).all():
        raise RunFailed("test.loss is not finite under this kernel")
    return {
        "test.loss": loss, "test.dense_loss": dense_loss, "test.loss_rise": loss - dense_loss, "test.accuracy": hits,
        "test.dense_accuracy": dense_hits, "test.n": float(n),
    }  # fmt: skip


def _replaying(decoder: Any) -> Any:
    return lambda token, place: decoder.replay()


def _times(parts: Parts, times: dict[str, np.ndarray], alone: dict[str, np.ndarray]) -> dict[str, float]:
    """Milliseconds a token and of its products, and ratios; ``test.speedup`` is against the fastest dense kernel."""
    whole = {name: mean_of_best(one) for name, one in times.items()}
    product = {name: float(one.min()) for name, one in alone.items()}
    dense = [name for name, one in parts.others.items() if not one.sparse]
    library = [name for name in dense if not hasattr(parts.others[name], "coded")]
    metrics = {
        "test.ms": whole[OWN],
        "test.ms_median": float(np.median(times[OWN])),
        "test.tokens_per_second": 1e3 / whole[OWN],
        "test.speedup": min(whole[name] for name in dense) / whole[OWN],
        "test.products_ms": product[OWN],
        "test.products_speedup": min(product[name] for name in dense) / product[OWN],
    }
    if library:
        metrics["test.library_speedup"] = min(whole[name] for name in library) / whole[OWN]
        metrics["test.library_products_speedup"] = min(product[name] for name in library) / product[OWN]
    for name in parts.others:
        metrics[f"test.{name}_ms"] = whole[name]
        metrics[f"test.speedup_{name}"] = whole[name] / whole[OWN]
        metrics[f"test.products_speedup_{name}"] = product[name] / product[OWN]
    return metrics
