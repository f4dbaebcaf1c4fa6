"""Datasets: what they announce is what they load, splits are disjoint, and damage is refused in one line."""

from __future__ import annotations

import io
import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sparselab.core import packaged
from sparselab.core.cache_folder import cache_folder
from sparselab.core.errors import WIDTH, ConfigError
from sparselab.core.options import validate
from sparselab.inputs.data import cache, hub, subset
from sparselab.inputs.data.dataset import DATASETS
from sparselab.inputs.data.sets.arrays import ArrayOptions, Cifar10, Cifar100, Digits, Mnist
from sparselab.inputs.data.sets.imagenet import Imagenet
from sparselab.inputs.data.sets.text import PARTS, Stdlib, TinyShakespeare, Wikitext2

CONFIGS = Path(__file__).parents[3] / "configs" / "dataset"


@pytest.fixture(autouse=True)
def isolated(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARSELAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.delenv("SPARSELAB_DATA", raising=False)


@pytest.fixture
def data_dir(tmp_path, monkeypatch) -> Path:
    """Local copies of small stand-ins for every set."""
    for cls in (Cifar10, Cifar100, Mnist):
        monkeypatch.setattr(cls, "sizes", {"train": 40, "test": 10})
    root = tmp_path / "data"
    write_parquet(root / "cifar10" / "train-0.parquet", 25, "JPEG", (32, 32, 3))
    write_parquet(root / "cifar10" / "train-1.parquet", 15, "JPEG", (32, 32, 3))
    write_parquet(root / "cifar10" / "test.parquet", 10, "JPEG", (32, 32, 3))
    for name, shape, label in (("cifar100", (32, 32, 3), "fine_label"), ("mnist", (28, 28), "label")):
        write_parquet(root / name / "train.parquet", 40, "PNG", shape, label)
        write_parquet(root / name / "test.parquet", 10, "PNG", shape, label)
    text = root / "text"
    (text / "wikitext2").mkdir(parents=True)
    (text / "tinyshakespeare.txt").write_bytes(bytes(range(32, 127)) * 20)
    for name in ("train", "valid", "test"):
        (text / "wikitext2" / f"{name}.txt").write_text(f"{name} = one = \n two <unk>" * 40)
    return root


def write_parquet(path: Path, n: int, kind: str, shape: tuple[int, ...], label: str = "label") -> None:
    import pyarrow
    import pyarrow.parquet

    rows = []
    for i in range(n):
        encoded = io.BytesIO()
        pixels = np.random.default_rng([i, *path.name.encode()]).integers(0, 256, shape, np.uint8)
        Image.fromarray(pixels).save(encoded, kind)
        rows.append({"image": {"bytes": encoded.getvalue(), "path": f"{i}"}, label: i % 10})
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def picture_folder(root: Path, per_class: dict[str, int]) -> Path:
    for part, extra in (("train", 0), ("val", 1)):
        for wnid, n in per_class.items():
            (root / part / wnid).mkdir(parents=True)
            for i in range(n - extra):
                pixels = np.random.default_rng(i).integers(0, 256, (12 + i, 15, 3), np.uint8)
                Image.fromarray(pixels).save(root / part / wnid / f"{wnid}_{i}.JPEG")
    return root


def make(cls, data_dir=None, **options):
    usual = {"val": 0, "augment": {}} if issubclass(cls.Options, ArrayOptions) else {}
    return cls(validate(cls.Options, {**usual, **options}, "dataset"), None if data_dir is None else str(data_dir))


def refusal(call) -> str:
    with pytest.raises(ConfigError) as refused:
        call()
    lines = [str(issue) for issue in refused.value.issues]
    assert all("\n" not in line and len(line) <= WIDTH and not line.endswith("…") for line in lines), lines
    return "; ".join(lines)


def rows_of(split) -> set[bytes]:
    return {image.numpy().tobytes() for image in split.images}


# -- every dataset ---------------------------------------------------------------------------------------------------


def test_every_dataset_has_a_config_with_every_option_and_the_default_of_its_name():
    for name in DATASETS:
        written = dict(packaged.values(f"dataset/{name}"))
        assert written.pop("name") == name
        assert set(written) == set(DATASETS[name].Options.model_fields), name
        validate(DATASETS[name].Options, written, "dataset")
    assert {path.stem for path in CONFIGS.glob("[!_]*.yaml")} == set(DATASETS)


def test_planning_imports_nothing_heavy():
    heavy = "{'torch', 'torchvision', 'datasets', 'transformers', 'sklearn', 'pandas', 'pyarrow', 'PIL'}"
    code = f"""
import sys
from sparselab.inputs.data.dataset import DATASETS
for name in ("digits", "stdlib"):
    DATASETS[name](DATASETS[name].Options()).spec()
print(sorted(set(sys.modules) & {heavy}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", sorted({"cifar10", "cifar100", "mnist", "digits"}))
def test_image_sets_load_what_they_announce(name, data_dir):
    dataset = make(DATASETS[name], data_dir, val=10)
    spec, splits = dataset.spec(), dataset.load()
    assert [len(getattr(splits, part)) for part in PARTS] == [spec.train, spec.val, spec.test]
    assert splits.train.images.shape[1:] == spec.shape and splits.train.images.dtype == torch.uint8
    assert splits.train.labels.dtype == torch.int64 and splits.classes == spec.classes
    assert len(spec.fingerprint) == len(splits.content) == 64
    assert not rows_of(splits.train) & rows_of(splits.val)
    again = make(DATASETS[name], data_dir, val=10).load()  # from the cache
    assert again.content == splits.content != make(DATASETS[name], data_dir, val=9).load().content
    for part in PARTS:
        assert torch.equal(getattr(again, part).images, getattr(splits, part).images)
        assert torch.equal(getattr(again, part).labels, getattr(splits, part).labels)
    x, y = next(iter(splits.loader("train", 4, seed=0)))
    assert x.shape == (4, *spec.shape) and x.dtype == torch.float32 and y.shape == (4,)


@pytest.mark.parametrize("name", ["stdlib", "tinyshakespeare", "wikitext2"])
def test_texts_load_what_they_announce(name, data_dir):
    dataset = make(DATASETS[name], data_dir, block=16)
    spec, splits = dataset.spec(), dataset.load()
    assert spec.classes == splits.vocab == 256 and spec.shape == (16,)
    for part in PARTS:
        tokens = getattr(splits, part)
        assert tokens.dtype == torch.uint8 and splits.bytes_per_split[part] == len(tokens)
        assert len(splits.loader(part, 1, seed=0, train=False)) == getattr(spec, part)
    assert splits.bytes_per_token == dict.fromkeys(PARTS, 1.0)


# -- digits ----------------------------------------------------------------------------------------------------------


def test_digits_are_split_once_and_for_all():
    dataset = make(Digits, val=180)
    spec, splits = dataset.spec(), dataset.load()
    assert (spec.train, spec.val, spec.test, spec.source) == (1257, 180, 360, "bundled")
    assert [len(getattr(splits, part)) for part in PARTS] == [1257, 180, 360]
    assert splits.digests == {"train": "c96cdf33dbd925bc", "val": "d70717441a9e29f1", "test": "c5b5d89abc3aae5b"}
    assert torch.bincount(splits.test.labels).tolist() == [36] * 10
    assert torch.bincount(splits.val.labels).tolist() == [18] * 10
    assert not rows_of(splits.train) & rows_of(splits.test)
    assert splits.train.images.max() == 255
    assert splits.mean == pytest.approx([splits.train.images.double().mean().item() / 255])
    x = torch.cat([x for x, _ in splits.loader("train", 1257, seed=0, train=False)])
    assert abs(x.mean()) < 1e-5 and abs(x.std() - 1) < 1e-3


# -- options of image sets -------------------------------------------------------------------------------------------


def test_limits_are_balanced_nested_in_train_and_named():
    whole, part = make(Digits, val=180).load(), make(Digits, val=180, limit_train=200, limit_test=50).load()
    assert torch.bincount(part.train.labels).tolist() == [20] * 10
    assert torch.bincount(part.test.labels).tolist() == [5] * 10
    assert rows_of(part.train) <= rows_of(whole.train) and rows_of(part.test) <= rows_of(whole.test)
    assert part.digests["val"] == whole.digests["val"] and part.digests["train"] != whole.digests["train"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"val": 1437}, "write at most 1436"),
        ({"val": 37, "limit_train": 1401}, "write at most 1400"),
        ({"limit_test": 361}, "write at most 360"),
        ({"augment": {"crop": 8, "pad": "reflect"}}, "write at most 7"),
    ],
)
def test_options_that_ask_for_too_much_are_refused(options, says):
    assert says in refusal(make(Digits, **options).spec)


def test_all_faults_of_the_options_come_at_once():
    assert refusal(make(Digits, val=2000, limit_test=400).spec).count("write at most") == 2


def test_pooled_images_are_means_of_squares(data_dir):
    whole = make(Mnist, data_dir).load()
    dataset = make(Mnist, data_dir, pool=2)
    spec, splits = dataset.spec(), dataset.load()
    assert spec.shape == (1, 14, 14) == tuple(splits.train.images.shape[1:]) and spec.title == "mnist-14x14"
    square = whole.test.images[3, 0, 4:6, 10:12].double().mean()
    assert splits.test.images[3, 0, 2, 5] == round(float(square))
    assert torch.equal(splits.train.labels, whole.train.labels)
    refused = refusal(make(Mnist, data_dir, pool=3).spec)
    assert refused == "dataset.pool=3: does not divide mnist's 28x28 images — choose a divisor of both sides, or 1"


def test_normalise_picks_the_statistics(data_dir):
    assert make(Cifar10, data_dir).load().mean == (0.4914, 0.4822, 0.4465)
    assert make(Cifar10, data_dir, normalise="imagenet").load().std == (0.229, 0.224, 0.225)


def test_balanced_takes_turns_and_ignores_empty_classes():
    labels = np.array([5] * 10 + [7] * 2 + [9] * 10)
    assert np.bincount(labels[subset.balanced(labels, 8, "x")])[[5, 7, 9]].tolist() == [3, 2, 3]
    assert subset.balanced(labels, 0, "x").tolist() == subset.balanced(labels[:0], 0, "x").tolist() == []
    assert subset.balanced(labels, 22, "x").tolist() == list(range(22))


# -- local copies ----------------------------------------------------------------------------------------------------


def test_the_local_copy_is_named_for_what_it_is(data_dir):
    spec = make(Cifar10, data_dir).spec()
    assert (spec.source, spec.title, spec.path) == ("local", "cifar10-jpeg", str(data_dir / "cifar10"))
    assert make(Cifar100, data_dir).spec().title == "cifar100"
    assert make(Mnist, data_dir).spec().title == "mnist"


def test_published_pictures_never_come_from_a_copy_in_jpeg(data_dir):
    asked = make(Cifar10, data_dir, published=True)
    assert "no local copy" in refusal(asked.spec) and "cifar10_original" in refusal(asked.spec)
    shutil.copytree(data_dir / "cifar100", data_dir / "cifar10_original")
    spec = asked.spec()
    assert (spec.title, spec.path) == ("cifar10", str(data_dir / "cifar10_original"))
    assert spec.fingerprint != make(Cifar10, data_dir).spec().fingerprint
    assert make(Cifar100, data_dir, published=True).spec().path == str(data_dir / "cifar100")


def test_data_dir_wins_over_the_environment(data_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("SPARSELAB_DATA", str(data_dir))
    assert make(Mnist).spec().path == str(data_dir / "mnist")
    monkeypatch.setenv("SPARSELAB_DATA", str(tmp_path / "nowhere"))
    assert make(Mnist, data_dir).spec().path == str(data_dir / "mnist")
    assert "SPARSELAB_DATA" in refusal(make(Mnist).spec)
    assert make(Digits).spec().train == 1437  # needs no folder


@pytest.mark.parametrize("name", sorted(set(DATASETS) - {"activations"}))  # whose data are those of its text
def test_a_data_dir_that_is_missing_empty_or_a_file_is_refused(name, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    for folder, says in (("missing", "no such folder"), ("empty", "is empty"), ("file", "is not a folder")):
        assert says in refusal(make(DATASETS[name], tmp_path / folder).spec)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "mnist", "imagenet", "tinyshakespeare", "wikitext2"])
def test_without_a_copy_and_without_the_hub_the_line_names_both(name):
    line = refusal(make(DATASETS[name]).spec)
    assert "HF_HUB_OFFLINE=1" in line and "data_dir" in line


def edit(path: Path, change) -> None:
    path.write_bytes(change(path.read_bytes()))


BYTES = {
    "empty": lambda b: b"",
    "cut short": lambda b: b[:-1],
    "cut to four bytes": lambda b: b[:4],
    "another format": lambda b: b"<html>" + b,
    "a footer longer than the file": lambda b: b[:-8] + b"\xff\xff\xff\x7fPAR1",
}


@pytest.mark.parametrize("damage", BYTES)
@pytest.mark.parametrize("file", ["train-1.parquet", "test.parquet"])
def test_a_damaged_parquet_file_is_refused_at_planning_time(damage, file, data_dir):
    edit(data_dir / "cifar10" / file, BYTES[damage])
    assert file in refusal(make(Cifar10, data_dir).spec)


def test_a_missing_shard_or_part_is_refused(data_dir):
    (data_dir / "cifar10" / "train-1.parquet").unlink()
    assert "train holds 25 images, cifar10 has 40" in refusal(make(Cifar10, data_dir).load)
    (data_dir / "cifar10" / "test.parquet").unlink()
    assert "test*.parquet" in refusal(make(Cifar10, data_dir).spec)


def test_damage_inside_a_parquet_file_is_refused_or_harmless_but_never_a_traceback(data_dir):
    path = data_dir / "mnist" / "test.parquet"
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(40):
        broken = bytearray(whole)
        for at in rng.integers(4, len(whole) - 8, 30):
            broken[at] ^= 255
        path.write_bytes(broken)
        try:
            make(Mnist, data_dir).load()
        except ConfigError as error:
            refused += 1
            assert all("\n" not in str(issue) for issue in error.issues)
    assert refused > 20


def test_wrong_content_is_refused(data_dir):
    write_parquet(data_dir / "mnist" / "test.parquet", 10, "PNG", (27, 28))
    assert "not (28, 28)" in refusal(make(Mnist, data_dir).load)
    write_parquet(data_dir / "mnist" / "test.parquet", 11, "PNG", (28, 28))
    assert "more than 10" in refusal(make(Mnist, data_dir).load)
    write_parquet(data_dir / "mnist" / "test.parquet", 10, "PNG", (28, 28), label="digit")
    assert "no column label" in refusal(make(Mnist, data_dir).load)


@pytest.mark.parametrize(
    ("cls", "file"),
    [(Cifar10, "cifar10/train-0.parquet"), (TinyShakespeare, "text/tinyshakespeare.txt")]
    + [(Wikitext2, f"text/wikitext2/{name}.txt") for name in ("train", "valid", "test")],
)
def test_the_fingerprint_changes_when_a_byte_does(cls, file, data_dir):
    before = make(cls, data_dir).spec().fingerprint
    assert make(cls, data_dir).spec().fingerprint == before
    edit(data_dir / file, lambda b: b[:100] + bytes([b[100] ^ 1]) + b[101:])
    assert make(cls, data_dir).spec().fingerprint != before


# -- the cache -------------------------------------------------------------------------------------------------------


def test_the_cache_spares_the_second_decoding_and_heals(data_dir, tmp_path, monkeypatch):
    first = make(Mnist, data_dir).load()
    files = sorted((tmp_path / "cache").iterdir())
    assert [path.suffix for path in files] == [".npy", ".sha256"] * 2
    damage = [lambda b: b[:-1], lambda b: b"", lambda b: b[:200] + bytes([b[200] ^ 1]) + b[201:]]
    for path in files:
        for change in damage:
            edit(path, change if path.suffix == ".npy" else lambda b: b"0" * 64)
            assert torch.equal(make(Mnist, data_dir).load().train.images, first.train.images)
    monkeypatch.setattr(Mnist, "_pixels", None)  # nothing is decoded any more
    assert torch.equal(make(Mnist, data_dir).load().test.images, first.test.images)


def test_a_cache_that_cannot_be_written_is_no_error(data_dir, tmp_path, monkeypatch):
    (tmp_path / "in_the_way").write_text("a file")
    monkeypatch.setenv("SPARSELAB_CACHE", str(tmp_path / "in_the_way"))
    assert len(make(Mnist, data_dir).load().train) == 40


def test_a_cached_array_is_a_private_copy():
    first = cache.array("key", lambda: np.arange(4))
    second = cache.array("key", lambda: np.zeros(1))
    second[0] = 99
    assert first.tolist() == cache.array("key", lambda: np.zeros(1)).tolist() == [0, 1, 2, 3]
    assert not list(cache_folder().glob("*.tmp"))


# -- text ------------------------------------------------------------------------------------------------------------


def test_shakespeare_is_cut_in_order(data_dir):
    splits = make(TinyShakespeare, data_dir).load()
    whole = (data_dir / "text" / "tinyshakespeare.txt").read_bytes()
    assert b"".join(bytes(getattr(splits, part).tolist()) for part in PARTS) == whole
    assert [len(getattr(splits, part)) for part in PARTS] == [1710, 95, 95]


def test_stdlib_splits_by_file_and_is_cut_to_max_bytes():
    dataset = make(Stdlib, max_bytes=100_000)
    splits = dataset.load()
    assert [len(getattr(splits, part)) for part in PARTS] == [90_000, 5_000, 5_000]
    names = [name for name, _ in dataset._entries()]
    assert names == sorted(names) and "os.py" in names
    assert not [name for name in names if "site-packages" in name or "lib2to3/" in name]
    share = np.mean([dataset._part(name) == "train" for name in names])
    assert 0.87 < share < 0.93


def test_wikitext_without_train_says_what_to_write(data_dir):
    (data_dir / "text" / "wikitext2" / "train.txt").unlink()
    line = refusal(make(Wikitext2, data_dir).spec)
    assert "dataset.train_from=valid" in line and "dataset=stdlib" in line
    splits = make(Wikitext2, data_dir, train_from="valid", block=16).load()
    both = bytes(splits.train.tolist()) + bytes(splits.val.tolist())
    assert both == (data_dir / "text" / "wikitext2" / "valid.txt").read_bytes()
    assert len(splits.train) == len(both) * 9 // 10


@pytest.mark.parametrize("file", ["text/tinyshakespeare.txt", "text/wikitext2/test.txt"])
def test_an_empty_text_is_refused(file, data_dir):
    edit(data_dir / file, lambda b: b"")
    cls = TinyShakespeare if "tiny" in file else Wikitext2
    assert "is empty" in refusal(make(cls, data_dir).spec)


def test_a_window_longer_than_the_text_is_refused(data_dir):
    assert "write at most 1709" in refusal(make(TinyShakespeare, data_dir, block=1710).spec)
    assert make(TinyShakespeare, data_dir, block=1709).spec().train == 1


def word_tokenizer(folder: Path) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {"[UNK]": 0, "two": 1, "one": 2, "=": 3, "test": 4}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    return folder


def test_a_local_tokenizer_counts_tokens_and_bytes(data_dir, tmp_path):
    folder = word_tokenizer(tmp_path / "words")
    dataset = make(Wikitext2, data_dir, tokenizer=str(folder), block=4)
    spec, splits = dataset.spec(), dataset.load()
    assert spec.classes == splits.vocab == 5
    assert (spec.train, spec.val, spec.test) == (0, 0, 0)  # only loading can tell
    assert splits.test.dtype == torch.int32 and splits.test[:4].tolist() == [4, 3, 2, 3]
    assert splits.bytes_per_split["test"] == (data_dir / "text" / "wikitext2" / "test.txt").stat().st_size
    assert spec.fingerprint != make(Wikitext2, data_dir).spec().fingerprint
    assert splits.content != make(Wikitext2, data_dir).load().content
    assert dataset.places() == ("tokenizer",) and make(Wikitext2, data_dir).places() == ()
    moved = folder.rename(tmp_path / "moved")  # where it lies is no matter; what it says is
    assert make(Wikitext2, data_dir, tokenizer=str(moved), block=4).spec().fingerprint == spec.fingerprint
    (moved / "merges.txt").write_text("a b")
    assert make(Wikitext2, data_dir, tokenizer=str(moved), block=4).spec().fingerprint != spec.fingerprint
    dataset, folder = make(Wikitext2, data_dir, tokenizer=str(moved), block=4), moved
    edit(folder / "tokenizer.json", lambda b: b[: len(b) // 2])
    assert "damaged" in refusal(dataset.spec)


@pytest.mark.parametrize("tokenizer", ["./nowhere", "/nowhere/at/all", "gpt2"])
def test_a_tokenizer_that_is_not_there_is_refused(tokenizer, data_dir):
    assert "no such folder" in refusal(make(TinyShakespeare, data_dir, tokenizer=tokenizer).spec)


def test_a_folder_without_a_tokenizer_is_refused(data_dir, tmp_path):
    (tmp_path / "bare").mkdir()
    assert "holds no tokenizer" in refusal(make(TinyShakespeare, data_dir, tokenizer=str(tmp_path / "bare")).spec)


# -- imagenet --------------------------------------------------------------------------------------------------------


def test_imagenet_in_the_standard_layout(tmp_path):
    root = picture_folder(tmp_path / "data" / "imagenet", {"n02": 4, "n01": 6})
    dataset = make(Imagenet, tmp_path / "data", size=8, resize=9, val=4)
    spec, splits = dataset.spec(), dataset.load()
    assert (spec.train, spec.val, spec.test, spec.classes, spec.shape) == (6, 4, 8, 2, (3, 8, 8))
    assert splits.labels["val"].tolist() == [0, 0, 1, 1] and splits.labels["test"].tolist() == [0] * 5 + [1] * 3
    read = {part: set(store.paths) for part, store in splits.pictures.items()}
    assert not read["train"] & read["val"] and len(read["train"] | read["val"]) == 10
    for part, store in splits.pictures.items():
        assert splits.lengths[part].tolist() == [(root / path).stat().st_size for path in store.paths]
    assert all(path.startswith("val/") for path in read["test"])
    x, y = next(iter(splits.loader("train", 6, seed=0)))
    assert x.shape == (6, 3, 8, 8) and sorted(y.tolist()) == [0] * 4 + [1] * 2
    assert make(Imagenet, root, size=8, resize=9, val=4).spec().fingerprint == spec.fingerprint
    (root / "train" / "n02" / "new.JPEG").write_bytes(b"x")
    assert dataset.spec().fingerprint != spec.fingerprint


def test_imagenet_with_holes_is_refused(tmp_path):
    root = picture_folder(tmp_path / "imagenet", {"n01": 2, "n02": 2})
    (root / "val" / "n03").mkdir()
    (root / "val" / "n03" / "a.JPEG").write_bytes(b"x")
    assert "n03" in refusal(make(Imagenet, root).spec)
    for path in (root / "train").rglob("*.JPEG"):
        path.unlink()
    assert "train/ holds no pictures" in refusal(make(Imagenet, root).spec)


def test_imagenet_options_must_fit_each_other():
    assert "resize=100" in refusal(lambda: make(Imagenet, resize=100))


# -- the hub (its library, without its network) ----------------------------------------------------------------------


@pytest.fixture
def hub_sets(monkeypatch):
    """``datasets.load_dataset`` answers with what the test puts here: (repo, split) to columns."""
    import datasets

    answers: dict[tuple[str, str], dict] = {}

    def answer(repo, config=None, *, split, revision=None):
        if (repo, split) not in answers:
            raise ConnectionError(f"Couldn't reach '{repo}' on the Hub\nmore lines")
        columns = answers[repo, split]
        table = datasets.Dataset.from_dict(columns)
        for name in set(columns) & {"img", "image"}:
            table = table.cast_column(name, datasets.Image())
        return table

    monkeypatch.setattr(datasets, "load_dataset", answer)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    return answers


def encoded(n: int, side: int) -> list[dict]:
    out = []
    for i in range(n):
        buffer = io.BytesIO()
        Image.fromarray(np.full((side, side, 3), i, np.uint8)).save(buffer, "PNG")
        out.append({"bytes": buffer.getvalue(), "path": None})
    return out


def test_an_image_set_from_the_hub(hub_sets, monkeypatch, tmp_path):
    monkeypatch.setattr(Cifar100, "sizes", {"train": 4, "test": 2})
    for split, n in (("train", 4), ("test", 2)):
        hub_sets[Cifar100.repo, split] = {"img": encoded(n, 32), "fine_label": list(range(n)), "coarse_label": [0] * n}
    dataset = make(Cifar100)
    assert dataset.spec().source == "hub"
    splits = dataset.load()
    assert splits.train.images[:, 0, 0, 0].tolist() == splits.train.labels.tolist() == [0, 1, 2, 3]
    write_parquet(tmp_path / "cifar100" / "train.parquet", 4, "PNG", (32, 32, 3), "fine_label")
    write_parquet(tmp_path / "cifar100" / "test.parquet", 2, "PNG", (32, 32, 3), "fine_label")
    local = make(Cifar100, tmp_path)
    assert local.load().content != splits.content  # other pixels
    hub_sets[Cifar100.repo, "train"]["img"][3]["bytes"] = encoded(5, 32)[4]["bytes"]
    assert make(Cifar100).spec() == dataset.spec()  # planning knows the name only
    assert make(Cifar100).load().content != splits.content  # one picture changed


def test_imagenet_from_the_hub(hub_sets, monkeypatch):
    monkeypatch.setattr(Imagenet, "hub_sizes", (4, 2))
    for split, n in (("train", 4), ("validation", 2)):
        hub_sets[Imagenet.repo, split] = {"image": encoded(n, 12), "label": list(range(n))}
    splits = make(Imagenet, size=8, resize=9, val=1).load()
    ((x, y),) = splits.loader("test", 2, seed=0)
    assert x.shape == (2, 3, 8, 8) and y.tolist() == [0, 1]
    assert not torch.equal(x[0], x[1])
    lengths = {
        split: [len(row["bytes"]) for row in hub_sets[Imagenet.repo, split]["image"]]
        for split in ("train", "validation")
    }
    assert sorted([*splits.lengths["train"], *splits.lengths["val"]]) == sorted(lengths["train"])
    assert splits.lengths["test"].tolist() == lengths["validation"]
    hub_sets[Imagenet.repo, "validation"]["label"] = [1, 0]
    assert make(Imagenet, size=8, resize=9, val=1).load().content != splits.content


def test_texts_from_the_hub(hub_sets):
    for split in ("train", "validation", "test"):
        hub_sets[Wikitext2.repo, split] = {"text": [f" = {split} = ", "one two"] * 50}
        hub_sets[TinyShakespeare.repo, split] = {"text": [split * 100]}
    splits = make(Wikitext2, block=8).load()
    assert bytes(splits.val[:25].tolist()) == b" = validation = \n\none two"
    assert make(Wikitext2).spec().title == "wikitext2-raw"
    assert len(make(TinyShakespeare).load().test) == 400
    hub_sets[Wikitext2.repo, "test"]["text"][-1] = "two one"
    assert make(Wikitext2, block=8).spec() == make(Wikitext2, block=8).spec()
    assert make(Wikitext2, block=8).load().content != splits.content


@pytest.mark.parametrize("name", ["cifar10", "mnist", "imagenet", "wikitext2", "tinyshakespeare"])
def test_a_hub_that_cannot_be_reached_is_one_line(name, hub_sets):
    assert "Couldn't reach" in refusal(make(DATASETS[name]).load)


def test_what_its_client_says_of_every_try_is_said_once(hub_sets, monkeypatch, capsys, caplog):
    """Retries printed a screen of warnings, and nothing said what was waited for."""
    monkeypatch.setattr(logging.getLogger("huggingface_hub"), "level", logging.WARNING)
    hub._one_word.cache_clear()
    for _ in range(2):
        refusal(make(DATASETS["mnist"]).load)
        logging.getLogger("huggingface_hub.utils").warning("Retrying in 8s [Retry 4/5].")
    assert capsys.readouterr().err == "asking the hub; where it does not answer, this takes a minute\n"
    assert not caplog.records
