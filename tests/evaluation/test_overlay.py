"""Overlays looked at pixel by pixel: side, colour, place."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib import image as png
from matplotlib.colors import to_rgb

from pixelnet_tf.config import StudyConfig
from pixelnet_tf.evaluation.canvas import class_colours
from pixelnet_tf.evaluation.overlay import overlay_figure, slices_with_most_lesion, write_overlay
from pixelnet_tf.volumes.nifti import read_geometry

from .conftest import write_nifti

STUDY = StudyConfig()


def _geometry(tmp_path, shape, affine):
    return read_geometry(write_nifti(tmp_path / "g.nii.gz", np.zeros(shape, np.uint8), affine))


def _panel(figure, row, column):
    """The picture in a panel, float (height, width, 3)."""
    columns = 3 if any(a.get_title() == "Truth" for a in figure.axes) else 2
    return figure.axes[row * columns + column].images[0].get_array()


def _coloured(picture):
    return np.argwhere(np.ptp(picture, axis=-1) > 1e-3)


@pytest.mark.parametrize(("direction", "voxel_of_right_anterior"), [
    ((1, 1), (15, 15)), ((-1, -1), (4, 4)), ((-1, 1), (4, 15)),
])
def test_the_patients_right_is_at_the_left_and_the_front_at_the_top(
        tmp_path, direction, voxel_of_right_anterior):
    """In RAS the first axis runs to the patient's right only where its affine entry is positive."""
    shape = (20, 20, 3)
    geometry = _geometry(tmp_path, shape, np.diag([*map(float, direction), 1, 1]))
    labels = np.zeros(shape, np.uint8)
    labels[(*voxel_of_right_anterior, 1)] = 4
    figure = overlay_figure(np.ones(shape) + labels, None, labels, geometry, STUDY, "x")
    picture = _panel(figure, 0, 1)
    (row, column), = _coloured(picture)
    assert row < picture.shape[0] / 2
    assert column < picture.shape[1] / 2
    left, right = (text.get_text() for text in figure.axes[0].texts)
    assert (left, right) == ("R", "L")
    assert figure.axes[0].texts[0].get_position()[0] < 0.5 < figure.axes[0].texts[1].get_position(
        )[0]


def test_labels_lie_on_the_voxels_they_belong_to(tmp_path, labels):
    """The image is bright where the truth is: coloured pixels of the truth are those, no others."""
    geometry = _geometry(tmp_path, labels.shape, None)
    image = np.where(labels > 0, 100, 10).astype(np.float32)
    image[0, 0, 0] = 0
    figure = overlay_figure(image, labels, np.zeros_like(labels), geometry, STUDY, "x", slices=[6])
    bright = np.argwhere(_panel(figure, 0, 0)[..., 0] > 0.9)
    np.testing.assert_array_equal(_coloured(_panel(figure, 0, 1)), bright)
    assert not len(_coloured(_panel(figure, 0, 2)))


def test_the_papers_colours():
    colours = class_colours(STUDY)
    red, green, yellow = (to_rgb(colours[v]) for v in (1, 2, 4))
    assert red[0] > 0.8
    assert max(red[1:]) < 0.4
    assert green[1] > 0.6
    assert max(green[0], green[2]) < 0.4
    assert min(yellow[:2]) > 0.8
    assert yellow[2] < 0.3
    stroke = StudyConfig(labels={0: "background", 1: "infarct"}, regions={"infarct": (1,)})
    assert class_colours(stroke) == {1: colours[1]}


def test_classes_beyond_the_papers_have_colours_of_their_own():
    study = StudyConfig(labels={0: "background", 1: "a", 2: "b", 3: "edema"}, regions={"a": (1,)})
    assert len(set(class_colours(study).values())) == 3


def test_slices_with_most_lesion():
    volume = np.zeros((30, 4, 4), np.uint8)
    for number, size in ((10, 9), (11, 8), (20, 5), (25, 3)):
        volume[number].flat[:size] = 1
    # Four slices with lesion: any two may be neighbours.
    assert slices_with_most_lesion(volume) == [10, 11, 20]
    volume[5:25, 0, 0] = 1
    chosen = slices_with_most_lesion(volume)
    assert 10 in chosen
    assert 11 not in chosen
    assert min(np.diff(chosen)) >= 3


def test_slices_follow_the_prediction_where_the_truth_is_empty():
    truth, prediction = np.zeros((2, 9, 4, 4), np.uint8)
    prediction[7] = 1
    assert slices_with_most_lesion(truth, prediction) == [7]
    assert slices_with_most_lesion(truth) == [4]


def test_writes_a_png_with_nothing_left_behind(tmp_path, labels):
    geometry = _geometry(tmp_path, labels.shape, np.diag([0.5, 0.5, 6, 1]))
    out = tmp_path / "pictures" / "overlay.png"
    write_overlay(out, labels.astype(float), labels, labels, geometry, STUDY, "a case")
    picture = png.imread(out)
    assert picture.ndim == 3
    assert min(picture.shape[:2]) > 300
    assert [p.name for p in out.parent.iterdir()] == ["overlay.png"]


def test_a_constant_image_without_lesion_is_drawn(tmp_path):
    geometry = _geometry(tmp_path, (6, 6, 3), None)
    empty = np.zeros((6, 6, 3), np.uint8)
    figure = overlay_figure(empty, empty, empty, geometry, STUDY, "x")
    assert _panel(figure, 0, 0).shape == (6, 6, 3)
