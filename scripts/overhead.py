"""Seconds per optimiser update of every method over dense, side by side in one process.

    python scripts/overhead.py model=vit_s trainer.batch_size=64

Methods take turns update by update, so that a busy machine slows all of them alike; the figure is the median of the ratios
to the dense update of the same round. Mask changes are due as often as each method's default schedule says.
"""

from __future__ import annotations

import statistics
import sys
import time

import torch

from sparselab.engines.train.runner import make_sparsifier
from sparselab.planning import plan_of
from sparselab.spec.address import address

CELLS = {
    "dense": ["method=dense"],
    "random 0.9": ["method=random", "sparsity=0.9"],
    "asp 2:4": ["method=asp", "sparsity=2:4", "schedule.at=0"],
    "ste 2:4": ["method=ste", "sparsity=2:4"],
    "srste 2:4": ["method=srste", "sparsity=2:4"],
    "srste 1:8": ["method=srste", "sparsity=1:8"],
    "gmp 0.9": ["method=gmp", "sparsity=0.9"],
    "set 0.9": ["method=set", "sparsity=0.9"],
    "rigl 0.9": ["method=rigl", "sparsity=0.9"],
}
ROUNDS, WARM_UP = 24, 2


class Update:
    """One cell's network, ready to be updated once at a time."""

    def __init__(self, overrides: list[str]):
        self.parts = plan_of(overrides).parts
        torch.manual_seed(address(0, "init"))
        self.network = self.parts.family.build(self.parts.data)
        self.sparsifier = make_sparsifier(self.parts, self.network)
        self.optimizer = self.parts.optim.build(self.network)
        self.sparsifier.start()
        # From the middle of the run, where ramps are under way and periodic methods exchange.
        self.step = self.parts.steps // 3
        data = self.parts.data
        self.inputs = torch.randn(self.parts.cell.trainer.batch_size, *data.shape)
        self.targets = torch.randint(data.classes, (len(self.inputs),))

    def __call__(self) -> float:
        began = time.perf_counter()
        self.step += 1
        self.optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.parts.cell.trainer.precision == "bf16"):
            loss = torch.nn.functional.cross_entropy(self.network(self.inputs).float(), self.targets)
        loss.backward()
        self.sparsifier.pull_back(self.step)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0, foreach=True)
        self.optimizer.step()
        self.sparsifier.settle(self.step, self.optimizer)
        return time.perf_counter() - began


def main(overrides: list[str]) -> None:
    updates = {name: Update([*cell, *overrides]) for name, cell in CELLS.items()}
    times: dict[str, list[float]] = {name: [] for name in updates}
    for turn in range(ROUNDS + WARM_UP):
        for name, update in updates.items():
            seconds = update()
            if turn >= WARM_UP:
                times[name].append(seconds)
    print(f"| method | ms per update | x dense (median, quartiles) |\n|---|---|---|  <!-- {' '.join(overrides)} -->")
    for name, seconds in times.items():
        ratios = [a / b for a, b in zip(seconds, times["dense"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(f"| {name} | {1000 * statistics.median(seconds):.1f} | {middle:.3f} ({low:.3f} to {high:.3f}) |")


if __name__ == "__main__":
    main(sys.argv[1:])
