"""From command-line overrides to one resolved config, with every fault of the overrides found at once.

Hydra stops at the first fault and suggests nothing; here the overrides are looked at before Hydra sees them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparselab.spec.faults import Fault, Faults, Refused, did_you_mean, nearest, refuse

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
OPEN_PREFIXES = ("hydra",)  # Hydra's own settings are Hydra's to check


@dataclass(frozen=True)
class Request:
    """What was asked for: override strings as typed, and Hydra's own flags."""

    overrides: list[str]
    multirun: bool = False
    search_path: str | None = None
    hydra: list[str] = field(default_factory=list)


def groups(root: Path = CONFIGS) -> dict[str, list[str]]:
    """Config groups and their members, from the folders."""
    return {
        folder.name: sorted(f.stem for f in folder.iterdir() if f.suffix == ".yaml" or f.is_dir())
        for folder in sorted(root.iterdir())
        if folder.is_dir() and not folder.name.startswith(("_", ".")) and folder.name != "hydra"
    }


def flatten(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every entry, inner ones included."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            name = f"{prefix}{key}"
            yield name, value
            yield from flatten(value, name + ".")


@dataclass(frozen=True)
class Composed:
    """A config, and what had to be left out to compose it.

    faults: of overrides that mean nothing. lost: groups whose member could not be chosen; what the config says of
    these is the default's, so nothing should be concluded from it.
    """

    config: dict[str, Any]
    faults: list[Fault]
    lost: frozenset[str]


def compose(overrides: list[str], search_path: str | None = None) -> Composed:
    """The resolved config, as plain containers, of those overrides that mean something."""
    good, faults, lost = check_overrides(overrides, search_path)
    try:
        return Composed(_compose(good, search_path), faults, lost)
    except Refused as refused:
        return Composed(_compose([], None), [*faults, *refused.faults], frozenset(groups()))


def check_overrides(
    overrides: list[str], search_path: str | None = None, sweep: bool = False
) -> tuple[list[str], list[Fault], frozenset[str]]:
    """(overrides that mean something, a fault for each that does not, groups without a valid choice)."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    scan_user_configs(search_path)
    known = groups()
    if search_path:
        for name, members in groups(Path(search_path)).items():
            known[name] = sorted({*known.get(name, []), *members})
    faults = Faults()
    lost: set[str] = set()
    parser = OverridesParser.create()
    values, choices = [], []
    for text in overrides:
        try:
            item = parser.parse_override(text)
        except HydraException as error:
            reason = str(error).splitlines()[0]
            faults.add(text[:40], f"cannot be read ({reason[:60]})", 'write key=value, and quote spaces: key="a b"')
            continue
        key = item.key_or_group
        if "${" in text:
            faults.add(text[:60], "interpolations are not taken from the command line", "write the value itself")
        elif key.split(".")[0].split("/")[0] in OPEN_PREFIXES:
            _check_hydra(faults, key, item, text)
            choices.append(text)
        elif item.is_add() or item.is_force_add() or item.is_delete():
            bare = key.split("@")[0]
            problem = "new keys are not allowed here" if not item.is_delete() else "keys cannot be removed"
            faults.add(text.split("=")[0], problem, did_you_mean(bare, _all_keys(known)))
        elif item.is_sweep_override() and not sweep:
            faults.add(text, "is a sweep over several values", "add -m (python run.py -m …), or quote the comma")
        elif key in known and not key.startswith("paper"):
            if _check_choice(faults, key, item, known[key], sweep):
                choices.append(text)
            else:
                lost.add(key)
        else:
            values.append((key, text, item))
    plain = [text for text in choices if not _is_sweep(parser, text)]
    try:
        tree = _compose(plain, search_path)
    except Refused as refused:
        faults.found += refused.faults
        tree = _compose([], None)
    keys = dict(flatten(tree))
    good = list(choices)
    for key, text, item in values:
        if key.split(".")[0] in lost:
            continue  # its group is not known, so neither are its keys
        if key not in keys:
            faults.add(key, "no such key", _suggest(key, keys, known))
        elif isinstance(keys.get(key), dict) and key not in known and not isinstance(item.value(), dict):
            inner = next((k for k in keys if k.startswith(key + ".")), key)
            faults.add(text[:50], "is a group of keys, not a value", f"write for example {inner}=…")
        else:
            good.append(text)
    return good, faults.found, frozenset(lost)


def _is_sweep(parser: Any, text: str) -> bool:
    return parser.parse_override(text).is_sweep_override()


def _all_keys(known: dict[str, list[str]]) -> list[str]:
    return sorted({*known, *dict(flatten(_compose([], None)))})


def _suggest(key: str, keys: dict[str, Any], known: dict[str, list[str]]) -> str:
    head, _, leaf = key.rpartition(".")
    beside = [k for k in keys if k.rpartition(".")[0] == head]
    hit = nearest(key, [*beside, *known]) or nearest(key, keys)
    if hit is None:
        hit = next((k for k in keys if k.rpartition(".")[2] == leaf), None)
    return f'did you mean "{hit}"?' if hit else did_you_mean(key, [k for k in keys if "." not in k])


def _check_choice(faults: Faults, key: str, item: Any, members: list[str], sweep: bool) -> bool:
    if item.is_sweep_override():
        asked = [str(v) for v in item.sweep_iterator()] if sweep else []
    else:
        value = item.value()
        asked = [str(v) for v in value] if isinstance(value, list) else [str(value)]
    good = True
    for name in asked:
        if name in members or (name in ("None", "null") and key in ("tier", "term")):
            continue
        good = False
        where = f"{key}={name}"
        if isinstance(item.value(), dict):
            faults.add(f"{key}={{…}}"[:40], "a group takes the name of a member", did_you_mean("", members))
        elif key == "model":
            faults.add(where, "no such model", f"{did_you_mean(name, members)} (any timm model: model=timm model.arch=NAME)")
        else:
            faults.add(where, f"no such {key}", did_you_mean(name, members))
    return good


def _check_hydra(faults: Faults, key: str, item: Any, text: str) -> None:
    """Hydra's own subtree may pick launchers and folders; it may not name classes."""
    if "_target_" in text:
        faults.add(text[:60], "classes cannot be named in a config", "pick a registered member, such as hydra/launcher=joblib")


def _compose(overrides: list[str], search_path: str | None) -> dict[str, Any]:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    mine = [o for o in overrides if not o.lstrip("+~").startswith(("hydra.", "hydra/"))]
    if search_path:
        mine.append(f"hydra.searchpath=[file://{Path(search_path).resolve()}]")
    running = GlobalHydra.instance().hydra  # inside a hydra.main application: put it back afterwards
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            tree = hydra_compose("config", mine)
            return OmegaConf.to_container(tree, resolve=True, throw_on_missing=False)  # type: ignore[return-value]
    except (HydraException, OmegaConfBaseException) as error:
        reason = " ".join(str(error).split())
        where = re.search(r"(?:full_key|key): '?([\w.]+)", reason)
        refuse(where[1] if where else "config", reason[:90], "see `python run.py --help` for the groups")
    finally:
        GlobalHydra.instance().hydra = running


def scan_user_configs(search_path: str | None) -> None:
    """Refuse, before anything composes them, user YAML files with aliases, unquoted N:M values or named classes."""
    if search_path is None:
        return
    import yaml

    root = Path(search_path)
    if not root.is_dir():
        refuse(f"--config-dir {search_path}", "is not a folder", "name a folder with YAML files, such as mine/method/")
    faults = Faults()
    for file in sorted(root.rglob("*.yaml")):
        with faults.catch():
            scan_yaml(file, yaml)
    faults.raise_if_any()


def scan_yaml(file: Path, yaml: Any) -> None:
    """One file's share of :func:`scan_user_configs`."""
    try:
        text = file.read_text()
        for number, token in enumerate(yaml.scan(text)):
            at = f"{file.name}:{token.start_mark.line + 1}"
            if isinstance(token, (yaml.AliasToken, yaml.AnchorToken)):
                refuse(at, "YAML anchors and aliases are not allowed (a few bytes can expand to gigabytes)", "repeat the value")
            if number > 100_000:
                refuse(at, "too large for a config", "keep a config file below 100,000 tokens")
            if isinstance(token, yaml.ScalarToken) and token.plain:
                if re.fullmatch(r"\d+:\d+", token.value):
                    refuse(at, f"an unquoted {token.value} is a base-60 number in YAML", f'write "{token.value}"')
                if token.value == "_target_":
                    refuse(at, "classes cannot be named in a config", "use name: with a registered member")
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", 0)
        refuse(f"{file.name}:{line + 1}", "is not YAML", str(getattr(error, "problem", None) or "mend the file"))
    except UnicodeDecodeError:
        refuse(file.name, "is not text", "a config is a UTF-8 YAML file")
