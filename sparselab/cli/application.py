"""The Hydra application behind `run.py`: look at the overrides first, then let Hydra compose and launch."""

from __future__ import annotations

import sys

from sparselab.cli.run import guarded
from sparselab.spec.compose import CONFIGS, check_overrides
from sparselab.spec.faults import Refused, refuse


def main(argv: list[str]) -> int:
    """Run one cell, or with ``-m`` a sweep. Returns the exit code."""
    debug = "debug=true" in argv
    if any(flag in argv for flag in ("--help", "-h", "--hydra-help", "--info", "--cfg", "-c", "--version")):
        return _hydra(argv)
    return guarded(lambda: _run(argv), debug)


def _run(argv: list[str]) -> int:
    from sparselab.cli.run import run_cell
    from sparselab.planning import plan_of

    overrides, search_path, sweep = _arguments(argv)
    if sweep:
        _, faults, _ = check_overrides(overrides, search_path, sweep)
        if faults:
            raise Refused(faults)
        return _hydra(argv)
    if any(text.startswith("paper=") for text in overrides):
        refuse("paper", "names a whole table", "add -m: python run.py -m paper=… tier=cpu")
    return run_cell(plan_of(overrides, search_path))


def _arguments(argv: list[str]) -> tuple[list[str], str | None, bool]:
    """(overrides, --config-dir, sweep); Refused for a flag that is not understood."""
    import argparse

    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--config-dir", "-cd")
    parser.add_argument("--multirun", "-m", action="store_true")
    try:
        known, unknown = parser.parse_known_intermixed_args(argv)
    except (argparse.ArgumentError, SystemExit) as error:
        raise Refused([]) from error
    for flag in unknown:
        refuse(flag, "no such flag", "flags are -m, --config-dir and --help; settings are key=value")
    return known.overrides, known.config_dir, known.multirun


def _hydra(argv: list[str]) -> int:
    """Hydra's own application: help, printing a config, and sweeps."""
    import hydra
    from omegaconf import DictConfig

    code = 0

    @hydra.main(config_path=str(CONFIGS), config_name="config", version_base="1.3")
    def application(config: DictConfig) -> None:
        nonlocal code
        from hydra.core.hydra_config import HydraConfig

        from sparselab.cli.run import run_cell
        from sparselab.planning import plan_of

        overrides = list(HydraConfig.get().overrides.task)
        code = max(code, guarded(lambda: run_cell(plan_of(overrides)), config.debug))

    sys.argv = [sys.argv[0], *argv]
    application()
    return code
