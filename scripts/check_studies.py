"""Plan and prepare studies in every layout, without an edit, and compare what comes of it.

    python scripts/check_studies.py [STUDY ...] [--phantom] [--cases 2]

A STUDY is a folder as `pixelnet-tf plan` takes it. It is planned and prepared as it lies, and so
are its first CASES cases, written as a folder a case, as a flat one, and in the forms of nnU-Net,
the Decathlon, BIDS and DICOM: the prepared slices of all of these must be the same. --phantom does
the same with synthetic cases in every layout and every form of files (tests/study_forms.py).

Everything is done by the command line's own `plan` and `prepare`. Prints a line for each; exit code
1 where one is refused or differs.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import nibabel as nib
import numpy as np

from pixelnet_tf.cases.detect import detect_study
from pixelnet_tf.cases.phantom import draw_brats_case
from pixelnet_tf.cli import main as command_line
from pixelnet_tf.dataset.prepared import PreparedStudy
from tests.dicom_study import write_series
from tests.study_forms import FORMS, LAYOUTS, write_image, write_study

#: What BIDS calls a modality: its folder, entities and suffix.
_BIDS = {"flair": ("anat", "FLAIR"), "t1": ("anat", "T1w"), "t1ce": ("anat", "ce-gd_T1w"),
         "t2": ("anat", "T2w"), "dwi": ("dwi", "dwi"), "adc": ("dwi", "desc-map_ADC")}


@dataclass(frozen=True)
class Images:
    """A case: modality -> file, and its segmentation."""

    volumes: Mapping[str, Path]
    segmentation: Path


@dataclass(frozen=True)
class Made:
    """What was prepared: words about it, and for each case classes and modalities, by slice."""

    words: str
    modalities: tuple[str, ...]
    cases: tuple[Mapping[str, np.ndarray], ...]


def main(arguments: Sequence[str]) -> int:
    """Check what is asked for; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("studies", nargs="*", type=Path)
    parser.add_argument("--phantom", action="store_true")
    parser.add_argument("--cases", type=int, default=2)
    options = parser.parse_args(arguments)
    failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        if options.phantom:
            failed += check_phantom(Path(scratch) / "phantom")
        for study in options.studies:
            failed += check_study(study, Path(scratch) / study.resolve().name, options.cases)
    print("every plan was prepared without an edit" if not failed else f"{failed} FAILED",
          flush=True)
    return bool(failed)


def check_phantom(scratch: Path) -> int:
    """Plan and prepare three synthetic cases in every layout and form; returns the failures."""
    affine = np.diag([-6.0, -6.0, 9.0, 1.0])
    drawn = {f"case_{n}": draw_brats_case(0, n, (32, 32, 16)) for n in (1, 2, 3)}
    cases = {name: {"first": case.volumes["flair"], "second": case.volumes["t1ce"],
                    "seg": (case.labels > 0).astype(np.uint8)} for name, case in drawn.items()}
    tries: dict[str, Callable[[Path], object]] = {
        f"{layout} {ending}": partial(_write_phantom, layout, cases, affine, ending)
        for layout in LAYOUTS for ending in FORMS
        if layout != "msd" or ending in (".nii", ".nii.gz")}
    tries["dicom"] = partial(_write_dicom, {
        name: ({"flair": arrays["first"], "t1ce": arrays["second"]}, arrays["seg"], affine)
        for name, arrays in cases.items()})
    return _check_all("phantom", tries, scratch)


def _write_phantom(layout: str, cases: Mapping[str, Mapping[str, np.ndarray]], affine: np.ndarray,
                   ending: str, root: Path) -> None:
    write_study(root, layout, cases, affine, ending)


def check_study(study: Path, scratch: Path, count: int) -> int:
    """Plan and prepare a study as it lies, and some of its cases in other forms."""
    found = detect_study(study)
    modalities = found.common_modalities
    chosen = [case for case in found.cases if case.segmentation][:count]
    some = {case.name: Images({modality: Path(case.volumes[modality]) for modality in modalities},
                              case.segmentation) for case in chosen if case.segmentation}
    failed = _check_all(str(study), {"as it lies": None}, scratch, study)
    return failed + _check_all(f"{study}, {len(some)} cases", {
        form: partial(writer, some) for form, writer in _WRITERS.items()}, scratch)


def _check_all(name: str, tries: Mapping[str, Callable[[Path], object] | None], scratch: Path,
               study: Path | None = None) -> int:
    """Write, plan and prepare each; all must be prepared to the same. Returns the failures."""
    failed = 0
    # By modalities: what is a map in physical units is prepared in another way than an image.
    firsts: dict[tuple[str, ...], Made] = {}
    for form, write in tries.items():
        place = scratch / re.sub(r"\W+", "_", form)
        root = study or place / "study"
        if write is not None:
            root.mkdir(parents=True)
            write(root)
        made = _plan_and_prepare(root, place)
        if isinstance(made, Made):
            words = made.words
            fault = differs(firsts.setdefault(made.modalities, made), made)
        else:
            words, fault = made, True
        failed += bool(fault)
        print(f"{'FAILED ' if fault else 'ok     '} {name}, {form}: {words}"
              + (f": {fault}" if isinstance(fault, str) else ""), flush=True)
    return failed


