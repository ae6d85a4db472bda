"""The challenges' rules, empty masks above all, on masks that are scored by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from pixelnet_tf.config import EvaluationConfig, StudyConfig
from pixelnet_tf.errors import ConfigError
from pixelnet_tf.evaluation.protocols import BratsProtocol, IslesProtocol, make_protocol
from pixelnet_tf.evaluation.surface import REDUCERS, surface_distances

from .conftest import ball

ET = {"ET": (4,)}
SPACING = (1.0, 1.0, 1.0)


def _volume(*voxels, value=4, shape=(6, 5, 4)):
    volume = np.zeros(shape, np.uint8)
    for voxel in voxels:
        volume[voxel] = value
    return volume


def _score(protocol, reference, prediction, regions=ET, spacing=SPACING):
    return protocol.score(reference, prediction, regions, spacing)


def test_brats_by_hand():
    # Reference x = 1, 2; prediction x = 2, 3, 4 in one row: TP 1, FP 2, FN 1 of 120 voxels.
    reference = _volume((1, 2, 2), (2, 2, 2))
    prediction = _volume((2, 2, 2), (3, 2, 2), (4, 2, 2))
    score = _score(BratsProtocol(hausdorff95="hausdorff95_directed_lower"), reference,
                   prediction)["ET"]
    assert score.values["Dice"] == pytest.approx(2 / 5)
    assert score.values["Sensitivity"] == pytest.approx(1 / 2)
    assert score.values["Specificity"] == pytest.approx(116 / 118)
    assert score.values["Precision"] == pytest.approx(1 / 3)
    # Distances 1, 0 one way; 0, 1, 2 the other: ranks int(0.95) and int(1.9).
    assert score.values["Hausdorff95"] == 1.0
    assert list(score.values) == ["Dice", "Sensitivity", "Specificity", "Hausdorff95",
                                  "Precision"]


def test_brats_pooled_and_directed_on_the_same_masks():
    reference = _volume((1, 2, 2), (2, 2, 2))
    prediction = _volume((2, 2, 2), (3, 2, 2), (4, 2, 2))
    # Pooled 0 0 1 1 2: rank 3.8; directed 0 1 2: rank 1.9.
    pooled = _score(BratsProtocol(), reference, prediction)["ET"]
    directed = _score(BratsProtocol(hausdorff95="hausdorff95_directed"), reference,
                      prediction)["ET"]
    assert pooled.values["Hausdorff95"] == pytest.approx(1.8)
    assert directed.values["Hausdorff95"] == pytest.approx(1.9)


def test_brats_regions_unite_labels():
    reference = np.array([[[1, 2, 4, 0]]], np.uint8)
    prediction = np.array([[[4, 2, 1, 2]]], np.uint8)
    scores = _score(BratsProtocol(), reference, prediction, StudyConfig().regions)
    assert scores["ET"].values["Dice"] == 0.0
    assert scores["TC"].values["Dice"] == 1.0
    assert scores["WT"].values["Dice"] == pytest.approx(6 / 7)


EMPTY, FULL = _volume(), _volume((1, 1, 1), (2, 1, 1), (2, 2, 1))
DIAGONAL = math.sqrt(36 + 25 + 16)


@pytest.mark.parametrize(("reference", "prediction", "expected"), [
    (EMPTY, EMPTY, (1, 1, 1, 0, 1)),
    # Three false positives among 120 negatives.
    (EMPTY, FULL, (0, 0, 117 / 120, DIAGONAL, 0)),
    (FULL, EMPTY, (0, 0, 1, DIAGONAL, 0)),
])
def test_brats_empty_masks(reference, prediction, expected):
    score = _score(BratsProtocol(), reference, prediction)["ET"]
    assert tuple(score.values.values()) == pytest.approx(expected)
    assert all(score.averaged.values())


def test_brats_penalty_is_the_image_diagonal():
    reference = np.zeros((240, 240, 155), np.uint8)
    prediction = reference.copy()
    prediction[100, 100, 100] = 4
    score = _score(BratsProtocol(), reference, prediction)["ET"]
    assert score.values["Hausdorff95"] == pytest.approx(373.1287, abs=5e-5)


@pytest.mark.parametrize(("reference", "prediction"), [(EMPTY, FULL), (FULL, EMPTY)])
def test_brats_exclude_leaves_the_distance_out_and_nothing_else(reference, prediction):
    score = _score(BratsProtocol("exclude"), reference, prediction)["ET"]
    assert score.values["Hausdorff95"] is None
    assert score.averaged == {"Dice": True, "Sensitivity": True, "Specificity": True,
                              "Hausdorff95": False, "Precision": True}
    assert score.values["Dice"] == 0.0


def test_brats_exclude_keeps_two_empty_masks():
    score = _score(BratsProtocol("exclude"), EMPTY, EMPTY)["ET"]
    assert score.values["Hausdorff95"] == 0.0
    assert score.averaged["Hausdorff95"]


def test_isles_by_hand():
    reference = _volume((1, 2, 2), (2, 2, 2), value=1)
    prediction = _volume((2, 2, 2), (3, 2, 2), (4, 2, 2), value=1)
    score = _score(IslesProtocol(), reference, prediction, {"lesion": (1,)}, (2, 1, 1))["lesion"]
    assert list(score.values) == ["Dice", "Hausdorff", "AverageDistance", "Precision", "Recall"]
    assert score.values["Dice"] == pytest.approx(2 / 5)
    assert score.values["Precision"] == pytest.approx(1 / 3)
    assert score.values["Recall"] == pytest.approx(1 / 2)
    assert score.values["Hausdorff"] == 4.0
    # Means 2/2 and (0 + 2 + 4)/3; pooled it would be 8/5.
    assert score.values["AverageDistance"] == pytest.approx(0.5 * (1 + 2))


@pytest.mark.parametrize(("reference", "prediction", "distance"), [
    (EMPTY, EMPTY, 0.0), (EMPTY, FULL, math.inf), (FULL, EMPTY, math.inf),
])
def test_isles_empty_masks(reference, prediction, distance):
    score = _score(IslesProtocol(), reference, prediction)["ET"]
    assert score.values == {"Dice": 0.0, "Hausdorff": distance, "AverageDistance": distance,
                            "Precision": 0.0, "Recall": 0.0}
    assert score.averaged == {"Dice": True, "Hausdorff": False, "AverageDistance": False,
                              "Precision": True, "Recall": True}


def test_isles_scores_everything_non_zero():
    assert IslesProtocol().regions(StudyConfig()) == {"lesion": (1, 2, 4)}
    study = StudyConfig(labels={0: "background", 1: "stroke"}, regions={"stroke": (1,)})
    assert IslesProtocol().regions(study) == {"stroke": (1,)}


def test_isles_border_rule_at_the_arrays_edge_and_not_at_the_crops():
    # A slab on the array's edge: its only surface is the inner face, at x = 1.
    reference, prediction = np.zeros((2, 8, 5, 5), np.uint8)
    reference[:2], prediction[:4] = 1, 1
    score = _score(IslesProtocol(), reference, prediction, {"lesion": (1,)})["lesion"]
    assert score.values["AverageDistance"] == 2.0
    # The same slab inside a larger volume has outer faces, which coincide.
    inside = [np.pad(v, 3) for v in (reference, prediction)]
    assert _score(IslesProtocol(), *inside, {"lesion": (1,)})["lesion"].values[
        "AverageDistance"] < 2.0


@pytest.mark.parametrize("protocol", [BratsProtocol(), IslesProtocol()])
def test_cropping_changes_nothing(protocol):
    rng = np.random.default_rng(4)
    for _ in range(5):
        volumes = np.zeros((2, 14, 12, 10), np.uint8)
        low = rng.integers(0, 4, 3)
        part = rng.choice(np.array([0, 0, 0, 1, 2, 4], np.uint8), (2, 6, 6, 6))
        volumes[:, low[0]:low[0] + 6, low[1]:low[1] + 6, low[2]:low[2] + 6] = part
        regions = {"ET": (4,), "WT": (1, 2, 4)}
        for region, score in _score(protocol, *volumes, regions, (1, 2, 3)).items():
            masks = [np.isin(v, regions[region]) for v in volumes]
            whole = surface_distances(*masks, (1, 2, 3), protocol.surface_rule)
            name = "Hausdorff95" if protocol.name == "brats" else "Hausdorff"
            reducer = REDUCERS["hausdorff95_pooled" if protocol.name == "brats" else "hausdorff"]
            assert score.values[name] == reducer.reduce(whole)
            assert score.values["Dice"] == pytest.approx(
                2 * (masks[0] & masks[1]).sum() / (masks[0].sum() + masks[1].sum()))


def test_each_hausdorff95_is_another_number_for_a_sphere_a_shifted_one_and_a_far_blob():
    """Plain Hausdorff agrees everywhere; the 95th percentiles tell the definitions apart.

    The expected numbers come from whole-volume distance transforms, computed here.
    """
    shape = (96, 96, 96)
    reference, prediction = ball(shape, (60, 60, 60), 14), ball(shape, (63, 63, 60), 14)
    prediction |= ball(shape, (14, 14, 14), 1)

    def transforms(start_element, target_element, border_value):
        def border(mask, element):
            return mask & ~ndimage.binary_erosion(
                mask, ndimage.generate_binary_structure(3, element), border_value=border_value)
        pairs = ((reference, prediction), (prediction, reference))
        return [ndimage.distance_transform_edt(~border(b, target_element))[
            border(a, start_element)] for a, b in pairs]

    brats, isles = transforms(1, 1, 0), transforms(2, 3, 1)
    lower = max(np.sort(d)[int(0.95 * (len(d) - 1))] for d in isles)
    expected = (np.percentile(np.concatenate(brats), 95),
                max(np.percentile(d, 95) for d in brats), lower)
    assert expected == pytest.approx((4.0, 17**0.5, 14**0.5))

    labels = [mask.astype(np.uint8) for mask in (reference, prediction)]
    lesion = {"lesion": (1,)}
    pooled, directed = (
        BratsProtocol(hausdorff95=name).score(*labels, lesion, SPACING)["lesion"].values
        for name in ("hausdorff95_pooled", "hausdorff95_directed"))
    assert pooled["Hausdorff95"] == pytest.approx(expected[0])
    assert directed["Hausdorff95"] == pytest.approx(expected[1])
    rule = IslesProtocol.surface_rule
    assert REDUCERS["hausdorff95_directed_lower"].reduce(
        surface_distances(reference, prediction, SPACING, rule)) == pytest.approx(lower)

    scores = _score(IslesProtocol(), *labels, lesion)["lesion"].values
    assert scores["Hausdorff"] == pytest.approx(max(d.max() for d in brats))
    assert scores["AverageDistance"] == pytest.approx(0.5 * sum(d.mean() for d in isles))
    pooled_mean = REDUCERS["average_distance_pooled"].reduce(
        surface_distances(reference, prediction, SPACING))
    assert pooled_mean == pytest.approx(np.concatenate(brats).mean())
    assert pooled_mean > scores["AverageDistance"] + 0.2


def test_make_protocol():
    brats = make_protocol(EvaluationConfig(empty_policy="exclude"), "hausdorff95_directed")
    assert brats == BratsProtocol("exclude", "hausdorff95_directed")
    assert "hausdorff95_directed:" in brats.definitions["Hausdorff95"]
    assert "left out" in brats.definitions["Hausdorff95"]
    assert make_protocol(EvaluationConfig(protocol="isles")).name == "isles"
    with pytest.raises(ConfigError, match="hausdorff95_pooled"):
        make_protocol(EvaluationConfig(), "hausdorff95")
