"""A claim about a task says nothing of networks that have not learned it."""

from __future__ import annotations

import pytest
from test_claims import A, B, claim, spread, verdict


def samples(level):
    """Two cells of a row that are the same to a tenth; ``level`` of the second."""
    found = spread({})
    found["r1", "b"] = {seed: level + seed / 10 for seed in range(5)}
    found["r1", "a"] = {seed: level + seed / 10 + 0.05 * (-1) ** seed for seed in range(5)}
    return found


WITH = {"presupposes": {"a": B, "low": 50.0}}


@pytest.mark.parametrize(
    ("kind", "more"), [("equivalence", {"margin": 1.0}), ("order", {"relation": ">=", "margin": 1.0})]
)
def test_at_chance_a_claim_that_presupposes_a_task_does_not_hold(kind, more):
    """Both networks are at chance, so they are as good as each other: without the premise the claim would hold."""
    assert verdict(claim(kind, a=A, b=B, **more), samples(0.5)).verdict == "holds"
    found = verdict(claim(kind, a=A, b=B, **more, **WITH), samples(0.5))
    assert found.verdict == "inconclusive" and found.needs == ""
    assert "it presupposes" in found.evidence and "not shown" in found.evidence
    assert verdict(claim(kind, a=A, b=B, **more, **WITH), samples(90.0)).verdict == "holds"


def test_at_chance_it_does_not_fail_either():
    better = {"relation": ">", "margin": 10.0}
    assert verdict(claim("order", a=A, b=B, **better), samples(0.5)).verdict == "fails"
    assert verdict(claim("order", a=A, b=B, **better, **WITH), samples(0.5)).verdict == "inconclusive"
    assert verdict(claim("order", a=A, b=B, **better, **WITH), samples(90.0)).verdict == "fails"
