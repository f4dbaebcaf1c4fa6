"""The config groups: which there are, and what Hydra makes of a choice of members."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from sparselab.spec import trees
from sparselab.spec.containers import copied
from sparselab.spec.faults import did_you_mean, refuse, short
from sparselab.spec.userconfigs import scan

ERRORS = {r"Could not find '([^']+)'": "there is no such config", r"Could not override '([^']+)'": "no such key"}
CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def groups(root: Path = CONFIGS) -> dict[str, list[str]]:
    """Config groups and their members, from the folders. A group within a group has members like ``srste/resnet18``."""
    return {
        folder.name: sorted(str(f.relative_to(folder).with_suffix("")) for f in _yamls(folder))
        for folder in sorted(root.iterdir())
        if folder.is_dir() and not folder.name.startswith(("_", ".")) and folder.name != "hydra"
    }


@lru_cache(maxsize=1)
def optional() -> frozenset[str]:
    """Groups that may be left out: those that the top config names without a member, or with a list of them."""
    import yaml

    named = yaml.safe_load((CONFIGS / "config.yaml").read_text(encoding="utf-8"))["defaults"]
    chosen = [item for item in named if isinstance(item, dict)]
    return frozenset(group for item in chosen for group, member in item.items() if not member)


def _yamls(folder: Path) -> Iterator[Path]:
    yield from folder.glob("*.yaml")
    yield from folder.glob("*/*.yaml")


def known_groups(search_path: str | None) -> dict[str, list[str]]:
    """:func:`groups`, with those of a user's folder."""
    known = groups()
    if search_path:
        for name, members in groups(Path(search_path)).items():
            known[name] = sorted({*known.get(name, []), *members})
    return known


def flatten(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every entry, inner ones included."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            name = f"{prefix}{key}"
            yield name, value
            yield from flatten(value, name + ".")


def tree_of(choices: list[str], search_path: str | None = None) -> dict[str, Any]:
    """The config of a choice of members (``group=member``), as plain containers; Refused where there is none."""
    return copied(_tree_of(tuple(choices), search_path))


@lru_cache(maxsize=1024)  # the cells of a table share most of their choices
def _tree_of(choices: tuple[str, ...], search_path: str | None) -> dict[str, Any]:
    def composed() -> dict[str, Any]:
        return _hydra(list(choices), search_path, with_hydra=False)

    return composed() if search_path else trees.kept(choices, CONFIGS, composed)


def launching(choices: list[str], hydra_overrides: list[str], search_path: str | None) -> dict[str, Any]:
    """Hydra's own subtree for a sweep. Refused where more of it than launcher and folders differs from the project's.

    Hydra calls what its subtree names (launchers, callbacks, logging handlers), so nothing else in it may come from
    outside.
    """
    _check_launcher(hydra_overrides)
    scan(search_path)
    asked = _hydra([*choices, *hydra_overrides], search_path, with_hydra=True)["hydra"]
    ours = _hydra([], None, with_hydra=True)["hydra"]
    launcher = asked["launcher"]
    if not re.match(r"(hydra\._internal\.core_plugins|hydra_plugins)\.", str(launcher.get("_target_"))):
        refuse("hydra/launcher", "is not one of Hydra's", "write hydra/launcher=basic, joblib or submitit_slurm")
    if search_path:
        ours["searchpath"] = [_source(search_path)]
    for key in ours:
        if key not in ("launcher", "sweep", "runtime", "overrides", "job", "verbose") and asked.get(key) != ours[key]:
            refuse(f"hydra.{key}", "cannot be changed", "hydra/launcher and hydra.launcher.… say how a sweep runs")
    for key in ("tasks_per_node", "nodes"):
        if launcher.get(key) not in (None, 1):
            fix = "for several GPUs: trainer.devices=4 hydra.launcher.gpus_per_node=4"
            refuse(f"hydra.launcher.{key}={launcher[key]}", "a cell is one task, which starts its own processes", fix)
    return asked


def _source(search_path: str) -> str:
    """A user's folder of configs as Hydra names it among its sources."""
    return f"file://{Path(search_path).resolve()}"


def _check_launcher(hydra_overrides: list[str]) -> None:
    from hydra.core.config_store import ConfigStore
    from hydra.core.plugins import Plugins

    Plugins.instance()  # registers what is installed
    names = [name.removesuffix(".yaml") for name in ConfigStore.instance().list("hydra/launcher")]
    for text in hydra_overrides:
        key, _, value = text.partition("=")
        if key == "hydra/launcher" and value not in names:
            refuse(short(text), "no such launcher", did_you_mean(value, names))


def _hydra(overrides: list[str], search_path: str | None, with_hydra: bool) -> dict[str, Any]:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    if search_path:
        quoted = _source(search_path).replace("\\", "\\\\").replace("'", "\\'")
        overrides = [*overrides, f"hydra.searchpath=['{quoted}']"]
    running = GlobalHydra.instance().hydra  # inside a hydra.main application: put it back afterwards
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            tree = hydra_compose("config", overrides, return_hydra_config=with_hydra)
            # Hydra's subtree refers to what is known in a running job only.
            return OmegaConf.to_container(tree, resolve=not with_hydra, throw_on_missing=False)  # type: ignore[return-value]
    except Exception as error:  # HydraException, ValueError, AssertionError, yaml's: any of them is about the input
        reason = " ".join(str(error).split()).removeprefix("In 'config': ")
        for pattern, problem in ERRORS.items():
            if match := re.search(pattern, reason):
                refuse("=".join(match[1].rsplit("/", 1)), problem, "mend the name")
        where = re.search(r"(?:full_key|key): '?([\w.]+)", reason)
        refuse(where[1] if where else "config", reason[:90], "`python run.py --help` lists the groups")
    finally:
        GlobalHydra.instance().hydra = running
