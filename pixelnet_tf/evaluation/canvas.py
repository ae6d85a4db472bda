"""Figures without a display and without matplotlib's global state."""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pixelnet_tf.io.files import write_bytes

#: Series of plots.
SERIES = ("#1f6fb4", "#d95f02", "#1b9e77", "#7570b3", "#e7298a", "#66a61e")


#: Pixels of an inch.
DPI = 120


def new_figure(width_inches: float, height_inches: float, *, arranged: bool = True) -> Figure:
    """Return an empty figure that draws into memory.

    matplotlib arranges its axes so that nothing overlaps, unless the caller places them itself.
    """
    figure = Figure(figsize=(width_inches, height_inches), dpi=DPI, facecolor="white")
    figure.set_layout_engine("constrained" if arranged else "none")
    FigureCanvasAgg(figure)
    return figure


def png_bytes(figure: Figure) -> bytes:
    """Draw a figure as PNG."""
    sink = io.BytesIO()
    # Without the version of matplotlib the same figure gives the same bytes.
    figure.savefig(sink, format="png", metadata={"Software": None})
    return sink.getvalue()


def write_png(figure: Figure, path: Path) -> None:
    """Write a figure as PNG; the file appears whole or not at all."""
    write_bytes(path, png_bytes(figure))
