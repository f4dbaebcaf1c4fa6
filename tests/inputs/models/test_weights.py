"""Weights files: read without torch, compared before any copy, never unpickled."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest
import torch
from data_specs import image_data
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from sparselab.core.errors import WIDTH, ConfigError
from sparselab.core.options import validate
from sparselab.inputs.models.family import MODELS
from sparselab.inputs.models.load import load_weights
from sparselab.inputs.models.weights import Entry, read_header

IMAGE = image_data((1, 4, 4), 3)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def lines(refused: pytest.ExceptionInfo[ConfigError]) -> list[str]:
    found = [str(issue) for issue in refused.value.issues]
    assert all("\n" not in line and len(line) <= WIDTH for line in found)
    return found


def raw(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(start: int, end: int, shape: tuple[int, ...] = (2,), dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


def test_round_trip(tmp_path: Path) -> None:
    source, target = network(), network()
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.add_(1)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    load_weights(target, tmp_path / "w.safetensors")
    assert all(
        torch.equal(a, b) for a, b in zip(source.state_dict().values(), target.state_dict().values(), strict=True)
    )
    assert read_header(tmp_path / "w.safetensors")["1.num_batches_tracked"] == Entry("I64", ())


def test_every_difference_is_a_line_and_nothing_is_copied(tmp_path: Path) -> None:
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = {
        "0.weight": torch.zeros(3, 2),
        "0.bias": torch.zeros(2, dtype=torch.float64),
        "1.weight": torch.zeros(2),
        "extra": torch.zeros(1),
        "more": torch.zeros(1),
    }
    path = tmp_path / "w.safetensors"
    save_file(state, path)
    with pytest.raises(ConfigError) as refused:
        load_weights(model, path, key="w")
    assert [line.split(": ", 1)[1] for line in lines(refused)] == [
        "lacks tensor 1.bias (and 2 more) — give weights of this very network",
        "has tensor extra (and 1 more), unknown here — give weights of this very network",
        "shape of 0.weight is [3, 2], not [2, 3] — match model and dataset to the file",
        "dtype of 0.bias is F64, not F32 — convert the file",
    ]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_widens_and_a_counter_of_batches_may_be_left_out(dtype: torch.dtype, tmp_path: Path) -> None:
    """Every value of the file is one of float32; no other tensor may be left out, and doubles would be cut."""
    source, target = network(), network()
    with torch.no_grad():
        source[0].weight.mul_(1.1)
    state = {name: value.to(dtype) for name, value in source.state_dict().items() if value.is_floating_point()}
    save_file(state, tmp_path / "w.safetensors")
    target[1].num_batches_tracked.fill_(7)
    load_weights(target, tmp_path / "w.safetensors")
    assert all(torch.equal(target.state_dict()[name], value.float()) for name, value in state.items())
    assert int(target[1].num_batches_tracked) == 7
    save_file({name: value for name, value in state.items() if "var" not in name}, tmp_path / "w.safetensors")
    with pytest.raises(ConfigError, match=r"lacks tensor 1\.running_var —"):
        load_weights(target, tmp_path / "w.safetensors")


def test_values_that_are_not_finite(tmp_path: Path) -> None:
    model = network()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    state["0.weight"][1, 1] = float("nan")
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(ConfigError, match=r"tensor 0\.weight holds NaN or infinity"):
        load_weights(model, tmp_path / "w.safetensors")
    assert model[0].weight.isfinite().all()


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(4, 2)
        self.head = nn.Linear(2, 4, bias=False)
        self.head.weight = self.embed.weight


@pytest.mark.parametrize("names", [("embed.weight",), ("head.weight",), ("embed.weight", "head.weight")])
def test_tied_tensors_need_one_name(tmp_path: Path, names: tuple[str, ...]) -> None:
    save_file({name: torch.full((4, 2), 5.0) for name in names}, tmp_path / "w.safetensors")
    model = Tied()
    load_weights(model, tmp_path / "w.safetensors")
    assert model.head.weight is model.embed.weight and (model.embed.weight == 5).all()


def test_tied_tensors_that_differ(tmp_path: Path) -> None:
    save_file({"embed.weight": torch.zeros(4, 2), "head.weight": torch.ones(4, 2)}, tmp_path / "w.safetensors")
    with pytest.raises(ConfigError, match=r"embed\.weight and head\.weight differ"):
        load_weights(Tied(), tmp_path / "w.safetensors")


def test_tied_tensor_missing(tmp_path: Path) -> None:
    save_file({"other": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(ConfigError, match=r"lacks tensor embed\.weight"):
        load_weights(Tied(), tmp_path / "w.safetensors")


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt", ".PKL"])
def test_pickles_are_never_opened(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    os.mkfifo(path)  # opening it would wait for ever
    with pytest.raises(ConfigError) as refused:
        read_header(path)
    assert lines(refused)[0].endswith("a pickle can run any code and is never opened — convert to safetensors")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "not a safetensors file, or cut off in its header"),
        (b"\x80\x04.", "not a safetensors file, or cut off in its header"),
        (b"PK\x03\x04" + b"\0" * 64, "not a safetensors file, or cut off in its header"),
        (struct.pack("<Q", 200_000_000) + b"{}", "not a safetensors file, or cut off in its header"),
        (raw(b"{"), "its header is not valid JSON"),
        (raw(b"[" * 100_000), "its header is not valid JSON"),
        (raw(b"\xff\xfe"), "its header is not valid JSON"),
        (raw([1]), "its header is not a list of tensors"),
        (raw({"a": 3}), "its entry for tensor 'a' makes no sense"),
        (raw({"a": tensor(0, 8, (3,))}, b"\0" * 8), "its entry for tensor 'a' makes no sense"),
        (raw({"a": tensor(0, 8, (-2, -1))}, b"\0" * 8), "its entry for tensor 'a' makes no sense"),
        (raw({"a": tensor(0, 8, (2,), "F31")}, b"\0" * 8), "its entry for tensor 'a' makes no sense"),
        (raw({"a": tensor(0, 8, (True, 2))}, b"\0" * 8), "its entry for tensor 'a' makes no sense"),
        (raw({"a": tensor(0, 8), "b": tensor(4, 12)}, b"\0" * 12), "its tensors overlap or leave gaps"),
        (raw({"a": tensor(0, 8), "b": tensor(12, 20)}, b"\0" * 20), "its tensors overlap or leave gaps"),
        (raw({"a": tensor(0, 8)}, b"\0" * 7), "holds 7 bytes of tensors where its header promises 8"),
        (raw({"a": tensor(0, 8)}, b"\0" * 9), "holds 9 bytes of tensors where its header promises 8"),
        (
            raw(
                b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'
            ),
            "its header is not valid JSON",
        ),
    ],
)
def test_corrupt_files(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        read_header(path, key="w")
    assert lines(refused)[0].endswith(f": {problem} — give another copy of the file")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such file"):
        read_header(tmp_path / "w.safetensors")
    with pytest.raises(ConfigError, match=r"is a folder"):
        read_header(tmp_path)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 10_000), flip=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_damage_is_refused_or_harmless(tmp_path: Path, cut: int, flip: int, bit: int) -> None:
    path = tmp_path / "w.safetensors"
    save_file(network().state_dict(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: cut % len(whole)])
    with pytest.raises(ConfigError):
        load_weights(network(), path)
    damaged = bytearray(whole)
    damaged[flip % len(whole)] ^= 1 << bit
    path.write_bytes(damaged)
    try:
        load_weights(network(), path)
    except ConfigError as refused:
        assert all(len(str(issue)) <= WIDTH for issue in refused.issues)


def test_family_compares_the_header_without_building(tmp_path: Path) -> None:
    path = str(tmp_path / "w.safetensors")
    schema = MODELS["mlp"].Options
    member = MODELS["mlp"](validate(schema, {"hidden": [5], "weights": path}, "model"))
    donor = MODELS["mlp"](validate(schema, {"hidden": [6]}, "model"))
    save_file(donor.build(IMAGE).state_dict(), path)
    (issue,) = member.issues(IMAGE)
    assert "shape of layers.0.weight (and 1 more) is [6, 16], not [5, 16]" in str(issue)
    with pytest.raises(ConfigError):
        member.model_spec(IMAGE)

    twin = MODELS["mlp"](validate(schema, {"hidden": [5]}, "model")).build(IMAGE)
    save_file(twin.state_dict(), path)
    assert member.issues(IMAGE) == []
    model = member.build(IMAGE)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in load_file(path).items())
