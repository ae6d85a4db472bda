"""Draw docs/images/fc7_alignment.png: where each form of the network reads its fc7 cells.

    python scripts/draw_fc7_alignment.py [OUT.png]

Needs the extra [report]. Positions come from the model's own interpolation.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from pixelnet_tf.model.hypercolumn import interpolation_weights
from pixelnet_tf.model.pixelnet import ALIGNED_RATE, FAITHFUL_RATE

TARGET = Path(__file__).resolve().parents[1] / "docs" / "images" / "fc7_alignment.png"
SIZE, BORDER, STRIDE = 240, 100, 32
POOL5 = -(-(SIZE + 2 * BORDER) // STRIDE)
INK, HIT, FAINT = "#30343b", "#c0392b", "#c5c9cf"
#: Form -> (title, number of fc7 cells, image coordinate of the first cell's centre, rate).
FORMS = {
    "faithful": ("fc7: faithful    fc6 without padding, read at rate 224", POOL5 - 6,
                 3 * STRIDE + 15.5 - BORDER, FAITHFUL_RATE),
    "aligned": ("fc7: aligned    fc6 padded by 3, read at rate 32", POOL5, 15.5 - BORDER,
                ALIGNED_RATE),
}


def seen_from(pixels: np.ndarray, cells: int, first: float, rate: int) -> np.ndarray:
    """Image coordinate that fc7, read at these pixels, is the context of (along one axis)."""
    before, after, weight = (part.numpy() for part in interpolation_weights(
        pixels.astype(np.float32) + BORDER, rate, True, cells))
    return first + STRIDE * (before + weight * (after - before))


def draw_cells(axis, title: str, cells: int, first: float, rate: int) -> None:
    """A line for each cell: from its receptive field's centre to where it is read."""
    centres = first + STRIDE * np.arange(cells)
    read = (rate - 1) / 2 - BORDER + rate * np.arange(cells)
    axis.axvspan(0, SIZE - 1, color="#eef2f6", zorder=0)
    axis.text(SIZE / 2, 1.33, f"image, pixels 0 to {SIZE - 1}", ha="center", fontsize=9, color=INK)
    for cell, (x, y) in enumerate(zip(centres, read, strict=True)):
        used = -STRIDE < y < SIZE + STRIDE
        color = HIT if used and x != y else INK if used else FAINT
        axis.plot([x, y], [1, 0], color=color, lw=1.6 if used else 0.9, clip_on=True,
                  zorder=3 if used else 1)
        axis.plot(x, 1, "o", ms=6, color=color, zorder=4)
        axis.text(x, 1.1, str(cell), ha="center", va="bottom", fontsize=8.5, color=INK)
        if used:
            axis.plot(y, 0, "s", ms=7, color=color, zorder=4)
            axis.text(y, -0.12, f"{y:g}", ha="center", va="top", fontsize=8.5, color=color)
    axis.text(centres[0] - 9, 1.1, "cell", ha="right", va="bottom", fontsize=8.5, color=INK)
    if rate != STRIDE:
        axis.text(20, 0.06, "cell 1 is read 192 pixels\nfrom its place,\n"
                  f"cells 2 to {cells - 1} outside the image", fontsize=9, color=INK,
                  va="bottom")
    axis.set(xlim=(-112, 345), ylim=(-0.5, 1.75), yticks=[1, 0],
             yticklabels=["centre of the\ncell's receptive field", "pixel where\nit is read"],
             xlabel="image coordinate along one axis")
    axis.set_xticks(range(-80, 341, 40))
    axis.set_title(title, loc="left", fontsize=11, color=INK, family="monospace")


def draw_plane(axis, cells: int, first: float, rate: int) -> None:
    """An arrow from pixels to the place whose context they get."""
    grid = np.linspace(24, SIZE - 25, 5)
    seen = seen_from(grid, cells, first, rate)
    whole = seen_from(np.array([0.0, SIZE - 1.0]), cells, first, rate)
    axis.add_patch(plt.Rectangle((0, 0), SIZE - 1, SIZE - 1, color="#eef2f6", zorder=0))
    axis.add_patch(plt.Rectangle((whole[0], whole[0]), *(2 * [whole[1] - whole[0]]),
                                 facecolor="#f6d5d0" if rate != STRIDE else "none",
                                 edgecolor=HIT if rate != STRIDE else INK, lw=1.2, zorder=1))
    for x, to_x in zip(grid, seen, strict=True):
        for y, to_y in zip(grid, seen, strict=True):
            if abs(x - to_x) + abs(y - to_y) > 1:
                axis.annotate("", (to_x, to_y), (x, y), zorder=2, arrowprops={
                    "arrowstyle": "-|>", "color": HIT, "lw": 0.8, "alpha": 0.75})
            axis.plot(x, y, "o", ms=4.5, color=INK, zorder=3)
    axis.set(xlim=(-12, SIZE + 11), ylim=(SIZE + 11, -12), aspect="equal",
             xticks=[0, 120, 239], yticks=[0, 120, 239])
    axis.set_title("pixel  →  place whose fc7 it reads" if rate != STRIDE else
                   "every pixel reads its own place", fontsize=9.5, color=INK)


def main() -> int:
    """Draw the picture."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET
    figure, axes = plt.subplots(2, 2, figsize=(11.5, 7.2), layout="constrained",
                                width_ratios=[2.3, 1])
    for row, (title, cells, first, rate) in zip(axes, FORMS.values(), strict=True):
        draw_cells(row[0], title, cells, first, rate)
        draw_plane(row[1], cells, first, rate)
        for axis in row:
            axis.spines[["top", "right"]].set_visible(False)
            axis.tick_params(labelsize=8.5, colors=INK)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_suffix(".tmp.png")
    figure.savefig(temporary, dpi=100, metadata={"Software": None})
    temporary.replace(target)
    print(f"wrote {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
