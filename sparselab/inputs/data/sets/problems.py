"""Problems with a right answer, as text: what a language model learns from, and what it is asked [no torch at import]."""

from __future__ import annotations

import json
import re
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from sparselab.core.errors import refuse
from sparselab.core.memo import once
from sparselab.inputs.data import files, hub
from sparselab.inputs.data.dataset import DATASETS
from sparselab.inputs.data.seeds import generator
from sparselab.inputs.data.sets.text import PARTS, Origin, TextOptions, TextSet

if TYPE_CHECKING:
    from sparselab.inputs.data.prompts import Prompt
    from sparselab.inputs.data.splits import TextSplits

ANSWER = re.compile(r"####\s*\$?(-?[\d,]*\.?\d+)")
"""How the answer of a worked solution is written, as in openai/grade-school-math."""


@dataclass(frozen=True)
class Problem:
    """A question, and a worked solution that ends in ``#### answer``."""

    question: str
    solution: str

    @property
    def asked(self) -> str:
        return f"Question: {self.question}\nAnswer:"

    def __str__(self) -> str:
        return f"{self.asked} {self.solution}\n\n"


def answer_of(text: str) -> str | None:
    """Return the first answer that a text gives, without commas; None where it gives none."""
    found = ANSWER.search(text)
    return found and found[1].replace(",", "")


class ProblemOptions(TextOptions):
    """Options of every set of problems."""

    defaults_from: ClassVar[str] = "dataset/_problems"

    shots: int = Field(ge=0, description="problems of the train split, solved, that a prompt begins with; at least 0")


class ProblemSet(TextSet):
    """Problems as a running text, and as prompts. Subclasses say where they come from."""

    Options: ClassVar[type[TextOptions]] = ProblemOptions
    options: ProblemOptions

    @abstractmethod
    def problems(self, origin: Origin) -> dict[str, list[Problem]]:
        """Return the problems of each split."""

    def texts(self, origin: Origin) -> dict[str, bytes]:
        return {part: "".join(map(str, found)).encode() for part, found in self.problems(origin).items()}

    def prompt_length(self) -> int | None:
        return None

    def prompts(self, splits: TextSplits, count: int, seed: int) -> list[Prompt]:
        """Return questions of the test split behind ``shots`` solved ones, each in its tokenizer's own form.

        Args:
            splits: as loaded; not looked at
            count: how many, at most
            seed: which questions, and which solved ones before each

        Returns:
            Prompts with answers.
        """
        import torch

        from sparselab.inputs.data.prompts import Prompt

        found = self.problems(self.origin())
        tokenizer = self.tokenizer()
        tokenizer.learn(self.texts(self.origin())["train"])
        prompts = []
        for number in generator("prompts", seed).permutation(len(found["test"]))[:count]:
            shots = generator("shots", seed, number).permutation(len(found["train"]))[: self.options.shots]
            problem = found["test"][number]
            text = "".join(str(found["train"][shot]) for shot in shots) + problem.asked
            prompts.append(Prompt(torch.tensor(tokenizer.begun(text)), answer_of(problem.solution)))
        return prompts

    def answer(self, text: str) -> str | None:
        return answer_of(text.split("Question:")[0])


