"""Specs of networks that only building tells: the same from the meta device and from the cache."""

from __future__ import annotations

import contextlib

import pytest
import torch

from sparselab.core import cache_folder
from sparselab.core.data_spec import DataSpec
from sparselab.core.data_types import Classes, Images
from sparselab.inputs.models.families.timm_model import TimmModel
from sparselab.inputs.models.trace import traced
from sparselab.inputs.models.traced_spec import traced_spec

DATA = DataSpec("pictures", Images(3, 32, 32), Classes(7), 8, 8, 8, "", "local")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARSELAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def family(arch: str, **options: object) -> TimmModel:
    return TimmModel(TimmModel.Options(arch=arch, **options))


@pytest.mark.parametrize("arch", ["test_vit", "test_resnet", "test_convnext", "test_efficientnet", "test_mambaout"])
def test_no_number_is_needed(arch: str):
    """A network of meta tensors has the layers and the costs of the real one; it is kept, and read as it was."""
    one = family(arch)
    real = traced(one, one.network(DATA), DATA)
    assert traced_spec(one, DATA) == real
    assert traced_spec(one, DATA) == real, "from the cache"


def test_a_network_that_looks_at_its_numbers_is_built(monkeypatch):
    make, devices = TimmModel.make, []

    def looking(self: TimmModel, data: DataSpec) -> torch.nn.Module:
        network = make(self, data)
        devices.append(next(network.parameters()).device.type)
        float(next(network.parameters()).sum())
        return network

    monkeypatch.setattr(TimmModel, "make", looking)
    assert traced_spec(family("test_vit"), DATA) is not None
    assert devices == ["meta", "cpu"]


def test_what_is_kept_is_of_this_network_alone(cache):
    kept = cache / "model_specs"
    assert traced_spec(family("test_vit"), DATA) != traced_spec(family("test_resnet"), DATA)
    wider = DataSpec("pictures", Images(1, 32, 32), Classes(7), 8, 8, 8, "", "local")
    traced_spec(family("test_vit"), wider)
    assert len(list(kept.iterdir())) == 3
    again = traced_spec(family("test_vit"), DataSpec("others", DATA.inputs, DATA.targets, 5, 5, 5, "x", "hub"))
    assert again == traced_spec(family("test_vit"), DATA) and len(list(kept.iterdir())) == 3, (
        "names and sizes do not count"
    )


@pytest.mark.parametrize("spoil", [lambda text: text[:-9], lambda text: text.replace("test", "tset"), lambda text: ""])
def test_a_damaged_copy_is_made_again(cache, spoil):
    first = traced_spec(family("test_vit"), DATA)
    (path,) = (cache / "model_specs").iterdir()
    path.write_text(spoil(path.read_text()))
    assert traced_spec(family("test_vit"), DATA) == first
    with contextlib.suppress(ValueError):
        assert cache_folder.read(path.relative_to(cache)) is not None


def test_a_folder_that_cannot_be_written_costs_time_alone(cache):
    cache.write_text("no folder")
    assert traced_spec(family("test_vit"), DATA) == traced_spec(family("test_vit"), DATA)
