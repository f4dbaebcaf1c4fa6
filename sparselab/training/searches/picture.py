"""A genotype drawn: each state is a line from where it is made, each input of a node an arrow down to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sparselab.inputs.models.genotype import INPUTS, Genotype, Nodes
from sparselab.storage.png import grey

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIDE = 0.24  # of a column, between a node and each of the two arrows that come down to it
FONT = 8.0
DPI = 100


def picture(genotype: Genotype) -> bytes:
    """Draw both cells of a genotype, the normal one on the left, into the bytes of a grey PNG file."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    settings: Any = {"font.family": "DejaVu Sans", "font.size": FONT}
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **settings}):
        widest = max(len(genotype.normal), len(genotype.reduce))
        figure = Figure(figsize=(2.4 * widest, 0.7 + 0.55 * (widest + INPUTS)), dpi=DPI, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        both = zip(("normal cell", "reduction cell"), (genotype.normal, genotype.reduce), strict=True)
        for axes, (title, nodes) in zip(figure.subplots(1, 2, squeeze=False)[0], both, strict=True):
            _draw(axes, title, nodes, widest)
        canvas.draw()
        colours = np.asarray(canvas.buffer_rgba())[..., :3].astype(np.uint32)
    return grey((colours.sum(-1) // 3).astype(np.uint8))


def _draw(axes: Axes, title: str, nodes: Nodes, columns: int) -> None:
    axes.set_title(title, fontsize=FONT + 1)
    axes.set_axis_off()
    axes.set_xlim(-0.5, columns + 0.9)
    axes.set_ylim(-(columns + INPUTS) + 0.4, 0.5)
    end = len(nodes) + 0.6
    for state in range(INPUTS + len(nodes)):
        column = max(0, state - INPUTS + 1)
        axes.plot([column, end], [-state, -state], color="0.75", linewidth=1.0, zorder=1)
        text = ("cell k-2", "cell k-1")[state] if state < INPUTS else f"node {state - INPUTS}"
        axes.text(column, -state, text, ha="center", va="center", zorder=4, bbox={"boxstyle": "round", "fc": "white"})
        if state >= INPUTS:
            axes.text(end, -state, " out", ha="left", va="center", color="0.4")
    for number, node in enumerate(nodes):
        for side, (operation, state) in zip((-SIDE, SIDE), node, strict=True):
            place, bottom = number + 1 + side, -(number + INPUTS)
            arrow: Any = {"arrowstyle": "-|>", "linewidth": 1.0, "shrinkA": 0, "shrinkB": 8}
            axes.annotate("", (place, bottom), (place, -state), arrowprops=arrow, zorder=2)
            name = operation.removesuffix("_connect").replace("_conv_", " ").replace("_pool_", " ")
            white: Any = {"boxstyle": "square,pad=0.1", "fc": "white", "ec": "none"}
            axes.text(
                place,
                (bottom - state) / 2 + 0.12,
                name,
                ha="center",
                va="center",
                fontsize=FONT - 1,
                zorder=3,
                bbox=white,
            )
            axes.plot([place], [-state], ".", color="black", zorder=3)
