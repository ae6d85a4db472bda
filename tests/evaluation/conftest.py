"""Masks and files that the evaluation's tests share."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest


def ball(shape: tuple[int, ...], centre: tuple[float, ...], radius: float) -> np.ndarray:
    """A solid ball in voxels, bool."""
    grids = np.ogrid[tuple(slice(0, n) for n in shape)]
    return sum((g - c) ** 2 for g, c in zip(grids, centre, strict=True)) <= radius**2


def write_nifti(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
    """Write an array in its own type."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([-1.0, -1, 1, 1]) if affine is None else affine), path)
    return path


@pytest.fixture
def labels() -> np.ndarray:
    """A nested BraTS lesion, uint8 (16, 16, 12): edema around enhancing around necrosis."""
    volume = np.zeros((16, 16, 12), np.uint8)
    volume[ball(volume.shape, (8, 7, 6), 4.5)] = 2
    volume[ball(volume.shape, (8, 7, 6), 3.0)] = 4
    volume[ball(volume.shape, (8, 7, 6), 1.5)] = 1
    return volume


@pytest.fixture
def study_dir(tmp_path: Path, labels: np.ndarray) -> Path:
    """A BraTS study of three cases with segmentations and images."""
    for i, case in enumerate(("case_a", "case_b", "case_c")):
        folder = tmp_path / "study" / case
        seg = np.roll(labels, i, axis=0)
        write_nifti(folder / f"{case}_seg.nii.gz", seg)
        for modality in ("flair", "t1ce", "t2"):
            image = np.full(seg.shape, 100, np.int16)
            image[:, :2] = 0
            write_nifti(folder / f"{case}_{modality}.nii.gz", image + 20 * seg.astype(np.int16))
    return tmp_path / "study"


@pytest.fixture
def predictions_dir(tmp_path: Path, labels: np.ndarray) -> Path:
    """Predictions for the three cases: exact, shifted by one voxel, and shifted by two."""
    for i, case in enumerate(("case_a", "case_b", "case_c")):
        write_nifti(tmp_path / "predictions" / f"{case}.nii.gz", np.roll(labels, 2 * i, axis=0))
    return tmp_path / "predictions"
