"""MobileNet-v2 for small images, with the names of kuangliu/pytorch-cifar. Imports torch."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class Bottleneck(nn.Module):
    """Widen, convolve channel by channel, narrow: (n, inputs, h, w) -> (n, outputs, h/stride, w/stride)."""

    def __init__(self, inputs: int, inside: int, outputs: int, stride: int):
        super().__init__()
        self.adds = stride == 1
        self.conv1 = nn.Conv2d(inputs, inside, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inside)
        self.conv2 = nn.Conv2d(inside, inside, 3, stride, padding=1, groups=inside, bias=False)
        self.bn2 = nn.BatchNorm2d(inside)
        self.conv3 = nn.Conv2d(inside, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride == 1 and inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())).relu()
        y = self.bn3(self.conv3(y))
        return y + self.shortcut(x) if self.adds else y


class MobileNetV2(nn.Module):
    """(n, colours, h, w) -> (n, classes). blocks: (inputs, inside, outputs, stride) of each, in order."""

    def __init__(self, blocks: Sequence[tuple[int, int, int, int]], stem: int, last: int, colours: int, classes: int):
        super().__init__()
        self.conv1 = nn.Conv2d(colours, stem, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.layers = nn.Sequential(*(Bottleneck(*block) for block in blocks))
        self.conv2 = nn.Conv2d(blocks[-1][2], last, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(last)
        self.linear = nn.Linear(last, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(self.bn1(self.conv1(x)).relu())
        x = self.bn2(self.conv2(x)).relu()
        return self.linear(x.mean((2, 3)))