@DATASETS.register("gsm8k")
class GSM8K(ProblemSet):
    """Grade-school maths problems with worked answers (Cobbe et al. 2021): 7,473 to learn from, 1,319 to test.

    Local: ``text/gsm8k/{train,test}.jsonl``; else the hub's. The first nineteen twentieths of the train file are train, the
    rest is val. Solutions keep their calculator marks, ``<<48/2=24>>24``.
    """

    repo = "openai/gsm8k"
    layout = "text/gsm8k/{train,test}.jsonl"

    def origin(self) -> Origin:
        folder = self.local("text/gsm8k", "gsm8k")
        if folder is None:
            hub.check(self.repo, self.where, self.layout)
            return Origin("hub", files.listing_hash([(self.repo, 0)]), {})
        paths = [folder / f"{name}.jsonl" for name in ("train", "test")]
        for path in paths:
            files.check_file(path, self.where)
        digest = files.content_hash(paths)
        local = Origin("local", digest, {}, folder)
        sizes = once(("bytes of problems", digest), lambda: {p: len(t) for p, t in self.texts(local).items()})
        return Origin("local", digest, sizes, folder)

    def problems(self, origin: Origin) -> dict[str, list[Problem]]:
        given = {name: self._read(origin.folder, name) for name in ("train", "test")}
        first = len(given["train"]) * 19 // 20
        return {"train": given["train"][:first], "val": given["train"][first:], "test": given["test"]}

    def _read(self, folder: Path | None, name: str) -> list[Problem]:
        if folder is None:
            rows = hub.load(self.repo, name, self.where, self.layout, config="main")
            return [Problem(row["question"], row["answer"]) for row in rows]
        path = folder / f"{name}.jsonl"
        try:
            lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
            return [Problem(str(line["question"]), str(line["answer"])) for line in lines]
        except (ValueError, KeyError, TypeError):
            refuse(self.where, f"{files.short(path)} holds a line that is no problem", "copy the file again")


class ArithmeticOptions(ProblemOptions):
    """Options of generated arithmetic."""

    problems: int = Field(ge=100, description="problems of the train split, at least 100")
    steps: int = Field(ge=1, description="sums and differences of a problem, at least 1")
    largest: int = Field(ge=1, description="the largest number of a question, at least 1")
    draw: int = Field(ge=0, description="which problems, a whole number, at least 0")


@DATASETS.register("arithmetic")
class Arithmetic(ProblemSet):
    """Sums and differences of whole numbers, worked out step by step: ``17+25-9`` is ``17+25=42, 42-9=33 #### 33``.

    Generated, and the same for the same ``draw``; no question is in two splits. Val has a twentieth of the number of problems
    that train has, test 1,000.
    """

    Options = ArithmeticOptions
    options: ArithmeticOptions

    def origin(self) -> Origin:
        self.given_folder()
        o = self.options
        mark = f"arithmetic, {o.problems} of {o.steps} steps up to {o.largest}, {o.draw}"
        origin = Origin("bundled", files.listing_hash([(mark, 1)]), {})
        sizes = once(("bytes of", mark), lambda: {part: len(text) for part, text in self.texts(origin).items()})
        return Origin(origin.kind, origin.fingerprint, sizes)

    def problems(self, origin: Origin) -> dict[str, list[Problem]]:
        return once(("problems", origin.fingerprint), self._made)

    def _made(self) -> dict[str, list[Problem]]:
        o, made = self.options, generator("arithmetic", self.options.draw)
        sizes = dict(zip(PARTS, (o.problems, o.problems // 20, 1000), strict=True))
        total, found = sum(sizes.values()), dict[str, Problem]()
        for _ in range(20):
            numbers = made.integers(0, o.largest + 1, (total, o.steps + 1))
            signs = made.integers(0, 2, (total, o.steps))
            for row, sign in zip(numbers.tolist(), signs.tolist(), strict=True):
                problem = worked(row, ["+-"[one] for one in sign])
                found.setdefault(problem.question, problem)
            if len(found) >= total:
                break
        else:
            fix = "write a smaller dataset.problems, or a larger dataset.largest"
            refuse(f"dataset.problems={o.problems}", f"there are hardly {len(found):,} different ones", fix)
        rest = iter(found.values())
        return {part: [next(rest) for _ in range(size)] for part, size in sizes.items()}


def worked(numbers: list[int], signs: list[str]) -> Problem:
    """Make a problem of numbers and the signs between them."""
    question, value, steps = str(numbers[0]), numbers[0], []
    for number, sign in zip(numbers[1:], signs, strict=True):
        after = value + number if sign == "+" else value - number
        question += f"{sign}{number}"
        steps.append(f"{value}{sign}{number}={after}")
        value = after
    return Problem(question, f"{', '.join(steps)} #### {value}")
