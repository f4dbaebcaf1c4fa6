"""Seeds of torch's generators."""

from __future__ import annotations

import torch

from sparselab.core.seeds import seed_torch


def test_numbers_after_a_seed_are_those_of_torchs_own_way():
    torch.manual_seed(2**62 + 3)
    expected = torch.rand(5)
    seed_torch(2**62 + 3)
    assert torch.equal(torch.rand(5), expected)
