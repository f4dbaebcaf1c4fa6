"""Recommenders: a graph network, a variational auto-encoder, and products beside a perceptron."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from sparselab.core.data_spec import DataSpec
from sparselab.core.data_types import Taken, Users
from sparselab.inputs.models.family import MODELS, Family
from sparselab.inputs.models.spec_builder import SpecBuilder

if TYPE_CHECKING:
    from torch import nn


class Recommender(Family):
    """Base. A sample is a user for whom all items are scored."""

    heads = ((Users, Taken),)


def users_of(data: DataSpec) -> Users:
    """The type of the inputs, which says how many users and items there are."""
    assert isinstance(data.inputs, Users)
    return data.inputs


@MODELS.register("lightgcn")
class LightGCN(Recommender):
    """Vectors of users and items, smoothed by a graph of who took what (He et al. 2020, arXiv 2002.02126).

    There is one table. A propagation serves all users, so a sample is charged with its share: the first one reads the table
    as it is, sparse, later ones and the scores what a propagation made of it, dense.
    """

    gives = frozenset({"looked_up"})

    class Options(Family.Options):
        width: int = Field(ge=1, description="entries of a vector, at least 1")
        depth: int = Field(ge=0, le=100, description="propagations through the graph; 0: plain matrix factorisation")

    options: Options

    def builder(self, data: DataSpec) -> SpecBuilder:
        s, o, users = SpecBuilder(), self.options, users_of(data)
        nodes, scores = users.users + users.items, users.items * o.width
        s.params += nodes * o.width
        hop = -(-2 * users.interactions * o.width // users.users)
        s.call("embedding", "embedding", (nodes, o.width), hop if o.depth else scores)
        if o.depth:
            s.fixed_macs["scores"] = scores
        if o.depth > 1:
            s.fixed_macs["graph"] = (o.depth - 1) * hop
        return s

    def make(self, data: DataSpec) -> nn.Module:
        from sparselab.inputs.models.recommenders import LightGCN

        users = users_of(data)
        return LightGCN(users.history(), users.users, users.items, self.options.width, self.options.depth)


@MODELS.register("multvae")
class MultVAE(Recommender):
    """A variational auto-encoder of what a user took, with a multinomial likelihood (Liang et al. 2018, arXiv 1802.05814).

    It knows users by what they took alone, so it recommends to users that it never saw.
    """

    gives: ClassVar[frozenset[str]] = frozenset({"divergence"})

    class Options(Family.Options):
        hidden: list[Annotated[int, Field(ge=1)]] = Field(
            min_length=1, description="widths from the items to the latent code, which is the last: a list"
        )
        dropout: float = Field(ge=0, lt=1, description="probability that an item is left out of a row in training")

    options: Options

    def builder(self, data: DataSpec) -> SpecBuilder:
        s, items, hidden = SpecBuilder(), users_of(data).items, self.options.hidden
        for i, (a, b) in enumerate(pairwise([items, *hidden[:-1], 2 * hidden[-1]])):
            s.linear(f"q_layers.{i}", b, a)
        for i, (a, b) in enumerate(pairwise([*reversed(hidden), items])):
            s.linear(f"p_layers.{i}", b, a)
        for half in "qp":
            for i in range(len(hidden) - 1):
                s.reads(f"{half}_layers.{i}", f"{half}_layers.{i + 1}")
        return s

    def make(self, data: DataSpec) -> nn.Module:
        from sparselab.inputs.models.recommenders import MultVAE

        users = users_of(data)
        return MultVAE(users.history(), users.users, users.items, self.options.hidden, self.options.dropout)


@MODELS.register("neumf")
class NeuMF(Recommender):
    """Products of two vectors beside a perceptron of two others (He et al. 2017, arXiv 1708.05031)."""

    class Options(Family.Options):
        width: int = Field(ge=1, description="entries of each of the four vectors, at least 1")
        hidden: list[Annotated[int, Field(ge=1)]] = Field(
            min_length=1, description="widths of the perceptron's layers behind its vectors: a list"
        )
        dropout: float = Field(ge=0, lt=1, description="probability that a hidden value is dropped in training")

    options: Options

    def builder(self, data: DataSpec) -> SpecBuilder:
        s, o, users = SpecBuilder(), self.options, users_of(data)
        s.embedding("u_emb", users.users, o.width)
        s.embedding("v_emb", users.items, o.width)
        for i, (a, b) in enumerate(pairwise([2 * o.width, *o.hidden])):
            s.linear(f"linear.{3 * i}", b, a, users.items)
            if i:
                s.reads(f"linear.{3 * i - 3}", f"linear.{3 * i}")
        s.embedding("gmf.u_emb", users.users, o.width)
        s.embedding("gmf.v_emb", users.items, o.width)
        s.linear("predict", 1, o.width + o.hidden[-1], users.items)
        return s

    def make(self, data: DataSpec) -> nn.Module:
        from sparselab.inputs.models.recommenders import NeuMF

        o, users = self.options, users_of(data)
        return NeuMF(users.users, users.items, o.width, o.hidden, o.dropout)
