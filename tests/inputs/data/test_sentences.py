"""Sentences and pairs as numbers: cut, padded, told apart; and the sets that have them."""

from __future__ import annotations

import json

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from sparselab.core.data_types import Classes, Sentences
from sparselab.core.errors import ConfigError
from sparselab.inputs.data.dataset import DATASETS
from sparselab.inputs.data.tokens import Library, packed, tokenizer_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Local copies: rte of the published size, whose label is that of its first word; and a tokenizer of five words."""
    root = tmp_path_factory.mktemp("data")
    (root / "glue" / "rte").mkdir(parents=True)
    for part, size in (("train", 2490), ("validation", 277)):
        labels = [i % 2 for i in range(size)]
        table = {"sentence1": [("good", "bad")[x] for x in labels], "sentence2": ["a b"] * size, "label": labels}
        pyarrow.parquet.write_table(pyarrow.table(table), root / "glue" / "rte" / f"{part}.parquet")
    (root / "words").mkdir()
    made = Tokenizer(models.WordLevel({"<unk>": 0, "good": 1, "bad": 2, "a": 3, "b": 4, "<pad>": 5}, "<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.save(str(root / "words" / "tokenizer.json"))
    told = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>", "pad_token": "<pad>"}
    (root / "words" / "tokenizer_config.json").write_text(json.dumps(told))
    return root


def glue(folder, **options):
    cls = DATASETS["glue"]
    return cls(cls.Options(**{"subset": "rte", "tokenizer": "bytes", **options}), str(folder))


def test_rows_are_cut_and_padded_at_the_end():
    made = packed([([7, 8, 9], [0, 0, 1]), ([5], [0]), ([], [])], 2, 4)
    assert made.dtype == np.int32
    assert made.tolist() == [[[7, 8], [1, 1], [0, 0]], [[5, 4], [1, 0], [0, 0]], [[4, 4], [1, 0], [0, 0]]]


def test_bytes_of_a_pair_are_told_apart():
    made = tokenizer_of("bytes").encode_pairs(["ab"], ["c"], 6)
    assert made[0].tolist() == [[97, 98, 10, 99, 0, 0], [1, 1, 1, 1, 0, 0], [0, 0, 0, 1, 0, 0]]
    assert tokenizer_of("bytes").encode_pairs(["ab"], None, 3)[0, 0].tolist() == [97, 98, 0]


def test_a_library_s_tokenizer_says_its_own_padding(folder):
    tokenizer = tokenizer_of(str(folder / "words"))
    assert isinstance(tokenizer, Library) and tokenizer.padding == 5
    assert tokenizer.encode_pairs(["good a", "bad"], None, 3)[:, 0].tolist() == [[1, 3, 5], [2, 5, 5]]
    assert tokenizer.encode_pairs(["good"], ["a b"], 4)[0, 0].tolist() == [1, 3, 4, 5]
    assert tokenizer.encode_pairs([], [], 4).shape == tokenizer.encode_pairs([], None, 4).shape == (0, 3, 4)


@pytest.mark.parametrize(("told", "number"), [({"eos_token": "b"}, 4), ({"unk_token": {"content": "<unk>"}}, 0)])
def test_without_a_padding_token_another_one_stands_there(folder, tmp_path, told, number):
    (tmp_path / "tokenizer.json").write_bytes((folder / "words" / "tokenizer.json").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **told}))
    assert tokenizer_of(str(tmp_path)).padding == number


def test_glue_is_what_it_announces(folder):
    dataset = glue(folder, block=8, val=10, limit_train=40, limit_test=20)
    spec, splits = dataset.spec(), dataset.load()
    assert (spec.inputs, spec.targets, spec.title) == (Sentences(8, 256, 0), Classes(2), "glue-rte")
    assert (spec.train, spec.val, spec.test) == (40, 10, 20) == tuple(len(splits.parts[p][1]) for p in splits.parts)
    inputs, labels = next(iter(splits.loader("train", 40, 0)))
    assert inputs.shape == (40, 3, 8) and inputs.dtype == labels.dtype == torch.int64
    assert (inputs[:, 0, 0] == torch.where(labels == 0, ord("g"), ord("b"))).all() and labels.bincount().tolist() == [
        20,
        20,
    ]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"tokenizer": "words"}, "dataset.tokenizer=words: is for running text"),
        ({"val": 2490}, "dataset.val=2490: glue-rte has 2490 training sentences"),
        ({"subset": "sst2"}, "dataset=glue: no local copy"),
    ],
)
def test_what_does_not_fit_is_one_line(folder, monkeypatch, options, line):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConfigError) as refused:
        glue(folder, **options).spec()
    (issue,) = refused.value.issues
    assert str(issue).startswith(line)


def test_a_part_of_a_set_is_refused(folder, monkeypatch):
    monkeypatch.setitem(DATASETS["glue"].rows, "rte", (2491, 277))
    with pytest.raises(ConfigError, match="a file has 2,490 sentences, not 2,491"):
        glue(folder).load()
