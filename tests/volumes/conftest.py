"""Small volumes on disk."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest


def save(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([-1, -1, 1, 1]) if affine is None else affine), path)
    return path


@pytest.fixture(name="save")
def save_fixture():
    """Write an array (x, y, z) as NIfTI, axes left, posterior, superior unless told."""
    return save


@pytest.fixture
def ball() -> np.ndarray:
    """A head-like ball (24, 24, 12) float32: 0 outside, uneven inside."""
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in (24, 24, 12)), indexing="ij"))
    radius = np.sqrt((grid ** 2).sum(0))
    texture = np.random.default_rng(0).normal(100, 5, radius.shape)
    return np.where(radius < 0.8, texture + 40 * (radius < 0.4), 0).astype(np.float32)
