"""Folders of pictures as they are found: what tools leave in them, other kinds, sixteen bits, links and odd names."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from sparselab.data.pictures import eight_bits
from sparselab.data.sets.imagenet import Imagenet
from sparselab.spec.faults import Refused, RunFailed


def picture(path, value=100, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (12, 10), value if mode == "L" else (value,) * 3).save(path)


@pytest.fixture
def root(tmp_path):
    for part in ("train", "val"):
        for wnid in ("n01", "n02"):
            for i in range(2):
                picture(tmp_path / part / wnid / f"{i}.png", 50 * i)
    return tmp_path


def member(root, **options):
    return Imagenet(Imagenet.Options(**{"size": 8, "resize": 8, "augment": False, "val": 0, **options}), str(root))


def refused(root):
    with pytest.raises(Refused) as found:
        member(root).spec()
    (line,) = map(str, found.value.faults)
    assert "\n" not in line and line.isprintable() and len(line) < 160
    return line


def images(root, part="train"):
    inputs, labels = next(iter(member(root).load().feed(part, 100, 0, train=False)))
    return inputs, labels


def test_what_tools_leave_in_the_folder_is_no_class_and_no_picture(root):
    """train/.cache/ was a class, and every label moved by one."""
    labels = images(root)[1].tolist()
    picture(root / "train" / ".cache" / "thumb.png")
    picture(root / "train" / "n01" / "._0.png")
    (root / "train" / "n02" / "readme.txt").write_text("x")
    spec = member(root).spec()
    assert (spec.classes, spec.train) == (2, 4)
    assert images(root)[1].tolist() == labels == [0, 0, 1, 1]


@pytest.mark.parametrize("ending", ["webp", "bmp", "tiff", "JPEG", "pgm"])
def test_other_kinds_of_pictures_count(root, ending):
    picture(root / "train" / "n01" / f"2.{ending}", mode="L" if ending == "pgm" else "RGB")
    assert member(root).spec().train == 5
    assert len(images(root)[1]) == 5


def test_a_kind_that_is_not_read_is_refused(root):
    picture(root / "train" / "n02" / "2.gif")
    assert "n02/2.gif is of a kind that is not read — make it one of .jpg, .jpeg, .png" in refused(root)


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I"])
def test_sixteen_bits_of_grey_become_eight(mode):
    """value // 256; Pillow's own conversion cuts all above 255 off and makes them white."""
    values = np.array([[0, 255, 256, 25_700], [40_000, 65_280, 65_535, 1]], np.int64)
    kind = {"I;16": "<u2", "I;16B": ">u2", "I": "<i4"}[mode]
    made = Image.frombytes(mode, (4, 2), values.astype(kind).tobytes())
    for wanted in ("L", "RGB"):
        found = np.asarray(eight_bits(made, wanted))
        assert np.array_equal(found if wanted == "L" else found[..., 1], values // 256)


def test_a_sixteen_bit_file_is_not_white(root):
    grey = np.full((10, 12), 100 * 256 + 7, np.uint16)
    Image.fromarray(grey).save(root / "train" / "n01" / "0.png")
    Image.new("RGB", (12, 10), (100,) * 3).save(root / "train" / "n01" / "1.png")
    inputs = images(root)[0]
    np.testing.assert_array_equal(inputs[0].numpy(), inputs[1].numpy())


def test_values_that_are_no_pixels_are_refused():
    with pytest.raises(ValueError, match="no pixels of 8 or 16 bits"):
        eight_bits(Image.fromarray(np.full((2, 2), 0.5, np.float32)), "L")


def test_a_dead_link_is_named(root):
    (root / "train" / "n01" / "9.png").symlink_to(root / "gone.png")
    assert "train/n01/9.png is a link to nothing — copy the picture again" in refused(root)


@pytest.mark.parametrize("odd", ["a\u2028b", "a\u0085b", "a\u001cb", "ü"])
def test_names_may_hold_what_other_texts_take_for_a_line_break(root, odd):
    picture(root / "train" / "n01" / f"{odd}.png")
    picture(root / "train" / f"n03{odd}" / "0.png")
    picture(root / "val" / f"n03{odd}" / "0.png")
    assert (member(root).spec().classes, len(images(root)[1])) == (3, 6)


def test_a_line_break_in_a_name_is_refused(root):
    picture(root / "train" / "n01" / "a\nb.png")
    assert "has a line break in its name — rename it" in refused(root)


def test_a_picture_that_is_too_large_is_named(root):
    """20,000 x 20,000 pixels in a few bytes: Pillow takes it for an attack, with an error of its own kind."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    (root / "train" / "n01" / "0.png").write_bytes(data)
    with pytest.raises(RunFailed, match=r"train/n01/0.png: cannot be decoded"):
        images(root)
