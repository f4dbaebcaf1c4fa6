"""Networks of weights alone: no biases, and batch norms without parameters and running statistics [no torch at import].

As in muratonuryildirim/CL-with-DST ``models.py``: whatever is not a weight would be shared by tasks that masks keep apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

BARE = (
    "true: no biases, and batch norms without parameters and running statistics (they normalise by the batch, always)"
)


def bared(network: nn.Module) -> nn.Module:
    """Take biases, scales, shifts and running statistics out of ``network``, in place.

    Args:
        network: of convolutions, linear layers and batch norms

    Returns:
        The same network.
    """
    from torch import nn
    from torch.nn.modules.batchnorm import _BatchNorm

    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.affine = module.track_running_stats = False
            for name in ("weight", "bias"):
                module.register_parameter(name, None)
            for name in ("running_mean", "running_var", "num_batches_tracked"):
                module.register_buffer(name, None)
        elif isinstance(module, nn.Linear | nn.Conv2d):
            module.register_parameter("bias", None)
    return network
