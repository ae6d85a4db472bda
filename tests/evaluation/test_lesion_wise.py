"""Lesion-wise scores: by hand, and against the published evaluator (tests/golden/measures.json)."""

import json
from pathlib import Path

import numpy as np
import pytest

from pixelnet_tf.config import EvaluationConfig, StudyConfig
from pixelnet_tf.evaluation.lesion_wise import LesionWiseRule, LesionWiseScore, score_lesions
from pixelnet_tf.evaluation.protocols import make_protocol
from pixelnet_tf.evaluation.surfels import (
    hausdorff95_surfels,
    surface_dice,
    surfel_areas,
    surfel_distances,
)

GOLDEN = Path(__file__).parents[1] / "golden"
STUDY = StudyConfig(labels={0: "background", 1: "core", 2: "edema", 3: "rim"},
                    regions={"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)})
RULES = {"BraTS-GLI": EvaluationConfig(protocol="brats2023"),
         "BraTS-MET": EvaluationConfig(protocol="brats2023", lesion_dilation=1,
                                       lesion_threshold_mm3=2)}
RESULTS = json.loads((GOLDEN / "measures.json").read_text())


@pytest.fixture(scope="module")
def pairs():
    with np.load(GOLDEN / "measures.npz") as stored:
        return [(stored[f"reference_{n}"], stored[f"prediction_{n}"])
                for n in range(len(RESULTS))]


def boxes(*spans, shape=(30, 12, 12)):
    mask = np.zeros(shape, bool)
    for span in spans:
        mask[tuple(slice(*one) for one in span)] = True
    return mask


@pytest.mark.parametrize("challenge", RULES)
def test_the_published_evaluator_gives_the_same(pairs, challenge):
    protocol = make_protocol(RULES[challenge])
    for number, (reference, prediction) in enumerate(pairs):
        # One spacing for the one challenge, and the other for the other.
        result = RESULTS[number][(number + (challenge == "BraTS-GLI")) % 2]
        scores = protocol.score(reference, prediction, STUDY.regions, result["spacing_mm"])
        for region, expected in result[challenge].items():
            assert scores[region].values == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_surfaces_are_those_of_deepminds_library(pairs):
    compared = 0
    for (reference, prediction), results in zip(pairs, RESULTS, strict=True):
        for result in results:
            if (expected := result["surface"]) is None:
                continue
            found = surfel_distances(reference > 0, prediction > 0, result["spacing_mm"])
            assert hausdorff95_surfels(found) == pytest.approx(expected["hausdorff95"])
            for tolerance in ("0.5", "1.0", "2.0"):
                assert surface_dice(found, float(tolerance)) == pytest.approx(expected[tolerance])
            compared += 1
    assert compared == 38


def test_areas_of_surfels_by_hand():
    areas = surfel_areas(1.0, 1.0, 1.0)
    corner, edge, face = 0b1, 0b11, 0b1111
    # A triangle of sides sqrt(1/2), a rectangle of 1 by sqrt(1/2), a square.
    assert areas[corner] == pytest.approx(np.sqrt(3) / 8)
    assert areas[edge] == pytest.approx(np.sqrt(0.5))
    assert areas[face] == pytest.approx(1)
    assert areas[0] == areas[255] == 0
    assert all(areas[code] == pytest.approx(areas[255 - code]) for code in range(256))
    # Bits 0 to 3 are the corners with x = 0: the face lies across x.
    assert surfel_areas(7.0, 2.0, 3.0)[face] == pytest.approx(6)
    # Contours that lie in no plane have the area of their widest fan.
    assert areas[0b00010111] == pytest.approx(np.sqrt(27) / 4)
    assert sum(areas) == pytest.approx(241.34313970553737, rel=1e-12)
    assert sum(surfel_areas(0.9, 1.3, 5.0)) == pytest.approx(1082.6737632466802, rel=1e-12)


def test_the_surface_of_one_voxel_by_hand():
    voxel, other = boxes(((4, 5), (4, 5), (4, 5))), boxes(((6, 7), (4, 5), (4, 5)))
    found = surfel_distances(voxel, other, (1, 1, 1))
    # Eight corners: four at 1 mm from the other voxel's nearest corner, four at 2 mm.
    assert found.ref_to_pred_mm.tolist() == [1.0] * 4 + [2.0] * 4
    assert found.ref_areas_mm2 == pytest.approx([np.sqrt(3) / 8] * 8)
    assert (surface_dice(found, 0.99), surface_dice(found, 1.0), surface_dice(found, 2.0)) == (
        0, pytest.approx(0.5), 1)
    assert hausdorff95_surfels(found) == 2.0


def test_a_tolerance_that_rounding_misses():
    voxel, other = boxes(((4, 5), (4, 5), (4, 5))), boxes(((8, 9), (4, 5), (4, 5)))
    # 3 x 0.1 is 0.30000000000000004.
    assert surface_dice(surfel_distances(voxel, other, (0.1, 0.1, 0.1)), 0.3) == pytest.approx(0.5)


def test_lesions_found_missed_false_and_too_small_by_hand():
    rule = LesionWiseRule()
    found = ((2, 6), (2, 6), (2, 6))                           # 64 voxels
    missed = ((28, 32), (7, 11), (7, 11))
    small = ((14, 16), (2, 4), (2, 4))                         # 8 voxels
    shape = (44, 12, 12)
    reference = boxes(found, missed, small, shape=shape)
    prediction = boxes(((2, 6), (2, 6), (2, 4)),               # 32 of the 64
                       small, ((40, 41), (2, 3), (2, 3)), shape=shape)   # one voxel of nothing
    score = score_lesions(reference, prediction, (1, 1, 1), 1, rule)
    alone = hausdorff95_surfels(surfel_distances(boxes(found), boxes(((2, 6), (2, 6), (2, 4))),
                                                 (1, 1, 1)))
    dice = 2 * 32 / (64 + 32)
    assert score == LesionWiseScore(pytest.approx(dice / 3),
                                    pytest.approx((alone + 374 + 374) / 3), 1, 1, 1)


def test_nothing_to_score_is_perfect():
    perfect = LesionWiseScore(1.0, 0.0, 0, 0, 0)
    empty, small = boxes(), boxes(((4, 6), (4, 6), (4, 6)))
    for prediction in (empty, small):
        assert score_lesions(small, prediction, (1, 1, 1), 1, LesionWiseRule()) == perfect
    assert score_lesions(empty, empty, (1, 1, 1), 1, LesionWiseRule()) == perfect
    assert score_lesions(empty, small, (1, 1, 1), 1, LesionWiseRule()) == LesionWiseScore(
        0.0, 374.0, 0, 0, 1)


@pytest.mark.parametrize(("mm3", "counted"), [(50.0, 0), (49.99, 1)])
def test_a_lesion_of_the_threshold_is_left_out(mm3, counted):
    lesion = boxes(((2, 7), (2, 7), (2, 4)))                   # 50 voxels
    rule = LesionWiseRule(threshold_mm3=mm3)
    assert score_lesions(lesion, boxes(), (1, 1, 1), 1, rule).missed == counted


def test_the_threshold_is_in_mm3():
    lesion = boxes(((2, 7), (2, 7), (2, 4)))
    assert score_lesions(lesion, boxes(), (1, 1, 1.1), 1.1, LesionWiseRule()).missed == 1


@pytest.mark.parametrize(("gap", "lesions"), [(6, 1), (7, 2)])
def test_lesions_whose_dilations_touch_are_one(gap, lesions):
    second = 6 + gap
    reference = boxes(((2, 6), (2, 6), (2, 6)), ((second, second + 4), (2, 6), (2, 6)))
    assert score_lesions(reference, boxes(), (1, 1, 1), 1, LesionWiseRule()).missed == lesions


def test_a_component_may_belong_to_several_lesions():
    first, second = ((2, 6), (2, 6), (2, 6)), ((16, 20), (2, 6), (2, 6))
    bridge = boxes(((2, 20), (2, 6), (2, 6)))
    score = score_lesions(boxes(first, second), bridge, (1, 1, 1), 1, LesionWiseRule())
    assert (score.found, score.missed, score.false) == (2, 0, 0)
    assert score.dice == pytest.approx(2 * 64 / (64 + 18 * 16))


def test_the_edge_of_the_image_is_where_a_dilation_ends(pairs):
    """A cut of a volume scores as the volume does, at its edges too."""
    protocol = make_protocol(RULES["BraTS-GLI"])
    for reference, prediction in pairs[-3:]:
        room = ((5, 9), (0, 4), (7, 6))
        inner = protocol.score(reference, prediction, STUDY.regions, (1, 1, 1))
        outer = protocol.score(np.pad(reference, room), np.pad(prediction, room), STUDY.regions,
                               (1, 1, 1))
        for region, score in inner.items():
            for measure in ("LesionDice", "LesionHausdorff95", "Dice", "Hausdorff95"):
                assert score.values[measure] == pytest.approx(outer[region].values[measure])
