"""A text is cut by the model's own tokenizer, another one is refused, and the tokenizer goes with the network."""

from __future__ import annotations

import shutil

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from sparselab.core.errors import ConfigError
from sparselab.inputs.data.sets.text import Stdlib
from sparselab.running.planning import plan_of
from sparselab.running.run_cell import run_cell
from sparselab.storage import record as records
from sparselab.training.describe import facts
from sparselab.training.merges.merge import MERGES

WORDS = ["[UNK]", "def", "return", "import", "self", "if"]
TEXT = [
    "dataset=stdlib", "dataset.max_bytes=60000", "dataset.block=16", "trainer.max_epochs=null", "trainer.max_steps=0",
    "trainer.batch_size=8", "trainer.precision=32", "trainer.threads=1", "trainer.progress=none", "trainer.evals=0",
]  # fmt: skip


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """A model of six words below the folder of local copies, and another tokenizer beside it."""
    monkeypatch.setenv("SPARSELAB_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(WORDS), bos_token_id=None, eos_token_id=None, **sizes))
    model.save_pretrained(tmp_path / "data" / "weights" / "own")
    for name, words in (("own", WORDS), ("other", WORDS[::-1])):
        made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
        made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]").save_pretrained(
            tmp_path / "data" / "weights" / name
        )
    return tmp_path / "data" / "weights"


def planned(*overrides, model="weights/own"):
    return plan_of(["method=dense", "model=hf", f"model.path={model}", *TEXT, *overrides])


def issue(*overrides, **more):
    with pytest.raises(ConfigError) as refused:
        planned(*overrides, **more)
    (line,) = map(str, refused.value.issues)
    return line


def test_the_model_s_own_tokenizer_is_the_default(folders):
    plan = planned()
    assert plan.config["dataset"]["tokenizer"] == "weights/own" and plan.parts.data.classes == len(WORDS)
    assert plan.id == planned("dataset.tokenizer=weights/own").id == planned(f"dataset.tokenizer={folders}/own").id
    assert plan.id == planned(model=folders / "own").id
    assert planned("dataset.tokenizer=auto").id == plan.id
    frozen = plan_of(["engine=inference", "model=hf", "model.path=weights/own", *TEXT[:3]])
    assert frozen.config["dataset"]["tokenizer"] == "weights/own"
    absolute = ["engine=inference", "model=hf", f"model.path={folders}/own", *TEXT[:3]]
    assert str(folders) not in str(plan_of(absolute).identity)


def test_models_without_one_read_bytes_and_keep_their_ids():
    bare = ["method=dense", "model=llama_tiny", *TEXT]
    assert plan_of(bare).config["dataset"]["tokenizer"] == "bytes"
    assert plan_of(bare).id == plan_of([*bare, "dataset.tokenizer=bytes"]).id


def counted():
    """Windows of 16 predictions a split, where a token is a word between spaces."""
    stdlib = Stdlib(Stdlib.Options(max_bytes=60_000))
    words = {part: len(text.decode(errors="replace").split()) for part, text in stdlib.texts(stdlib.origin()).items()}
    return {part: -(-(count - 1) // 16) for part, count in words.items()}


def test_sizes_that_only_reading_tells_are_not_said_to_be_zero(folders):
    plan = planned()
    assert not plan.parts.data.known
    assert dict(facts(plan, "32"))["data"] == "stdlib: sizes are known once the text is read (bundled)"
    frozen = plan_of(["engine=inference", "model=hf", "model.path=weights/own", *TEXT[:3]])
    assert dict(frozen.facts)["data"] == "stdlib: test windows of 16 tokens (bundled)"
    assert issue("trainer.max_epochs=1") == (
        "trainer.max_epochs=1: the length of stdlib is known once it is read — "
        "write trainer.max_epochs=null trainer.max_steps=…"
    )
    assert MERGES["greedy"](MERGES["greedy"].Options()).issues(plan.parts.data) == []


@pytest.mark.parametrize("other", ["bytes", "words", "weights/other"])
def test_another_tokenizer_is_refused_unless_asked_for(folders, other):
    line = issue(f"dataset.tokenizer={other}")
    assert line == (
        f"dataset.tokenizer={other}: is not the tokenizer of model.path=weights/own"
        " — write dataset.tokenizer=auto, or model.tokenizer=any"
    )
    if other == "weights/other":
        asked = planned(f"dataset.tokenizer={other}", "model.tokenizer=any")
        assert asked.config["dataset"]["tokenizer"] == other and asked.id != planned().id


def test_a_copy_of_the_same_tokenizer_is_the_same(folders):
    shutil.copytree(folders / "own", folders / "copy")
    assert planned("dataset.tokenizer=weights/copy").parts.data.classes == len(WORDS)


def test_a_model_without_a_tokenizer_whose_tokens_are_no_bytes_is_refused(folders):
    for path in folders.glob("own/tokenizer*"):
        path.unlink()
    assert issue() == (
        "model.path=weights/own: knows 6 tokens, and its folder has no tokenizer to say which"
        " — put its tokenizer there, or write dataset.tokenizer=…"
    )
    assert planned("dataset.tokenizer=weights/other").parts.data.classes == len(WORDS)


def test_the_tokenizer_is_exported_with_the_network(folders):
    plan = planned("runs_dir=runs")
    assert run_cell(plan) == 0
    record = records.read(plan.folder, plan.id)
    assert "tokenizer.json" in record["files"]
    assert record["data"] | counted() == record["data"], "what only reading the text tells"
    text = "def self return"
    found, own = (AutoTokenizer.from_pretrained(folder)(text)["input_ids"] for folder in (plan.folder, folders / "own"))
    assert found == own == [1, 4, 2]
    again = planned(model=plan.folder)
    assert again.config["dataset"]["tokenizer"] == plan.folder and again.parts.data.classes == len(WORDS)
