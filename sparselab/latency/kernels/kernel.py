"""A kernel: one way to compute the convolutions of a network whose 1x1 weights are sparse [no torch]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from sparselab.core.errors import Issue
from sparselab.core.options import Options
from sparselab.core.registry import Registry
from sparselab.latency.kernels.layers import Layer, Network, Pointwise, Spatial

if TYPE_CHECKING:
    from sparselab.latency.workloads.weights import Weighted


class Kernel:
    """Override :meth:`layer`, and :meth:`spatial` where it has 3x3 convolutions of its own.

    One thread, one image at a time: the latency of a phone, or of a server under load.

    sparse: whether time falls with the number of zeros; the others are what it is compared with. engine: whose kernel it is.
    """

    Options: ClassVar[type[Options]] = Options
    name: ClassVar[str] = ""
    sparse: ClassVar[bool] = True
    engine: ClassVar[str] = "measure"

    def __init__(self, options: Any):
        self.options = options

    def issues(self) -> list[Issue]:
        """Why it cannot be used on this machine; in well under a second."""
        return []

    def layer(self, pointwise: Pointwise) -> Layer:
        """Make what runs a 1x1 convolution.

        Whatever can be done once is done here: packing, and the choice of the fastest variant.

        Args:
            pointwise: a 1x1 convolution with its weight, bias and activation

        Returns:
            What runs it on one image.
        """
        raise NotImplementedError

    def spatial(self, spatial: Spatial) -> Layer:
        """The same for a 3x3 convolution; torch's, if it has none of its own."""
        import torch
        from torch.nn import functional as F

        weight, bias = torch.from_numpy(spatial.weight), torch.from_numpy(spatial.bias)
        groups = weight.shape[0] if spatial.depthwise else 1
        return lambda x: F.conv2d(x, weight, bias, spatial.stride, 1, groups=groups).clamp_(*spatial.clamp)

    def network(self, layers: list[Weighted]) -> Network:
        """The whole network for one image: convolutions by :meth:`layer` and :meth:`spatial`, the head by torch."""
        from sparselab.latency.kernels.chain import chain

        return chain(layers, self.layer, self.spatial)


KERNELS: Registry[Kernel] = Registry("kernel", "sparselab.latency.kernels")
