"""A look at a study, at cases whose images do not lie alike."""

import numpy as np
import pytest

from pixelnet_tf.cases.case import Case
from pixelnet_tf.reporting import LogReporter
from pixelnet_tf.volumes.survey import survey_study

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
#: The same shape, with the axes along y and z in place of x and y, and so on.
TURNED = np.array([[0, 0, 1.0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
#: As a gantry tilted by 30 degrees gives it: voxels of 1 x 1 x 4 mm sides and 3.46 mm3.
TILTED = np.array([[1.0, 0, 0, 0], [0, 1, 2, 0], [0, 0, 12 ** 0.5, 0], [0, 0, 0, 1]])


@pytest.mark.parametrize("affine", [TURNED, LPS + np.diag([0, 0, 0.5, 0])], ids=["axes", "sides"])
def test_an_image_of_the_same_shape_on_another_grid_is_passed_over(save, tmp_path, affine):
    """Of unequal sides, so that the views of the two have other shapes."""
    array = np.zeros((12, 10, 8), np.float32)
    array[3:9, 3:7, 2:6] = 100
    first = save(tmp_path / "flair.nii.gz", array, LPS)
    # Without air, which would be counted if it were taken for the first one's grid.
    second = save(tmp_path / "t2.nii.gz", array + 1, affine)
    alone, both = (survey_study([Case("a", volumes)], None, LogReporter()) for volumes in (
        {"flair": first}, {"flair": first, "t2": second}))
    assert both.air == alone.air == pytest.approx(1 - 6 * 4 * 4 / array.size)
    assert both.rim == alone.rim
    assert both.grids_differ == ("a",)


def test_lesions_in_a_sheared_grid_have_the_volume_of_their_voxels(save, tmp_path):
    array = np.zeros((12, 10, 8), np.uint8)
    array[3:9, 3:7, 2:6] = 1
    found = survey_study([Case("a", {"flair": save(tmp_path / "f.nii.gz", array * 9, TILTED)},
                               save(tmp_path / "s.nii.gz", array, TILTED))], None, LogReporter())
    assert found.labels[0].masses_ml == pytest.approx((96 * 12 ** 0.5 / 1000,), rel=1e-6)
