"""Input, truth, prediction and errors side by side, slice by slice (after the paper's Figure 2).

Pictures are composed pixel by pixel: a voxel is magnified to several pixels, and outlines run
outside of what they surround, so that a lesion of one voxel is seen under its outline.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import patheffects
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from scipy import ndimage

from pixelnet_tf.cases.labels import classes_to_values, judged_alone
from pixelnet_tf.config import EvaluationConfig, StudyConfig
from pixelnet_tf.evaluation.canvas import DPI, new_figure, write_png
from pixelnet_tf.evaluation.case_images import CaseImage, image_of
from pixelnet_tf.evaluation.colours import ERRORS, class_colours
from pixelnet_tf.evaluation.overlap import count_overlaps
from pixelnet_tf.evaluation.protocols import make_protocol
from pixelnet_tf.volumes.case_volume import PreparedVolume
from pixelnet_tf.volumes.geometry import VolumeGeometry
from pixelnet_tf.volumes.slicing import SlicePlan

#: A panel fits into so many pixels of the picture, (height, width).
_PANEL = (500, 400)
#: Pixels of an outline, and between panels.
_OUTLINE, _GAP = 2, 6
#: Margin around a magnified lesion, in parts of its extent.
_MARGIN = 0.25
#: The largest magnification, and the smallest that is worth it.
_MOST, _LEAST = 4.0, 1.25
#: The brain lies deeper in a slice of a head than this part of the largest depth.
_DEEP = 0.3
_TRUTH = "#ffffff"


def overlay_drawer(folder: Path, study: StudyConfig, evaluation: EvaluationConfig
                   ) -> Callable[[PreparedVolume, np.ndarray], None]:
    """A function that draws a prepared volume and its predicted labels (x, y, z) into
    FOLDER/<case>.png, with the Dice of `evaluation` where the truth is known."""
    rules = make_protocol(evaluation)

    def draw(volume: PreparedVolume, labels: np.ndarray) -> None:
        truth = dice = None
        if volume.labels is not None:
            truth = classes_to_values(volume.plan.from_slices(volume.labels), study)
            counts = count_overlaps(*judged_alone(truth, labels, study)[:2], rules.regions(study))
            dice = {region: rules.overlap_values(found)["Dice"]
                    for region, found in counts.items()}
        write_png(overlay_figure(image_of(volume), truth, labels, volume.geometry, study,
                                 volume.name, dice), Path(folder) / f"{volume.name}.png")

    return draw


@dataclass(frozen=True)
class _Frame:
    """A rectangle of a slice, in voxels: the first row and column, height and width."""

    top: float
    left: float
    height: float
    width: float

    def centres(self, pixels: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Where the pixels of a picture of the frame lie, in voxels: rows and columns."""
        return (self.top - 0.5 + (np.arange(pixels[0]) + 0.5) * self.height / pixels[0],
                self.left - 0.5 + (np.arange(pixels[1]) + 0.5) * self.width / pixels[1])


