"""Model soups (Wortsman et al. 2022, arXiv 2203.05482): means of the weights of several networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sparselab.training.merges.merge import MERGES, Merge, State, average


@MERGES.register("uniform")
class Uniform(Merge):
    """The mean of all parents (the uniform soup)."""

    def merge(self, parents: Sequence[State], score: Callable[[State], float]) -> State:
        return average(parents)


@MERGES.register("greedy")
class Greedy(Merge):
    """The mean of those parents that do not lower the validation score (the greedy soup, the paper's Recipe 1).

    From the best parent on, in the order of their own scores (equal ones in the order named), each is put into the soup and
    stays where the soup scores at least what it scored without it.
    """

    scores = True

    def merge(self, parents: Sequence[State], score: Callable[[State], float]) -> State:
        alone = [score(parent) for parent in parents]
        order = sorted(range(len(parents)), key=lambda number: -alone[number])  # sorting keeps the order of equals
        taken, best = [parents[order[0]]], alone[order[0]]
        for number in order[1:]:
            tried = score(average([*taken, parents[number]]))
            if tried >= best:
                taken.append(parents[number])
                best = tried
        return average(taken)
