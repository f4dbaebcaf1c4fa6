"""Sets of problems: text, prompts and answers."""

from __future__ import annotations

import json
import re

import pytest

from sparselab.core.errors import ConfigError
from sparselab.inputs.data.dataset import DATASETS
from sparselab.inputs.data.sets.problems import Problem, answer_of, worked


@pytest.fixture
def school(tmp_path):
    """A folder of local copies with forty problems to learn from and five to test."""
    folder = tmp_path / "text" / "gsm8k"
    folder.mkdir(parents=True)
    for name, count in (("train", 40), ("test", 5)):
        lines = [{"question": f"{name} {i}?", "answer": f"{i}+1,000=<<{i}+1000={i + 1000}>>.\n#### {i + 1000:,}"}
                 for i in range(count)]  # fmt: skip
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    return tmp_path


def dataset(name, folder=None, **options):
    cls = DATASETS[name]
    return cls(cls.Options(tokenizer="bytes", **options), None if folder is None else str(folder))


def spoken(prompt):
    return bytes(prompt.tokens.tolist()).decode()


@pytest.mark.parametrize(
    ("text", "answer"),
    [("so\n#### 72", "72"), ("#### -1,234.5 and #### 3", "-1234.5"), ("#### $80", "80"), ("72", None), ("####", None)],
)
def test_the_answer_of_a_solution(text, answer):
    assert answer_of(text) == answer


def test_gsm8k_is_a_text_and_prompts_with_answers(school):
    data = dataset("gsm8k", school, block=16, shots=2)
    spec, splits = data.spec(), data.load()
    assert (len(data.problems(data.origin())["train"]), len(data.problems(data.origin())["val"])) == (38, 2)
    text = bytes(splits.test.tolist()).decode()
    assert text.startswith("Question: test 0?\nAnswer: 0+1,000=<<0+1000=1000>>.\n#### 1,000\n\nQuestion: test 1?")
    assert spec.test == -(-(len(text) - 1) // 16) and spec.source == "local" and data.prompt_length() is None
    prompts = data.prompts(splits, 3, seed=0)
    assert [spoken(p) for p in prompts] == [spoken(p) for p in data.prompts(splits, 5, seed=0)[:3]]
    assert [spoken(p) for p in prompts] != [spoken(p) for p in data.prompts(splits, 3, seed=1)]
    for prompt in data.prompts(splits, 50, seed=0):
        words = spoken(prompt)
        assert words.count("Question: train") == 2 and words.count("Question: test") == 1 and words.endswith("Answer:")
        assert prompt.answer == str(1000 + int(words.rpartition("test ")[2].partition("?")[0]))
    assert len(data.prompts(splits, 50, seed=0)) == 5
    assert data.answer(" 5.\n#### 1,003\n\nQuestion: x\nAnswer: #### 4") == "1003"
    assert data.answer(" 5.\n\nQuestion: x\nAnswer: #### 4") is None


def test_a_damaged_file_is_refused(school):
    (school / "text" / "gsm8k" / "test.jsonl").write_text('{"question": "q"}\n')
    with pytest.raises(ConfigError, match="holds a line that is no problem"):
        dataset("gsm8k", school).spec()


def test_arithmetic_is_worked_and_its_splits_are_disjoint():
    assert worked([17, 25, 9], ["+", "-"]) == Problem("17+25-9", "17+25=42, 42-9=33 #### 33")
    data = dataset("arithmetic", block=16, problems=200)
    found = data.problems(data.origin())
    assert {part: len(problems) for part, problems in found.items()} == {"train": 200, "val": 10, "test": 1000}
    questions = [problem.question for problems in found.values() for problem in problems]
    assert len(set(questions)) == len(questions)
    for problem in found["test"][:50]:
        assert answer_of(problem.solution) == str(sum(map(int, re.findall(r"[+-]?\d+", problem.question))))
    assert data.spec().fingerprint != dataset("arithmetic", block=16, problems=200, draw=1).spec().fingerprint
    with pytest.raises(ConfigError, match=r"dataset\.problems=200: there are hardly"):
        dataset("arithmetic", problems=200, steps=1, largest=3).spec()


def test_a_running_text_gives_windows_as_prompts():
    cls = DATASETS["stdlib"]
    data = cls(cls.Options(block=16, max_bytes=100_000))
    splits = data.load()
    prompts = data.prompts(splits, 4, seed=3)
    assert [len(p.tokens) for p in prompts] == [16] * 4 and prompts[0].answer is None and data.prompt_length() == 16
