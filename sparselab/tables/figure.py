"""``figure.svg``: the metric against sparsity (or what the table names) and against training FLOPs.

The same records give the same bytes.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from sparselab.tables.summary import Line, Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, which colour-blind readers can tell apart; shapes repeat the distinction.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
SHAPES = "osD^vP*X"


def figure_svg(summary: Summary) -> bytes:
    """The metric against the table's x axis and, where something was trained, its FLOPs. Ours are
    filled with error bars (one standard deviation), published points hollow.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings: Any = {
        "svg.hashsalt": "sparselab",
        "svg.fonttype": "path",
        "font.family": "DejaVu Sans",
        "font.size": 9.0,
    }
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **settings}):
        figure = Figure(figsize=(9.6, 4.0), layout="constrained")
        FigureCanvasSVG(figure)
        left, *rest = figure.subplots(1, 2 if summary.trained else 1, sharey=True, squeeze=False)[0]
        label, log = summary.axis
        _panel(left, summary, lambda line: line.x, _plain(label), published=summary.table.axis == "sparsity")
        if log:
            left.set_xscale("log")
        for right in rest:
            _panel(right, summary, lambda line: line.flops, "training FLOPs × dense", published=False)
        left.set_ylabel(_plain(summary.table.metric.label))
        handles, labels = left.get_legend_handles_labels()
        if handles:
            figure.legend(handles, labels, loc="outside right upper", frameon=False)
        figure.suptitle(_plain(f"{summary.table.output}, tier {summary.tier}"), fontsize=10)
        out = io.BytesIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return b"\n".join(line.rstrip() for line in out.getvalue().splitlines()) + b"\n"


def _panel(axes: Axes, summary: Summary, x: Any, label: str, published: bool) -> None:
    for number, (name, lines) in enumerate(summary.curves().items()):
        colour, shape = COLOURS[number % len(COLOURS)], SHAPES[number % len(SHAPES)]
        points = sorted(
            (x(line), line.mean, line.sd or 0.0) for line in lines if line.mean is not None and x(line) is not None
        )
        if points:
            xs, ys, errors = zip(*points, strict=True)
            style: dict[str, Any] = {
                "color": colour,
                "marker": shape,
                "markersize": 4.5,
                "linewidth": 1.1,
                "capsize": 2.5,
            }
            axes.errorbar(xs, ys, errors, label=_plain(name), **style)
        hollow = [(line.requested, line.published.value) for line in lines if line.published and _shown(line, summary)]
        if published and hollow:
            xs, ys = zip(*hollow, strict=True)
            text = None if points else _plain(name)
            axes.plot(xs, ys, shape, color=colour, markerfacecolor="none", markersize=6.5, linestyle="none", label=text)
    axes.set_xlabel(label)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _shown(line: Line, summary: Summary) -> bool:
    """Published points share the axes only where they share the setting."""
    return summary.comparable and line.published is not None and line.published.verified and line.requested is not None


def _plain(text: str) -> str:
    """Text that matplotlib does not take for a formula."""
    return text.replace("$", r"\$")
