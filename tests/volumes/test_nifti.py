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
from tests.mutations import flipped_bits

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


def test_no_flipped_bit_of_a_compressed_file_changes_voxels(tmp_path, save):
    array = np.random.default_rng(0).integers(0, 5, (12, 11, 10)).astype(np.uint8)
    path = save(tmp_path / "v.nii.gz", array)
    data = path.read_bytes()
    rng = np.random.default_rng(1)
    refused = 0
    for bit, broken in flipped_bits(data, rng.integers(0, 8 * len(data), 200).tolist()):
        path.write_bytes(broken)
        try:
            read, _ = read_volume(path)
        except DataError:
            refused += 1
        else:
            # Of gzip's header nothing matters but its magic.
            assert bit < 8 * 40
            np.testing.assert_array_equal(read, array)
    assert refused > 150


@pytest.mark.parametrize(("array", "message"), [
    (np.zeros((3, 4, 5), np.complex64), "complex numbers .complex64.; save the magnitude"),
    (np.zeros((3, 4, 5), [("R", "u1"), ("G", "u1"), ("B", "u1")]), "colours .R.G.B."),
    (np.zeros((3, 4), np.float32), "an image of 2 dimensions"),
    (np.zeros((3, 4, 5, 2), np.float32), "split a series"),
])
def test_what_is_no_volume_of_real_numbers(tmp_path, array, message):
    nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "v.nii.gz")
    for read in (read_volume, read_geometry):
        with pytest.raises(DataError, match=message):
            read(tmp_path / "v.nii.gz")


def test_a_file_without_a_place_in_space(tmp_path):
    for number, affine in enumerate((np.zeros((4, 4)), np.diag([1, np.nan, 1, 1]))):
        image = nib.Nifti1Image(ARRAY, np.eye(4))
        image.header.set_sform(affine, code=1)
        image.header.set_qform(np.eye(4), code=0)
        image.header.set_data_offset(352)
        (tmp_path / f"{number}.nii").write_bytes(
            image.header.binaryblock + bytes(4) + ARRAY.tobytes(order="F"))
        with pytest.raises(DataError, match=rf"{number}\.nii: its affine .*correct the file's"):
            read_volume(tmp_path / f"{number}.nii")


def test_a_link_to_nowhere_and_half_of_a_pair(tmp_path):
    (tmp_path / "v.nii.gz").symlink_to(tmp_path / "annex" / "nowhere")
    with pytest.raises(DataError, match=r"datalad get"):
        read_volume(tmp_path / "v.nii.gz")
    nib.save(nib.Nifti1Pair(ARRAY, np.eye(4)), tmp_path / "v.img")
    (tmp_path / "v.hdr").rename(tmp_path / "v.nii")
    with pytest.raises(DataError, match=r"one half of a pair.*call the two NAME.hdr"):
        read_volume(tmp_path / "v.nii")


def test_an_ending_in_capitals(tmp_path, save):
    save(tmp_path / "v.nii.gz", ARRAY).rename(tmp_path / "V.NII.GZ")
    np.testing.assert_array_equal(read_volume(tmp_path / "V.NII.GZ")[0], ARRAY)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_no_flipped_bit_of_a_header_is_more_than_an_error(tmp_path, kind):
    """Nor does it take memory for a volume that the file cannot hold."""
    data = kind(ARRAY, np.diag([-1.0, -1.0, 2.0, 1.0])).to_bytes()
    header = kind.header_class()
    start = header.template_dtype.fields["dim"][1]
    dims = range(8 * start, 8 * start + 64 * header["dim"].itemsize, 2)
    refused = 0
    bits = sorted({*dims, *range(0, 8 * len(header.binaryblock), 23)})
    for _, broken in flipped_bits(data, bits):
        (tmp_path / "v.nii").write_bytes(broken)
        try:
            with np.errstate(all="ignore"):
                array, geometry = read_volume(tmp_path / "v.nii")
        except DataError:
            refused += 1
        else:
            assert array.size == ARRAY.size
            assert np.isfinite(geometry.affine).all()
    assert refused > 30


def test_a_file_is_as_long_as_its_header_says(tmp_path, save):
    data = save(tmp_path / "v.nii", ARRAY).read_bytes()
    for name, content, words in (
            ("long.nii", data + b"x", "goes on after the 400 bytes"),
            ("long.nii.gz", gzip.compress(data + b"x"), "goes on after the 400 bytes"),
            ("short.nii.gz", gzip.compress(data[:-1]), "it ends 1 bytes before"),
            ("tail.nii.gz", gzip.compress(data) + b"x", "broken or truncated")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=rf"{name}: .*{words}"):
            read_volume(tmp_path / name)


def test_contents_count_and_not_the_name(tmp_path, save):
    data = save(tmp_path / "v.nii", ARRAY).read_bytes()
    (tmp_path / "packed.nii").write_bytes(gzip.compress(data))
    (tmp_path / "plain.nii.gz").write_bytes(data)
    for name in ("packed.nii", "plain.nii.gz"):
        np.testing.assert_array_equal(read_volume(tmp_path / name)[0], ARRAY)


@pytest.mark.parametrize(("name", "content", "words"), [
    ("v.nii.gz", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    ("v.nii.gz", b"../../.git/annex/objects/Xx/yZ/MD5E-s3--0.nii.gz", "datalad get"),
    ("._v.nii.gz", b"\0\x05\x16\x07" + bytes(600), "macOS writes beside"),
])
def test_what_stands_in_for_an_image_is_called_by_its_name(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}: .*{words}"):
        read_volume(tmp_path / name)
