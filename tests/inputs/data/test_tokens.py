"""Closed vocabularies: what their tokens are, and that plan and load agree on how many there are."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparselab.core.errors import ConfigError
from sparselab.inputs.data import hub
from sparselab.inputs.data.sets.text import PARTS, PennTreebank, TinyShakespeare, Wikitext2
from sparselab.inputs.data.tokens import CHARACTERS, END, UNKNOWN, WORDS, Closed, tokenizer_of

TRAIN = " = one = \n \n two one <unk>\n"
TEST = "one three\ntwo"


def learnt(unit: str, train: str) -> Closed:
    tokenizer = Closed(unit)
    tokenizer.learn(train.encode())
    return tokenizer


def test_words_are_what_white_space_separates_and_a_line_ends_in_eos():
    tokenizer = learnt(WORDS, TRAIN)
    assert list(tokenizer.numbers) == ["=", "one", END, "two", UNKNOWN]
    assert tokenizer.encode(TRAIN.encode()).tolist() == [0, 1, 0, 2, 2, 3, 1, 4, 2]
    assert tokenizer.encode(TEST.encode()).tolist() == [1, 4, 2, 3]  # "three" is unknown, the last line has no end


def test_unknown_is_a_token_where_the_train_split_has_none():
    tokenizer = learnt(CHARACTERS, "abba\n")
    assert list(tokenizer.numbers) == ["a", "b", "\n", UNKNOWN] and tokenizer.vocabulary() == 4
    assert tokenizer.encode("bcé\n".encode()).tolist() == [1, 3, 3, 2]


@given(st.text(), st.text())
def test_every_token_has_a_row_and_the_train_split_no_unknown_ones(train, other):
    tokenizer = learnt(CHARACTERS, train)
    for text in (train, other):
        numbers = tokenizer.encode(text.encode())
        assert len(numbers) == len(text.encode().decode())
        assert not len(numbers) or numbers.max() < tokenizer.vocabulary()
    back = list(tokenizer.numbers)
    assert "".join(back[number] for number in tokenizer.encode(train.encode())) == train


@pytest.mark.parametrize(("size", "dtype"), [(255, torch.uint8), (256, torch.int32)])
def test_small_vocabularies_are_bytes(size, dtype):
    tokenizer = learnt(CHARACTERS, "".join(map(chr, range(1000, 1000 + size))))
    assert tokenizer.vocabulary() == size + 1
    assert torch.from_numpy(tokenizer.encode(b"x")).dtype == dtype


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "text" / "wikitext2").mkdir(parents=True)
    (tmp_path / "text" / "tinyshakespeare.txt").write_text("To be, or not to be\n" * 40)
    for name, text in {"train": TRAIN * 5, "valid": TRAIN * 2, "test": TEST * 3}.items():
        (tmp_path / "text" / "wikitext2" / f"{name}.txt").write_text(text)
    return tmp_path


@pytest.mark.parametrize("windows", ["drawn", "streams"])
@pytest.mark.parametrize(("cls", "unit", "classes"), [(TinyShakespeare, CHARACTERS, 11), (Wikitext2, WORDS, 5)])
def test_plan_and_load_agree(folder, cls, unit, classes, windows):
    made = cls(cls.Options(tokenizer=unit, block=4, windows=windows), str(folder))
    spec, splits = made.spec(), made.load()
    assert spec.classes == splits.vocab == classes
    assert (spec.inputs.ordered, splits.streams) == ((windows == "streams"),) * 2
    for part in PARTS:
        tokens = getattr(splits, part)
        assert int(tokens.max()) < classes
        train = part == "train" and windows == "streams"
        assert getattr(spec, part) == len(splits.loader(part, 1, seed=0, train=train))
    other = cls(cls.Options(block=4), str(folder))
    assert spec.fingerprint != other.spec().fingerprint and splits.content != other.load().content
    assert splits.bytes_per_split == other.load().bytes_per_split


def test_a_vocabulary_is_the_train_split_s_alone(folder):
    path = folder / "text" / "wikitext2" / "test.txt"
    path.write_text("never seen before\n")
    made = Wikitext2(Wikitext2.Options(tokenizer=WORDS, block=2), str(folder))
    splits = made.load()
    assert splits.vocab == made.spec().classes == 5
    assert splits.test.tolist() == [4, 4, 4, 2]


def test_on_the_hub_words_are_the_tokenised_version_s(monkeypatch):
    """A row is a line; of empty lines the hub has kept nothing."""
    asked = []

    def load(repo, split, where, layout, config=None, revision=None):
        asked.append(config)
        return {"text": ["", " = one = \n", "", " two <unk>\n"]}

    monkeypatch.setattr(hub, "load", load)
    monkeypatch.setattr(hub, "check", lambda *arguments: None)
    monkeypatch.delenv("SPARSELAB_DATA", raising=False)
    monkeypatch.setattr(Wikitext2, "vocabularies", {WORDS: 5})
    made = Wikitext2(Wikitext2.Options(tokenizer=WORDS, block=2))
    spec, splits = made.spec(), made.load()
    assert set(asked) == {"wikitext-2-v1"} and (spec.classes, spec.title, spec.train) == (5, "wikitext2", 0)
    assert splits.train.tolist() == [0, 1, 2, 1, 0, 0, 3, 4, 0]
    monkeypatch.setattr(Wikitext2, "vocabularies", {WORDS: 33_278})
    assert made.spec().classes == 33_278
    with pytest.raises(ConfigError, match="has 5 tokens, not the 33,278 of the published one"):
        made.load()


def test_the_penn_treebank(tmp_path, monkeypatch):
    folder = tmp_path / "text" / "ptb"
    folder.mkdir(parents=True)
    lines = {"train": " a b <unk> \n b N \n", "valid": " a c \n", "test": " N a \n"}
    for name, text in lines.items():
        (folder / f"ptb.{name}.txt").write_text(text)
    here = PennTreebank(PennTreebank.Options(tokenizer=WORDS, block=2), str(tmp_path))
    spec, splits = here.spec(), here.load()
    assert (spec.classes, spec.train, spec.source) == (5, 3, "local")
    assert splits.train.tolist() == [0, 1, 2, 3, 1, 4, 3] and splits.val.tolist() == [0, 2, 3]

    rows = {split: {"sentence": [line.strip() for line in lines[name].splitlines()]}
            for split, name in (("train", "train"), ("validation", "valid"), ("test", "test"))}  # fmt: skip
    monkeypatch.setattr(hub, "load", lambda repo, split, *arguments, **more: rows[split])
    monkeypatch.setattr(hub, "check", lambda *arguments: None)
    monkeypatch.delenv("SPARSELAB_DATA", raising=False)
    there = PennTreebank(PennTreebank.Options(tokenizer=WORDS, block=2))
    assert there.spec().classes == 10_000
    monkeypatch.setattr(PennTreebank, "vocabularies", {WORDS: 5})
    assert there.load().content == splits.content


def test_what_is_announced_of_shakespeare_is_what_a_local_copy_has():
    here = TinyShakespeare(TinyShakespeare.Options(tokenizer=CHARACTERS))
    if here.local(here.layout) is None:
        pytest.skip("the text is not here")
    assert here.spec().classes == here.announced() == here.load().vocab == 66


def test_bytes_stay_bytes_and_names_are_names():
    assert tokenizer_of("bytes").mark("x") == "x" and tokenizer_of("bytes").vocabulary() == 256
    assert tokenizer_of(WORDS).mark("x") != tokenizer_of(CHARACTERS).mark("x") != "x"
    with pytest.raises(ConfigError, match="write bytes, characters, words, a tokenizer's folder"):
        tokenizer_of("./words")
