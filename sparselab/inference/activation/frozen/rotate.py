"""Rotates what a pivot layer reads, so that its columns become orthogonal and the network's output stays the same.

The paper rotates the residual stream and multiplies every shortcut by the rotation from one basis to the next
(Q_a^T Q_m, Q_m^T Q_a'). Between a norm and the layers that read it stands, in that basis, the rotated output of the
norm: RMSNorm without gain commutes with a rotation. So the same inputs reach the same layers when the norm's output is
rotated instead and the stream is left alone, and masks and outputs are the paper's. This needs no assumption about
embeddings, shortcuts or heads and costs the same: one d x d matrix for each norm.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sparselab.core.errors import refuse
from sparselab.inference.activation.frozen.sites import Block, Shared

PROBE = 1e-4  # relative error beyond which a norm's gain is not what its weight says


@torch.no_grad()
def rotate(blocks: list[Block]) -> int:
    """Fold gains and rotate, in place, every input that a pivot reads.

    Returns the multiply-accumulates that the rotations add per token.

    Raises :class:`ConfigError` where no block has a pivot, or a pivot's input is not a norm's output.
    """
    pairs = [(shared, pivot) for block in blocks for shared in block.inputs if (pivot := shared.pivot) is not None]
    if not pairs:
        refuse("activation.pivots", "no layer has such a name", "name layers such as *.k_proj")
    for shared, pivot in pairs:
        if shared.source is None or getattr(shared.source, "weight", torch.empty(0)).ndim != 1:
            refuse(
                "activation.transform=true", f"{pivot.name} does not read a norm", "write activation.transform=false"
            )
        fold(shared)
        basis = right_basis(pivot.weight)
        for site in shared.sites:
            site.weight.copy_((site.weight.double() @ basis).to(site.weight.dtype))
        change_basis(shared.source, basis)
    return sum(shared.sites[0].inputs ** 2 for shared, _ in pairs)


def right_basis(weight: Tensor) -> Tensor:
    """(inputs, inputs) float64, orthogonal: all right singular vectors of ``weight`` (outputs, inputs) as columns."""
    return torch.linalg.svd(weight.double(), full_matrices=True).Vh.T


def fold(shared: Shared) -> None:
    """Move the norm's gain and shift into the layers that read it: W <- W diag(g), b <- b + W s, g <- 1, s <- 0."""
    norm = shared.source
    assert norm is not None
    gain = norm.get_parameter("weight")
    shift = getattr(norm, "bias", None)
    _check_gain(norm, gain, shift)
    for site in shared.sites:
        if shift is not None:
            bias = getattr(site.module, "bias", None)
            if bias is None:
                refuse(
                    "activation.transform=true", f"{site.name} has no bias to take a norm's shift", "transform=false"
                )
            bias.add_((site.weight.double() @ shift.double()).to(bias.dtype))
        site.weight.copy_((site.weight.double() * gain.double()).to(gain.dtype))
    gain.fill_(1)
    if shift is not None:
        shift.zero_()


def change_basis(norm: nn.Module, basis: Tensor) -> None:
    """Multiply every output of ``norm`` by ``basis`` (width, width)."""
    norm.register_buffer("rotation", basis.to(norm.get_parameter("weight")), persistent=False)
    norm.register_forward_hook(lambda module, args, output: output @ module.rotation)


def _check_gain(norm: nn.Module, gain: Tensor, shift: Tensor | None) -> None:
    """The norm is gain * normalised + shift. Some store the gain less one; a probe tells, whatever they are called."""
    probe = torch.linspace(-1, 2, gain.numel(), dtype=gain.dtype, device=gain.device)[None]
    real, kept, moved = norm(probe), gain.clone(), None if shift is None else shift.clone()
    gain.fill_(1)
    if shift is not None:
        shift.zero_()
    plain = norm(probe)
    gain.copy_(kept)
    if shift is not None and moved is not None:
        shift.copy_(moved)
    told = plain * gain + (0 if shift is None else shift)
    if not torch.allclose(real, told, rtol=PROBE, atol=PROBE):
        refuse("activation.transform=true", f"the gain of {type(norm).__name__} is not its weight", "transform=false")
