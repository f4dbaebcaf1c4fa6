"""`python -m sparselab.tools.bench [label=TEXT] [only=masks,updates] [device=cpu|cuda] [write=true] [out=FOLDER]`.

Measures, prints the page, and with ``write=true`` keeps a record in results/bench/ (a label that is there is replaced).
"""

from __future__ import annotations

import importlib
import json
import platform
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sparselab.tools.bench import report

SECTIONS = ("masks", "updates", "precision", "feeding", "starts", "inference", "sharing", "neighbours", "packages")
ROOT = Path(__file__).parents[3]


def main(words: list[str]) -> int:
    """Exit code 0, or 2 for a word that is not understood."""
    options = {
        "label": "now",
        "only": ",".join(SECTIONS),
        "device": "",
        "write": "false",
        "out": str(ROOT / "results/bench"),
    }
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key not in options:
            print(f"{word}: not an option — write one of {', '.join(options)}, as in only=masks", file=sys.stderr)
            return 2
        options[key] = value
    unknown = set(options["only"].split(",")) - set(SECTIONS)
    if unknown:
        print(f"only={','.join(sorted(unknown))}: no such section — {', '.join(SECTIONS)}", file=sys.stderr)
        return 2
    import torch

    device = options["device"] or ("cuda" if torch.cuda.is_available() else "cpu")
    record: dict[str, Any] = {"label": options["label"], "environment": environment(device), "rows": []}
    for section in options["only"].split(","):
        for row in importlib.import_module(f"sparselab.tools.bench.{section}").rows(device):
            record["rows"].append(json.loads(json.dumps(asdict(row))))
            print(f"{row.section[:40]} · {row.name}: {report.cell(record['rows'][-1])}", file=sys.stderr, flush=True)
    folder = Path(options["out"])
    records = [kept for kept in report.read(folder) if kept["label"] != options["label"]]
    page = report.render([*records, record])
    print(page)
    if options["write"] == "true":
        folder.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(one, sort_keys=True) + "\n" for one in [*records, record])
        (folder / report.RECORDS).write_text(lines, encoding="utf-8")
        (folder / report.PAGE).write_text(page, encoding="utf-8")
    return 0


def environment(device: str) -> dict[str, object]:
    """Return the facts that the figures depend on."""
    import torch

    try:
        from sparselab.weights.kernels.native import status

        kernels = status()
    except ImportError:  # measuring a commit from before there were any
        kernels = "plain"
    describe = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=12"]
    return {
        "date": time.strftime("%Y-%m-%d"),
        "commit": subprocess.run(describe, capture_output=True, text=True, check=False).stdout.strip(),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if device == "cuda" else "",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "kernels": kernels,
    }


def processor() -> str:
    """As the system names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
