"""TinyStories as a local file, and a tokenizer that lies below the folder of local copies."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from sparselab.data.dataset import DATASETS
from sparselab.spec.faults import Refused

STORY = "One day a cat saw a dog. "
TALES = [f"Once upon a time there was {i}.\n\nOne day {i} slept.\n\nThe end." for i in range(20)]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "tinystories.txt").write_text(STORY * 40)
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
    member = stories(folder, block=8, format="plain")
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
    with pytest.raises(Refused, match="weights/none"):
        stories(folder, block=4, tokenizer="./weights/none").spec()


def test_stories_are_read_as_a_checkpoint_reads_them(folder):
    """The token that begins a text before each, one newline between paragraphs; splits end between stories."""
    (folder / "text" / "tinystories.txt").write_text("\n\n".join(TALES))
    plain = stories(folder, block=8)
    text = [bytes(x.tolist()).decode() for x in (plain.load().train, plain.load().val, plain.load().test)]
    joined = [tale.replace("\n\n", "\n") for tale in TALES]
    assert "\n\n".join(text) == "\n\n".join(joined)
    assert [part.count("Once") for part in text] == [10, 2, 8]
    assert plain.spec().test == -(-(len(text[2]) - 1) // 8)

    words = {word: i for i, word in enumerate(dict.fromkeys(["<s>", "[UNK]", *" ".join(TALES).split()]))}
    made = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    (folder / "weights" / "bos").mkdir()
    PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>").save_pretrained(folder / "weights" / "bos")
    tokens = stories(folder, block=4, tokenizer="weights/bos").load().test.tolist()
    starts = [i for i, token in enumerate(tokens) if token == words["<s>"]]
    assert starts[0] == 0 and len(starts) == 8
    assert tokens[: starts[1]] == [words["<s>"], *(words[word] for word in TALES[12].split())]


def test_the_checkpoint_scores_its_own_stories_better_in_its_own_format():
    """Nats a token: 1.60 with the first token and single newlines, 1.70 as the text lies, 1.83 while quotes were broken."""
    folder = Path(os.environ.get("SPARSELAB_DATA", "none"), "weights", "stories260k")
    if not folder.is_dir():
        pytest.skip("no stories260k in SPARSELAB_DATA")
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    found = {}
    for form in ("stories", "plain"):
        cls = DATASETS["tinystories"]
        tokens = cls(cls.Options(format=form, tokenizer=str(folder))).load().test[: 12 * 256 + 1].long()
        with torch.no_grad():
            logits = model(input_ids=tokens[:-1].view(12, 256)).logits
        found[form] = float(F.cross_entropy(logits.flatten(0, 1), tokens[1:]))
    assert found["stories"] < found["plain"] - 0.05 and found["stories"] < 1.7
