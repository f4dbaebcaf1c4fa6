"""Metrics of auto-encoders: what is spliced into a language model, scores by thresholds, and the page of features."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sparselab.inputs.data.dataset import DATASETS
from sparselab.inputs.models.family import MODELS
from sparselab.training.metrics.contexts import Contexts
from sparselab.training.metrics.feature import Context, Feature
from sparselab.training.metrics.metric import METRICS, Subject
from sparselab.training.metrics.torch_side.page import page

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    (folder / "text").mkdir()
    (folder / "text" / "tinyshakespeare.txt").write_text("To be, or not to be: that is the question.\n" * 60)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARSELAB_CACHE", str(folder / "cache"))
        cls = DATASETS["activations"]
        net, text = {"name": "gpt", "width": 8, "depth": 2, "heads": 2}, {"name": "tinyshakespeare", "block": 16}
        dataset = cls(cls.Options(model=net, text=text, layer=1), str(folder))
        return dataset.spec(), dataset.load()


def subject(loaded, network):
    spec, splits = loaded
    vectors = splits.parts["test"]
    return Subject(network, network, lambda: iter([(part, part) for part in vectors.split(32)]), spec, loaded=splits)


def autoencoder(loaded, **options):
    torch.manual_seed(0)
    cls = MODELS["autoencoder"]
    return cls(cls.Options(features=24, **options)).build(loaded[0]).eval()


class Same(torch.nn.Module):
    """Puts out what it reads."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, vectors):
        return vectors


def measured(name, subject, **options):
    return METRICS[name](METRICS[name].Options(**options)).measure(subject)


def test_the_vectors_themselves_recover_all_of_the_loss(loaded):
    found = measured("spliced", subject(loaded, Same()), tokens=64)
    assert found["recovered"] == pytest.approx(1, abs=1e-4)
    assert found["ce"] == pytest.approx(found["ce_clean"], rel=1e-5) and found["ce_zero"] != found["ce"]


def test_what_is_recovered_by_hand(loaded):
    network = autoencoder(loaded, allocation={"name": "topk", "k": 2})
    with torch.no_grad():
        found = measured("spliced", subject(loaded, network), tokens=64)
        want = loaded[1].nats("test", 64, network)
    assert found["ce"] == pytest.approx(want)
    assert found["recovered"] == pytest.approx((found["ce_zero"] - want) / (found["ce_zero"] - found["ce_clean"]))


def test_alone_is_by_thresholds_and_leaves_the_network_as_it_was(loaded):
    network = autoencoder(loaded, allocation={"name": "mutual_choice", "k": 2}, inference="batch")
    network.select.threshold.fill_(0.5)
    vectors = loaded[1].parts["test"]
    found = measured("alone", subject(loaded, network))
    with torch.no_grad():
        before = network.encoder(vectors - network.decoder.bias).relu()
        codes = before * (before >= 0.5)
        error = (network.decoder(codes) - vectors).square().sum()
    assert found["alone_l0"] == pytest.approx(float((codes > 0).sum(1).float().mean()), rel=1e-5)
    assert found["alone_fvu"] == pytest.approx(float(error / (vectors - vectors.mean(0)).square().sum()), rel=1e-4)
    assert found["alone_dead"] == pytest.approx(float((codes == 0).all(0).float().mean()))
    assert not network.select.by_threshold


def test_the_contexts_of_features_are_where_their_codes_are_largest(loaded):
    network = autoencoder(loaded, allocation={"name": "topk", "k": 2})
    one = subject(loaded, network)
    found = Contexts(Contexts.Options(features=3, contexts=2, around=3)).found(one)
    with torch.no_grad():
        codes = network.codes(loaded[1].parts["test"])
    text = bytes(loaded[1].recorder.splits.test.tolist()).decode()
    assert [f.density for f in found] == sorted((f.density for f in found), reverse=True) and len(found) == 3
    for feature in found:
        assert feature.contexts[0].code == pytest.approx(float(codes[:, feature.number].max()))
        assert feature.density == pytest.approx(float((codes[:, feature.number] > 0).float().mean()))
        for context in feature.contexts:
            assert len(context.token) == 1 and context.before + context.token + context.after in text
    assert Contexts(Contexts.Options()).measure(one) == {}


def test_a_page_has_a_line_for_each_context_and_the_png_reads_back(loaded):
    import io

    from PIL import Image

    made = [Feature(3, 0.5, (Context("to ", "be", ", or", 2.0), Context("not", "\n", "é中", 1.0))), Feature(5, 0.1, ())]
    grey = page(made)
    assert grey.dtype == np.uint8 and grey.shape[1] == 860 and grey.min() < 100 and grey.max() == 255
    assert page(made[:1]).shape[0] < grey.shape[0] and page([]).shape[0] > 0
    network = autoencoder(loaded, allocation={"name": "topk", "k": 2})
    pictures = Contexts(Contexts.Options(features=2)).pictures(subject(loaded, network))
    assert np.asarray(Image.open(io.BytesIO(pictures["contexts.png"]))).shape[1] == 860
