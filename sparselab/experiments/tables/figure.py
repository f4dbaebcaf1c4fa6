"""``figure.svg``: the metric against sparsity (or what the table names) and against training FLOPs.

The same records give the same picture (:mod:`sparselab.experiments.tables.picture`), on one machine the same bytes.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sparselab.experiments.tables.styles import styles
from sparselab.experiments.tables.summary import Line, Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

# Okabe and Ito's colours, which colour-blind readers can tell apart, and a grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C8C")
WIDTH = 130  # letters in a line below the panels
SHAPES = "osD^vPX*"
LONGEST = 1e10  # a tick beyond it is written as a power of ten, and so are the others of its axis
SAME = 0.005  # of a curve's width or place: points that are nearer lie at one
DASHES = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))


def figure_svg(summary: Summary) -> bytes:
    """The metric against the table's x axis and, where something was trained, its FLOPs.

    Ours are filled with error bars (one standard deviation), published points hollow.
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
        about = [line for text in summary.shown for line in textwrap.wrap(text, WIDTH)]
        figure = Figure(figsize=(9.6, 4.0 + 0.16 * len(about)), layout="constrained")
        FigureCanvasSVG(figure)
        left, *rest = figure.subplots(1, 2 if summary.trained else 1, sharey=True, squeeze=False)[0]
        label, log = summary.axis
        _panel(left, summary, lambda line: line.x, _plain(label), published=summary.table.axis == "sparsity", log=log)
        if log:
            left.set_xscale("log")
            _round_ticks(left.xaxis, left.get_xlim())
        if summary.log_metric:
            left.set_yscale("log")
            _round_ticks(left.yaxis, left.get_ylim())
        for right in rest:
            _panel(right, summary, lambda line: line.flops, summary.cost_label, published=False)
        left.set_ylabel(_plain(summary.table.metric.label))
        handles, labels = left.get_legend_handles_labels()
        if handles:
            figure.legend(handles, labels, loc="outside right upper", frameon=False, handlelength=2.6)
        figure.suptitle(_plain(f"{summary.table.output}, tier {summary.tier}"), fontsize=10)
        if about:
            figure.supxlabel(_plain("\n".join(about)), x=0.01, ha="left", fontsize=8)
        out = io.BytesIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return b"\n".join(line.rstrip() for line in out.getvalue().splitlines()) + b"\n"


def _panel(axes: Axes, summary: Summary, x: Any, label: str, published: bool, log: bool = False) -> None:
    curves = summary.curves()
    for (name, lines), style in zip(curves.items(), styles(list(curves)), strict=True):
        colour, shape, dash = COLOURS[style.colour], SHAPES[style.shape], DASHES[style.dash]
        points = sorted((x(line), line.mean) for line in lines if line.mean is not None and x(line) is not None)
        spread = [  # one seed has no error bar, which is not one of length 0
            (x(line), line.mean, line.sd) for line in lines if line.sd is not None and x(line) is not None
        ]
        if spread:
            bars: Any = {"linestyle": "none", "ecolor": (colour, 0.5), "elinewidth": 1.0, "capsize": 2.5, "zorder": 2}
            xs, ys, errors = zip(*sorted(spread), strict=True)
            axes.errorbar(xs, ys, errors, **bars)
        if points:
            marker: dict[str, Any] = {"color": colour, "marker": shape, "markersize": 4.5, "linewidth": 1.1}
            axes.plot(*_path(points, log), color=colour, linestyle=dash, linewidth=1.1, zorder=2.5)
            axes.plot(*zip(*points, strict=True), **{**marker, "linestyle": "none", "zorder": 3})
            axes.plot([], [], label=_plain(name), linestyle=dash, **marker)
        hollow = [(line.requested, line.published.value) for line in lines if line.published and _shown(line, summary)]
        if published and hollow:
            xs, ys = zip(*hollow, strict=True)
            text = None if points else _plain(name)
            axes.plot(xs, ys, shape, color=colour, markerfacecolor="none", markersize=6.5, linestyle="none", label=text)
    axes.set_xlabel(label)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _path(points: Sequence[tuple[float, float]], log: bool = False) -> tuple[list[float], list[float]]:
    """Return the points of a curve, through the mean of two points that share a place (two kernels at one sparsity).

    log: the axis is logarithmic, so places are told apart by their ratio.

    Nowhere where more of them do: what was pruned without training has points at any sparsity and no training FLOPs.
    """
    place_of = math.log10 if log and points[0][0] > 0 else float
    first, last = place_of(points[0][0]), place_of(points[-1][0])
    near = SAME * (last - first if log else max(last - first, abs(last)))
    places: list[list[tuple[float, float]]] = []
    for point in points:
        if places and place_of(point[0]) - place_of(places[-1][0][0]) <= near:
            places[-1].append(point)
        else:
            places.append([point])
    if max(map(len, places)) > 2:
        return [], []
    means = [[math.fsum(numbers) / len(place) for numbers in zip(*place, strict=True)] for place in places]
    return [x for x, _ in means], [y for _, y in means]


def _round_ticks(axis: Axis, limits: tuple[float, float]) -> None:
    """Ticks of a logarithmic axis at round numbers, written out; fewer of them the more decades there are."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = limits
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 50 * low else (1, 3) if high < 1000 * low else (1,)))
    powers = high > LONGEST
    axis.set_major_formatter(
        FuncFormatter(lambda value, position: f"$10^{{{math.log10(value):.0f}}}$" if powers else f"{value:,.10g}")
    )
    axis.set_minor_formatter(NullFormatter())


def _shown(line: Line, summary: Summary) -> bool:
    """Published points share the axes only where they share the setting."""
    return summary.comparable and line.published is not None and line.published.verified and line.requested is not None


def _plain(text: str) -> str:
    """Text that matplotlib does not take for a formula."""
    return text.replace("$", r"\$")
