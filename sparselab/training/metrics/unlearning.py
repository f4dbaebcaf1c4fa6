"""How well something was forgotten, and what that cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from sparselab.core.data_spec import DataSpec
from sparselab.core.errors import Issue
from sparselab.core.options import Options
from sparselab.training.metrics.metric import METRICS, Metric, Subject

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from torch import Tensor

C = 3.0  # of the attacker's support vector machine, as in the authors' code


@METRICS.register("unlearning")
class Unlearning(Metric):
    """``ua``, ``mia``, ``ra``, ``ta`` in [0, 1] (Jia et al. 2023, arXiv 2304.04934; OPTML-Group/Unlearn-Sparse main_forget.py).

    ua: 1 - accuracy on what was to be forgotten. ra: accuracy on what was retained. ta: accuracy on the test split. All on
    images as they are, without augmentation. mia: share of the forgotten that an attacker takes for non-members: a support
    vector machine (rbf) on the probability of the true label, trained on retained examples against as many of the test split,
    at most ``attack`` of each (the authors take all). Retraining without the forgotten is the goal, not a high ua.
    """

    class Options(Options):
        attack: int = Field(ge=2, description="examples of each kind that the attacker learns from, at least 2")

    def issues(self, data: DataSpec) -> list[Issue]:
        found = super().issues(data)
        if not found and "forget" not in data.parts:
            found.append(Issue("metric=unlearning", "nothing is to be forgotten", "write dataset.forget=class:0, say"))
        return found

    def measure(self, subject: Subject) -> dict[str, float]:
        forgotten, retained = (truth(subject, subject.parts[part]()) for part in ("forget", "retain"))
        test = truth(subject, subject.batches())
        return {
            "ua": 1 - float(forgotten[1].mean()),
            "ra": float(retained[1].mean()),
            "ta": float(test[1].mean()),
            "mia": attack(retained[0], test[0], forgotten[0], self.options.attack),
        }


def truth(subject: Subject, batches: Iterator[tuple[Tensor, Tensor]]) -> tuple[np.ndarray, np.ndarray]:
    """Look at every example.

    Args:
        subject: the network
        batches: (inputs, labels)

    Returns:
        (probability of the true label, whether the prediction is right), (n,) each, of other ranks too.
    """
    import torch

    confident, right = [], []
    with torch.no_grad():
        for inputs, labels in batches:
            probabilities = subject.logits(inputs).softmax(-1)
            confident.append(probabilities.gather(1, labels[:, None])[:, 0])
            right.append((probabilities.argmax(-1) == labels).float())
    return everyone(torch.cat(confident)), everyone(torch.cat(right))


def everyone(mine: Tensor) -> np.ndarray:
    """Gather over ranks.

    Args:
        mine: (n,) of this rank

    Returns:
        The values of all ranks, in their order.
    """
    import torch
    from torchmetrics.utilities.distributed import gather_all_tensors

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        mine = torch.cat(gather_all_tensors(mine))
    return mine.cpu().numpy()


def attack(members: np.ndarray, others: np.ndarray, targets: np.ndarray, most: int) -> float:
    """Share of ``targets`` that a classifier of ``members`` against ``others``, all (n,), takes for non-members.

    Examples are taken from the front, as many of each kind as both have. Where both kinds look exactly alike, nothing can be
    learnt and the attacker says "member" of all.
    """
    import numpy as np
    from sklearn.svm import SVC

    count = min(len(members), len(others), most)
    features = np.concatenate([members[:count], others[:count]]).astype(np.float64)[:, None]
    if np.ptp(features) == 0:
        return 0.0
    machine: Any = SVC(C=C, kernel="rbf", gamma="auto")
    machine.fit(features, np.repeat([1, 0], count))
    return float(np.mean(machine.predict(targets.astype(np.float64)[:, None]) == 0))
