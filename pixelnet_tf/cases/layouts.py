"""Finding the cases of a study on disk, by its layout."""

from __future__ import annotations

import glob
import itertools
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from pixelnet_tf.cases.case import Case
from pixelnet_tf.cases.dicom_series import choose_series, series_in
from pixelnet_tf.config import Layout, StudyConfig
from pixelnet_tf.errors import DataError

#: What a case calls its segmentation, beside the modalities.
SEGMENTATION = "seg"

_SUFFIXES = (".nii.gz", ".nii")
#: SMIR: `VSD.Brain.XX.O.MR_ADC.128020`, as a folder or as a file; `OT` is the truth.
_SMIR = re.compile(r"(?:^|\.)(?:MR_|CT_)(?P<modality>\w+?)(?:\.(?P<id>\d+))?$", re.IGNORECASE)
_SMIR_TRUTH = re.compile(r"(?:^|\.)OT(?:\.(?P<id>\d+))?$")
#: ISLES' names for one thing: relative flow and volume, the raw perfusion series, the lesion mask.
_SYNONYMS = {"rcbf": "cbf", "rcbv": "cbv", "pwi": "4dpwi", "ot": SEGMENTATION,
             "msk": SEGMENTATION, "mask": SEGMENTATION, "lesion-msk": SEGMENTATION}


def find_cases(study_dir: Path, study: StudyConfig, require_segmentation: bool = True
               ) -> list[Case]:
    """List the cases of a study, ordered by name.

    A case that lacks a file is listed with a fault, so that one check can report all of them.

    Args:
        study_dir: folder of cases; layout `brats` may have a level HGG/LGG above them.
        study: layout, modalities and file patterns.
        require_segmentation: a case without segmentation is at fault.

    Raises:
        DataError: no such folder, no case in it, or two cases of one name.
    """
    study_dir = Path(study_dir)
    if fault := _name_fault(str(study_dir)):
        raise fault
    if not study_dir.is_dir():
        raise DataError("no such folder", file=study_dir,
                        hint="give the folder that holds the cases")
    finder = {Layout.BRATS: _brats, Layout.ISLES: _isles, Layout.PATTERN: _pattern,
              Layout.DICOM: _dicom}[study.layout]
    cases = sorted(finder(study_dir, study, require_segmentation), key=lambda case: case.name)
    if not cases:
        held = sorted(_shown(path.name) for path in study_dir.iterdir())[:5]
        raise DataError(
            f"no case found (layout `{study.layout}` takes a sub-folder per case); "
            + (f"the folder holds {held}" if held else "the folder is empty"), file=study_dir,
            hint="give the folder above the cases, or the layout by study.layout")
    for before, after in itertools.pairwise(cases):
        if before.name == after.name:
            raise DataError("two cases have this name", case=after.name, file=study_dir,
                            hint="rename one of them")
    return cases


def case_name(text: str) -> str:
    """A case's name in the one Unicode form that names are compared in.

    File systems write an accented letter as one character or as two; both are one name.

    Raises:
        DataError: the name on the disk is no UTF-8.
    """
    if fault := _name_fault(text):
        raise fault
    return unicodedata.normalize("NFC", text)


def nifti_stem(name: str) -> str | None:
    """The name of a NIfTI file without its ending, however that is written; None for other files.

    Hidden files are none, among them the `._name` that macOS writes beside every file.
    """
    suffix = next((s for s in _SUFFIXES if name.lower().endswith(s)), None)
    return None if suffix is None or name.startswith(".") else name[:-len(suffix)]


def is_there(path: Path) -> bool:
    """Whether a file is there, or a link to one that is not: whoever reads that says what to do."""
    return path.is_file() or (path.is_symlink() and not path.exists())


