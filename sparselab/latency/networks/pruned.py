"""A network whose blocks' matrices are pruned by magnitude, each for itself, or whose matrices are rounded."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sparselab.latency.networks.network import Linear, Network

if TYPE_CHECKING:
    import numpy as np

    from sparselab.core.sparsity import Sparsity


def pruned(network: Network, sparsity: Sparsity) -> Network:
    """Return a copy with zeros; N:M groups run along the inputs. A ConfigError where the pattern does not fit a matrix."""
    import torch

    from sparselab.core.errors import Issues
    from sparselab.core.model_spec import Layer
    from sparselab.weights.patterns.fit import misfit
    from sparselab.weights.patterns.pattern import Pattern

    pattern = Pattern.of(sparsity)

    def cut(name: str, one: Linear) -> Linear:
        odd = misfit(Layer(name, "linear", one.weight.shape, one.weight.size), sparsity, "in")
        if odd:
            Issues([odd]).raise_if_any()
        return Linear(one.weight * pattern.mask(torch.from_numpy(one.weight).abs()).numpy(), one.bias)

    blocks = []
    for block in network.blocks:
        made: dict[str, Any] = {name: cut(name, one) for name, one in block.matrices().items()}
        blocks.append(replace(block, **made))
    return replace(network, blocks=blocks)


def rounded(network: Network) -> Network:
    """Return a copy whose matrices and embeddings are rounded to bfloat16, in float32."""
    import torch

    def near(values: np.ndarray) -> np.ndarray:
        found: np.ndarray = torch.from_numpy(values).bfloat16().float().numpy()
        return found

    def of(one: Linear) -> Linear:
        return Linear(near(one.weight), one.bias)

    blocks = [
        replace(block, **{name: of(one) for name, one in block.matrices().items()})  # type: ignore[arg-type]
        for block in network.blocks
    ]
    return replace(network, blocks=blocks, head=of(network.head), embedding=near(network.embedding))


def zeros(network: Network) -> int:
    """Weights of the blocks' matrices that are zero."""
    return sum(int((one.weight == 0).sum()) for block in network.blocks for one in block.matrices().values())
