"""Many small cells on one device: one after another, in processes side by side, or their seeds in one batch.

The batch is what could be had: forward, backward, masks and AdamW of all seeds at once, with nothing around them.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from sparselab.tools.bench.timing import Row, row, turns, wall
from sparselab.tools.bench.updates import Update

CELLS = 4
SECTION = (
    f"{CELLS} updates of each of {CELLS} small cells (srste 2:4) on one device, by the wall, against one after another"
)
ALONE = "one after another"
NETWORKS = {
    "MLP 256-256, batch 128": ["model=mlp", "dataset=mnist", "trainer.batch_size=128"],
    "ViT of width 64 and depth 4, batch 128": [
        "model=vit_s", "model.width=64", "model.depth=4", "model.heads=4", "dataset=digits", "trainer.batch_size=128",
    ],
}  # fmt: skip
RULE = ["method=srste", "sparsity=2:4"]
ROUNDS = 5


def rows(device: str) -> Iterator[Row]:
    for name, network in NETWORKS.items():
        cells = [[*network, *RULE, f"seed={seed}"] for seed in range(CELLS)]
        processes = Processes(cells, device)
        alone, together = [Update(cell, device) for cell in cells], Together(cells, device)
        things: dict[str, Any] = {
            ALONE: partial(each, alone),
            f"{name}: seeds in one batch": partial(several, together),
            f"{name}: processes": processes,
        }
        try:
            times = turns(things, ROUNDS, device, now=wall(device))
        finally:
            processes.close()
        yield from (row(SECTION, label, ALONE, times) for label in list(things)[1:])


def each(updates: list[Update]) -> None:
    for one in updates:
        several(one)


def several(one: Any) -> None:
    for _ in range(CELLS):
        one()


class Together:
    """The networks of cells that differ in the seed alone, updated by one call of everything."""

    def __init__(self, cells: list[list[str]], device: str) -> None:
        self.cells = [Update(cell, device) for cell in cells]
        first = self.cells[0]
        self.parameters, self.buffers = torch.func.stack_module_state([one.network for one in self.cells])
        places = {id(param): name for name, param in first.network.named_parameters()}
        self.sparse = [(places[id(slot.param)], slot.pattern) for slot in first.sparsifier.slots]
        self.optimizer = torch.optim.AdamW(self.parameters.values(), lr=1e-4, **_fastest(device))
        self.inputs = torch.stack([one.inputs for one in self.cells])
        self.targets = torch.stack([one.targets for one in self.cells])
        self.step = torch.func.vmap(torch.func.grad(self.loss))

    def loss(
        self, parameters: dict[str, Any], buffers: dict[str, Any], inputs: torch.Tensor, targets: torch.Tensor
    ) -> Any:
        first = self.cells[0]
        with torch.autocast(first.device, torch.bfloat16, enabled=first.half):
            logits = torch.func.functional_call(first.network, (parameters, buffers), (inputs,))
        return torch.nn.functional.cross_entropy(logits.float().flatten(0, -2), targets.flatten())

    @torch.no_grad()
    def __call__(self) -> None:
        effective = {name: param.detach() for name, param in self.parameters.items()}
        masks = {}
        for name, pattern in self.sparse:
            stacked = effective[name].flatten(0, 1)
            masks[name] = pattern.mask(stacked.abs(), 0.5).view_as(effective[name])
            effective[name] = effective[name] * masks[name]
        with torch.enable_grad():
            grads = self.step(effective, self.buffers, self.inputs, self.targets)
        for name, mask in masks.items():  # SR-STE: what is pruned decays
            grads[name].add_(self.parameters[name] * ~mask, alpha=2e-4)
        for name, param in self.parameters.items():
            param.grad = grads[name]
        self.optimizer.step()


class Processes:
    """A process for each cell, which updates it when it is told to; a call ends when all have."""

    def __init__(self, cells: list[list[str]], device: str) -> None:
        context = multiprocessing.get_context("spawn")
        pipes = [context.Pipe() for _ in cells]
        self.ours = [pipe[0] for pipe in pipes]
        self.workers = [
            context.Process(target=work, args=(cell, device, pipe[1]), daemon=True)
            for cell, pipe in zip(cells, pipes, strict=True)
        ]
        for worker in self.workers:
            worker.start()
        for ours, theirs in pipes:
            theirs.close()  # else the end of a worker would not be the end of the pipe
            ours.recv()  # it is ready

    def __call__(self) -> None:
        for pipe in self.ours:
            pipe.send(True)
        for pipe in self.ours:
            pipe.recv()

    def close(self) -> None:
        for pipe in self.ours:
            pipe.send(False)
        for worker in self.workers:
            worker.join()


def work(cell: list[str], device: str, pipe: Any) -> None:
    """Run in each process."""
    torch.set_num_threads(1)
    one, done = Update(cell, device), wall(device)
    several(one)
    pipe.send(None)
    while pipe.recv():
        several(one)
        done()
        pipe.send(None)


def _fastest(device: str) -> dict[str, Any]:
    return {"fused": True} if device == "cpu" else {"foreach": True}
