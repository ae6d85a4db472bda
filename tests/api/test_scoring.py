"""Scores of segmentations in memory are those of files, and what is refused in one is in the other.
"""

import nibabel as nib
import numpy as np
import pytest

import pixelnet_tf as px
from pixelnet_tf.errors import ConfigError, DataError

ONE_LESION = ("study.labels={0: background, 1: lesion}", "study.regions={lesion: [1]}")


def forms(tmp_path) -> dict:
    """Predictions and references, masks of 0 and 1, in every form."""
    masks = np.zeros((2, 6, 5, 4), np.uint8)
    masks[0, 1:3, 1:3, 1:3] = masks[1, 1:4, 1:3, 1:3] = 1
    pair = [(mask, np.eye(4)) for mask in masks]
    for name, mask in zip(("predictions", "references"), masks, strict=True):
        (tmp_path / name).mkdir()
        nib.save(nib.Nifti1Image(mask, np.eye(4)), tmp_path / name / "p1.nii.gz")
    return {"images": pair, "dictionaries": [{"p1": image} for image in pair],
            "folders": [tmp_path / "predictions", tmp_path / "references"]}


def test_labels_that_nobody_named_are_not_taken_for_those_of_brats(tmp_path):
    """A mask of one lesion has no enhancing tumour, whose Dice would be 1 on either side."""
    for name, (predictions, references) in forms(tmp_path).items():
        with pytest.raises(ConfigError, match=r"1 cases hold the labels \[0, 1\] alone"):
            px.evaluate(predictions, references)
        scores = px.evaluate(predictions, references, overrides=ONE_LESION)
        assert scores.mean() == pytest.approx(2 * 8 / (8 + 12)), name


def test_no_case_is_no_score():
    with pytest.raises(DataError, match="there is no case to score"):
        px.evaluate({}, {})