def overlay_figure(shown: CaseImage, truth: np.ndarray | None, prediction: np.ndarray,
                   geometry: VolumeGeometry, study: StudyConfig, title: str,
                   dice: Mapping[str, float] | None = None,
                   slices: Sequence[int] | None = None) -> Figure:
    """Draw axial slices in radiological orientation: the patient's right is at the left.

    A row is a slice: the image alone, the truth's and the prediction's outlines, and the errors
    (without truth: the prediction), magnified where they are small. What lies outside the brain is
    black; what the truth does not judge (`study.ignore_label`) is background on both sides.

    Args:
        shown: one modality, and the brain.
        truth: label values, uint8 `(x, y, z)`; None where there is none.
        prediction: label values, uint8, the same shape.
        geometry: the grid of all three; gives orientation and voxel size.
        study: class names and their label values.
        title: over the figure.
        dice: region -> Dice of the whole case, to stand under the title.
        slices: axial positions from the lowest up; by default the one with the most errors and two
            with much lesion, without truth three with much lesion.
    """
    if truth is not None:
        truth, prediction, _ = judged_alone(truth, prediction, study)
    plan = SlicePlan(geometry)
    view, brain = plan.to_slices(shown.image), plan.to_slices(shown.brain, "nearest")
    predicted = plan.to_slices(prediction)
    true = None if truth is None else plan.to_slices(truth)
    labels = [predicted] if true is None else [true, predicted]
    worst = _worst_slice(true, predicted)
    chosen = list(slices) if slices is not None else slices_with_most_lesion(*labels, first=worst)
    low, high = _window(view[chosen], brain[chosen], study.skull_stripped)
    grey = np.where(brain, np.clip((view - low) / (high - low), 0, 1), 0)
    frame = _extent(brain, labels)
    pixels = _panel_pixels(frame, geometry)
    rank = _by_size(labels, study)

    titles = [f"Input: {shown.modality}", *(["Truth"] if true is not None else []), "Prediction",
              "Errors" if true is not None else "Prediction, magnified"]
    heading = _heading(title, truth, prediction, geometry, dice)
    figure, axes = _grid(len(chosen), titles, pixels, heading)
    for line, number in zip(axes, chosen, strict=True):
        close = _close_up(np.any([volume[number] > 0 for volume in labels], axis=0), frame)
        zoom = frame.width / close.width
        pictures = [_picture(grey[number], frame, pixels)]
        if zoom > 1:
            _mark_frame(pictures[0], close, frame, pixels)
        for volume in labels:
            pictures.append(_picture(grey[number], frame, pixels))
            _outline(pictures[-1], _magnified(volume[number], frame, pixels), rank, study)
        pictures.append(_picture(grey[number], close, pixels))
        near = [_magnified(volume[number], close, pixels) for volume in labels]
        if true is None:
            _outline(pictures[-1], near[0], rank, study)
        else:
            _colour_errors(pictures[-1], *near)
        for ax, picture in zip(line, pictures, strict=True):
            ax.imshow(picture, aspect="auto", interpolation="nearest")
            _mark_sides(ax)
        if zoom > 1:
            _write(line[-1], 0.98, 0.02, f"x {zoom:.1f}", "right", "bottom", 9)
        which = "\nmost errors" if number == worst else ""
        line[0].set_ylabel(f"slice {number + 1} of {plan.slices}{which}", fontsize=9)
    _legend(figure, study, true is not None)
    return figure


