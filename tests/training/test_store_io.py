from __future__ import annotations

import pytest
import torch

from sparselab.storage.checkpoints import Checkpoints
from sparselab.training.loop.store_io import StoreIO, bit_facts, difference

torch.set_num_threads(1)


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
    assert difference(facts | {"threads": 4, "devices": 1}, facts) == (
        "resumed elsewhere (threads 4 then, 1 now; devices 1 then, 2 now): the result may differ in its last bits"
    )
