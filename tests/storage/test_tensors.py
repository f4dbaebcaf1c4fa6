from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as np_st

from sparselab.core.errors import ConfigError
from sparselab.storage import tensors


def raw(header, data=b"", length=None):
    """A safetensors file by hand; ``header`` is an object or the text itself."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(shape, span, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": span}


def _fault(call):
    with pytest.raises(ConfigError) as refused:
        call()
    assert len(refused.value.issues) == 1
    line = str(refused.value)
    assert "\n" not in line and len(line) <= 160 and " — " in line
    return line


def test_bytes_by_hand(tmp_path):
    path = tmp_path / "x.safetensors"
    data = tensors.save(
        path, {"b": torch.tensor([[1.0], [2.0]]), "a": torch.tensor([True, False])}, {"z": "1", "y": "2"}
    )
    length = int.from_bytes(data[:8], "little")
    assert path.read_bytes() == data and length % 8 == 0
    assert data[8 : 8 + length].rstrip() == (
        b'{"__metadata__":{"format":"pt","y":"2","z":"1"},'
        b'"b":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},"a":{"dtype":"BOOL","shape":[2],"data_offsets":[8,10]}}'
    )
    assert data[8 + length :] == bytes.fromhex("0000803f 00000040 01 00")


@pytest.mark.parametrize("length", [128, 640])
def test_a_header_whose_length_begins_like_a_pickle_is_read(tmp_path, length):
    """Its first byte is 0x80 for one length in 32; of 640 the second is a protocol number of pickles too."""
    text = json.dumps({"a": entry([1], [0, 4])}).encode().ljust(length)
    (tmp_path / "x").write_bytes(raw(text, torch.ones(1).numpy().tobytes()))
    assert (tmp_path / "x").read_bytes()[:1] == b"\x80" and tensors.load(tmp_path / "x")["a"].tolist() == [1.0]


@pytest.mark.parametrize("dtype", sorted({name for name, _ in tensors.DTYPES.values()}))
def test_every_dtype_comes_back(tmp_path, dtype):
    tensor = torch.tensor([[0, 1, 2], [3, 4, 5]]).to(getattr(torch, dtype))
    tensors.save(tmp_path / "x", {"t": tensor, "empty": tensor[:0], "scalar": tensor[1, 1], "view": tensor.t()})
    read = tensors.load(tmp_path / "x")
    assert tensors.read_header(tmp_path / "x").tensors["t"] == tensors.Entry(dtype, (2, 3))
    for name, want in {"t": tensor, "empty": tensor[:0], "scalar": tensor[1, 1], "view": tensor.t()}.items():
        assert read[name].dtype == want.dtype and read[name].shape == want.shape
        assert read[name].reshape(-1).view(torch.uint8).tolist() == want.reshape(-1).view(torch.uint8).tolist()


def test_bytes_follow_from_content_alone(tmp_path):
    one = {"a": torch.arange(4.0), "b": torch.ones(2, 2, requires_grad=True)}
    first = tensors.save(tmp_path / "1", one, {"k": "v", "l": "w", "m": "x"})
    again = {name: one[name].clone() for name in ("b", "a")}
    assert tensors.save(tmp_path / "2", again, {"m": "x", "l": "w", "k": "v"}) == first


def test_load_compares_before_it_copies(tmp_path):
    path = tmp_path / "x"
    tensors.save(path, {"a": torch.zeros(2, 3), "b": torch.zeros(4)})
    model = {"a": torch.empty(2, 3, device="meta"), "b": torch.empty(4, device="meta")}
    assert set(tensors.load(path, model)) == {"a", "b"}
    assert "a is float32[2, 3] — the model has float32[3, 2]" in _fault(
        lambda: tensors.load(path, model | {"a": torch.empty(3, 2)})
    )
    assert "b is float32[4] — the model has float64[4]" in _fault(
        lambda: tensors.load(path, model | {"b": torch.empty(4, dtype=torch.float64)})
    )
    assert "c is missing" in _fault(lambda: tensors.load(path, model | {"c": torch.empty(1)}))
    assert "b is not in the model" in _fault(lambda: tensors.load(path, {"a": model["a"]}))
    with pytest.raises(ConfigError) as refused:
        tensors.load(path, {f"n{i}": torch.empty(1) for i in range(20)})
    assert len(refused.value.issues) == 8


GOOD = raw({"a": entry([2], [0, 8])}, bytes(8))
BAD = {
    "empty": (b"", "cut short"),
    "seven bytes": (b"1234567", "cut short"),
    "text": (b"hello, this is no such file", "cut short"),
    "pickle": (b"\x80\x02}q\x00.", "a pickle"),
    "archive": (b"PK\x03\x04" + bytes(100), "a pickle"),
    "header beyond the file": (raw({}, length=10**18), "cut short"),
    "truncated": (GOOD[:-1], "tensors take 8 bytes, the file has 7"),
    "longer": (GOOD + b"\0", "tensors take 8 bytes, the file has 9"),
    "not json": (raw(b"{nope"), "header is not JSON"),
    "deep": (raw(b"[" * 200_000), "header is not JSON"),
    "not unicode": (raw(b'{"\xff": 1}'), "header is not JSON"),
    "list": (raw([1]), "the header is not an object"),
    "twice": (raw(b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"a":1}'), "a name occurs twice"),
    "overlap": (raw({"a": entry([2], [0, 8]), "b": entry([2], [4, 12])}, bytes(12)), "overlap or leave a hole"),
    "hole": (raw({"a": entry([1], [0, 4]), "b": entry([1], [8, 12])}, bytes(12)), "overlap or leave a hole"),
    "huge": (raw({"a": entry([10**6, 10**6], [0, 8])}, bytes(8)), "claims a shape that its bytes do not have"),
    "overflow": (raw({"a": entry([2**62, 4, 2], [0, 8])}, bytes(8)), "claims a shape"),
    "many axes": (raw({"a": entry([1] * 65 + [2], [0, 8])}, bytes(8)), "claims a shape"),
    "negative": (raw({"a": entry([-2], [0, 8])}, bytes(8)), "no valid shape"),
    "true": (raw({"a": entry([True, 2], [0, 8])}, bytes(8)), "no valid shape"),
    "backwards": (raw({"a": entry([2], [8, 0])}, bytes(8)), "claims a shape"),
    "three offsets": (raw({"a": entry([2], [0, 8, 8])}, bytes(8)), "claims a shape"),
    "unknown dtype": (raw({"a": entry([2], [0, 8], "F33")}, bytes(8)), "unknown dtype F33"),
    "half a byte": (raw({"a": entry([16], [0, 8], "F4")}, bytes(8)), "unknown dtype F4"),
    "dtype is a list": (raw({"a": entry([2], [0, 8], ["F32"])}, bytes(8)), "unknown dtype"),
    "more keys": (raw({"a": entry([2], [0, 8]) | {"call": "os.system"}}, bytes(8)), "a is not a tensor"),
    "metadata": (raw({"__metadata__": {"a": 1}}), "the metadata is not text"),
    "no name": (raw({"": entry([2], [0, 8])}, bytes(8)), "'' is not a tensor's name"),
    "climbing": (raw({"../../x": entry([2], [0, 8])}, bytes(8)), "'../../x' is not a tensor's name"),
    "absolute": (raw({"/etc/passwd": entry([2], [0, 8])}, bytes(8)), "is not a tensor's name"),
    "escape": (raw({"a\x1b[2J\n": entry([2], [0, 8])}, bytes(8)), "'a?[2J?' is not a tensor's name"),
    "alias of nothing": (raw({"__metadata__": {"aliases": '{"b":"c"}'}, "a": entry([2], [0, 8])}, bytes(8)), "alias b"),
    "alias taken": (raw({"__metadata__": {"aliases": '{"a":"a"}'}, "a": entry([2], [0, 8])}, bytes(8)), "alias a"),
    "alias list": (raw({"__metadata__": {"aliases": "[]"}, "a": entry([2], [0, 8])}, bytes(8)), "not an object"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_one_line(tmp_path, case):
    data, said = BAD[case]
    (tmp_path / "x").write_bytes(data)
    assert said in _fault(lambda: tensors.read_header(tmp_path / "x"))
    assert said in _fault(lambda: tensors.load(tmp_path / "x"))


def test_a_large_header_is_not_read(tmp_path):
    path = tmp_path / "x"
    with path.open("wb") as file:
        file.write((200 * 2**20).to_bytes(8, "little"))
        file.truncate(2**30)  # sparse: takes no disk
    assert "claims a header of 209,715,200 bytes" in _fault(lambda: tensors.load(path))


def test_what_is_no_file(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe")
    assert "a folder" in _fault(lambda: tensors.load(tmp_path))
    assert "not a regular file" in _fault(lambda: tensors.load(tmp_path / "pipe"))
    assert "cannot be read (No such file or directory)" in _fault(lambda: tensors.load(tmp_path / "nothing"))


def test_masks_carry_names_and_are_boolean(tmp_path):
    masks = {"a.weight": torch.tensor([[True, False], [False, True]])}
    tensors.save_masks(tmp_path / "m", masks)
    assert torch.equal(tensors.load_masks(tmp_path / "m")["a.weight"], masks["a.weight"])
    tensors.save_masks(tmp_path / "none", {})
    assert tensors.load_masks(tmp_path / "none") == {}
    tensors.save(tmp_path / "w", {"a.weight": torch.ones(2)})
    assert "a.weight is float32, and a mask is bool" in _fault(lambda: tensors.load_masks(tmp_path / "w"))
    with pytest.raises(ValueError, match=r"a\.weight has dtype"):
        tensors.save_masks(tmp_path / "m", {"a.weight": torch.ones(2)})


def test_packed_masks_by_hand():
    packed = tensors.pack_masks({"w": torch.tensor([[1, 0, 0], [0, 0, 1], [1, 1, 1]], dtype=torch.bool)})
    assert packed["w"]["shape"] == [3, 3] and packed["w"]["bits"].tolist() == [0b10000111, 0b10000000]


@given(np_st.arrays(bool, np_st.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9)))
def test_packed_masks_come_back(array):
    mask = torch.from_numpy(array)
    assert torch.equal(tensors.unpack_masks(tensors.pack_masks({"w": mask}))["w"], mask)


@given(st.integers(1, 64))
def test_packed_masks_take_a_bit_each(size):
    assert tensors.pack_masks({"w": torch.ones(size, dtype=torch.bool)})["w"]["bits"].numel() == -(-size // 8)


@pytest.mark.parametrize(
    ("shape", "bits", "said"),
    [
        ([3, 3], [255], "does not fit its shape"),
        ([10**6, 10**6], [255], "does not fit its shape"),
        ([-1, -8], [255], "does not fit its shape"),
        ([2.0], [255], "does not fit its shape"),
        ([3], [0b11110000], "has bits beyond its end"),
    ],
)
def test_packed_masks_that_do_not_fit(shape, bits, said):
    packed = {"w": {"shape": shape, "bits": torch.tensor(bits, dtype=torch.uint8)}}
    assert said in _fault(lambda: tensors.unpack_masks(packed))