def _shown(text: str) -> str:
    """A name on the disk as it can be printed, whatever its bytes are."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _name_fault(text: str) -> DataError | None:
    shown = _shown(text)
    return None if shown == text else DataError("the name is no UTF-8 text", file=shown,
                                                hint="rename it")


def _folders(parent: Path) -> list[Path]:
    # What macOS packs beside a folder's files is not part of a study.
    return [path for path in sorted(parent.iterdir())
            if path.is_dir() and not path.name.startswith((".", "__MACOSX"))]


def _brats(study_dir: Path, study: StudyConfig, required: bool) -> Iterable[Case]:
    """`[HGG|LGG/]<case>/<case>_<modality>.nii.gz`."""
    for folder in _folders(study_dir):
        for case_dir in _folders(folder) if folder.name in ("HGG", "LGG") else [folder]:
            def search(modality: str, case_dir: Path = case_dir) -> tuple[list[Path], str]:
                names = [f"{case_dir.name}_{modality}{suffix}" for suffix in _SUFFIXES]
                wanted = {_compared(name) for name in names}
                return [path for path in _nifti_files(case_dir) if path.parent == case_dir
                        and _compared(path.name) in wanted], names[0]
            yield _case(case_dir, study, required, search)


def _pattern(study_dir: Path, study: StudyConfig, required: bool) -> Iterable[Case]:
    """`<case>/<pattern>`, the pattern from `study.files`."""
    if required and SEGMENTATION not in study.files:
        raise DataError("study.files has no pattern for `seg`",
                        hint="add one, as in `seg: '{case}_seg.nii.gz'`, or prepare without "
                             "segmentations")
    for case_dir in _folders(study_dir):
        def search(modality: str, case_dir: Path = case_dir) -> tuple[list[Path], str]:
            written = study.files.get(modality, "")
            # A name may hold characters that mean something in a pattern.
            pattern = written.replace("{case}", glob.escape(case_dir.name))
            return _matching(case_dir, pattern), written.replace("{case}", case_dir.name)
        yield _case(case_dir, study, required, search)


def _matching(folder: Path, pattern: str) -> list[Path]:
    """Files that a pattern finds, in either Unicode form and with an ending in small or capital
    letters; links to files that are not there are among them."""
    for suffix in _SUFFIXES:
        if pattern.lower().endswith(suffix):
            ending = "".join(f"[{c}{c.upper()}]" if c.isalpha() else c for c in suffix)
            pattern = pattern[:-len(suffix)] + ending
            break
    found = {folder / name for form in (pattern, *(unicodedata.normalize(form, pattern)
                                                   for form in ("NFC", "NFD")))
             for name in glob.glob(form, root_dir=folder, recursive=True)}
    return sorted(path for path in found if not _hidden(path) and is_there(path))


def _isles(study_dir: Path, study: StudyConfig, required: bool) -> Iterable[Case]:
    """SMIR's folder per volume (2017), or BIDS names, at any depth (2022).

    In the BIDS form the masks may stand apart, under `derivatives/<case>`.
    """
    derivatives = study_dir / "derivatives"
    for case_dir in _folders(study_dir):
        if case_dir == derivatives:
            continue
        files = _nifti_files(case_dir)
        if derivatives.is_dir():
            files += [path for path in _nifti_files(derivatives) if _compared(case_dir.name) in
                      map(_compared, path.relative_to(derivatives).parts)]
        found: dict[str, list[Path]] = {}
        for path in files:
            found.setdefault(isles_modality(path)[0], []).append(path)

        def search(modality: str, found: dict[str, list[Path]] = found
                   ) -> tuple[list[Path], str]:
            name = _SYNONYMS.get(modality.lower(), modality.lower())
            wanted = "msk or OT" if name == SEGMENTATION else f"{modality} or MR_{modality.upper()}"
            return found.get(name, []), f"a file or folder named by {wanted}"
        yield _case(case_dir, study, required, search, _smir_id(found))


def _dicom(study_dir: Path, study: StudyConfig, required: bool) -> Iterable[Case]:
    """Any files of DICOM series below `<case>/`, in folders or not; a modality by `study.series`.

    The segmentation is a NIfTI file there, by `study.files`, else one that is called `*seg*`.
    """
    for case_dir in _folders(study_dir):
        def search(modality: str, case_dir: Path = case_dir) -> tuple[list[Path], str]:
            if modality not in study.files:
                return [path for path in _nifti_files(case_dir)
                        if modality in _compared(path.name)], f"*{modality}*.nii.gz"
            written = study.files[modality]
            return (_matching(case_dir, written.replace("{case}", glob.escape(case_dir.name))),
                    written.replace("{case}", case_dir.name))

        case = _case(case_dir, study, required, search, modalities=())
        series, unread = series_in(case_dir)
        chosen, faults = choose_series(series, study.modalities, study.series, case_dir)
        yield replace(case, volumes=chosen, faults=(*case.faults, *unread, *faults))


def isles_modality(path: Path) -> tuple[str, str | None]:
    """Tell what a file of the `isles` layout is: (modality in lower case, SMIR number or None).

    The segmentation is called `seg`.
    """
    stem = nifti_stem(path.name) or path.name
    for name in (stem, path.parent.name):
        if match := _SMIR_TRUTH.search(name):
            return SEGMENTATION, match["id"]
        if match := _SMIR.search(name):
            modality = match["modality"].lower()
            return _SYNONYMS.get(modality, modality), match["id"]
    modality = stem.rsplit("_", 1)[-1].lower()
    return _SYNONYMS.get(modality, modality), None


def _smir_id(found: dict[str, list[Path]]) -> str | None:
    """ISLES names a submission after the perfusion series, else after any map made from it."""
    ids = {modality: isles_modality(paths[0])[1] for modality, paths in sorted(found.items())
           if modality != SEGMENTATION}
    order = [ids.get("4dpwi"), ids.get("mtt"), *ids.values()]
    return next((number for number in order if number), None)


def _nifti_files(folder: Path) -> list[Path]:
    """The NIfTI files below a folder, and links to some that are not there."""
    return [path for path in sorted(folder.rglob("*"))
            if nifti_stem(path.name) is not None and not _hidden(path) and is_there(path)]


def _hidden(path: Path) -> bool:
    return path.name.startswith(".") or "__MACOSX" in path.parts


def _compared(name: str) -> str:
    """A name in the one form that it is compared with others in."""
    return unicodedata.normalize("NFC", name).lower()


def _case(case_dir: Path, study: StudyConfig, required: bool,
          search: Callable[[str], tuple[list[Path], str]], smir_id: str | None = None,
          modalities: Sequence[str] | None = None) -> Case:
    """Build a case; `search` gives the files of a modality and the words for what it looked for.

    modalities: those whose files are looked for; None takes all of the study's.
    """
    if fault := _name_fault(case_dir.name):
        return Case(_shown(case_dir.name), faults=(fault,))
    files: dict[str, Path] = {}
    faults: list[DataError] = []
    segmentation_faults: list[DataError] = []
    for modality in (*(study.modalities if modalities is None else modalities), SEGMENTATION):
        paths, wanted = search(modality)
        own = segmentation_faults if modality == SEGMENTATION else faults
        if len(paths) == 1 and (fault := _name_fault(str(paths[0]))):
            own.append(fault)
        elif len(paths) == 1:
            files[modality] = paths[0]
        elif paths:
            own.append(DataError(
                f"{modality}: {len(paths)} files fit, {[_shown(p.name) for p in paths]}",
                file=case_dir, value=modality,
                hint="leave one of them, or name it by `layout: pattern`"))
        elif modality != SEGMENTATION or required:
            held = [_shown(path.relative_to(case_dir).as_posix())
                    for path in _nifti_files(case_dir)]
            pairs = sorted(_shown(path.name) for path in case_dir.rglob("*.hdr"))
            what = "segmentation" if modality == SEGMENTATION else f"modality {modality!r}"
            own.append(DataError(
                f"{what} is missing: looked for {wanted} in this folder, which holds "
                + (f"{held[:8]}" if held else "no NIfTI file")
                + (f"; pairs of .hdr and .img ({pairs[:4]}) are not read" if pairs else ""),
                file=case_dir, value=modality,
                hint="save each pair as one .nii.gz" if pairs else
                "add it, or say by study.layout and study.files where it lies"))
    return Case(case_name(case_dir.name), {m: files[m] for m in study.modalities if m in files},
                files.get(SEGMENTATION), smir_id, tuple(faults), tuple(segmentation_faults))