def _plan_and_prepare(study: Path, place: Path) -> Made | str:
    """By the command line; returns what went wrong as a text."""
    place.mkdir(parents=True, exist_ok=True)
    plan, prepared = place / "plan.yaml", place / "prepared"
    for arguments in (["plan", study, "--no-trial", "--out", plan],
                      ["prepare", "--config", plan, "--data", study, "--out", prepared,
                       "--workers", 1]):
        code, said = call(arguments)
        if code:
            return f"{arguments[0]} ends with code {code}: {' '.join(said.split())[-600:]}"
    made = PreparedStudy.open(prepared)
    config = made.config.study
    words = (f"{config.layout}, {', '.join(config.modalities)}, labels {sorted(config.labels)}, "
             f"skull {'stripped' if config.skull_stripped else 'there'}, {len(made.cases)} cases, "
             f"{len(made.index)} slices")
    cases = []
    for name in made.cases:
        volume = made.read_volume(name)
        assert volume.labels is not None
        cases.append({"labels": volume.labels, **{
            modality: volume.images[..., channel]
            for channel, modality in enumerate(config.modalities)}})
    return Made(words, config.modalities, tuple(cases))


def differs(one: Made, other: Made) -> str | bool:
    """What differs between two of them; False: nothing."""
    if len(one.cases) != len(other.cases):
        return f"{len(other.cases)} cases, not {len(one.cases)}"
    for mine, theirs in zip(one.cases, other.cases, strict=True):
        for key, wanted in mine.items():
            if not np.array_equal(theirs[key], wanted):
                return (f"{key} is prepared to values that are off by up to "
                        f"{np.abs(theirs[key].astype(float) - wanted).max():.2g}")
    return False


def call(arguments: Sequence[object]) -> tuple[int, str]:
    """Run a verb; returns its exit code and what it said."""
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        try:
            command_line([str(each) for each in arguments])
        except SystemExit as end:
            if end.code in (130, 143):
                raise
            return int(end.code or 0), said.getvalue()
    return 0, said.getvalue()


def _array(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Whole numbers of 16 bits, as scanners store them: others are scaled; and the affine."""
    image = nib.load(path)
    array = np.asarray(image.dataobj)
    if not np.array_equal(array, array.astype(np.int16)):
        array = np.round(array * (30000 / np.abs(array).max()))
    return array.astype(np.int16), image.affine


def write_folders(cases: Mapping[str, Images], root: Path) -> None:
    """Write a folder a case, whose files begin with its name."""
    for name, images in cases.items():
        for word, path in {**images.volumes, "seg": images.segmentation}.items():
            write_image(root / name / f"{name}_{word}.nii.gz", *_array(path))


def _flat(cases: Mapping[str, Images], root: Path) -> None:
    for name, images in cases.items():
        for word, path in {**images.volumes, "seg": images.segmentation}.items():
            write_image(root / f"{name}_{word}.nii.gz", *_array(path))


def _nnunet(cases: Mapping[str, Images], root: Path) -> None:
    for name, images in cases.items():
        for number, path in enumerate(images.volumes.values()):
            write_image(root / "imagesTr" / f"{name}_{number:04d}.nii.gz", *_array(path))
        write_image(root / "labelsTr" / f"{name}.nii.gz", *_array(images.segmentation))
    _describe(root, "channel_names", cases)


def _msd(cases: Mapping[str, Images], root: Path) -> None:
    for name, images in cases.items():
        arrays = [_array(path) for path in images.volumes.values()]
        write_image(root / "imagesTr" / f"{name}.nii.gz",
                    np.stack([array for array, _ in arrays], axis=-1), arrays[0][1])
        write_image(root / "labelsTr" / f"{name}.nii.gz", *_array(images.segmentation))
    _describe(root, "modality", cases)


def _describe(root: Path, key: str, cases: Mapping[str, Images]) -> None:
    values = sorted({int(value) for images in cases.values()
                     for value in np.unique(_array(images.segmentation)[0])} | {0})
    names = {value: f"label {value}" if value else "background" for value in values}
    modalities = next(iter(cases.values())).volumes
    labels = ({name: value for value, name in names.items()} if key == "channel_names" else
              {str(value): name for value, name in names.items()})
    (root / "dataset.json").write_text(json.dumps({
        key: {str(number): name for number, name in enumerate(modalities)}, "labels": labels,
        "numTraining": len(cases), "file_ending": ".nii.gz"}))


def _bids(cases: Mapping[str, Images], root: Path) -> None:
    (root / "dataset_description.json").write_text(json.dumps(
        {"Name": "study", "BIDSVersion": "1.8.0"}))
    for name, images in cases.items():
        subject = "sub-" + re.sub(r"[^0-9A-Za-z]", "", name)
        for modality, path in images.volumes.items():
            kind, words = _BIDS[modality]
            write_image(root / subject / kind / f"{subject}_{words}.nii.gz", *_array(path))
        write_image(root / "derivatives" / "truth" / subject / "anat"
                    / f"{subject}_label-lesion_dseg.nii.gz", *_array(images.segmentation))


def write_dicom_study(cases: Mapping[str, Images], root: Path) -> None:
    """Write the images as DICOM, and the truth beside them as NIfTI."""
    read = {name: ({modality: _array(path)[0] for modality, path in images.volumes.items()},
                   _array(images.segmentation)[0], _array(images.segmentation)[1])
            for name, images in cases.items()}
    _write_dicom(read, root)


def _write_dicom(cases: Mapping[str, tuple[Mapping[str, np.ndarray], np.ndarray, np.ndarray]],
                 root: Path) -> None:
    """A folder a case, whose slices of all series lie beside one another, and the truth."""
    for name, (volumes, labels, affine) in cases.items():
        for number, (modality, array) in enumerate(volumes.items(), start=1):
            write_series(root / name, np.round(array).astype(np.int16), affine, f"Ax {modality}",
                         number=number, patient=name, prefix=f"{number}_")
        write_image(root / name / f"{name}_seg.nii.gz", labels, affine)


_WRITERS: dict[str, Callable[[Mapping[str, Images], Path], object]] = {
    "a folder a case": write_folders, "flat": _flat, "nnU-Net": _nnunet, "Decathlon": _msd,
    "BIDS": _bids, "DICOM": write_dicom_study}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
