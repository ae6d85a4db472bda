"""Images in every form that people hold them in, there and back."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from pixelnet_tf.api.images import like, read_image, to_nibabel, to_sitk
from pixelnet_tf.errors import DataError

ARRAY = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
OBLIQUE = nib.affines.from_matvec(
    nib.eulerangles.euler2mat(0.1, -0.2, 0.3) @ np.diag([-1.1, 0.9, 5.0]), [10.0, -20.0, 30.0])


def forms(tmp_path) -> dict:
    image = nib.Nifti1Image(ARRAY, OBLIQUE)
    nib.save(image, tmp_path / "v.nii.gz")
    return {"path": tmp_path / "v.nii.gz", "text": str(tmp_path / "v.nii.gz"), "nibabel": image,
            "mgh": nib.MGHImage(ARRAY.astype(np.int32), OBLIQUE),
            "sitk": sitk.ReadImage(str(tmp_path / "v.nii.gz")), "pair": (ARRAY, OBLIQUE),
            "sitk of ours": to_sitk(ARRAY, read_image((ARRAY, OBLIQUE), "x").geometry)}


def test_every_form_is_one_volume(tmp_path):
    for name, form in forms(tmp_path).items():
        volume = read_image(form, "flair")
        np.testing.assert_array_equal(volume.array, ARRAY, err_msg=name)
        assert volume.array.dtype == np.float32
        np.testing.assert_allclose(volume.geometry.affine, OBLIQUE, atol=1e-4, err_msg=name)
        np.testing.assert_allclose(volume.geometry.spacing_mm, (1.1, 0.9, 5.0), rtol=1e-4)


def test_a_result_goes_back_to_the_form_that_came_in(tmp_path):
    geometry = read_image((ARRAY, OBLIQUE), "x").geometry
    labels = (ARRAY % 3).astype(np.uint8)
    given = forms(tmp_path)
    array, affine = like(given["pair"], labels, geometry)
    np.testing.assert_array_equal(array, labels)
    np.testing.assert_array_equal(affine, OBLIQUE)
    for name in ("path", "nibabel"):
        made = like(given[name], labels, geometry)
        assert isinstance(made, nib.Nifti1Image)
        np.testing.assert_allclose(made.affine, OBLIQUE, atol=1e-5)
        assert made.get_data_dtype() == np.uint8
    made = like(given["sitk"], labels, geometry)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(made).T, labels)
    np.testing.assert_allclose(made.GetDirection(), given["sitk"].GetDirection(), atol=1e-5)
    np.testing.assert_allclose(made.GetOrigin(), given["sitk"].GetOrigin(), atol=1e-4)
    assert to_nibabel(labels, geometry).shape == labels.shape


@pytest.mark.parametrize(("image", "message"), [
    (ARRAY, "an array alone does not say where it lies"), ("nowhere.nii", "no such file"),
    ((ARRAY, np.zeros((4, 4))), "flair: its affine .* is singular"),
    ((ARRAY, "text"), "flair: its affine .*text.* is no matrix of numbers"),
    ((ARRAY[0], OBLIQUE), r"flair: has shape \(3, 4\)"),
    ((ARRAY.astype(complex), OBLIQUE), "complex"),
    (3, "int is no image"),
])
def test_what_is_no_image(image, message):
    with pytest.raises(DataError, match=message) as raised:
        read_image(image, "flair")
    assert raised.value.exit_code == 3
