"""Networks that no library provides under the names that published weights use. Imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn.functional import max_pool2d, pad


class CifarBlock(nn.Module):
    """Two 3x3 convolutions; the shortcut subsamples and pads with zero channels (option A of arXiv 1512.03385)."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride = stride
        missing = outputs - inputs
        self.padding = (0, 0, 0, 0, missing // 2, missing - missing // 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        if self.stride > 1 or any(self.padding):
            x = pad(x[:, :, :: self.stride, :: self.stride], self.padding)
        return (x + y).relu()


class CifarResNet(nn.Module):
    """(n, channels, h, w) -> (n, classes): three stages of ``blocks`` blocks, widths w, 2w, 4w."""

    def __init__(self, blocks: int, width: int, channels: int, classes: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(CifarBlock, blocks, width, width, 1)
        self.layer2 = _stage(CifarBlock, blocks, width, 2 * width, 2)
        self.layer3 = _stage(CifarBlock, blocks, 2 * width, 4 * width, 2)
        self.linear = nn.Linear(4 * width, classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x)).relu()
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


class WideBlock(nn.Module):
    """Normalise, rectify, convolve, twice; where the shape changes the shortcut is a 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int, dropout: float):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        changes = stride > 1 or inputs != outputs
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(x).relu()
        if self.shortcut is not None:
            x = self.shortcut(y)
        return x + self.conv2(self.dropout(self.bn2(self.conv1(y)).relu()))


class WideResNet(nn.Module):
    """(n, channels, h, w) -> (n, classes): ``stem`` channels, then stages of ``stem * widen * (1, 2, 4)``."""

    def __init__(self, blocks: int, stem: int, widen: int, dropout: float, channels: int, classes: int):
        super().__init__()
        width = stem * widen
        self.conv1 = nn.Conv2d(channels, stem, 3, padding=1, bias=False)
        self.layer1 = _stage(WideBlock, blocks, stem, width, 1, dropout)
        self.layer2 = _stage(WideBlock, blocks, width, 2 * width, 2, dropout)
        self.layer3 = _stage(WideBlock, blocks, 2 * width, 4 * width, 2, dropout)
        self.bn1 = nn.BatchNorm2d(4 * width)
        self.linear = nn.Linear(4 * width, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        return self.linear(self.bn1(x).relu().mean((2, 3)))


class MLP(nn.Module):
    """(n, ...) -> (n, classes): flattened, ``hidden`` layers with ReLU, then the head."""

    def __init__(self, inputs: int, hidden: Sequence[int], batch_norm: bool, dropout: float, classes: int):
        super().__init__()
        widths = [inputs, *hidden]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) if batch_norm else nn.Identity() for width in hidden)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = self.dropout(norm(layer(x)).relu())
        return self.head(x)


class ConvNet(nn.Module):
    """(n, channels, h, w) -> (n, classes): 3x3 convolutions with norm and ReLU, pooled after those of ``pools`` (from 1)."""

    def __init__(self, channels: int, widths: Sequence[int], pools: Sequence[int], classes: int):
        super().__init__()
        sizes = [channels, *widths]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in pairwise(sizes))
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths)
        self.pools = frozenset(pools)
        self.head = nn.Linear(sizes[-1], classes)
        for module in self.convs:
            assert isinstance(module, nn.Conv2d)
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True), start=1):
            x = norm(conv(x)).relu()
            x = max_pool2d(x, 2) if i in self.pools else x
        return self.head(x.mean((2, 3)))


class DnCNN(nn.Module):
    """(n, c, h, w) -> the same shape: the image less what ``depth`` convolutions of 3x3 put out.

    Names and initial weights are those of the authors' cszn/DnCNN (TrainingCodes/dncnn_pytorch).
    """

    def __init__(self, channels: int, width: int, depth: int, batch_norm: bool):
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
        for _ in range(depth - 2):
            layers.append(nn.Conv2d(width, width, 3, padding=1, bias=False))
            layers += [nn.BatchNorm2d(width)] if batch_norm else []
            layers.append(nn.ReLU())
        layers.append(nn.Conv2d(width, channels, 3, padding=1, bias=False))
        self.dncnn = nn.Sequential(*layers)
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.orthogonal_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x - self.dncnn(x)


States = list[tuple[Tensor, Tensor]]
"""Of each recurrent layer the hidden and the cell state, both (1, n, width)."""


class LSTMLanguageModel(nn.Module):
    """(n, t) token numbers -> ((n, t, vocabulary) logits, states): embedding, ``depth`` LSTMs, softmax layer.

    Dropout is on what goes from layer to layer, never on what goes from token to token (Zaremba et al. 2014,
    arXiv 1409.2329). Layers are modules of their own with dropout between them: the dropout inside a module of several
    layers keeps a generator on the GPU that no seed of a batch reaches. Names are those of salesforce/awd-lstm-lm,
    initial weights those of pytorch/examples word_language_model. With ``tie`` the softmax layer's weight is the embedding.
    """

    def __init__(self, vocabulary: int, embedding: int, width: int, depth: int, dropout: float, tie: bool):
        super().__init__()
        self.encoder = nn.Embedding(vocabulary, embedding)
        self.rnns = nn.ModuleList(nn.LSTM(width if i else embedding, width, batch_first=True) for i in range(depth))
        self.decoder = nn.Linear(width, vocabulary)
        self.dropout = nn.Dropout(dropout)
        if tie:
            self.decoder.weight = self.encoder.weight
        nn.init.uniform_(self.encoder.weight, -0.1, 0.1)
        if not tie:
            nn.init.uniform_(self.decoder.weight, -0.1, 0.1)
        nn.init.zeros_(self.decoder.bias)

    def forward(self, tokens: Tensor, states: States | None = None) -> tuple[Tensor, States]:
        """Do one forward pass.

        Args:
            tokens: (n, t) int64
            states: what the layers go on from; None: nothing, zeros

        Returns:
            ((n, t, vocabulary), what the states came to).
        """
        x = self.dropout(self.encoder(tokens))
        after: States = []
        for i, rnn in enumerate(self.rnns):
            x, state = rnn(x, None if states is None else states[i])
            x = self.dropout(x)
            after.append(state)
        return self.decoder(x), after


def _stage(block: type[nn.Module], blocks: int, inputs: int, outputs: int, stride: int, *extra: float) -> nn.Sequential:
    """``blocks`` blocks, of which the first changes the width and the resolution."""
    first = block(inputs, outputs, stride, *extra)
    return nn.Sequential(first, *(block(outputs, outputs, 1, *extra) for _ in range(blocks - 1)))
