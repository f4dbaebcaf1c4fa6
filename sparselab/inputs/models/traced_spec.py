"""Model specs of networks that only building tells: traced once, and kept between processes [no torch where one is kept].

A spec is a function of the family, its options and the files that these name, of the types of the data, of the code that
draws it, and of the libraries that make the network. All of these are in its name.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import asdict
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparselab.core import cache_folder
from sparselab.core import plugins as outside
from sparselab.core.memo import once
from sparselab.core.model_spec import Layer, Loose, ModelSpec

if TYPE_CHECKING:
    from sparselab.core.data_spec import DataSpec
    from sparselab.inputs.models.family import Family

LIBRARIES = ("torch", "timm", "transformers")


def traced_spec(family: Family, data: DataSpec) -> ModelSpec | None:
    """Return :meth:`Family.traced_spec`, from the cache if it lies there. ConfigError where the network cannot be made."""
    try:
        key = _key(family, data)
    except OSError:  # a file of the model that cannot be read is the family's to complain of
        return family.traced_spec(data)
    return once(("traced spec", key), lambda: _kept(family, data, Path("model_specs") / f"{key}.json"))


def _kept(family: Family, data: DataSpec, path: Path) -> ModelSpec | None:
    if (kept := cache_folder.read(path)) is not None:
        return _spec(kept)
    found = family.traced_spec(data)
    if found is not None:
        cache_folder.write(path, _tree(found))
    return found


def _key(family: Family, data: DataSpec) -> str:
    files = {option: [_digest(Path(path)) for path in paths] for option, paths in family.files().items()}
    options = {key: value for key, value in family.options.model_dump(mode="json").items() if key not in files}
    facts = [
        family.name, family.version, options, files, repr(data.inputs), repr(data.targets), _code(),
        outside.using([("model", family.name)]),
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=1)
def _code() -> list[str]:
    """Return a name for the code that makes networks: the libraries' versions, and a digest of the project's own part."""
    found = []
    for name in LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            found.append(f"{name} {version(name)}")
    core = Path(cache_folder.__file__).parent
    own = [
        core / "model_spec.py",
        core / "products.py",
        core / "data_types.py",
        *sorted(Path(__file__).parent.rglob("*.py")),
    ]
    return [*found, hashlib.sha256(b"".join(path.read_bytes() for path in own)).hexdigest()]


def _tree(spec: ModelSpec) -> dict[str, Any]:
    tree = asdict(spec)
    for layer in tree["layers"]:
        layer["roles"] = sorted(layer["roles"])
    return tree


def _spec(tree: dict[str, Any]) -> ModelSpec:
    layers = tuple(
        Layer(**{**layer, "shape": tuple(layer["shape"]), "roles": frozenset(layer["roles"])})
        for layer in tree["layers"]
    )
    loose = tuple(Loose(**{**item, "shape": tuple(item["shape"])}) for item in tree["loose"])
    return ModelSpec(**{**tree, "layers": layers, "loose": loose})
