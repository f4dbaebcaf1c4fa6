"""What a researcher can quote of a finished cell."""

from __future__ import annotations

import shlex
from typing import Any


def lines(record: dict[str, Any], typed: list[str]) -> list[tuple[str, str]]:
    """(label, text) rows of the summary. ``typed``: the overrides of the command that reproduces it."""
    metrics, sparse, account = record["metrics"], record["sparsity"], record["account"]
    rows: list[tuple[str, str]] = []
    n = metrics.get("test.n", 0)
    if "test.accuracy" in metrics:
        spread = 100 * metrics["test.accuracy_se"]
        rows.append(
            ("test accuracy", f"{100 * metrics['test.accuracy']:.2f} % (n = {n:,.0f}, standard error {spread:.2f})")
        )
    if "test.perplexity" in metrics:
        text = (
            f"{metrics['test.perplexity']:.4g} ({metrics['test.bits_per_byte']:.4f} bits per byte, n = {n:,.0f} tokens)"
        )
        rows.append(("test perplexity", text))
    if sparse["weights"]:
        holds = "every group holds" if sparse["pattern_holds"] else "PATTERN BROKEN"
        what = (
            f"{holds}, {len(sparse['layers'])} layers"
            if ":" in sparse["requested"]
            else f"{len(sparse['layers'])} layers"
        )
        rows.append(
            ("sparsity", f"{sparse['requested']} → {sparse['realised']:.6g} of {sparse['weights']:,} weights ({what})")
        )
    else:
        rows.append(("sparsity", "dense"))
    rows.append(("parameters", f"{account['params_nonzero']:,} nonzero of {account['params']:,}"))
    ratio = account["macs"] / account["macs_dense"]
    rows.append(("MACs", f"{account['macs_dense']:,} → {account['macs']:,} ({ratio:.3f}x) per sample"))
    rows.append(("training FLOPs", f"{account['flops_train'] / account['flops_train_dense']:.3f}x dense"))
    rows.append(("seconds", f"{record['seconds']:.1f}"))
    rows.append(("again", shlex.join(["python", "run.py", *typed, "force=true"])))
    return rows


def show(record: dict[str, Any], typed: list[str]) -> None:
    """Print the summary as a small table on standard output."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    *rows, (label, again) = lines(record, typed)
    for name, text in rows:
        table.add_row(name, Text(text))  # not markup: term=[distill] has brackets of its own
    console = Console(highlight=False)
    console.print(table)
    width = max(len(name) for name, _ in rows) + 2
    print(f"{label:<{width}}{again}")  # never wrapped: it is there to be copied