def slices_with_most_lesion(*labels: np.ndarray, count: int = 3, first: int | None = None
                            ) -> list[int]:
    """Choose axial slices with much lesion, from the lowest up, with some distance between them.

    Args:
        labels: `(slice, height, width)`, truth first; the first with any lesion decides, and the
            middle slice is all there is to show where none has one.
        count: slices wanted.
        first: one of them that is chosen already.
    """
    chosen = [] if first is None else [first]
    area = next((found for found in (np.count_nonzero(v, axis=(1, 2)) for v in labels)
                 if found.any()), None)
    if area is None:
        return chosen or [labels[0].shape[0] // 2]
    # Neighbouring slices look alike: three of them would say little.
    gap = max(1, np.count_nonzero(area) // (2 * count))
    for number in np.argsort(-area, kind="stable"):
        if area[number] and all(abs(number - other) >= gap for other in chosen):
            chosen.append(int(number))
        if len(chosen) == count:
            break
    return sorted(chosen)


def _worst_slice(truth: np.ndarray | None, prediction: np.ndarray) -> int | None:
    """The slice with the most voxels of a wrong label; None without truth or without error."""
    if truth is None:
        return None
    wrong = np.count_nonzero(truth != prediction, axis=(1, 2))
    return int(wrong.argmax()) if wrong.any() else None


def _window(view: np.ndarray, brain: np.ndarray, skull_stripped: bool) -> tuple[float, float]:
    """Grey levels from the 1st to the 99.5th percentile of the brain in the slices shown.

    Where the skull is there, the brain is what lies deep in the head: fat is brighter than any of
    it and would leave it flat.
    """
    if not skull_stripped:
        depth = np.stack([ndimage.distance_transform_edt(slice_) for slice_ in brain])
        brain = depth > _DEEP * depth.max(axis=(1, 2), keepdims=True)
    inside = view[brain]
    if not inside.size:
        return 0.0, 1.0
    low, high = np.percentile(inside, [1, 99.5])
    return float(low), float(max(high, low + 1e-6))


def _extent(brain: np.ndarray, labels: Sequence[np.ndarray]) -> _Frame:
    """Rows and columns that hold the brain and every label in any slice, with a margin."""
    held: np.ndarray = np.logical_or.reduce(brain, axis=0)
    for volume in labels:
        held |= volume.any(axis=0)
    return _around(held, 3) or _Frame(0, 0, *held.shape)


def _around(mask: np.ndarray, margin: float) -> _Frame | None:
    """The frame of a mask (height, width), within it; None where it is empty."""
    spans = []
    for axis in (1, 0):
        used = np.flatnonzero(mask.any(axis=axis))
        if not used.size:
            return None
        first = float(max(used[0] - margin, 0))
        spans.append((first, float(min(used[-1] + 1 + margin, mask.shape[1 - axis])) - first))
    (top, height), (left, width) = spans
    return _Frame(top, left, height, width)


def _close_up(lesion: np.ndarray, frame: _Frame) -> _Frame:
    """The part of a frame that holds the lesions of a slice, of the frame's shape; the frame
    itself where they are spread over it, or there is none."""
    box = _around(lesion, 0)
    if box is None:
        return frame
    room = 1 + 2 * _MARGIN
    zoom = min(frame.height / (box.height * room), frame.width / (box.width * room), _MOST)
    if zoom < _LEAST:
        return frame
    height, width = frame.height / zoom, frame.width / zoom
    top = np.clip(box.top + (box.height - height) / 2, frame.top,
                  frame.top + frame.height - height)
    left = np.clip(box.left + (box.width - width) / 2, frame.left,
                   frame.left + frame.width - width)
    return _Frame(float(top), float(left), height, width)


def _panel_pixels(frame: _Frame, geometry: VolumeGeometry) -> tuple[int, int]:
    """Height and width of a panel, so that a millimetre is as long in either direction."""
    height_mm, width_mm = _pixel_mm(geometry)
    size_mm = frame.height * height_mm, frame.width * width_mm
    scale = min(_PANEL[0] / size_mm[0], _PANEL[1] / size_mm[1])
    return max(round(size_mm[0] * scale), 1), max(round(size_mm[1] * scale), 1)


def _pixel_mm(geometry: VolumeGeometry) -> tuple[float, float]:
    """Height and width of a pixel of the view, in mm."""
    width_mm, height_mm, _ = geometry.view_spacing_mm
    return height_mm, width_mm


def _picture(grey: np.ndarray, frame: _Frame, pixels: tuple[int, int]) -> np.ndarray:
    """A slice (height, width), 0 to 1, as colours (*pixels, 3), interpolated linearly."""
    rows, columns = frame.centres(pixels)
    magnified = ndimage.map_coordinates(grey, np.meshgrid(rows, columns, indexing="ij"), order=1,
                                        mode="nearest")
    return np.repeat(magnified[..., None], 3, axis=-1)


def _magnified(labels: np.ndarray, frame: _Frame, pixels: tuple[int, int]) -> np.ndarray:
    """Labels (height, width) as pixels: a voxel is a rectangle."""
    rows, columns = (np.clip(np.rint(at).astype(int), 0, length - 1)
                     for at, length in zip(frame.centres(pixels), labels.shape, strict=True))
    return labels[rows][:, columns]


def _by_size(labels: Sequence[np.ndarray], study: StudyConfig) -> list[int]:
    """Label values but the background's, the most frequent first."""
    counts = np.sum([np.bincount(volume.ravel(), minlength=256) for volume in labels], axis=0)
    return sorted(class_colours(study), key=lambda value: -counts[value])


def _ring(mask: np.ndarray) -> np.ndarray:
    """Pixels outside of a mask that touch it, `_OUTLINE` wide."""
    return ndimage.binary_dilation(mask, np.ones((3, 3), bool), _OUTLINE) & ~mask


def _outline(picture: np.ndarray, labels: np.ndarray, rank: Sequence[int],
             study: StudyConfig) -> None:
    """Draw each class' outline outside of it.

    Where two classes meet, the rarer one's outline lies on the other: none hides a small one.
    """
    colours = class_colours(study)
    free = np.ones(labels.shape, bool)
    for value in reversed(rank):
        inside = labels == value
        picture[_ring(inside) & free] = to_rgb(colours[value])
        free &= ~inside


def _colour_errors(picture: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> None:
    """Colour what is missed, falsely found or of another class; outline the whole true lesion."""
    picture[_ring(truth > 0)] = to_rgb(_TRUTH)
    wrong = {"missed": (truth > 0) & (prediction == 0),
             "false alarm": (truth == 0) & (prediction > 0),
             "wrong class": (truth > 0) & (prediction > 0) & (truth != prediction)}
    for kind, inside in wrong.items():
        picture[inside] = 0.35 * picture[inside] + 0.65 * np.array(to_rgb(ERRORS[kind]))


def _mark_frame(picture: np.ndarray, part: _Frame, frame: _Frame, pixels: tuple[int, int]) -> None:
    """Draw the corners of the part that is magnified beside."""
    scale = pixels[0] / frame.height, pixels[1] / frame.width
    top, left = (part.top - frame.top) * scale[0], (part.left - frame.left) * scale[1]
    rows = round(top), min(round(top + part.height * scale[0]), pixels[0]) - 1
    columns = round(left), min(round(left + part.width * scale[1]), pixels[1]) - 1
    arm = max(4, (columns[1] - columns[0]) // 8)
    for row, down in zip(rows, (1, -1), strict=True):
        for column, right in zip(columns, (1, -1), strict=True):
            picture[row, sorted((column, column + arm * right))[0]:][:arm + 1] = 1
            picture[sorted((row, row + arm * down))[0]:, column][:arm + 1] = 1


def _heading(title: str, truth: np.ndarray | None, prediction: np.ndarray,
             geometry: VolumeGeometry, dice: Mapping[str, float] | None) -> list[str]:
    """Lines over the figure: the title, Dice, volumes."""
    voxel_ml = geometry.voxel_mm3 / 1000
    volumes = [f"{name} {np.count_nonzero(volume) * voxel_ml:.1f} ml" for name, volume in
               (("truth", truth), ("prediction", prediction)) if volume is not None]
    facts = f"Lesion: {', '.join(volumes)}"
    if dice:
        scores = ", ".join(f"{region} {value:.3f}" for region, value in dice.items())
        facts = f"Dice: {scores}.  {facts}"
    return [title, *textwrap.wrap(facts, 120)]


def _grid(lines: int, titles: Sequence[str], pixels: tuple[int, int], heading: Sequence[str]
          ) -> tuple[Figure, list[list[Axes]]]:
    """A figure whose axes are exactly as large as the pictures that they show."""
    height, width = pixels
    left, above, below = 48, 34 + 26 * len(heading), 50
    across = left + len(titles) * width + (len(titles) - 1) * _GAP + _GAP
    down = above + lines * height + (lines - 1) * _GAP + below
    figure = new_figure(across / DPI, down / DPI, arranged=False)
    axes = [[figure.add_axes(((left + column * (width + _GAP)) / across,
                              1 - (above + line * (height + _GAP) + height) / down,
                              width / across, height / down))
             for column in range(len(titles))] for line in range(lines)]
    for ax in [ax for row in axes for ax in row]:
        ax.set_xticks([])
        ax.set_yticks([])
        ax.set_frame_on(False)
    for ax, name in zip(axes[0], titles, strict=True):
        ax.set_title(name, fontsize=11, pad=4)
    for number, text in enumerate(heading):
        figure.text(0.5, 1 - (9 + 26 * number) / down, text, ha="center", va="top",
                    fontsize=10 if number else 12, fontweight="normal" if number else "bold")
    return figure, axes


def _mark_sides(ax: Axes) -> None:
    """Say which side is which, as radiologists' pictures do."""
    for x, letter, side in ((0.02, "R", "left"), (0.98, "L", "right")):
        _write(ax, x, 0.98, letter, side, "top", 10)


def _write(ax: Axes, x: float, y: float, words: str, ha: str, va: str, size: int) -> None:
    text = ax.text(x, y, words, transform=ax.transAxes, color="white", fontsize=size,
                   fontweight="bold", ha=ha, va=va)
    text.set_path_effects([patheffects.withStroke(linewidth=2, foreground="black")])


def _legend(figure: Figure, study: StudyConfig, errors: bool) -> None:
    colours = class_colours(study)
    handles: list[Artist] = [Line2D([], [], color=colours[value], linewidth=2,
                                    label=study.labels[value]) for value in colours]
    if errors:
        handles.append(Line2D([], [], color=_TRUTH, linewidth=1.5, label="outline of the truth",
                              path_effects=[patheffects.withStroke(linewidth=3.5,
                                                                   foreground="#555555")]))
        kinds = list(ERRORS) if len(colours) > 1 else list(ERRORS)[:2]
        handles += [Patch(color=ERRORS[kind], label=kind) for kind in kinds]
    figure.legend(handles=handles, loc="lower center", ncols=len(handles), frameon=False,
                  fontsize=10)
