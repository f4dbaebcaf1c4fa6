from __future__ import annotations

import pytest
import torch

from sparselab.core.processor import instructions
from sparselab.storage.checkpoints import Checkpoint, Checkpoints
from sparselab.training.loop.store_io import StoreIO, bit_facts, difference, resumed


def test_what_is_saved_is_loaded_once_verified(tmp_path):
    store = Checkpoints(tmp_path, "0123456789ab")
    out = StoreIO(store, None)
    out.facts = {"threads": 1}
    out.save_checkpoint({"global_step": 7, "x": torch.ones(2)}, "any name")
    found = store.load_latest()
    assert (found.step, found.facts) == (7, {"threads": 1})
    assert StoreIO(store, found).load_checkpoint("any name") is found.state
    with pytest.raises(FileNotFoundError):
        out.load_checkpoint("any name")


def test_facts_that_decide_bits():
    facts = bit_facts(2, torch.device("cpu"))
    assert facts["threads"] == 1 and facts["devices"] == 2 and facts["torch"] == torch.__version__
    assert difference(facts, facts) == "" and difference({}, facts) == ""
    assert facts["instructions"] == instructions() != ""
    assert difference(facts | {"threads": 4, "devices": 1}, facts) == "threads 4 then, 1 now; devices 1 then, 2 now"


def test_what_was_different_once_is_not_forgotten_at_the_next_resume(tmp_path):
    def at(**facts):
        return Checkpoint(tmp_path, 3, {}, facts)

    assert resumed(None, {"instructions": "AVX2"}) == ({"instructions": "AVX2"}, "")
    assert resumed(at(instructions="AVX2"), {"instructions": "AVX2"}) == ({"instructions": "AVX2"}, "")
    assert resumed(at(), {"instructions": "AVX2"}) == ({"instructions": "AVX2"}, "")  # of an older sparselab
    facts, line = resumed(at(instructions="AMX_BF16"), {"instructions": "AVX2"})
    assert facts == {"instructions": "AVX2", "elsewhere": "instructions AMX_BF16 then, AVX2 now"}
    assert line.startswith("resumed elsewhere (instructions AMX_BF16 then, AVX2 now): ")
    again, silent = resumed(at(**facts), {"instructions": "AVX2"})
    assert again == facts and silent == ""
    back, line = resumed(at(**facts), {"instructions": "AMX_BF16"})
    assert back["elsewhere"] == "instructions AMX_BF16 then, AVX2 now; instructions AVX2 then, AMX_BF16 now" and line
