"""Updates of sparse networks against those of the dense one: forward, backward, clipping, optimiser, sparsifier."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from itertools import pairwise

import torch

from sparselab.core.seeds import derive_seed
from sparselab.running.planning import plan_of
from sparselab.tools.bench.timing import Row, clock, quartiles, row, turns
from sparselab.training.build import wants_channels_last
from sparselab.training.slots import make_sparsifier

SECTION = "An optimiser update, against the dense one (ViT-S, batch 64 on a CPU, 256 in bf16 on a GPU)"
STEADY = {
    "random 0.9": (["method=random", "sparsity=0.9"], 1, 1.02),
    "asp 2:4": (["method=asp", "sparsity=2:4", "schedule.at=0"], 1, 1.02),
    "ste 2:4": (["method=ste", "sparsity=2:4"], 1, 1.05),
    "srste 2:4": (["method=srste", "sparsity=2:4"], 1, 1.05),
    "srste 1:8": (["method=srste", "sparsity=1:8"], 1, 1.05),
    "srste 2:4, 8 micro-batches": (["method=srste", "sparsity=2:4"], 8, 1.02),
}
NOW_AND_THEN = {
    "gmp 0.9": ["method=gmp", "sparsity=0.9"],
    "set 0.9": ["method=set", "sparsity=0.9"],
    "rigl 0.9": ["method=rigl", "sparsity=0.9"],
}
ROUNDS = 7


class Update:
    """A cell's network, updated once at each call."""

    def __init__(self, overrides: list[str], device: str, micro_batches: int = 1, half: bool | None = None):
        """half: bf16 by autocast; None: on a GPU."""
        common = ["model=vit_s", f"trainer.batch_size={64 if device == 'cpu' else 256}", "trainer.max_steps=3000"]
        common = [text for text in common if text.partition("=")[0] not in {o.partition("=")[0] for o in overrides}]
        self.parts = plan_of([*overrides, *common, "trainer.max_epochs=null"]).parts
        self.device = device
        self.half = device != "cpu" if half is None else half
        self.micro_batches = micro_batches
        torch.manual_seed(derive_seed(0, "init"))
        self.network = self.parts.family.build(self.parts.data).to(device)
        if wants_channels_last(self.parts):
            self.network.to(memory_format=torch.channels_last)
        self.sparsifier = make_sparsifier(self.parts, self.network)
        self.optimizer = self.parts.optim.build(self.network)
        self.sparsifier.start()
        due = self.sparsifier.updates
        self.due = [step for step in due if step > due[-1] // 3] if due else []
        self.period = statistics.mean(b - a for a, b in pairwise(due)) if len(due) > 1 else 0.0
        self.step = self.due[0] if self.due else 1000  # ramps are under way, periodic methods exchange
        data, size = self.parts.data, self.parts.cell.trainer.batch_size
        self.inputs, self.targets = data.inputs.sample(size).to(device), data.targets.sample(size).to(device)
        self.sparsifier.carried_out = len([step for step in due if step <= self.step])

    def __call__(self) -> None:
        self.step += 1
        if self.step in self.sparsifier.updates:
            self.step += 1  # its turn is change()
        self.update()

    def change(self) -> None:
        """An update at which a new mask is due."""
        self.step = next(step for step in self.sparsifier.updates if step > self.step)
        self.update()

    def update(self) -> None:
        self.optimizer.zero_grad()
        chunks = self.micro_batches
        for inputs, targets in zip(self.inputs.chunk(chunks), self.targets.chunk(chunks), strict=True):
            with torch.autocast(self.device, torch.bfloat16, enabled=self.half):
                logits = self.parts.family.logits(self.network, inputs).float().flatten(0, -2)
                loss = torch.nn.functional.cross_entropy(logits, targets.flatten()) / chunks
            loss.backward()
        self.sparsifier.before_step(self.step)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0, foreach=True)
        self.optimizer.step()
        self.sparsifier.after_step(self.step, self.optimizer)


def rows(device: str) -> Iterator[Row]:
    for name, (overrides, micro_batches, goal) in STEADY.items():
        dense = Update(["method=dense"], device, micro_batches)
        times = turns({"dense": dense, name: Update(overrides, device, micro_batches)}, ROUNDS, device)
        yield row(SECTION, name, "dense", times, goal)
    for name, overrides in NOW_AND_THEN.items():
        yield amortised(name, overrides, device)


def amortised(name: str, overrides: list[str], device: str) -> Row:
    """Ordinary updates, and the share of a change of masks that falls on each."""
    dense, sparse, now = Update(["method=dense"], device, 1), Update(overrides, device, 1), clock(device)
    times = turns({"dense": dense, name: sparse}, ROUNDS, device)
    changes = []
    for _ in range(3):
        began = now()
        sparse.change()
        changes.append(now() - began)
    more = statistics.median(changes) - statistics.median(times[name])
    share = more / sparse.period / statistics.median(times["dense"])
    ratios = [a / b + share for a, b in zip(times[name], times["dense"], strict=True)]
    label = f"{name}, a mask in {sparse.period:.0f} updates"
    extra = f"a change of masks: {1000 * more:.0f} ms"
    return Row(SECTION, label, "dense", quartiles(ratios), statistics.median(times["dense"]), ROUNDS, 1.03, extra)
