"""Post-processing chosen on validation cases: library and verb."""

import json

import nibabel as nib
import numpy as np
import pytest

from pixelnet_tf.cases.split import Split
from pixelnet_tf.cli import main
from pixelnet_tf.config import PostprocessConfig, StudyConfig, config_to_yaml, load_config
from pixelnet_tf.errors import DataError
from pixelnet_tf.evaluation.matching import match_cases
from pixelnet_tf.evaluation.tuning import (
    LabelledCase,
    as_overrides,
    best_on_validation,
    mean_dice,
    tune_postprocess,
)

STUDY = StudyConfig()
SPLIT = Split(("t",), ("v1", "v2"), ())


@pytest.fixture
def folders(tmp_path):
    """Truth with enhancing tumour in one case only; predictions with islands and a hole."""
    truth = np.zeros((24, 24, 8), np.uint8)
    truth[2:12, 2:12, 1:7], truth[4:10, 4:10, 2:6] = 2, 1
    for case in ("v1", "v2"):
        predicted = truth.copy()
        predicted[18:22, 18:22, 2:4] = 2  # An island of 32 voxels: edema.
        predicted[6, 6, 4] = 0            # A hole.
        if case == "v1":
            predicted[5:8, 5:8, 3] = 4    # Nine voxels of enhancing tumour that is none.
        for folder, labels in (("truth", truth), ("predicted", predicted)):
            (tmp_path / folder).mkdir(exist_ok=True)
            nib.save(nib.Nifti1Image(labels, np.eye(4)), tmp_path / folder / f"{case}.nii.gz")
    return tmp_path


def test_each_step_takes_the_smallest_value_that_is_best(folders):
    matching = match_cases(folders / "predicted", folders / "truth", STUDY)
    chosen, rounds = tune_postprocess(matching, SPLIT, STUDY)
    assert [found.step for found in rounds] == [
        "minimum_component.WT", "largest_component.WT", "minimum_component.TC",
        "largest_component.TC", "minimum_component.ET", "largest_component.ET", "fill_holes",
        "small_enhancing_tumour"]
    assert dict(chosen.minimum_component) == {"WT": 100, "ET": 10}
    assert chosen.fill_holes
    # The small components of ET went before.
    assert chosen.small_enhancing_tumour == 0
    assert as_overrides(chosen) == ["prediction.postprocess.minimum_component={WT: 100, ET: 10}",
                                    "prediction.postprocess.fill_holes=true"]
    for found in rounds:
        assert found.dice[found.values.index(found.taken)] == max(found.dice)
    assert rounds[-1].dice[0] == pytest.approx(1.0)


def test_the_largest_component_alone_where_no_size_parts_true_from_false(tmp_path):
    stroke = StudyConfig(labels={0: "background", 1: "lesion"}, regions={"lesion": (1,)})
    for case, side in (("v1", 3), ("v2", 20)):
        truth = np.zeros((48, 24, 24), np.uint8)
        truth[:side, :side, :side] = 1
        predicted = truth.copy()
        # An island smaller than its own case's lesion; the large case's outgrows the small lesion.
        predicted[-side + 1:, :side - 1, :side - 1] = 1
        for folder, labels in (("truth", truth), ("predicted", predicted)):
            (tmp_path / folder).mkdir(exist_ok=True)
            nib.save(nib.Nifti1Image(labels, np.eye(4)), tmp_path / folder / f"{case}.nii.gz")
    matching = match_cases(tmp_path / "predicted", tmp_path / "truth", stroke)
    chosen, rounds = tune_postprocess(matching, SPLIT, stroke)
    assert chosen.largest_component == ("lesion",)
    assert rounds[1].dice[1] == pytest.approx(1.0)
    assert "prediction.postprocess.largest_component=[lesion]" in as_overrides(chosen)
    assert load_config(None, ["prediction.postprocess.largest_component=[WT]"]
                       ).prediction.postprocess.largest_component == ("WT",)


def test_mean_dice_by_hand():
    truth = np.array([2, 2, 1, 0], np.uint8)
    predicted = np.array([2, 0, 1, 1], np.uint8)
    # WT: 2*2/(3+3); TC: 2*1/(1+2); ET is empty on both sides.
    assert mean_dice(truth, predicted, STUDY) == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)


def test_a_case_that_was_tested_on_is_refused(folders):
    matching = match_cases(folders / "predicted", folders / "truth", STUDY)
    with pytest.raises(DataError, match="case v2: is not among the validation cases"):
        tune_postprocess(matching, Split(("t",), ("v1",), ("v2",)), STUDY)


def test_the_verb(folders, capsys):
    run = folders / "run"
    run.mkdir()
    (run / "config.yaml").write_text(config_to_yaml(load_config()))
    (run / "split.json").write_text(json.dumps(SPLIT.to_json()))
    with pytest.raises(SystemExit) as left:
        main(["postprocess", "--model", str(run), "--predictions", str(folders / "predicted"),
              "--references", str(folders / "truth")])
    assert left.value.code == 0
    printed = capsys.readouterr().out
    assert "mean Dice over 2 validation cases and 3 regions" in printed
    assert "fill_holes: False: " in printed
    option = printed.splitlines()[-1]
    assert option == ("use: --set 'prediction.postprocess.minimum_component={WT: 100, ET: 10}' "
                      "--set prediction.postprocess.fill_holes=true")
    load_config(None, ["prediction.postprocess.minimum_component={WT: 100, ET: 10}"])


OFF, SMALL, LARGE = (PostprocessConfig(minimum_component={"WT": n}) for n in (0, 3, 200))
PARTS = Split(train=("t",), validation=("v", "w"), test=("x",))


def _lesion(tail=True):
    """Edema 6x6x3 with a 2x2x1 enhancing island in it, and two voxels of edema far away."""
    labels = np.zeros((12, 12, 5), np.uint8)
    labels[1:7, 1:7, 1:4] = 2
    labels[3:5, 3:5, 2] = 4
    labels[10, 10, 2:4] = 2 * tail
    return labels


def test_chooses_what_scores_best_on_validation_cases():
    cases = [LabelledCase(name, _lesion(), _lesion(tail=False)) for name in ("v", "w")]
    chosen, means = best_on_validation([OFF, SMALL, LARGE], cases, PARTS, STUDY)
    assert chosen is SMALL
    # Whole tumour: 108 voxels, two false ones without clean-up, none left with too much of it.
    # Core and enhancing tumour: the island, which goes with the last.
    assert means == pytest.approx([(216 / 218 + 2) / 3, 1.0, 0.0])


def test_the_first_candidate_wins_a_tie():
    case = LabelledCase("v", _lesion(), _lesion())
    chosen, _ = best_on_validation(
        [OFF, PostprocessConfig(fill_holes=True)], [case], PARTS, STUDY)
    assert chosen is OFF


@pytest.mark.parametrize("name", ["t", "x"])
def test_refuses_to_choose_on_training_or_test_cases(name):
    case = LabelledCase(name, _lesion(), _lesion())
    with pytest.raises(DataError, match="not among the validation cases"):
        best_on_validation([OFF], [case], PARTS, STUDY)


def test_refuses_to_choose_on_nothing():
    with pytest.raises(DataError, match=r"split\.validation"):
        best_on_validation([OFF], [], PARTS, STUDY)
