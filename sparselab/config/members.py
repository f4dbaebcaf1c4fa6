"""The config groups: which there are, and what Hydra makes of a choice of members."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from sparselab.config import outside, trees
from sparselab.config.plain import quoted
from sparselab.config.user_configs import scan
from sparselab.core import plugins
from sparselab.core.containers import copied
from sparselab.core.errors import did_you_mean, refuse, short
from sparselab.core.packaged import CONFIGS

ERRORS = {r"Could not find '([^']+)'": "there is no such config", r"Could not override '([^']+)'": "no such key"}


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
    """The files of a group's members; one whose name begins with an underscore is what some of them share."""
    for pattern in ("[!_]*.yaml", "*/[!_]*.yaml"):
        yield from folder.glob(pattern)


def known_groups(search_path: str | None) -> dict[str, list[str]]:
    """:func:`groups`, with those of a user's folder and of plug-ins."""
    known = _with_folders(search_path)
    for name, member, _ in list(outside.bare_members(known)):
        known[name] = sorted({*known[name], member})
    return known


def _with_folders(search_path: str | None) -> dict[str, list[str]]:
    known = groups()
    for folder in outer_folders(search_path):
        for name, members in groups(folder).items():
            known[name] = sorted({*known.get(name, []), *members})
    return known


def outer_folders(search_path: str | None) -> list[Path]:
    """The folders of config groups beside the project's own: a user's, and those of plug-ins."""
    return [Path(search_path), *plugins.folders()] if search_path else plugins.folders()


def flatten(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every entry, inner ones included."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            name = f"{prefix}{key}"
            yield name, value
            yield from flatten(value, name + ".")


def tree_of(choices: list[str], search_path: str | None = None) -> dict[str, Any]:
    """The config of a choice of members (``group=member``), as plain containers; ConfigError where there is none."""
    return copied(_tree_of(tuple(choices), search_path))


@lru_cache(maxsize=1024)  # the cells of a table share most of their choices
def _tree_of(choices: tuple[str, ...], search_path: str | None) -> dict[str, Any]:
    def composed() -> dict[str, Any]:
        return _hydra(list(choices), search_path, with_hydra=False)

    return composed() if _outside(choices, search_path) else trees.kept(choices, CONFIGS, composed)


def _outside(choices: tuple[str, ...], search_path: str | None) -> bool:
    """True if a choice may be a plug-in's or a user's: the project's files, which come first, do not say what it is."""
    if not search_path and not plugins.loaded():
        return False
    own = groups()
    named = (
        (group, name)
        for text in choices
        for group, _, names in [text.partition("=")]
        for name in re.findall(r"[\w/]+", names)
    )
    return any(name not in own.get(group, []) for group, name in named)


def launching(choices: list[str], hydra_overrides: list[str], search_path: str | None) -> dict[str, Any]:
    """Hydra's own subtree for a sweep. ConfigError where more of it than launcher and folders differs from the project's.

    Hydra calls what its subtree names (launchers, callbacks, logging handlers), so nothing else in it may come from
    outside.
    """
    _check_launcher(hydra_overrides)
    scan(search_path)
    asked = _hydra([*choices, *hydra_overrides], search_path, with_hydra=True)["hydra"]
    ours = _hydra([], None, with_hydra=True)["hydra"]
    _refuse_unheard(asked)
    launcher = asked["launcher"]
    if not re.match(r"(hydra\._internal\.core_plugins|hydra_plugins)\.", str(launcher.get("_target_"))):
        refuse("hydra/launcher", "is not one of Hydra's", "write hydra/launcher=basic, joblib or submitit_slurm")
    if folders := sources(search_path):
        ours["searchpath"] = folders
    for key in ours:
        if key not in ("launcher", "sweep", "runtime", "overrides", "job", "verbose") and asked.get(key) != ours[key]:
            refuse(f"hydra.{key}", "cannot be changed", "hydra/launcher and hydra.launcher.… say how a sweep runs")
    for key in ("tasks_per_node", "nodes"):
        if launcher.get(key) not in (None, 1):
            fix = "for several GPUs: trainer.devices=4 hydra.launcher.gpus_per_node=4"
            refuse(f"hydra.launcher.{key}={launcher[key]}", "a cell is one task, which starts its own processes", fix)
    return asked


def _refuse_unheard(hydra: dict[str, Any]) -> None:
    """Refuse what Hydra's launchers do around a job: a cell that runs in the sweep's own process would go without it."""
    if hydra["job"].get("env_set"):
        name = next(iter(hydra["job"]["env_set"]))
        fix = f"write {name}=… before the command: jobs inherit it"
        refuse("hydra.job.env_set", "does not reach the cells", fix)
    if hydra.get("callbacks"):
        refuse(
            "hydra.callbacks",
            "are not called around cells",
            "a logger (logger=…) is told of a cell's beginning and end",
        )


def sources(search_path: str | None) -> list[str]:
    """The folders of configs beside the project's own, as Hydra names them."""
    return [f"file://{folder.resolve()}" for folder in outer_folders(search_path)]


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

    if folders := sources(search_path):
        overrides = [*overrides, f"hydra.searchpath=[{','.join(map(quoted, folders))}]"]
    outside.store(_with_folders(search_path))
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
                refuse("=".join(match[1].rsplit("/", 1)), problem, "correct the name")
        where = re.search(r"(?:full_key|key): '?([\w.]+)", reason)
        refuse(where[1] if where else "config", reason[:90], "`python run.py --help` lists the groups")
    finally:
        GlobalHydra.instance().hydra = running
