"""A study of real scans as NIfTI and as DICOM: the whole job on DICOM, and the same labels of both.

    python scripts/check_dicom.py STUDY [--cases 4] [--steps 20] [--keep FOLDER]

The first CASES cases of STUDY are written as series of DICOM by pydicom. `pixelnet-tf plan` finds
them, `run` goes from them to scores, and `predict` gives the labels of the last case from DICOM,
from NIfTI, and as DICOM SEG, which dcmqi reads: all three must be the same, voxel for voxel.
`predict --output bids` must pass the validator of BIDS, which must find a file that is called
amiss. A missing slice and two series that fit must be refused by exit code 3.

Prints a line for each; exit code 1 where one does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import nibabel as nib
import numpy as np

from pixelnet_tf.cases.detect import detect_study
from scripts.check_studies import Images, call, write_dicom_study, write_folders
from tests.dicom_study import write_series


class Check:
    """What holds and what does not, a line each."""

    failed = 0

    def __call__(self, holds: bool, words: str) -> None:
        self.failed += not holds
        print(f"{'ok     ' if holds else 'FAILED '} {words}", flush=True)


def main(arguments: Sequence[str]) -> int:
    """Check what is asked for; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--cases", type=int, default=4)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        return check_study(options, options.keep or Path(scratch))


def check_study(options: argparse.Namespace, place: Path) -> int:
    """Write the study, do all of it, and compare."""
    check = Check()
    found = detect_study(options.study)
    cases = {case.name: Images({name: Path(case.volumes[name]) for name in found.common_modalities},
                               case.segmentation)
             for case in found.cases[:options.cases] if case.segmentation}
    dicom, nifti = place / "dicom", place / "nifti"
    write_dicom_study(cases, dicom)
    write_folders(cases, nifti)
    begin = time.perf_counter()
    for form in ("dicom", "nifti"):
        code, said = call(["plan", place / form, "--no-trial", "--out", place / f"{form}.yaml"])
        check(code == 0, f"plan of {form}: exit code {code}"
              + (f", {_line_with(said, 'layout')}, {time.perf_counter() - begin:.1f} s"
                 if code == 0 else f": {said[-600:]}"))
    code, said = call(["run", dicom, place / "job", "--config", place / "dicom.yaml", "--set",
                       f"training.steps={options.steps}"])
    dice = (json.loads((place / "job" / "scores" / "summary.json").read_text())["per_case"]
            if code == 0 else {})
    check(code == 0, f"run on DICOM, {options.steps} steps: exit code {code}, "
          + (f"{len(dice)} test cases scored" if code == 0 else said[-600:]))
    if check.failed:
        return 1

    last = list(cases)[-1]
    asked = ["predict", "--model", place / "job" / "run", "--case", last, "--overwrite"]
    for name, more in (("from_dicom", ["--data", dicom]),
                       ("from_nifti", ["--data", nifti, "--config", place / "nifti.yaml"]),
                       ("seg", ["--data", dicom, "--output", "dicom-seg"]),
                       ("bids", ["--data", nifti, "--config", place / "nifti.yaml", "--output",
                                 "bids", "--probabilities"])):
        code, said = call([*asked, *more, "--out", place / name])
        check(code == 0, f"predict {name}: exit code {code}"
              + (f": {said[-600:]}" if code else ""))
    if check.failed:
        return 1
    images = [nib.load(place / name / f"{last}.nii.gz") for name in ("from_dicom", "from_nifti")]
    one, other = (np.asarray(nib.as_closest_canonical(image).dataobj) for image in images)
    check(bool(one.any()) and np.array_equal(one, other),
          f"labels from DICOM and from NIfTI: {np.count_nonzero(one != other)} of {one.size} "
          f"voxels differ, {np.count_nonzero(one)} are lesion")
    _check_dcmqi(check, place, last, one)
    _check_bids(check, place)
    _check_bad(check, place, dicom, last)
    print("NIfTI and DICOM give the same" if not check.failed else f"{check.failed} FAILED",
          flush=True)
    return bool(check.failed)


def _check_dcmqi(check: Check, place: Path, case: str, labels: np.ndarray) -> None:
    program = Path(sys.executable).with_name("segimage2itkimage")
    target = place / "dcmqi"
    target.mkdir(exist_ok=True)
    subprocess.run([program, "--inputDICOM", place / "seg" / f"{case}.dcm", "--outputDirectory",
                    target, "--outputType", "nii", "--mergeSegments"], check=True,
                   capture_output=True, timeout=300)
    read = np.asarray(nib.as_closest_canonical(nib.load(target / "1.nii.gz")).dataobj)
    same = read.shape == labels.shape and np.array_equal(read > 0, labels > 0)
    check(same, f"dcmqi reads the DICOM SEG on its source's grid {read.shape}: "
          + ("the same voxels" if same else f"{labels.shape}, other voxels"))


def _check_bids(check: Check, place: Path) -> None:
    errors = _bids_errors(place / "bids")
    check(not errors, f"bids-validator-deno finds {len(errors)} errors {errors[:3]}")
    mask = next(path for path in (place / "bids").rglob("sub-*.nii.gz"))
    shutil.copy(mask, mask.with_name("wrong_name.nii.gz"))
    errors = _bids_errors(place / "bids")
    check(bool(errors), f"and with a file that is called amiss {errors[:3]}")


def _bids_errors(folder: Path) -> list[str]:
    program = Path(sys.executable).with_name("bids-validator-deno")
    done = subprocess.run([program, "--format", "json", folder], capture_output=True, text=True,
                          timeout=300, check=False)
    return [issue["code"] for issue in json.loads(done.stdout)["issues"]["issues"]
            if issue["severity"] == "error"]


def _check_bad(check: Check, place: Path, dicom: Path, case: str) -> None:
    missing = place / "missing"
    shutil.copytree(dicom / case, missing / case)
    sorted((missing / case).glob("1_*.dcm"))[7].unlink()
    twice = place / "twice"
    shutil.copytree(dicom / case, twice / case)
    write_series(twice / case, np.ones((8, 8, 4), np.int16), np.eye(4), "Ax flair repeat", number=9,
                 patient=case, prefix="9_")
    for name, folder, words in (("a missing slice", missing, "missing, at position"),
                                ("two series that fit", twice, "2 series fit")):
        asked = ["predict", "--model", place / "job" / "run", "--data", folder, "--series",
                 "flair=*flair*", "--out", place / "bad"]
        code, said = call(asked)
        said = " ".join(said.split())
        check(code == 3 and words in said, f"{name}: exit code {code}: {said[-300:]}")


def _line_with(said: str, word: str) -> str:
    return next((line.strip() for line in said.splitlines() if line.strip().startswith(word)), "")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
