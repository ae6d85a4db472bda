"""Uploaded NIfTI files: sound ones are unpacked, the others refused by their header."""

import gzip
import io
import struct
import tracemalloc

import nibabel as nib
import numpy as np
import pytest

from pixelnet_tf.cases.case import Case
from pixelnet_tf.config import load_config
from pixelnet_tf.serving.api_error import ApiError
from pixelnet_tf.serving.limits import ServerLimits
from pixelnet_tf.serving.segment_upload import preparation_bytes, unpack_nifti
from pixelnet_tf.volumes.case_volume import prepare_case

LIMITS = ServerLimits(side=64, pixels=32**3)


def nifti(shape=(5, 4, 3), dtype=np.int16, kind=nib.Nifti1Image) -> bytes:
    return kind(np.arange(np.prod(shape), dtype=dtype).reshape(shape), np.eye(4)).to_bytes()


def patched(offset: int, layout: str, *values) -> bytes:
    data = bytearray(nifti())
    struct.pack_into(layout, data, offset, *values)
    return bytes(data)


def unpack(data: bytes, tmp_path):
    unpack_nifti(io.BytesIO(data), tmp_path / "0.nii", "flair", LIMITS, channels=4, slice_size=0)
    return nib.load(tmp_path / "0.nii")


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_sound_files_come_out_as_they_are(pack, kind, tmp_path):
    image = unpack(pack(nifti(kind=kind)), tmp_path)
    np.testing.assert_array_equal(np.asarray(image.dataobj).ravel(), np.arange(60))


@pytest.mark.parametrize("side", [0, np.inf])
def test_the_affine_places_the_volume_whatever_pixdim_says(side, tmp_path):
    data = patched(80, "<f", side)
    unpack(data, tmp_path)
    assert (tmp_path / "0.nii").read_bytes() == data


def test_the_other_byte_order(tmp_path):
    header = nib.Nifti1Header(endianness=">")
    image = nib.Nifti1Image(np.arange(60, dtype=">i2").reshape(5, 4, 3), np.eye(4), header)
    assert np.asarray(unpack(image.to_bytes(), tmp_path).dataobj)[0, 0, 2] == 2


BAD = {
    "empty": (b"", 400, "not a NIfTI file"),
    "text": (b"hello" * 200, 400, "not a NIfTI file"),
    "empty gzip": (gzip.compress(b""), 400, "not a NIfTI file"),
    "broken gzip": (b"\x1f\x8b" + b"\0" * 600, 400, "broken or truncated"),
    "cut gzip": (gzip.compress(nifti((20, 20, 20)))[:-40], 400, "broken or truncated"),
    "cut file": (nifti()[:-1], 400, "ends 1 bytes before"),
    "cut header": (nifti()[:200], 400, "not a NIfTI file"),
    "header and image apart": (patched(344, "4s", b"ni1\0"), 400, "half of a pair"),
    "goes on": (nifti() + b"\0", 400, "goes on after the 472 bytes"),
    "gzip bomb": (gzip.compress(nifti() + b"\0" * 50_000_000), 400, "goes on after"),
    "10^9 dimensions": (patched(40, "<8h", 3, 32767, 32767, 32767, 1, 1, 1, 1), 413,
                        "at most 64 voxels a side"),
    "too many voxels": (patched(40, "<8h", 3, 64, 64, 64, 1, 1, 1, 1), 413, "32768 in all"),
    "negative dimension": (patched(40, "<8h", 3, 5, -4, 3, 1, 1, 1, 1), 400, "must be positive"),
    "two dimensions": (patched(40, "<8h", 2, 5, 4, 1, 1, 1, 1, 1), 400, "2 dimensions"),
    "rank 300": (patched(40, "<h", 300), 400, "NIfTI|three-dimensional"),
    "a series": (patched(40, "<8h", 4, 5, 4, 1, 3, 1, 1, 1), 400, "three-dimensional"),
    "colours": (patched(70, "<2h", 128, 24), 400, "colours"),
    "complex": (patched(70, "<2h", 32, 64), 400, "complex"),
    "unknown type": (patched(70, "<2h", 9999, 16), 400, "data type 9999"),
    "bits that do not fit": (patched(70, "<2h", 4, 64), 400, "of 64 bits"),
    "voxels before the header's end": (patched(108, "<f", 10), 400, "cannot begin at byte 10"),
    "voxels far away": (patched(108, "<f", 1e9), 400, "cannot begin"),
    "voxels nowhere": (patched(108, "<f", float("nan")), 400, "cannot begin"),
    "affine of NaN": (patched(280, "<f", float("nan")), 400, "not a finite"),
    "flat affine": (patched(280, "<4f", 0, 0, 0, 0), 400, "is singular"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files(name, tmp_path):
    data, status, text = BAD[name]
    with pytest.raises(ApiError, match=text) as caught:
        unpack(data, tmp_path)
    assert caught.value.status == status
    # Whatever was written of it is bounded by the limits.
    written = tmp_path / "0.nii"
    assert not written.exists() or written.stat().st_size < 8 * LIMITS.pixels + 1024


@pytest.mark.parametrize(("overrides", "shape"), [
    ([], (96, 96, 40)), (["study.modalities=[flair]"], (96, 96, 40)),
    (["study.modalities=[a,b,c,d,e]"], (96, 96, 40)), (["prepare.slice_size=128"], (64, 64, 30)),
    (["prepare.slice_size=96"], (96, 70, 40))])
def test_the_memory_that_is_counted_covers_what_is_used(overrides, shape, tmp_path):
    """All but N4's own, which the measure by which the numbers were found has too."""
    config = load_config("phantom", [*overrides, "prepare.bias_field.enabled=false"])
    volumes = {}
    for modality in config.study.modalities:
        array = np.zeros(shape)
        array[4:-4, 4:-4] = np.random.default_rng(0).uniform(50, 90, (shape[0] - 8, shape[1] - 8,
                                                                      shape[2]))
        volumes[modality] = tmp_path / f"{modality}.nii"
        nib.save(nib.Nifti1Image(array, np.eye(4)), volumes[modality])
    tracemalloc.start()
    try:
        volume = prepare_case(Case("case", volumes), config.study, config.prepare)
        used = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    counted = preparation_bytes(volume.geometry, len(config.study.modalities),
                                config.prepare.slice_size)
    assert used < counted < 4 * used


def test_a_volume_that_needs_too_much_memory_is_refused_by_its_header(tmp_path):
    """Few voxels may become many: slices are scaled to `prepare.slice_size`."""
    data = nifti((8, 8, 60))
    for limits, fits in ((ServerLimits(memory_mib=200), False), (ServerLimits(), True)):
        if fits:
            unpack_nifti(io.BytesIO(data), tmp_path / "0.nii", "flair", limits, channels=4,
                         slice_size=512)
        else:
            with pytest.raises(ApiError, match="of memory, and at most 200") as caught:
                unpack_nifti(io.BytesIO(data), tmp_path / "0.nii", "flair", limits, channels=4,
                             slice_size=512)
            assert caught.value.status == 413
            assert not list(tmp_path.iterdir())
