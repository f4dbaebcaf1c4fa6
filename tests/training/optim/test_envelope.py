"""The sparse envelope function and its proximal step: the dossier's numbers, and what has to hold whatever the numbers."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
import torch

from sparselab.training.optim.torch_side.envelope import envelope, factors

SOLVERS = pytest.mark.parametrize("solver", ["sort", "bisect"])


def prox(x, lam, k, solver="sort", d=None):
    x = torch.tensor(x, dtype=torch.float64)
    return (x * factors(x.abs(), lam, k, None if d is None else torch.tensor(d), solver)).tolist()


@pytest.mark.parametrize(("x", "k", "value"), [
    ([3, 2, 1], 1, 18), ([3, 2, 1], 2, 9), ([3, 2, 1], 3, 7), ([1, 1, 1, 1], 2, 4), ([4, 1, 0.5, 0.1], 2, 9.28),
    ([-1, 3, -2], 2, 9), ([0, 5, 0], 1, 12.5),
])  # fmt: skip
def test_values(x, k, value):
    """Item S."""
    assert envelope(torch.tensor(x, dtype=torch.float64), k) == pytest.approx(value, abs=1e-6)


@SOLVERS
@pytest.mark.parametrize(("x", "lam", "k", "expected"), [
    ([3.0, 2, 1], 1.0, 2, [1.5, 1, 0]), ([3.0, 2, 1], 1.0, 1, [4 / 3, 1 / 3, 0]), ([3.0, 2, 1], 0.1, 2, [2.727273, 1.75, 0.75]),
    ([3.0, 2, 1], 10.0, 2, [3 / 11, 2 / 11, 0]), ([3.0, 2, 1], 1.0, 3, [1.5, 1, 0.5]),
    ([4, 1, 0.5, 0.1], 0.5, 2, [2.666667, 0.625, 0.125, 0]),
])  # fmt: skip
def test_steps(x, lam, k, expected, solver):
    """Item prox, the third of which leaves three of three with k = 2; negative entries keep their sign."""
    assert prox(x, lam, k, solver) == pytest.approx(expected, abs=1e-6)
    assert prox([-v for v in x], lam, k, solver) == pytest.approx([-v for v in expected], abs=1e-6)


@SOLVERS
def test_weights(solver):
    """Item weighted: the group whose weight is 4 goes before the smaller one would; u of the second example."""
    assert prox([3.0, 2, 1], 1.0, 1, solver, d=[1.0, 4.0, 1.0]) == pytest.approx([1.5, 0, 0], abs=1e-6)
    found = factors(torch.tensor([3.0, 2, 1]), 1.0, 1, None, solver)
    assert (found / (1 - found)).tolist() == pytest.approx([0.8, 0.2, 0], abs=1e-6)  # f = u / (lam + u)


@SOLVERS
def test_limits(solver):
    """Item limits: nothing at 0, a ridge where k is no bound, the k largest over 1 + lam where lam is large."""
    x = torch.rand(40, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.01
    d = torch.rand(40, generator=torch.Generator().manual_seed(2), dtype=torch.float64) + 0.5
    assert torch.equal(factors(x, 0.0, 5, None, solver), torch.ones(40, dtype=torch.float64))
    torch.testing.assert_close(factors(x, 1e-9, 5, None, solver), torch.ones_like(x), rtol=0, atol=1e-6)
    torch.testing.assert_close(factors(x, 0.3, 40, d, solver), 1 / (1 + 0.3 * d))
    large = factors(x, 1e6, 7, None, solver)
    assert set(large.nonzero().flatten().tolist()) == set(x.topk(7).indices.tolist())
    torch.testing.assert_close(
        large[large > 0], torch.full((7,), 1 / (1 + 1e6), dtype=torch.float64), rtol=1e-6, atol=0
    )
    zeros = torch.tensor([0.0, 2.0, 0.0, 1.0])
    assert factors(zeros, 0.5, 2, None, solver).tolist() == pytest.approx([0, 2 / 3, 0, 2 / 3])


@SOLVERS
def test_groups_vanish_exactly(solver):
    """Method, step 4: groups vanish exactly, so k are left where the k-th is full before the next one begins."""
    generator = torch.Generator().manual_seed(8)
    for _ in range(200):
        m = int(torch.randint(4, 64, (1,), generator=generator))
        k = int(torch.randint(1, m, (1,), generator=generator))
        x = torch.rand(m, generator=generator, dtype=torch.float64) + 0.05
        ordered = x.sort(descending=True).values
        lam = 1.01 / float(ordered[k - 1] / ordered[k] - 1)  # (lam + 1) / x_k < lam / x_(k + 1)
        found = factors(x, lam, k, None, solver)
        assert set(found.nonzero().flatten().tolist()) == set(x.topk(k).indices.tolist())
    assert factors(torch.tensor([3.0, 2, 1]), 1.0, 2, None, solver)[2] == 0, (
        "u of the third begins where the second is full"
    )


def test_tiny_groups_beside_large_ones():
    """Invariant sum u = k over twenty-four decades: as where filters that were zero have just moved."""
    generator = torch.Generator().manual_seed(9)
    for _ in range(100):
        m = int(torch.randint(4, 40, (1,), generator=generator))
        k = int(torch.randint(1, m, (1,), generator=generator))
        x = 10 ** (torch.rand(m, generator=generator, dtype=torch.float64) * 24 - 20)
        lam = float(10 ** (torch.rand(1, generator=generator, dtype=torch.float64) * 5 - 4))
        found = factors(x, lam, k)
        assert float((lam * found / (1 - found)).sum()) == pytest.approx(k, abs=1e-3)


@SOLVERS
def test_sum_of_u_is_k_and_moreau(solver):
    """Item invariants: sum u = k, and prox_lam(x) + lam prox of the conjugate, half the k largest squares, at x / lam is x."""
    generator = torch.Generator().manual_seed(3)
    for k in (1, 3, 9):
        for lam in (0.05, 0.7, 4.0):
            x = torch.rand(12, generator=generator, dtype=torch.float64) * 3 + 0.01
            found = factors(x, lam, k, None, solver)
            u = lam * found / (1 - found)
            assert float(u.sum()) == pytest.approx(k, abs=1e-6) and float(u.max()) < 1 + 1e-6
            p = x * found
            q = (x - p) / lam  # has to minimise |q - x / lam|^2 / (2 / lam) + half the k largest squares of q
            goal = conjugate_objective(q, x, lam, k)
            for _ in range(50):
                near = q + 1e-3 * torch.randn(12, generator=generator, dtype=torch.float64)
                assert conjugate_objective(near, x, lam, k) >= goal - 1e-12


def conjugate_objective(q, x, lam, k):
    return float(lam * (q - x / lam).square().sum() / 2 + q.square().topk(k).values.sum() / 2)


def test_the_step_minimises_what_it_says():
    """No point near it is better, by the closed form of the value: the two were written apart."""
    generator = torch.Generator().manual_seed(4)
    x = torch.rand(10, generator=generator, dtype=torch.float64) * 2
    for k, lam in ((1, 0.5), (4, 0.5), (4, 0.05)):
        p = x * factors(x, lam, k)
        best = float((p - x).square().sum() / 2) + lam * envelope(p, k)
        for size in (1e-1, 1e-3):
            for _ in range(100):
                near = (p + size * torch.randn(10, generator=generator, dtype=torch.float64)).clamp_min(0)
                assert float((near - x).square().sum() / 2) + lam * envelope(near, k) >= best - 1e-9


def test_the_function():
    """Item invariants: convex, homogeneous of degree 2, falling in k, at least half the squares, equal where k are no bound."""
    generator = torch.Generator().manual_seed(5)
    for _ in range(50):
        a, b = torch.randn(2, 9, generator=generator, dtype=torch.float64)
        values = [envelope(a, k) for k in range(1, 10)]
        assert all(x >= y - 1e-12 for x, y in pairwise(values))
        assert values[0] == pytest.approx(float(a.abs().sum()) ** 2 / 2)
        assert values[-1] == pytest.approx(float(a.square().sum()) / 2) and values[3] > values[-1]
        assert envelope(3 * a, 4) == pytest.approx(9 * values[3])
        assert envelope((a + b) / 2, 4) <= (envelope(a, 4) + envelope(b, 4)) / 2 + 1e-12
        few = a.clone()
        few[4:] = 0
        assert envelope(few, 4) == pytest.approx(float(few.square().sum()) / 2)


@SOLVERS
def test_both_ways_to_the_root_agree(solver):
    generator = torch.Generator().manual_seed(6)
    x = torch.rand(5000, generator=generator, dtype=torch.float64) ** 4
    d = torch.rand(5000, generator=generator, dtype=torch.float64) + 0.1
    for k in (1, 50, 4000):
        one, other = factors(x, 0.3, k, d, "sort"), factors(x, 0.3, k, d, "bisect")
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


def test_cost_grows_no_faster_than_m_log_m():
    """Item cost: 1e6 groups take at most 100 x log(1e6) / log(1e4) = 150 times as long as 1e4, in seconds of this process."""

    def seconds(m):
        x = torch.rand(m, generator=torch.Generator().manual_seed(7), dtype=torch.float64) + 1e-3
        factors(x, 0.1, m // 2)
        best = []
        for _ in range(5):
            start = time.process_time()
            factors(x, 0.1, m // 2)
            best.append(time.process_time() - start)
        return min(best)

    assert seconds(1_000_000) <= 2 * 150 * seconds(10_000)
