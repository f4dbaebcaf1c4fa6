"""Batch normalisation over processes, here over one: it must be torch's own. Two are drill R3's."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.distributed as dist
from torch import nn

from sparselab.core.errors import RunFailed
from sparselab.training.loop.batchnorm import synchronise


@pytest.fixture(autouse=True)
def alone():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize(("cls", "shape"), [(nn.BatchNorm1d, (6, 3)), (nn.BatchNorm2d, (4, 3, 5, 2))])
@pytest.mark.parametrize("affine", [True, False])
def test_one_process_computes_what_torch_does(cls, shape, affine, momentum):
    torch.manual_seed(0)
    own = cls(3, affine=affine, momentum=momentum)
    if affine:
        own.weight.data.uniform_(0.5, 2)
        own.bias.data.uniform_(-1, 1)
    shared = copy.deepcopy(own)
    synchronise(shared)
    assert type(shared) is cls and list(shared.state_dict()) == list(own.state_dict())
    for _ in range(3):
        x = 3 + 2 * torch.randn(shape)
        grads = []
        for module in (own, shared):
            given = x.clone().requires_grad_()
            out = module(given)
            (out * torch.linspace(-1, 1, out.numel()).view(shape)).sum().backward()
            grads.append((out, given.grad, *(p.grad for p in module.parameters())))
        for mine, theirs in zip(*grads, strict=True):
            assert torch.allclose(mine, theirs, atol=1e-5), (mine - theirs).abs().max()
    for name, tensor in own.state_dict().items():
        assert torch.allclose(tensor, shared.state_dict()[name], atol=1e-5), name
    assert torch.equal(own.eval()(x), shared.eval()(x)) or torch.allclose(own(x), shared(x), atol=1e-5)


def test_half_precision_goes_in_and_comes_out():
    shared = nn.BatchNorm1d(3)
    synchronise(shared)
    assert shared(torch.randn(5, 3, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_one_that_does_more_is_refused():
    class WithActivation(nn.BatchNorm2d):
        def forward(self, x):
            return super().forward(x).relu()

    with pytest.raises(RunFailed, match=r"^1: WithActivation does more than normalise.* — write trainer.devices=1$"):
        synchronise(nn.Sequential(nn.BatchNorm2d(2), WithActivation(2)))
