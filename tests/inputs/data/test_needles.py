"""Source text with needles: records, prompts, and windows that begin where records do."""

from __future__ import annotations

import re

import numpy as np
import pytest

from sparselab.core.errors import ConfigError
from sparselab.inputs.data.dataset import DATASETS

SMALL = {"max_bytes": 200_000, "records": 100, "block": 96, "pairs": 3, "asked": 16, "tokenizer": "bytes"}


def needles(**options):
    cls = DATASETS["needles"]
    return cls(cls.Options(**{**SMALL, **options}), None)


def test_a_record_has_every_key_twice_with_one_value():
    data = needles()
    for record in data.records(data.origin())["test"]:
        lines = re.findall(rb"#([A-Z])=(\d{4})\n", record.text)
        assert len(record.text) == 96 and len(lines) >= 6
        own = lines[-3:]
        assert sorted(own) == sorted(set(own)) and all(lines.count(line) >= 2 for line in own)
        assert own[-1][1].decode() == record.value


def test_prompts_end_behind_a_key_whose_value_they_hold():
    data = needles()
    prompts = data.prompts(data.load(), 20, seed=0)
    for prompt in prompts:
        text = bytes(prompt.tokens.tolist())
        assert len(text) == 80 == data.prompt_length()
        key = re.search(rb"#([A-Z])=$", text)
        assert f"#{key[1].decode()}={prompt.answer}\n".encode() in text
        assert data.answer(f"{prompt.answer}\nimport") == prompt.answer
    assert [p.answer for p in prompts[:5]] == [p.answer for p in data.prompts(data.load(), 5, seed=0)]
    assert [p.answer for p in prompts] != [p.answer for p in data.prompts(data.load(), 20, seed=1)]


def test_as_many_records_are_plain_as_asked_and_none_of_test():
    data = needles(records=400, share=0.25)
    found = data.records(data.origin())
    assert sum(record.value != "" for record in found["train"]) == pytest.approx(100, abs=30)
    assert all(record.value for record in found["test"]) and len(found["val"]) == 20
    assert needles(draw=1).spec().fingerprint != needles().spec().fingerprint == needles().spec().fingerprint


def test_windows_of_training_are_records_each_once_an_epoch():
    data = needles()
    spec, splits = data.spec(), data.load()
    assert (spec.train, spec.val, spec.test) == (100, 5, 1000)
    rows = splits.loader("train", 10, 0).source.rows(np.random.default_rng(0))
    assert sorted(rows.tolist()) == [96 * number for number in range(100)] and rows.tolist() != sorted(rows.tolist())


@pytest.mark.parametrize(
    ("options", "words"),
    [({"block": 56}, "write at least 59"), ({"asked": 4}, "write at least 5"), ({"tokenizer": "characters"}, "tokenizer=bytes"),
     ({"windows": "streams"}, "dataset.windows=drawn")],
)  # fmt: skip
def test_what_leaves_no_room_is_refused(options, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        needles(**options).spec()
