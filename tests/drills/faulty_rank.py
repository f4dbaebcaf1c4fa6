"""A rank of a run in which something is wrong with rank 1; started in the place of the real one by a drill."""

from __future__ import annotations

import os
import sys

from sparselab.training import assemble
from sparselab.training.ranks import rank
from sparselab.training.tasks.classification import Classification
from sparselab.weights.slot import UpdateContext

LOCAL_RANK = int(os.environ["LOCAL_RANK"])


def other_masks() -> None:
    real = UpdateContext.random
    UpdateContext.random = lambda context, slot: real(context, slot).flip(0)


def no_number() -> None:
    real = Classification.criterion
    Classification.criterion = lambda *arguments: real(*arguments) * float("nan")


def exits() -> None:
    Classification.criterion = lambda *arguments: os._exit(3)


def crashes() -> None:
    def criterion(*arguments):
        raise ZeroDivisionError("planted")

    Classification.criterion = criterion


def own_statistics() -> None:
    assemble.synchronise = lambda network: None


if LOCAL_RANK == 1 or sys.argv[1] == "own_statistics":
    globals()[sys.argv[1]]()
code = rank.main()
sys.stderr.flush()
os._exit(code)
