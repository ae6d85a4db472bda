"""One study in every layout and in every form of files, for tests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk

#: Ending of a file -> whether its voxels are compressed.
FORMS = (".nii", ".nii.gz", ".hdr", ".img", ".mgh", ".mgz", ".nrrd", ".mha", ".mhd")
LAYOUTS = ("brats", "brats2023", "flat", "nnunet", "msd", "bids", "pattern", "isles2017",
           "isles2022")
#: The names that the layouts call FLAIR (or DWI in ISLES) and T1 with contrast (or ADC) by.
WORDS = {"brats": ("flair", "t1ce"), "brats2023": ("t2f", "t1c"), "flat": ("FLAIR", "T1-Gd"),
         "pattern": ("flair", "T1_post"), "isles2017": ("MR_DWI", "MR_ADC"),
         "isles2022": ("dwi", "adc")}


def write_image(path: Path, array: np.ndarray, affine: np.ndarray, packed: bool = True) -> Path:
    """Write an array (x, y, z[, channel]) in the form of the path's ending.

    affine: (4, 4), voxels to mm along R, A, S. packed: NRRD and MetaImage are compressed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    ending = "".join(path.suffixes[-2:]) if path.name.endswith(".gz") else path.suffix
    if ending in (".nii", ".nii.gz"):
        image = nib.Nifti1Image(array, affine)
        image.header.set_qform(affine, code="scanner")
        nib.save(image, path)
    elif ending in (".hdr", ".img"):
        nib.save(nib.Nifti1Pair(array, affine), path)
    elif ending in (".mgh", ".mgz"):
        nib.save(nib.MGHImage(array, affine), path)
    else:
        image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
        lps = np.diag([-1, -1, 1, 1]) @ affine
        spacing = np.linalg.norm(lps[:3, :3], axis=0)
        image.SetSpacing(spacing.tolist())
        image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
        image.SetOrigin(lps[:3, 3].tolist())
        sitk.WriteImage(image, str(path), packed)
    return path


def write_study(root: Path, layout: str, cases: Mapping[str, Mapping[str, np.ndarray]],
                affine: np.ndarray, ending: str = ".nii.gz") -> Path:
    """Write cases of two modalities and a truth in a layout.

    Args:
        cases: name -> {"first": array, "second": array, "seg": array}; without `seg` there is no
            truth, and nnU-Net and the Decathlon have it in imagesTs.
        ending: of the files; `msd` has NIfTI alone.
    """
    for name, arrays in cases.items():
        for relative, array in _files(layout, name, arrays).items():
            write_image(root / (relative + ending), array, affine)
    labels = {"background": 0, "lesion": 1}
    described = {"nnunet": {"channel_names": {"0": "FLAIR", "1": "T1Gd"}, "labels": labels,
                            "file_ending": ending},
                 "msd": {"modality": {"0": "FLAIR", "1": "T1gd"},
                         "labels": {str(value): name for name, value in labels.items()},
                         "training": [{"image": f"./imagesTr/{name}{ending}",
                                       "label": f"./labelsTr/{name}{ending}"}
                                      for name, arrays in cases.items() if "seg" in arrays]}}
    if layout in described:
        whole = described[layout] | {"numTraining": sum("seg" in each for each in cases.values())}
        (root / "dataset.json").write_text(json.dumps(whole))
    if layout == "bids":
        (root / "dataset_description.json").write_text(
            json.dumps({"Name": "phantom", "BIDSVersion": "1.8.0"}))
    return root


def _files(layout: str, name: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Path without ending -> array."""
    first, second, seg = arrays["first"], arrays["second"], arrays.get("seg")
    one, two = WORDS.get(layout, ("", ""))
    part = "Ts" if seg is None else "Tr"
    subject = f"sub-{name.replace('_', '')}"
    stroke = f"sub-strokecase{name.replace('_', '')}"
    files, truth = {
        "brats": ({f"{name}/{name}_{one}": first, f"{name}/{name}_{two}": second},
                  f"{name}/{name}_seg"),
        "brats2023": ({f"{name}/{name}-{one}": first, f"{name}/{name}-{two}": second},
                      f"{name}/{name}-seg"),
        "flat": ({f"{name}_{one}": first, f"{name}_{two}": second}, f"{name}_mask"),
        "pattern": ({f"{name}/{one}": first, f"{name}/anat/{name}_{two}": second},
                    f"{name}/lesion"),
        "nnunet": ({f"images{part}/{name}_0000": first, f"images{part}/{name}_0001": second},
                   f"labelsTr/{name}"),
        "msd": ({f"images{part}/{name}": np.stack([first, second], axis=-1)},
                f"labelsTr/{name}"),
        "bids": ({f"{subject}/ses-01/anat/{subject}_ses-01_FLAIR": first,
                  f"{subject}/ses-01/anat/{subject}_ses-01_ce-gd_T1w": second},
                 f"derivatives/lesions/{subject}/ses-01/anat/"
                 f"{subject}_ses-01_label-lesion_mask"),
        "isles2017": ({f"{name}/VSD.Brain.XX.O.{word}.{place}/VSD.Brain.XX.O.{word}.{place}": array
                       for place, (word, array) in enumerate(((one, first), (two, second)), 100)},
                      f"{name}/VSD.Brain.XX.O.OT.102/VSD.Brain.XX.O.OT.102"),
        "isles2022": ({f"{stroke}/ses-0001/dwi/{stroke}_ses-0001_{one}": first,
                       f"{stroke}/ses-0001/dwi/{stroke}_ses-0001_{two}": second},
                      f"derivatives/{stroke}/ses-0001/{stroke}_ses-0001_msk"),
    }[layout]
    return files if seg is None else files | {truth: seg}
