"""Numbers of a matrix of accuracies A[i][j], of task j after task i [no torch].

Sources: Lopez-Paz and Ranzato 2017 (arXiv 1706.08840) for ACC and BWT; Chaudhry et al. 2018 (arXiv 1801.10112) for forgetting;
muratonuryildirim/CL-with-DST ``cifar100.py`` for FWT, which takes no accuracy of random weights off.
"""

from __future__ import annotations

from collections.abc import Sequence

Matrix = Sequence[Sequence[float]]


def mean(values: Sequence[float]) -> float:
    """The mean, 0 of nothing."""
    return sum(values) / len(values) if values else 0.0


def accuracy(matrix: Matrix) -> float:
    """ACC: the mean over tasks after the last one."""
    return mean(matrix[-1])


def backward_transfer(matrix: Matrix) -> float:
    """BWT: mean over all tasks but the last of A[T, j] - A[j, j]; negative where tasks are forgotten."""
    last = matrix[-1]
    return mean([last[j] - matrix[j][j] for j in range(len(matrix) - 1)])


def forgetting(matrix: Matrix) -> float:
    """Mean over all tasks but the last of the best accuracy before the last task less that after it."""
    last, count = matrix[-1], len(matrix)
    return mean([max(matrix[i][j] for i in range(j, count - 1)) - last[j] for j in range(count - 1)])


def forward_transfer(matrix: Matrix) -> float:
    """FWT: mean over i < T of the mean over j > i of A[i, j], accuracies on tasks to come."""
    count = len(matrix)
    return mean([mean(list(matrix[i][i + 1 :])) for i in range(count - 1)])


def learnt_late(matrix: Matrix) -> float:
    """Mean of A[j, j] over the last third of the tasks, at least one: how well a network that is full still learns."""
    count = len(matrix)
    return mean([matrix[j][j] for j in range(count - max(1, count // 3), count)])
