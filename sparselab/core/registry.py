"""Names to classes. Configs name registered keys, never import paths, so a config cannot run arbitrary code."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from sparselab.core import packaged, plugins
from sparselab.core.errors import did_you_mean, refuse
from sparselab.core.options import validate

T = TypeVar("T")

REGISTRIES: dict[str, Registry[Any]] = {}
"""Every registry by its kind, which is also the name of its config group. One is there once its module is imported."""


def _modules(package: str) -> list[str]:
    """The modules directly in ``package``; of ``sparselab.*.engine`` the module ``engine`` of every package that has one."""
    parent, star, member = package.partition(".*.")
    modules = list(pkgutil.iter_modules(importlib.import_module(parent).__path__, parent + "."))
    if not star:
        return [module.name for module in modules]
    packages = [module.name for module in modules if module.ispkg]
    return [f"{one}.{member}" for one in packages if importlib.util.find_spec(f"{one}.{member}")]


def _take_defaults(cls: Any, path: str) -> None:
    """Let the options of ``cls`` have the defaults that the package's file ``path`` writes down, if there is one."""
    options: Any = getattr(cls, "Options", None)
    if not getattr(options, "model_fields", None) or not packaged.there(path):
        return
    if options.__qualname__ != f"{cls.__qualname__}.Options" or options.__module__ != cls.__module__:
        # Options of several members: each has its own file.
        names = {
            "__module__": cls.__module__,
            "__qualname__": f"{cls.__qualname__}.Options",
            "__doc__": options.__doc__,
        }
        cls.Options = options = type("Options", (options,), names)
    options.defaults_from = path


class Registry(Generic[T]):
    """Classes of one kind by name. The package's modules, and plug-ins, are imported at the first look-up.

    package: its members are the modules directly in it, or one module of each package (``sparselab.*.engine``).
    Every such module must be cheap to import (no torch, no timm): planning imports them all.
    """

    def __init__(self, kind: str, package: str):
        self.kind = kind
        self.package = package
        self._members: dict[str, type[T]] = {}
        self._loaded = False
        REGISTRIES.setdefault(kind, self)

    def register(self, name: str, yaml: str = "") -> Callable[[type[T]], type[T]]:
        """Class decorator: ``@METHODS.register("srste")``. The class gets ``name``; a name is taken once.

        yaml: the file in the config group that has the defaults of its options, where that is not called ``name``.
        """

        def add(cls: type[T]) -> type[T]:
            taken = self._members.get(name)
            if taken is not None and (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
                raise ValueError(f"{self.kind} {name!r} is registered twice: {taken.__module__} and {cls.__module__}")
            cls.name = name  # type: ignore[attr-defined]
            _take_defaults(cls, f"{self.kind}/{yaml or name}")
            self._members[name] = cls
            plugins.note(self.kind, name, cls)
            return cls

        return add

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        for name in _modules(self.package):
            importlib.import_module(name)
        plugins.loaded()

    def __getitem__(self, name: str) -> type[T]:
        self._load()
        if name not in self._members:
            refuse(f"{self.kind}={name}", f"no such {self.kind}", did_you_mean(str(name), self._members))
        return self._members[name]

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._members

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(sorted(self._members))


def build(registry: Registry[Any], values: dict[str, Any], where: str, *arguments: Any) -> Any:
    """Make the registered member that ``values['name']`` names.

    Args:
        registry: of the member's kind
        values: the name and the member's options
        where: the key of the config that has them
        *arguments: what the class takes besides its options

    Returns:
        The member, its options validated. Raises ConfigError.
    """
    values = dict(values)
    name = values.pop("name", None)
    if not isinstance(name, str):
        refuse(where, "has no name", did_you_mean("", registry))
    cls: Any = registry[name]
    if "name" in cls.Options.model_fields:
        values["name"] = name
    return cls(validate(cls.Options, values, where), *arguments)
