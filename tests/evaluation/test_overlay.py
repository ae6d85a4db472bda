"""Overlays looked at pixel by pixel: side, colour, place, window."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib import image as png
from matplotlib.colors import to_rgb

from pixelnet_tf.cases.case import Case
from pixelnet_tf.config import StudyConfig, load_config
from pixelnet_tf.evaluation.case_images import CaseImage, image_of, image_reader
from pixelnet_tf.evaluation.colours import ERRORS, class_colours
from pixelnet_tf.evaluation.overlay import (
    overlay_drawer,
    overlay_figure,
    slices_with_most_lesion,
)
from pixelnet_tf.volumes.case_volume import prepare_case
from pixelnet_tf.volumes.nifti import read_geometry
from pixelnet_tf.volumes.phantom_study import write_phantom

from .conftest import ball, write_nifti

STUDY = StudyConfig()


def _geometry(tmp_path, shape, affine=None):
    return read_geometry(write_nifti(tmp_path / "g.nii.gz", np.zeros(shape, np.uint8), affine))


def _shown(image, brain=None, modality="flair"):
    image = np.asarray(image, np.float32)
    return CaseImage(image, np.ones(image.shape, bool) if brain is None else brain, modality)


def _panel(figure, row, column, columns=4):
    """The picture in a panel, float (height, width, 3)."""
    return np.asarray(figure.axes[row * columns + column].images[0].get_array())


def _places(picture, colour=None):
    """Pixels of a colour, or of any (row, column)."""
    if colour is None:
        return np.argwhere(np.ptp(picture, axis=-1) > 1e-3)
    return np.argwhere(np.abs(picture - to_rgb(colour)).max(axis=-1) < 1e-6)


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
    figure = overlay_figure(_shown(np.ones(shape) + labels), None, labels, geometry, STUDY, "x")
    picture = _panel(figure, 0, 1, 3)
    assert picture.shape[:2] == (400, 400)
    # The voxel lies at row 4 and column 4 of 20; its outline is around it and leaves it free.
    middle = _places(picture).mean(axis=0) / 20
    np.testing.assert_allclose(middle, 4.475, atol=0.01)
    left, right = (text.get_text() for text in figure.axes[0].texts)
    assert (left, right) == ("R", "L")
    assert figure.axes[0].texts[0].get_position()[0] < 0.5 < figure.axes[0].texts[1].get_position(
        )[0]


def test_an_outline_runs_outside_so_that_a_single_voxel_stays_visible(tmp_path):
    shape = (20, 20, 3)
    geometry = _geometry(tmp_path, shape)
    labels = np.zeros(shape, np.uint8)
    labels[10, 10, 1] = 1
    image = np.where(labels > 0, 100, 50)
    figure = overlay_figure(_shown(image), labels, labels, geometry, STUDY, "x")
    bare, outlined = _panel(figure, 0, 0), _panel(figure, 0, 2)
    voxel = slice(200, 220)
    # A grid of 20 voxels on 400 pixels: 20 for the voxel, 2 for the outline on each side.
    np.testing.assert_array_equal(outlined[voxel, voxel], bare[voxel, voxel])
    ring = np.zeros(bare.shape[:2], bool)
    ring[198:222, 198:222] = True
    ring[voxel, voxel] = False
    np.testing.assert_array_equal(_places(outlined, class_colours(STUDY)[1]), np.argwhere(ring))
    assert len(_places(outlined)) == ring.sum()


def test_where_classes_meet_the_rarer_one_is_not_hidden(tmp_path):
    shape = (20, 20, 3)
    labels = np.zeros(shape, np.uint8)
    labels[5:15, 5:15, 1] = 2
    labels[10, 10, 1] = 4
    figure = overlay_figure(_shown(np.ones(shape)), labels, labels, _geometry(tmp_path, shape),
                            STUDY, "x")
    picture, colours = _panel(figure, 0, 2), class_colours(STUDY)
    assert not len(_places(picture[200:220, 200:220]))
    assert len(_places(picture, colours[4])) == 24**2 - 20**2
    # Edema's outline is around the whole; none of it inside, where it meets the other.
    assert len(_places(picture, colours[2])) == 204**2 - 200**2


def test_errors_are_coloured_by_kind(tmp_path):
    shape = (20, 20, 3)
    truth, prediction = np.zeros((2, *shape), np.uint8)
    truth[4:16, 4:16, 1] = 2
    prediction[6:18, 4:16, 1] = 2
    prediction[8, 8, 1] = 4
    figure = overlay_figure(_shown(np.full(shape, 7)), truth, prediction,
                            _geometry(tmp_path, shape), STUDY, "x", slices=[1])
    picture = _panel(figure, 0, 3)
    # Spread over the slice, they are not magnified: 20 x 20 pixels a voxel. Grey is 0 here.
    counts = {kind: len(_places(picture, 0.65 * np.array(to_rgb(colour))))
              for kind, colour in ERRORS.items()}
    assert counts["missed"] == 2 * 12 * 400
    # The outline of the truth, 2 pixels wide, shines through what lies outside of it.
    assert counts["false alarm"] == 2 * 12 * 400 - 2 * 12 * 20
    assert counts["wrong class"] == 400


def test_small_errors_are_magnified_and_their_place_is_marked(tmp_path):
    shape = (40, 40, 3)
    truth, prediction = np.zeros((2, *shape), np.uint8)
    truth[20:24, 20:24, 1] = 1
    prediction[20:24, 20:23, 1] = 1
    figure = overlay_figure(_shown(np.full(shape, 7)), truth, prediction,
                            _geometry(tmp_path, shape), STUDY, "x", slices=[1])
    assert "x 4.0" in [text.get_text() for text in figure.axes[3].texts]
    missed = 0.65 * np.array(to_rgb(ERRORS["missed"]))
    assert len(_places(_panel(figure, 0, 3), missed)) == 4 * 40 * 40
    corners = np.argwhere(_panel(figure, 0, 0).min(axis=-1) == 1)
    # A quarter of 40 voxels around voxels 20 to 23, 10 pixels each.
    np.testing.assert_array_equal(corners.min(axis=0), (170, 170))
    np.testing.assert_array_equal(corners.max(axis=0), (269, 269))


@pytest.mark.parametrize("skull_stripped", [True, False])
def test_the_window_is_the_brains_and_outside_it_is_black(skull_stripped, tmp_path):
    """A head: brain of 10 to 20, a rim of fat of 200, air of 3."""
    shape = (80, 80, 3)
    head, inner = (np.repeat(ball((80, 80), (40, 40), radius)[..., None], 3, axis=-1)
                   for radius in (36, 31))
    image = np.where(inner, np.linspace(10, 20, 80)[:, None, None], np.where(head, 200, 3))
    brain = inner if skull_stripped else head
    study = load_config(None, [f"study.skull_stripped={skull_stripped}"]).study
    empty = np.zeros(shape, np.uint8)
    figure = overlay_figure(_shown(image, brain), None, empty, _geometry(tmp_path, shape), study,
                            "x", slices=[1])
    grey = _panel(figure, 0, 0, 3)[..., 0]
    assert grey[0, 0] == 0
    row = grey[grey.shape[0] // 2]
    inside = row[row.size // 5:-row.size // 5]
    # The brain's own range fills most of the grey levels.
    assert inside.max() - inside.min() > 0.6
    # Three voxels beside the mask are shown, too: fat, which is no brain, or air and then fat.
    width = 69 if skull_stripped else 79
    fat = row[round(row.size * (1.5 if skull_stripped else 5.5) / width)]
    assert fat == (0 if skull_stripped else 1)


def test_names_the_modality_and_gives_dice_and_volumes(tmp_path):
    shape = (20, 20, 3)
    labels = np.zeros(shape, np.uint8)
    labels[5:15, 5:15, 1] = 1
    geometry = _geometry(tmp_path, shape, np.diag([2.0, 2, 5, 1]))
    figure = overlay_figure(_shown(np.ones(shape), modality="dwi"), labels, labels, geometry, STUDY,
                            "case 7", {"WT": 0.98765, "TC": 1.0})
    assert [ax.get_title() for ax in figure.axes[:4]] == ["Input: dwi", "Truth", "Prediction",
                                                          "Errors"]
    words = [text.get_text() for text in figure.texts]
    assert words == ["case 7", "Dice: WT 0.988, TC 1.000.  Lesion: truth 2.0 ml, prediction 2.0 ml"]
    assert [text.get_text() for text in figure.legends[0].texts] == [
        "necrosis", "edema", "enhancing", "outline of the truth", *ERRORS]
    # Its pixels are as wide as high where voxels are not.
    flat = _geometry(tmp_path, shape, np.diag([2.0, 1, 5, 1]))
    picture = _panel(overlay_figure(_shown(np.ones(shape)), labels, labels, flat, STUDY, "x"), 0, 0)
    assert picture.shape[:2] == (200, 400)


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
    # One that is chosen already keeps its neighbours away.
    beside = slices_with_most_lesion(volume, first=12)
    assert 12 in beside
    assert 10 not in beside
    assert len(beside) == 3


def test_slices_follow_the_prediction_where_the_truth_is_empty():
    truth, prediction = np.zeros((2, 9, 4, 4), np.uint8)
    prediction[7] = 1
    assert slices_with_most_lesion(truth, prediction) == [7]
    assert slices_with_most_lesion(truth) == [4]


def test_the_slice_with_the_most_errors_is_among_the_shown(tmp_path, labels):
    prediction = labels.copy()
    prediction[2:4, 2:4, 1] = 2
    figure = overlay_figure(_shown(labels), labels, prediction, _geometry(tmp_path, labels.shape),
                            STUDY, "x")
    named = [ax.get_ylabel() for ax in figure.axes if ax.get_ylabel()]
    assert len(named) == 3
    assert named[0] == "slice 2 of 12\nmost errors"


def test_a_constant_image_without_lesion_or_brain_is_drawn(tmp_path):
    geometry = _geometry(tmp_path, (6, 6, 3))
    empty = np.zeros((6, 6, 3), np.uint8)
    figure = overlay_figure(_shown(empty, empty > 0), empty, empty, geometry, STUDY, "x")
    assert not _panel(figure, 0, 0).any()


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    """A phantom study of one case, its configuration, and the case as prepared."""
    folder = tmp_path_factory.mktemp("phantom") / "study"
    write_phantom(folder, 1, 0, size=(32, 28, 12))
    config = load_config("phantom", ["prepare.bias_field.enabled=false"])
    place = folder / "phantom_001"
    case = Case("phantom_001", {m: place / f"phantom_001_{m}.nii.gz"
                                for m in config.study.modalities},
                place / "phantom_001_seg.nii.gz")
    return folder, config, prepare_case(case, config.study, config.prepare)


def test_predict_draws_what_the_report_draws(phantom, tmp_path):
    """From raw and from prepared images, within the rounding of a grey level."""
    folder, config, volume = phantom
    truth = volume.plan.from_slices(volume.labels).astype(np.uint8)
    truth[truth == 3] = 4
    prediction = np.roll(truth, 1, axis=0)
    overlay_drawer(tmp_path / "new", config.study, config.evaluation)(volume, prediction)
    drawn = png.imread(tmp_path / "new" / "phantom_001.png")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["phantom_001.png"]
    assert min(drawn.shape[:2]) > 1000
    shown = image_reader(folder, config.study)("phantom_001", volume.geometry)
    figures = [overlay_figure(one, truth, prediction, volume.geometry, config.study, "x")
               for one in (image_of(volume), shown)]
    for mine, other in zip(figures[0].axes, figures[1].axes, strict=True):
        np.testing.assert_allclose(np.asarray(mine.images[0].get_array()),
                                   np.asarray(other.images[0].get_array()), atol=2 / 255)
