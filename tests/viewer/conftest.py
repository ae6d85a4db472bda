"""A study whose every case is a box of brain with a box of lesion, predictions of it, its page."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

pytest.importorskip("starlette", reason="needs pip install '.[serve]'")
pytest.importorskip("uvicorn", reason="needs pip install '.[serve]'")
from pixelnet_tf.api.viewing import View
from pixelnet_tf.viewer.app import build_app
from pixelnet_tf.viewer.source import ViewSource
from tests.app_in_thread import AppInThread

SETTINGS = ["study.labels={0: background, 1: lesion}", "study.regions={lesion: [1]}",
            "study.modalities=[flair, t2]", "evaluation.protocol=isles"]
#: Markup that would run, were it not text.
MARKUP = "<img src=x onerror=document.title='run'>"
#: Case -> axes of its voxels, their sides in mm, their number.
FORMS = {"ras": ((1, 1, 1), (1, 1, 1), (40, 44, 36)), "las": ((-1, 1, 1), (1, 1, 1), (40, 44, 36)),
         "anisotropic": ((1, 1, 1), (0.8, 0.8, 3.5), (50, 56, 11)),
         MARKUP: ((1, 1, 1), (1, 1, 1), (20, 20, 20))}
#: The lesion as parts of the field of view along R, A, S: beside the middle on every axis.
LESION = ((0.62, 0.82), (0.2, 0.45), (0.55, 0.85))
#: How much farther to the patient's left the prediction lies, in parts of the field of view.
SHIFTS = {"ras": 0.0, "las": 0.06, "anisotropic": 0.12, MARKUP: 0.5}


def _box(form: tuple, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """A mask (x, y, z) of the lesion as a file of this form holds it, and its affine."""
    axes, spacing, shape = form
    steps = np.array(axes) * spacing
    affine = np.diag([*steps, 1.0])
    affine[:3, 3] = [7.0, -11.0, 23.0]
    parts = np.meshgrid(*((np.arange(n) + 0.5) / n for n in shape), indexing="ij")
    parts = [part if step > 0 else 1 - part for part, step in zip(parts, steps, strict=True)]
    low = np.array([low for low, _ in LESION]) - [shift, 0, 0]
    high = np.array([high for _, high in LESION]) - [shift, 0, 0]
    inside = [(part >= a) & (part < b) for part, a, b in zip(parts, low, high, strict=True)]
    return np.logical_and.reduce(inside), affine


def _save(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)


@pytest.fixture(scope="session")
def viewed(tmp_path_factory) -> Path:
    """A folder with `study` and `predictions`; not to be changed."""
    folder = tmp_path_factory.mktemp("viewed")
    for name, form in FORMS.items():
        truth, affine = _box(form, 0)
        for modality in ("flair", "t2"):
            _save(folder / "study" / name / f"{name}_{modality}.nii.gz",
                  np.where(truth, 140, 100).astype(np.int16), affine)
        _save(folder / "study" / name / f"{name}_seg.nii.gz", truth.astype(np.uint8), affine)
        found, _ = _box(form, SHIFTS[name])
        _save(folder / "predictions" / f"{name}.nii.gz", found.astype(np.uint8), affine)
        # 0.9 in one half of the prediction, 0.4 in the other.
        lesion = np.where(np.cumsum(found, 1) * 2 > found.sum(1, keepdims=True), 0.9, 0.4) * found
        _save(folder / "predictions" / "probabilities" / f"{name}.nii.gz",
              np.stack([1 - lesion, lesion], -1).astype(np.float32), affine)
    return folder


@pytest.fixture(scope="session")
def view(viewed) -> View:
    return View(viewed / "predictions", references=viewed / "study", overrides=SETTINGS)


def served_from(source: ViewSource) -> AppInThread:
    """The page of a source, in a thread of this process."""
    return AppInThread(partial(build_app, source), lifespan="on")


@pytest.fixture(scope="session")
def served(view):
    with served_from(view.source) as found:
        yield found
