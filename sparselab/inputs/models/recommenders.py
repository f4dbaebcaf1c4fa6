"""Networks that score items for users. Imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import sqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

AT_ONCE = 1 << 18  # pairs of a user and an item that pass through layers together


class Propagate(torch.autograd.Function):
    """The product of a symmetric sparse matrix with a dense one; its gradient is the same product.

    torch's embedding_bag does both in one pass: on one core 0.3 ms for 180,000 entries and 32 columns (a sparse CSR tensor
    takes 30), and in a fixed order on every device.
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, starts: Tensor, columns: Tensor, values: Tensor) -> Tensor:
        ctx.save_for_backward(starts, columns, values)
        return _product(table, starts, columns, values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return _product(gradient.contiguous(), *ctx.saved_tensors), None, None, None


def _product(table: Tensor, starts: Tensor, columns: Tensor, values: Tensor) -> Tensor:
    return F.embedding_bag(columns, table, starts, mode="sum", per_sample_weights=values.to(table.dtype))


class Graph(nn.Module):
    """The normalised adjacency D^-1/2 A D^-1/2 of users and items, without self loops (arXiv 2002.02126, equation 3).

    Its tensors are made of the data and are in no checkpoint.

    Args:
        interactions: (2, n) int64, a user and an item each, none twice
        users: how many there are
        items: how many there are; item i is node ``users + i``
    """

    starts: Tensor
    columns: Tensor
    values: Tensor

    def __init__(self, interactions: np.ndarray, users: int, items: int):
        super().__init__()
        user, item = (torch.from_numpy(np.ascontiguousarray(side)) for side in interactions)
        rows, columns = torch.cat([user, item + users]), torch.cat([item + users, user])
        order = (rows * (users + items) + columns).argsort()
        rows, columns = rows[order], columns[order]
        degree = rows.bincount(minlength=users + items)
        values = (degree[rows].double() * degree[columns]).rsqrt().float()
        for name, tensor in (("starts", degree.cumsum(0) - degree), ("columns", columns), ("values", values)):
            self.register_buffer(name, tensor, persistent=False)

    def forward(self, table: Tensor) -> Tensor:
        """Multiply ``table``.

        Args:
            table: (users + items, width)

        Returns:
            The same shape: of each node the weighted sum of its neighbours.
        """
        return Propagate.apply(table, self.starts, self.columns, self.values)


class LightGCN(nn.Module):
    """(n, 1 + candidates) -> (n, candidates), or (n, items) without candidates.

    A score is the product of a user's and an item's vector, each the mean of ``depth + 1`` vectors: its own, and what so many
    propagations through the graph make of it. Names and initial weights are those of shuyao-wang/DSL, LightGCN/model.py.
    """

    def __init__(self, interactions: np.ndarray, users: int, items: int, width: int, depth: int):
        super().__init__()
        self.users, self.depth = users, depth
        self.embedding = nn.Embedding(users + items, width)
        nn.init.xavier_uniform_(self.embedding.weight)
        self.graph = Graph(interactions, users, items)

    def vectors(self) -> Tensor:
        """(users + items, width): the mean over propagations."""
        total = table = self.embedding.weight
        for _ in range(self.depth):
            table = self.graph(table)
            total = total + table
        return total / (self.depth + 1)

    def forward(self, batch: Tensor) -> Tensor:
        vectors = self.vectors()
        user = vectors[batch[:, 0]]
        if batch.shape[1] == 1:
            return user @ vectors[self.users :].T
        return (vectors[batch[:, 1:] + self.users] * user[:, None]).sum(-1)

    def looked_up(self, batch: Tensor) -> Tensor:
        """(n, 1 + candidates, width): the rows of the table that a batch is about, before any propagation."""
        nodes = torch.cat([batch[:, :1], batch[:, 1:] + self.users], 1)
        return self.embedding(nodes)


class MultVAE(nn.Module):
    """(n, 1 + candidates) users -> (n, candidates), or (n, items): what a variational auto-encoder makes of what they took.

    Rows of 0 and 1 at unit length, dropout, ``widths`` with tanh, mean and log variance of a latent code, and back. Names and
    initial weights are those of shuyao-wang/DSL, MultVAE/models.py (Liang et al. 2018, arXiv 1802.05814).

    Args:
        interactions: (2, n) int64: what is known of users
        users: how many there are
        items: how many there are
        widths: of the layers from the items to the latent code, the code's last
        dropout: probability that an item is left out of a row
    """

    starts: Tensor
    taken: Tensor

    def __init__(self, interactions: np.ndarray, users: int, items: int, widths: Sequence[int], dropout: float):
        super().__init__()
        order = np.lexsort((interactions[1], interactions[0]))
        starts = np.concatenate([[0], np.cumsum(np.bincount(interactions[0], minlength=users))])
        self.register_buffer("starts", torch.from_numpy(starts), persistent=False)
        self.register_buffer("taken", torch.from_numpy(interactions[1][order].copy()), persistent=False)
        self.items, self.latent = items, widths[-1]
        into = [items, *widths[:-1], 2 * widths[-1]]
        self.q_layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(into))
        self.p_layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise([*reversed(widths), items]))
        self.drop = nn.Dropout(dropout)
        self.divergence = torch.zeros(())
        for layer in (*self.q_layers, *self.p_layers):
            assert isinstance(layer, nn.Linear)
            nn.init.normal_(layer.weight, 0.0, sqrt(2 / (layer.in_features + layer.out_features)))
            nn.init.normal_(layer.bias, 0.0, 0.001)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the last pass's divergence, whose graph cannot be copied."""
        return {**self.__dict__, "divergence": torch.zeros(())}

    def rows(self, users: Tensor) -> Tensor:
        """(n, items) of ``users`` (n,), the dtype of the weights: 1 for an item that is known to be taken."""
        counts = self.starts[users + 1] - self.starts[users]
        owner = torch.repeat_interleave(torch.arange(len(users), device=users.device), counts)
        place = torch.arange(len(owner), device=users.device) - (counts.cumsum(0) - counts - self.starts[users])[owner]
        made = torch.zeros(len(users), self.items, device=users.device, dtype=next(self.parameters()).dtype)
        made[owner, self.taken[place]] = 1
        return made

    def forward(self, batch: Tensor) -> Tensor:
        """Score items.

        Args:
            batch: (n, 1 + candidates) int64

        Returns:
            (n, candidates), or (n, items) without candidates. ``divergence`` then is the code's KL divergence from a standard
            normal distribution, a mean over users.
        """
        mean, log_variance = self.encode(self.rows(batch[:, 0]))
        spread = 1 + log_variance.float() - mean.float().square() - log_variance.float().exp()
        self.divergence = -0.5 * spread.sum(1).mean()
        code = mean
        if self.training:
            code = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        scores = self.decode(code)
        return scores if batch.shape[1] == 1 else scores.gather(1, batch[:, 1:])

    def encode(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance (n, latent) of the codes of rows (n, items)."""
        x = self.drop(F.normalize(rows))
        for layer in self.q_layers[:-1]:
            x = layer(x).tanh()
        mean, log_variance = self.q_layers[-1](x).split(self.latent, 1)
        return mean, log_variance

    def decode(self, code: Tensor) -> Tensor:
        """Scores (n, items) of a ``code`` (n, latent) each."""
        x = code
        for layer in self.p_layers[:-1]:
            x = layer(x).tanh()
        return self.p_layers[-1](x)


class GMF(nn.Module):
    """Products of a user's and an item's vector, entry by entry."""

    def __init__(self, users: int, items: int, width: int):
        super().__init__()
        self.u_emb = nn.Embedding(users, width)
        self.v_emb = nn.Embedding(items, width)

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        return self.u_emb(user) * self.v_emb(item)


class NeuMF(nn.Module):
    """(n, 1 + candidates) -> (n, candidates), or (n, items): products of two vectors beside a perceptron of two others.

    Names are those of shuyao-wang/DSL, NeuMF/model.py (He et al. 2017, arXiv 1708.05031). widths: of the perceptron's layers
    behind its two vectors.
    """

    def __init__(self, users: int, items: int, width: int, widths: Sequence[int], dropout: float):
        super().__init__()
        self.items = items
        self.gmf = GMF(users, items, width)
        self.u_emb = nn.Embedding(users, width)
        self.v_emb = nn.Embedding(items, width)
        layers: list[nn.Module] = []
        for a, b in pairwise([2 * width, *widths]):
            layers += [nn.Linear(a, b), nn.ReLU(), nn.Dropout(dropout)]
        self.linear = nn.Sequential(*layers)
        self.predict = nn.Linear(width + widths[-1], 1)

    def forward(self, batch: Tensor) -> Tensor:
        user, item = batch[:, :1], batch[:, 1:]
        if item.shape[1]:
            return self.pairs(user.expand_as(item), item)
        everything = torch.arange(self.items, device=batch.device)[None]
        some = max(1, AT_ONCE // self.items)
        return torch.cat([self.pairs(*torch.broadcast_tensors(part, everything)) for part in user.split(some)])

    def pairs(self, user: Tensor, item: Tensor) -> Tensor:
        """Scores (n, m) of pairs, ``user`` and ``item`` (n, m) int64."""
        hidden = self.linear(torch.cat([self.u_emb(user), self.v_emb(item)], -1))
        return self.predict(torch.cat([self.gmf(user, item), hidden], -1)).squeeze(-1)
