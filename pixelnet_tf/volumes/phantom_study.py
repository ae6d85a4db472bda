"""Writing a synthetic study in the folders of BraTS or ISLES."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from pixelnet_tf.cases.phantom import PhantomCase, draw_brats_case, draw_isles_case
from pixelnet_tf.errors import DataError
from pixelnet_tf.io.files import replacing_folder
from pixelnet_tf.reporting import Reporter, reporter_or_log
from pixelnet_tf.volumes.geometry import VolumeGeometry
from pixelnet_tf.volumes.nifti import write_volume

#: Voxels along x, y, z: a fifth of a second to draw, minutes to train on.
DEFAULT_SIZES = {"brats": (96, 96, 48), "isles": (112, 96, 20)}

_SMIR = {"dwi": "MR_DWI", "adc": "MR_ADC", "cbf": "MR_rCBF"}


def write_phantom(out: Path, cases: int, seed: int, layout: str = "brats",
                  size: tuple[int, int, int] | None = None,
                  reporter: Reporter | None = None) -> list[str]:
    """Write a synthetic study; the same arguments give the same bytes.

    Args:
        out: folder to write into; cases that are there already are written again.
        cases: how many; the first n of a larger study are those of a smaller one.
        layout: `brats` (flair, t1, t1ce, t2; labels 0, 1, 2, 4) or `isles` (dwi, adc, cbf;
            labels 0, 1; SMIR's folders of ISLES 2017).
        size: voxels along x, y, z; None takes the layout's default.
        reporter: hears of the task "drawing", in cases.

    Returns:
        The names of the cases.

    Raises:
        DataError: `out` is a file.
    """
    out, reporter = Path(out), reporter_or_log(reporter)
    if out.exists() and not out.is_dir():
        raise DataError("is a file", file=out, hint="give a folder to write the study into")
    size = size or DEFAULT_SIZES[layout]
    names = []
    for number in range(1, cases + 1):
        if layout == "brats":
            names.append(f"phantom_{number:03d}")
            _write(out / names[-1], _brats_files(draw_brats_case(seed, number, size), names[-1]))
        else:
            names.append(f"training_{number}")
            _write(out / names[-1], _isles_files(draw_isles_case(seed, number, size), number))
        reporter.progress("drawing", number, cases, names[-1])
    return names


def _brats_files(case: PhantomCase, name: str) -> dict[str, tuple[np.ndarray, VolumeGeometry]]:
    geometry = _geometry(case)
    return {f"{name}_{modality}.nii.gz": (array, geometry)
            for modality, array in (*case.volumes.items(), ("seg", case.labels))}


def _isles_files(case: PhantomCase, number: int) -> dict[str, tuple[np.ndarray, VolumeGeometry]]:
    geometry, files = _geometry(case), {}
    for position, (modality, array) in enumerate((*case.volumes.items(), ("OT", case.labels))):
        stem = f"VSD.Brain.XX.O.{_SMIR.get(modality, modality)}.{100000 + 10 * number + position}"
        files[f"{stem}/{stem}.nii"] = (array, geometry)
    return files


def _write(case_dir: Path, files: dict[str, tuple[np.ndarray, VolumeGeometry]]) -> None:
    """Write a case into a hidden folder and move it into place when it is whole."""
    with replacing_folder(case_dir) as temporary:
        for name, (array, geometry) in files.items():
            write_volume(temporary / name, array, geometry)


def _geometry(case: PhantomCase) -> VolumeGeometry:
    """Axes as in BraTS: x runs to the left, y to the back, z up; the middle is at 0."""
    signs = np.array([-1, -1, 1])
    affine = np.diag([*(signs * case.spacing_mm), 1.0])
    affine[:3, 3] = -signs * case.spacing_mm * (np.array(case.labels.shape) - 1) / 2
    header = nib.Nifti1Header()
    header.set_data_shape(case.labels.shape)
    header.set_sform(affine, code=1)
    header.set_qform(affine, code=1)
    header.set_xyzt_units("mm")
    return VolumeGeometry.from_header(header)
