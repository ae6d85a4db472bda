"""Figure 2 of the paper: input, truth and prediction side by side, slice by slice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from pixelnet_tf.config import StudyConfig
from pixelnet_tf.evaluation.canvas import class_colours, new_figure, write_png
from pixelnet_tf.volumes.geometry import VolumeGeometry
from pixelnet_tf.volumes.slicing import SlicePlan

_PANEL_INCHES = 3.0
_OPACITY = 0.5


def write_overlay(
    path: Path,
    image: np.ndarray,
    truth: np.ndarray | None,
    prediction: np.ndarray,
    geometry: VolumeGeometry,
    study: StudyConfig,
    title: str,
    slices: Sequence[int] | None = None,
) -> None:
    """Draw `overlay_figure` into a PNG file."""
    write_png(overlay_figure(image, truth, prediction, geometry, study, title, slices), path)


def overlay_figure(
    image: np.ndarray,
    truth: np.ndarray | None,
    prediction: np.ndarray,
    geometry: VolumeGeometry,
    study: StudyConfig,
    title: str,
    slices: Sequence[int] | None = None,
) -> Figure:
    """Draw axial slices in radiological orientation: the patient's right is at the left.

    Args:
        image: one modality, `(x, y, z)`, any intensities.
        truth: label values, uint8, the same shape; None where there is none.
        prediction: label values, uint8, the same shape.
        geometry: of all three; gives orientation and voxel size.
        study: class names and their label values.
        title: over the figure.
        slices: axial positions from the lowest up; by default three with much lesion.
    """
    plan = SlicePlan(geometry)
    view = plan.to_slices(np.asarray(image, np.float32))
    panels = [("Input", None)]
    if truth is not None:
        panels.append(("Truth", plan.to_slices(truth)))
    panels.append(("Prediction", plan.to_slices(prediction)))
    chosen = list(slices) if slices is not None else slices_with_most_lesion(
        *(labels for _, labels in panels[1:]))
    rows, columns = _extent(view, [labels for _, labels in panels[1:]])
    height_mm, width_mm = _pixel_mm(geometry)
    tall = (rows.stop - rows.start) * height_mm / ((columns.stop - columns.start) * width_mm)

    figure = new_figure(_PANEL_INCHES * len(panels),
                        _PANEL_INCHES * tall * len(chosen) + 0.9)
    axes = figure.subplots(len(chosen), len(panels), squeeze=False)
    low, high = _window(view)
    for ax, (name, _) in zip(axes[0], panels, strict=True):
        ax.set_title(name, fontsize=11)
    for line, number in zip(axes, chosen, strict=True):
        for ax, (_, labels) in zip(line, panels, strict=True):
            grey = np.clip((view[number, rows, columns] - low) / (high - low), 0, 1)
            picture = np.repeat(grey[..., None], 3, axis=-1)
            if labels is not None:
                _colour(picture, labels[number, rows, columns], study)
            ax.imshow(picture, aspect=height_mm / width_mm, interpolation="nearest")
            _mark(ax)
        line[0].set_ylabel(f"slice {number + 1} of {plan.slices}", fontsize=9)
    figure.suptitle(title, fontsize=12)
    colours = class_colours(study)
    figure.legend(handles=[Patch(color=colours[value], label=study.labels[value])
                           for value in colours],
                  loc="outside lower center", ncols=len(colours), frameon=False, fontsize=10)
    return figure


def slices_with_most_lesion(*labels: np.ndarray, count: int = 3) -> list[int]:
    """Choose axial slices with much lesion, from the lowest up, with some distance between them.

    Args:
        labels: `(slice, height, width)`, truth first; the first with any lesion decides, and the
            middle slice is all there is to show where none has one.
        count: slices wanted.
    """
    area = next((found for found in (np.count_nonzero(v, axis=(1, 2)) for v in labels)
                 if found.any()), None)
    if area is None:
        return [labels[0].shape[0] // 2]
    # Neighbouring slices look alike: three of them would say little.
    gap = max(1, np.count_nonzero(area) // (2 * count))
    chosen: list[int] = []
    for number in np.argsort(-area, kind="stable"):
        if area[number] and all(abs(number - other) >= gap for other in chosen):
            chosen.append(int(number))
        if len(chosen) == count:
            break
    return sorted(chosen)


def _colour(picture: np.ndarray, labels: np.ndarray, study: StudyConfig) -> None:
    for value, colour in class_colours(study).items():
        inside = labels == value
        picture[inside] = (1 - _OPACITY) * picture[inside] + _OPACITY * np.array(to_rgb(colour))
        # An opaque rim shows where exactly the class ends.
        padded = np.pad(inside, 1)
        core = (padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:])
        picture[inside & ~core] = to_rgb(colour)


def _mark(ax: Axes) -> None:
    """Say which side is which, as radiologists' pictures do."""
    ax.set_xticks([])
    ax.set_yticks([])
    for x, letter, side in ((0.02, "R", "left"), (0.98, "L", "right")):
        text = ax.text(x, 0.98, letter, transform=ax.transAxes, color="white", fontsize=11,
                       fontweight="bold", ha=side, va="top")
        text.set_path_effects([patheffects.withStroke(linewidth=2, foreground="black")])


def _window(view: np.ndarray) -> tuple[float, float]:
    """Grey levels from the 1st to the 99.5th percentile of what is not background."""
    inside = view[view != view.flat[0]]
    if not inside.size:
        return 0.0, 1.0
    low, high = np.percentile(inside, [1, 99.5])
    return float(low), float(max(high, low + 1e-6))


def _extent(view: np.ndarray, labels: Sequence[np.ndarray]) -> tuple[slice, slice]:
    """Rows and columns that hold the head and every label, with a margin."""
    held = (view != view.flat[0]).any(axis=0)
    for volume in labels:
        held |= volume.any(axis=0)
    spans = []
    for axis in (1, 0):
        used = np.flatnonzero(held.any(axis=axis))
        length = held.shape[1 - axis]
        spans.append(slice(max(int(used[0]) - 4, 0), min(int(used[-1]) + 5, length))
                     if used.size else slice(0, length))
    return spans[0], spans[1]


def _pixel_mm(geometry: VolumeGeometry) -> tuple[float, float]:
    """Height and width of a pixel of the view, in mm."""
    axes = nib.io_orientation(geometry.affine)[:, 0].astype(int)
    by_world = {int(world): geometry.spacing_mm[i] for i, world in enumerate(axes)}
    return by_world[1], by_world[0]
