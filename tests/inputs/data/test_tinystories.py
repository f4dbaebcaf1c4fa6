"""TinyStories as a local file, and a tokenizer that lies below the folder of local copies."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from sparselab.core.errors import ConfigError
from sparselab.inputs.data.dataset import DATASETS

STORY = "One day a cat saw a dog. "


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "tinystories_200kb.txt").write_text(STORY * 40)
    words = {word: i for i, word in enumerate(dict.fromkeys(["[UNK]", *STORY.split()]))}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    (tmp_path / "weights" / "words").mkdir(parents=True)
    tokenizer.save(str(tmp_path / "weights" / "words" / "tokenizer.json"))
    return tmp_path


def stories(folder, **options):
    cls = DATASETS["tinystories"]
    return cls(cls.Options(**options), str(folder))


def test_half_to_calibrate_a_tenth_and_the_rest_to_test(folder):
    member = stories(folder, block=8)
    splits, spec = member.load(), member.spec()
    assert [len(x) for x in (splits.train, splits.val, splits.test)] == [500, 100, 400]
    whole = b"".join(bytes(x.tolist()) for x in (splits.train, splits.val, splits.test))
    assert whole.decode() == STORY * 40
    assert spec.source == "local" and spec.test == 50


def test_a_tokenizer_is_found_below_the_data_folder(folder, tmp_path_factory):
    member = stories(folder, block=4, tokenizer="weights/words")
    assert member.spec().classes == 7
    assert (
        member.spec().fingerprint
        == stories(folder, block=4, tokenizer=str(folder / "weights/words")).spec().fingerprint
    )
    with pytest.raises(ConfigError, match="weights/none"):
        stories(folder, block=4, tokenizer="./weights/none").spec()
