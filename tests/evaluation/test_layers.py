"""Layers of the viewers: what the files of a report hold, and where it lies."""

from __future__ import annotations

import base64
import gzip

import nibabel as nib
import numpy as np
import pytest

from pixelnet_tf.config import Config
from pixelnet_tf.evaluation.case_images import CaseImage
from pixelnet_tf.evaluation.layers import embedded_case, error_kinds
from pixelnet_tf.volumes.geometry import VolumeGeometry

from .conftest import ball

STUDY = Config().study


def read(layers) -> dict[str, nib.Nifti1Image]:
    return {layer["key"]: nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(
        layer["data"]))) for layer in layers}


def middle_mm(array: np.ndarray, affine: np.ndarray) -> np.ndarray:
    return nib.affines.apply_affine(affine, np.argwhere(array).mean(axis=0))


@pytest.mark.parametrize("spacing", [(1, 1, 1), (-1, -1, 1), (0.8, 0.8, 3)])
def test_what_is_joined_lies_where_it_lay(spacing):
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = 5, -7, 11
    shape = (44, 52, 38)
    brain = ball(shape, (20, 25, 18), 14)
    truth = np.where(ball(shape, (24, 28, 20), 6), 2, 0).astype(np.uint8)
    found = np.roll(truth, 3, axis=0)
    shown = CaseImage(np.where(brain, 50.0, 0) + 30.0 * (truth > 0), brain, "flair")
    layers = embedded_case(shown, truth, found, VolumeGeometry.of(shape, affine), STUDY, 4000)
    images = read(layers)
    assert [layer["title"] for layer in layers] == ["flair", "reference", "prediction", "errors"]
    for name, array in (("reference", truth), ("prediction", found)):
        image = images[name]
        assert np.prod(image.shape) <= 4000
        data = np.asarray(image.dataobj)
        assert set(np.unique(data)) == {0, 2}
        np.testing.assert_allclose(middle_mm(data, image.affine), middle_mm(array, affine),
                                   atol=0.35 * np.abs(image.affine).max())
        volume, expected = (np.count_nonzero(each) * abs(np.linalg.det(at[:3, :3])) for each, at in
                            ((data, image.affine), (array, affine)))
        assert volume == pytest.approx(expected, rel=0.2)
    assert set(np.unique(images["errors"].dataobj)) == {0, 1, 2}
    grey = np.asarray(images["image"].dataobj)
    assert grey.dtype == np.uint8
    assert grey.max() == 255
    assert not grey[0, 0, 0]


def test_a_small_case_stays_as_it_is():
    shape = (9, 8, 7)
    truth = np.arange(504).reshape(shape).astype(np.uint8) % 2 * 4
    found = np.zeros(shape, np.uint8)
    shown = CaseImage(np.random.default_rng(0).random(shape), np.ones(shape, bool), "t2")
    images = read(embedded_case(shown, truth, found, VolumeGeometry.of(shape, np.eye(4)), STUDY))
    np.testing.assert_array_equal(images["reference"].dataobj, truth)
    np.testing.assert_array_equal(images["errors"].dataobj, error_kinds(truth, found))
    np.testing.assert_array_equal(images["image"].affine, np.eye(4))


def test_a_large_case_of_noise_takes_little_of_the_report():
    """Three of them, the script and ten pictures of 0.5 MB make less than 15 MB."""
    shape = (240, 240, 155)
    image = np.random.default_rng(0).integers(0, 255, shape).astype(np.float32)
    labels = np.zeros(shape, np.uint8)
    labels[100:140, 100:140, 60:100] = 2
    layers = embedded_case(CaseImage(image, np.ones(shape, bool), "flair"), labels,
                           np.roll(labels, 9, axis=1), VolumeGeometry.of(shape, np.eye(4)), STUDY)
    assert sum(len(layer["data"]) for layer in layers) < 1.5e6
