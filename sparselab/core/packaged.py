"""The YAML files that come with the package: where the defaults of a member's options are written, and nowhere else."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parents[1]
CONFIGS = next(  # an installed package brings its own; in the repository they lie at the top
    folder for folder in (PACKAGE / "configs", PACKAGE.parent / "configs") if (folder / "config.yaml").is_file()
)


def there(path: str) -> bool:
    """True if the package has a file ``path``, such as ``method/srste``."""
    return (CONFIGS / f"{path}.yaml").is_file()


@cache
def values(path: str) -> dict[str, Any]:
    """Read the options in ``configs/<path>.yaml``; what it shares with others of its group (``_base``) included.

    Members of other groups that it chooses are left out: they are no options of its own. Do not change the result: it is kept.
    """
    import yaml

    found = yaml.safe_load((CONFIGS / f"{path}.yaml").read_text(encoding="utf-8")) or {}
    group, _, name = path.rpartition("/")
    shared = [item for item in found.pop("defaults", []) if isinstance(item, str) and item != "_self_"]
    if (
        not name.startswith("_") and "name" not in found
    ):  # a recipe for several groups; a loss and a metric by their name
        found = found.get(group) or found.get(name) or {}
    parts = [*(values(f"{group}/{item}") for item in shared), found]
    return {key: value for part in parts for key, value in part.items()}
