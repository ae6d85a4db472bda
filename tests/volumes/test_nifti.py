"""Reading and writing: what comes back, and what is said about broken files."""

import gzip

import nibabel as nib
import numpy as np
import pytest

from pixelnet_tf.errors import DataError, RunError
from pixelnet_tf.volumes.nifti import (
    read_geometry,
    read_volume,
    write_labels,
    write_probabilities,
    write_volume,
)

ARRAY = np.arange(24, dtype=np.int16).reshape(2, 3, 4)


def test_scaled_values_come_back_as_float32(tmp_path):
    image = nib.Nifti1Image(ARRAY, np.eye(4))
    image.header.set_slope_inter(0.5, 10)
    nib.save(image, tmp_path / "v.nii.gz")
    array, geometry = read_volume(tmp_path / "v.nii.gz")
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, nib.load(tmp_path / "v.nii.gz").get_fdata())
    assert geometry.shape == read_geometry(tmp_path / "v.nii.gz").shape == (2, 3, 4)


def test_a_trailing_axis_of_one_is_dropped(tmp_path, save):
    array, geometry = read_volume(save(tmp_path / "v.nii", ARRAY[..., None]))
    np.testing.assert_array_equal(array, ARRAY)
    assert geometry.shape == (2, 3, 4)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("codes", [(1, 0), (0, 2), (2, 1)])
def test_labels_take_the_exact_geometry(tmp_path, kind, suffix, codes):
    affine = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.1, 0.2, 0.3)
                                     @ np.diag([-0.7, 0.7, 5.1]), [1.23456789, 2, 3])
    image = kind(ARRAY, None)
    image.header.set_qform(affine, code=codes[0])
    image.header.set_sform(affine, code=codes[1])
    image.header.set_slope_inter(2.0, 1.0)
    image.header["pixdim"][4:] = [0, 2.5, 0, 1]     # of dimensions that a volume does not have
    nib.save(image, tmp_path / "reference.nii")
    reference = nib.load(tmp_path / "reference.nii")
    labels = (ARRAY % 5).astype(np.uint8)
    write_labels(tmp_path / f"p{suffix}", labels, read_volume(tmp_path / "reference.nii")[1])
    written = nib.load(tmp_path / f"p{suffix}")
    assert type(written) is kind
    assert written.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(written.dataobj), labels)
    assert written.affine.tobytes() == reference.affine.tobytes()
    for field in ("dim", "pixdim", "qform_code", "sform_code", "srow_x", "srow_y", "srow_z",
                  "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"):
        assert written.header[field].tobytes() == reference.header[field].tobytes(), field


def test_equal_arguments_give_equal_bytes_and_no_leftover(tmp_path, save):
    geometry = read_geometry(save(tmp_path / "v.nii", ARRAY))
    for name in ("a.nii.gz", "b.nii.gz"):
        write_labels(tmp_path / name, ARRAY % 4, geometry)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.nii.gz", "b.nii.gz", "v.nii"]


def test_probabilities_of_classes(tmp_path, save):
    geometry = read_geometry(save(tmp_path / "v.nii", ARRAY))
    maps = np.random.default_rng(0).random((2, 3, 4, 2))
    write_probabilities(tmp_path / "p.nii.gz", maps, geometry)
    np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / "p.nii.gz").dataobj),
                                  maps.astype(np.float32))


def test_a_failed_write_keeps_the_old_file(tmp_path, save, monkeypatch):
    geometry = read_geometry(save(tmp_path / "v.nii", ARRAY))
    write_labels(tmp_path / "p.nii.gz", ARRAY % 4, geometry)
    before = (tmp_path / "p.nii.gz").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(RunError, match="no space is left"):
        write_labels(tmp_path / "p.nii.gz", ARRAY % 3, geometry)
    assert (tmp_path / "p.nii.gz").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2


def test_wrong_shape_is_refused(tmp_path, save):
    geometry = read_geometry(save(tmp_path / "v.nii", ARRAY))
    with pytest.raises(DataError, match=r"\(3, 3, 4\) does not fit"):
        write_volume(tmp_path / "p.nii", np.zeros((3, 3, 4), np.uint8), geometry)


def test_broken_files_are_named(tmp_path, save):
    path = save(tmp_path / "v.nii.gz", np.random.default_rng(0).random((20, 20, 20)))
    data = path.read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(data[:len(data) // 2])
    (tmp_path / "short.nii").write_bytes(gzip.decompress(data)[:-100])
    (tmp_path / "text.nii.gz").write_text("hello")
    for name, words in (("cut.nii.gz", "broken or truncated"), ("short.nii", "truncated"),
                        ("text.nii.gz", "cannot be read as NIfTI"), ("gone.nii", "no such file")):
        with pytest.raises(DataError, match=f"{name}.*{words}"):
            read_volume(tmp_path / name)


def test_four_dimensions_are_refused(tmp_path, save):
    with pytest.raises(DataError, match=r"series\.nii.*\(2, 3, 4, 2\).*three-dimensional"):
        read_volume(save(tmp_path / "series.nii", np.zeros((2, 3, 4, 2), np.float32)))
