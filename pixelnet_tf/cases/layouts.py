"""Finding the cases of a study on disk, in every layout of `study.layout`.

A layout lists the cases of a folder and what each of their files is called (`Held`). Which of them
are the modalities and the segmentation that a study asks for is then found in one way for all.
"""

from __future__ import annotations

import fnmatch
import glob
import itertools
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pixelnet_tf.cases.case import Case, Channel, Source
from pixelnet_tf.cases.dataset_json import DatasetJson
from pixelnet_tf.cases.dicom_series import DicomSeries, choose_series, series_in
from pixelnet_tf.cases.names import (
    IMAGE_ENDINGS,
    SEGMENTATION,
    canonical,
    case_name,
    compared,
    folded,
    folders,
    image_files,
    image_stem,
    is_hidden,
    is_known,
    is_there,
    name_fault,
    nifti_stem,
    printable,
)
from pixelnet_tf.config import Layout, StudyConfig
from pixelnet_tf.config.sections import BRAIN_MASK
from pixelnet_tf.errors import DataError, MissingVolume, nearest_hint
from pixelnet_tf.reporting import Reporter, reporter_or_log

#: SMIR: `VSD.Brain.XX.O.MR_ADC.128020`, as a folder or as a file; `OT` is the truth.
_SMIR = re.compile(r"(?:^|\.)(?:MR_|CT_)(?P<modality>\w+?)(?:\.(?P<id>\d+))?$", re.IGNORECASE)
_SMIR_TRUTH = re.compile(r"(?:^|\.)OT(?:\.(?P<id>\d+))?$")
#: ISLES' names for one thing: relative flow and volume, the raw perfusion series, the lesion mask.
_ISLES_SYNONYMS = {"rcbf": "cbf", "rcbv": "cbv", "pwi": "4dpwi", "ot": SEGMENTATION,
                   "msk": SEGMENTATION, "mask": SEGMENTATION, "lesion-msk": SEGMENTATION}
#: What stands between a case's name and a modality's, in the name of a file.
_BETWEEN = "_-"
#: nnU-Net's number of a channel, behind the name of the case.
NUMBERED = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})$")
#: BIDS' folders of images that a case is made of.
_BIDS_KINDS = ("anat", "dwi", "perf", "swi")
#: BIDS' suffixes of a segmentation, and words in a name that tell of the mask of a brain.
_BIDS_MASKS = ("mask", "dseg", "seg", "msk", "roi", "lesion", "label")
_BIDS_BRAIN = re.compile(r"(?:desc|label)-\w*(?:brain|head|wm|gm|csf|tissue)|brain_?mask", re.I)


@dataclass(frozen=True)
class Held:
    """The images of one case, as a layout finds them.

    Attributes:
        name: the case.
        folder: where they lie, for messages.
        words: what a file is called in the layout (a modality, a number) -> its files.
        others: more of its files, which are taken only where `study.files` names them.
        called: word -> name of the modality, where the word is none itself.
        channels: how many volumes of four-dimensional files the words number; 0: files have three.
        smir_id, test: see `Case`.
        faults: what contradicts the study, beyond files that are missing or too many.
    """

    name: str
    folder: Path
    words: dict[str, list[Path]] = field(default_factory=dict)
    others: tuple[Path, ...] = ()
    called: dict[str, str] = field(default_factory=dict)
    channels: int = 0
    smir_id: str | None = None
    test: bool = False
    faults: tuple[DataError, ...] = ()

    @property
    def files(self) -> list[Path]:
        """Every file once, in order."""
        return sorted({*(path for paths in self.words.values() for path in paths), *self.others})

    def words_of(self, modality: str) -> list[str]:
        """The words that stand for a modality: those that are called the same, else those that data
        sets use for it."""
        names = {word: self.called.get(word, word) for word in (*self.words, *self.called)}
        exact = [word for word, name in names.items() if folded(name) == folded(modality)]
        return exact or [word for word, name in names.items()
                         if canonical(name) == canonical(modality)]

    def named(self, written: str) -> tuple[list[Path], list[str]]:
        """The files that an entry of `study.files` names, and the words that it is itself.

        An entry is a word, or a pattern of a file's path whose ending may be left out.
        """
        words = [word for word in self.words if compared(word) == compared(written)
                 or (word.isdecimal() and written.isdecimal()
                     and int(word) == int(written))]
        if words:
            return [path for word in words for path in self.words[word]], words
        pattern = "*/" + compared(written.replace("{case}", glob.escape(self.name)))
        return [path for path in self.files if any(
            fnmatch.fnmatchcase(compared("/" + text), pattern) for text in
            (path.as_posix(), (path.parent / (image_stem(path.name) or "")).as_posix()))], []


def find_cases(study_dir: Path, study: StudyConfig, require_segmentation: bool = True,
               reporter: Reporter | None = None) -> list[Case]:
    """List the cases of a study, ordered by name.

    A case that lacks a file is listed with a fault, so that one check can report all of them.

    Args:
        study_dir: folder of cases, as `study.layout` has it.
        study: layout, modalities and files.
        require_segmentation: a case without segmentation is at fault.
        reporter: hears of the task "reading series", in cases, where they are DICOM.

    Raises:
        DataError: no such folder, no case in it, two cases of one name, or a `dataset.json` that
            contradicts the files.
    """
    study_dir = existing_folder(study_dir)
    if study.layout in (Layout.PATTERN, Layout.DICOM):
        cases = list(_pattern(study_dir, study, require_segmentation)
                     if study.layout == Layout.PATTERN else
                     _dicom(study_dir, study, require_segmentation, reporter_or_log(reporter)))
    else:
        cases = [_case(held, study, require_segmentation, _search(held, study))
                 for held in held_cases(study_dir, study.layout)]
    cases.sort(key=lambda case: case.name)
    if not cases:
        held = sorted(printable(path.name) for path in study_dir.iterdir())[:5]
        raise DataError(
            f"no case found (layout `{study.layout}` takes {_TAKES[study.layout]}); "
            + (f"the folder holds {held}" if held else "the folder is empty"), file=study_dir,
            hint="give the folder above the cases, or its layout by study.layout, which "
                 "`pixelnet-tf plan` finds out")
    for before, after in itertools.pairwise(cases):
        if before.name == after.name:
            raise DataError("two cases have this name", case=after.name, file=study_dir,
                            hint="rename one of them")
    return cases


def find_cases_or_one(folder: Path, study: StudyConfig, reporter: Reporter | None = None
                      ) -> list[Case]:
    """The cases of a study, as `find_cases` lists them; or the one case that the folder itself is,
    in a layout that has a folder for each.

    Raises:
        DataError: as `find_cases`.
    """
    folder, fault = Path(folder), None
    cases: list[Case] = []
    try:
        cases = find_cases(folder, study, require_segmentation=False, reporter=reporter)
    except DataError as error:
        fault = error
    if any(case.volumes and not case.faults for case in cases) or not folder.is_dir():
        if fault is not None:
            raise fault
        return cases
    place = folder.resolve()
    try:
        beside = find_cases(place.parent, study, require_segmentation=False)
    except DataError:
        beside = []
    # Folders of a case's single volumes look like cases that lack all others, so that it is the one
    # with more volumes.
    most = max((len(case.volumes) for case in cases), default=0)
    own = [case for case in beside if case.name == case_name(place.name)
           and len(case.volumes) > most
           and all(Path(source).is_relative_to(place) for source in case.volumes.values())]
    if own:
        return own
    if fault is not None:
        raise fault
    return cases


def case_of_files(name: str, files: Mapping[str, Path], study: StudyConfig) -> Case:
    """The case that files make, a modality (or `mask`) each.

    Raises:
        DataError: a modality that the study does not have.
    """
    for modality, path in files.items():
        if modality not in study.inputs:
            raise DataError(f"{modality!r} is no modality of the model"
                            f"{nearest_hint(modality, study.inputs)}", file=path, value=modality,
                            hint=f"give {', '.join(study.inputs)}")
    faults = [MissingVolume(f"modality {modality!r} is missing", value=modality,
                            hint=f"give it by --file {modality}=FILE")
              if modality in study.modalities else
              DataError("brain mask is missing", value=modality,
                        hint=f"give it by --file {modality}=FILE")
              for modality in study.inputs if modality not in files]
    return Case(case_name(name), {modality: files[modality] for modality in study.inputs
                                  if modality in files}, faults=tuple(faults))


def existing_folder(study_dir: Path) -> Path:
    """Return the folder of a study; raises `DataError` where there is none."""
    study_dir = Path(study_dir)
    if fault := name_fault(str(study_dir)):
        raise fault
    if not study_dir.is_dir():
        raise DataError("no such folder", file=study_dir,
                        hint="give the folder that holds the cases")
    return study_dir


def held_cases(study_dir: Path, layout: Layout) -> list[Held]:
    """List the cases of a folder and what their files are called, in a layout by which names alone
    tell it: any but `pattern` and `dicom`.

    Raises:
        DataError: a `dataset.json` that cannot be read or that contradicts the files.
    """
    return list(_LISTERS[layout](study_dir))


def _brats(study_dir: Path) -> Iterable[Held]:
    """`[HGG|LGG/]<case>/<case>_<modality>.nii.gz`; from 2023 on with `-` for `_`."""
    for folder in folders(study_dir):
        for case_dir in folders(folder) if folder.name in ("HGG", "LGG") else [folder]:
            words: dict[str, list[Path]] = {}
            others = []
            for path in image_files(case_dir):
                stem, name = compared(image_stem(path.name) or ""), compared(case_dir.name)
                word = stem[len(name) + 1:]
                if (path.parent == case_dir and stem.startswith(name)
                        and stem[len(name):len(name) + 1] in tuple(_BETWEEN)
                        # A mask may be that of the brain: the segmentation has its own name here.
                        and (canonical(word) != SEGMENTATION or word == SEGMENTATION)):
                    words.setdefault(word, []).append(path)
                else:
                    others.append(path)
            yield Held(case_dir.name, case_dir, words, tuple(others))


def _isles(study_dir: Path) -> Iterable[Held]:
    """SMIR's folder per volume (2017), or BIDS names, at any depth (2022).

    In the BIDS form the masks may stand apart, under `derivatives/<case>`.
    """
    derivatives = study_dir / "derivatives"
    apart = image_files(derivatives) if derivatives.is_dir() else []
    for case_dir in folders(study_dir):
        if case_dir == derivatives:
            continue
        files = image_files(case_dir)
        files += [path for path in apart if compared(case_dir.name) in
                  map(compared, path.relative_to(derivatives).parts)]
        words: dict[str, list[Path]] = {}
        for path in files:
            words.setdefault(isles_modality(path)[0], []).append(path)
        yield Held(case_dir.name, case_dir, words, smir_id=_smir_id(words))


def _flat(study_dir: Path) -> Iterable[Held]:
    """`<case>_<modality>.nii.gz` beside each other.

    A modality's name that data sets use may itself hold a `_` (`t1_post`); of any other name it is
    what follows the last `_` or `-`.
    """
    cases: dict[str, dict[str, list[Path]]] = {}
    for path in image_files(study_dir, below=False):
        name, word = split_name(image_stem(path.name) or "")
        cases.setdefault(name, {}).setdefault(word, []).append(path)
    for name, words in cases.items():
        yield Held(name, study_dir, words)


def split_name(stem: str) -> tuple[str, str]:
    """Cut the name of a file, without its ending, into the case's and the modality's name.

    The longest ending that is a known name counts, else what follows the last `_` or `-`; a name
    without either is the case's, and the modality's is empty.
    """
    cuts = [place for place, sign in enumerate(stem) if sign in _BETWEEN and 0 < place]
    known = next((cut for cut in cuts if is_known(stem[cut + 1:])), None)
    cut = known if known is not None else (cuts[-1] if cuts else len(stem))
    return _composed(stem[:cut]), stem[cut + 1:]


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _nnunet(study_dir: Path) -> Iterable[Held]:
    """`imagesTr/<case>_0000.nii.gz`, `labelsTr/<case>.nii.gz` and `dataset.json`.

    Given is the folder above, or one of images: `imagesTs`, or any other.
    """
    tree = TrainingTree.of(study_dir)
    names = tree.dataset.channels
    for part, cases in tree.parts(_numbered_words):
        for name, words in cases.items():
            unknown = [word for word in sorted(words) if names and word != SEGMENTATION
                       and int(word) not in names]
            faults = [DataError(
                f"is channel {int(word)}, but {tree.dataset.path} names the channels "
                f"{sorted(names)} alone", file=words[word][0], value=word,
                hint="name it there, or remove the file") for word in unknown]
            yield Held(name, part.images, words, called=_called(names), test=part.test,
                       faults=tuple(faults))
    if tree.whole:
        for name, (images, label) in tree.listed().items():
            words = {f"{number:04d}": [path] for number, path in enumerate(images)}
            faults = [DataError("no such file, and dataset.json says that it is an image of the "
                                "case" if path in images else "no such file, and dataset.json says "
                                "that it is the segmentation of the case", file=path, value=name,
                                hint="fetch it, or correct `dataset` there")
                      for path in (*images, label) if path is not None and not path.is_file()]
            yield Held(_composed(name), images[0].parent,
                       words | ({} if label is None else {SEGMENTATION: [label]}),
                       called=_called(names), faults=tuple(faults))


def _numbered_words(path: Path) -> tuple[str, list[str]] | None:
    found = NUMBERED.match(image_stem(path.name) or "")
    return (_composed(found["case"]), [found["channel"]]) if found else None


def _msd(study_dir: Path) -> Iterable[Held]:
    """`imagesTr/<case>.nii.gz` of four dimensions, `labelsTr/<case>.nii.gz` and `dataset.json`."""
    tree = TrainingTree.of(study_dir)
    names = tree.dataset.channels
    if not names:
        raise DataError("says no names of the channels (`modality`)"
                        if tree.dataset.path.exists() else "no such file", file=tree.dataset.path,
                        hint='add it, as in {"modality": {"0": "FLAIR", "1": "T1w"}}')
    called = _called(names)
    for part, cases in tree.parts(lambda path: (_composed(image_stem(path.name) or ""),
                                                list(called))):
        for name, words in cases.items():
            yield Held(name, part.images, words, called=called, channels=len(names),
                       test=part.test)


def _called(names: dict[int, str]) -> dict[str, str]:
    """Word of a channel, its number in four digits -> name of its modality."""
    return {f"{number:04d}": name for number, name in names.items()}


def _bids(study_dir: Path) -> Iterable[Held]:
    """`sub-*/[ses-*/]anat|dwi|perf/`, the masks there or under `derivatives`.

    A session of a subject is a case, called `sub-01_ses-02`.
    """
    raw = study_dir
    if not any(path.name.startswith("sub-") for path in folders(raw)) and (
            raw / "rawdata").is_dir():
        raw = study_dir / "rawdata"
    derivatives = study_dir / "derivatives"
    apart: dict[str, list[tuple[Path, set[str]]]] = {}
    for path in image_files(derivatives) if derivatives.is_dir() else ():
        entities = _entities(path, derivatives)
        for entity in entities:
            apart.setdefault(entity, []).append((path, entities))
    for subject in folders(raw):
        if not subject.name.startswith("sub-"):
            continue
        sessions = [path for path in folders(subject) if path.name.startswith("ses-")]
        for place in sessions or [subject]:
            own = [subject.name, *([place.name] if sessions else [])]
            files = [path for path in image_files(place)
                     if path.parent == place or path.parent.name in _BIDS_KINDS]
            files += [path for path, entities in apart.get(subject.name, ())
                      if entities.issuperset(own)]
            words: dict[str, list[Path]] = {}
            for path in files:
                if word := bids_modality(path):
                    # What was made from the images is not an image of the study, but for masks.
                    if word == SEGMENTATION or not path.is_relative_to(derivatives):
                        words.setdefault(word, []).append(path)
            yield Held("_".join(own), place, words, tuple(files))


def bids_modality(path: Path) -> str | None:
    """Tell what a file of the `bids` layout is, by its entities and suffix.

    Returns:
        `t1` for T1w, `t1ce` where an entity `ce` stands before it, `t2` for T2w, `seg` for a mask
        or a segmentation of a lesion, any other suffix in lower case; None for the mask of a brain.
    """
    *entities, suffix = (image_stem(path.name) or "").split("_")
    suffix = suffix.lower()
    if suffix in _BIDS_MASKS:
        return None if _BIDS_BRAIN.search(path.name) else SEGMENTATION
    if suffix == "t1w" and any(entity.startswith("ce-") for entity in entities):
        return "t1ce"
    return canonical(suffix)


def _entities(path: Path, above: Path) -> set[str]:
    """The subject and the session of a file, from its name and the folders that it lies in."""
    parts = [*path.relative_to(above).parts[:-1], *(image_stem(path.name) or "").split("_")]
    return {part for part in parts if part.startswith(("sub-", "ses-"))}


@dataclass(frozen=True)
class TreePart:
    """A folder of images, that of their segmentations (None: there is none), and whether they are
    test cases."""

    images: Path
    labels: Path | None
    test: bool


@dataclass(frozen=True)
class TrainingTree:
    """The folders that nnU-Net and the Medical Segmentation Decathlon share.

    Attributes:
        folders: of the images.
        dataset: what the `dataset.json` beside them says.
        whole: whether the folder above the images was given, so that all training cases are there.
    """

    folders: tuple[TreePart, ...]
    dataset: DatasetJson
    whole: bool

    @classmethod
    def of(cls, study_dir: Path) -> TrainingTree:
        """Find them from the folder above, from `imagesTr` or `imagesTs`, or from one of images.

        Raises:
            DataError: a `dataset.json` that cannot be read.
        """
        whole = (study_dir / "imagesTr").is_dir()
        above = study_dir if whole or not study_dir.name.startswith("images") else study_dir.parent
        dataset = DatasetJson.read(above)
        if dataset.listed and above == study_dir:
            # Where the training cases lie stands in the file.
            whole = True
        images = ([path for path in (study_dir / "imagesTr", study_dir / "imagesTs")
                   if path.is_dir() and not (dataset.listed and path.name == "imagesTr")]
                  if whole else [study_dir])
        parts = []
        for folder in images:
            labels = above / folder.name.replace("images", "labels", 1)
            parts.append(TreePart(folder, labels if labels != folder and labels.is_dir() else None,
                                  whole and folder.name == "imagesTs"))
        return cls(tuple(parts), dataset, whole)

    def listed(self) -> dict[str, tuple[tuple[Path, ...], Path | None]]:
        """The training cases that `dataset.json` itself lists.

        Raises:
            DataError: it states another number of them, or another number of channels.
        """
        cases, stated = self.dataset.listed, self.dataset.training_cases
        if cases and stated is not None and stated != len(cases):
            raise DataError(f"states numTraining {stated}, but `dataset` lists {len(cases)} cases",
                            file=self.dataset.path, value=stated, hint="correct either")
        for name, (images, _) in cases.items():
            if self.dataset.channels and len(images) != len(self.dataset.channels):
                raise DataError(f"lists {len(images)} images of {name}, and names "
                                f"{len(self.dataset.channels)} channels", file=self.dataset.path,
                                value=name, hint="correct either")
        return cases

    def files(self, folder: Path) -> list[Path]:
        """The files in one of the folders, of the ending that `dataset.json` states.

        Raises:
            DataError: none has that ending.
        """
        files, ending = image_files(folder, below=False), self.dataset.file_ending
        if ending is None:
            return files
        # A pair of files is found by its header.
        wanted = ".hdr" if ending.lower() == ".img" else ending.lower()
        fitting = [path for path in files if path.name.lower().endswith(wanted)]
        if files and not fitting:
            raise DataError(f"states file_ending {ending!r}, but {folder} holds files as "
                            f"{printable(files[0].name)}", file=self.dataset.path, value=ending,
                            hint="correct file_ending")
        return fitting

    def parts(self, words_of: Callable[[Path], tuple[str, list[str]] | None]
              ) -> Iterable[tuple[TreePart, dict[str, dict[str, list[Path]]]]]:
        """Each folder with its cases: name -> word -> files.

        words_of: the case of an image and the words that it stands under; None: it is no image of
            the layout.

        Raises:
            DataError: `dataset.json` states another ending or number of the training cases.
        """
        for part in self.folders:
            cases: dict[str, dict[str, list[Path]]] = {}
            for path in self.files(part.images):
                name, words = words_of(path) or ("", [])
                for word in words:
                    cases.setdefault(name, {}).setdefault(word, []).append(path)
            for path in self.files(part.labels) if part.labels else ():
                cases.setdefault(_composed(image_stem(path.name) or ""), {}).setdefault(
                    SEGMENTATION, []).append(path)
            if self.whole and not part.test:
                for name in self.dataset.training:
                    cases.setdefault(name, {})
                stated = self.dataset.training_cases
                if stated is not None and stated != len(cases):
                    raise DataError(f"states numTraining {stated}, but there are {len(cases)} "
                                    f"training cases in {part.images}", file=self.dataset.path,
                                    value=stated, hint="fetch the cases that are missing, or "
                                                       "correct numTraining")
            yield part, cases


_LISTERS: dict[Layout, Callable[[Path], Iterable[Held]]] = {
    Layout.BRATS: _brats, Layout.ISLES: _isles, Layout.FLAT: _flat, Layout.NNUNET: _nnunet,
    Layout.MSD: _msd, Layout.BIDS: _bids}
#: What a layout is made of, as the message for a folder without it says.
_TAKES = {Layout.BRATS: "a sub-folder per case", Layout.ISLES: "a sub-folder per case",
          Layout.PATTERN: "a sub-folder per case", Layout.DICOM: "a sub-folder per case",
          Layout.FLAT: "files <case>_<modality>.nii.gz beside each other",
          Layout.NNUNET: "imagesTr/<case>_0000.nii.gz", Layout.MSD: "imagesTr/<case>.nii.gz",
          Layout.BIDS: "sub-*/[ses-*/]anat|dwi|perf"}


def isles_modality(path: Path) -> tuple[str, str | None]:
    """Tell what a file of the `isles` layout is: (modality in lower case, SMIR number or None).

    The segmentation is called `seg`.
    """
    stem = image_stem(path.name) or path.name
    for name in (stem, path.parent.name):
        if match := _SMIR_TRUTH.search(name):
            return SEGMENTATION, match["id"]
        if match := _SMIR.search(name):
            modality = match["modality"].lower()
            return _ISLES_SYNONYMS.get(modality, modality), match["id"]
    modality = stem.rsplit("_", 1)[-1].lower()
    return _ISLES_SYNONYMS.get(modality, modality), None


def is_smir(path: Path) -> bool:
    """Whether a file, or the folder that it lies in, is named as SMIR does."""
    return any(_SMIR.search(name) or _SMIR_TRUTH.search(name)
               for name in (image_stem(path.name) or "", path.parent.name))


def _smir_id(found: dict[str, list[Path]]) -> str | None:
    """ISLES names a submission after the perfusion series, else after any map made from it."""
    ids = {modality: isles_modality(paths[0])[1] for modality, paths in sorted(found.items())
           if modality != SEGMENTATION}
    order = [ids.get("4dpwi"), ids.get("mtt"), *ids.values()]
    return next((number for number in order if number), None)


def _pattern(study_dir: Path, study: StudyConfig, required: bool) -> Iterable[Case]:
    """`<case>/<pattern>`, the pattern from `study.files`."""
    if required and SEGMENTATION not in study.files:
        raise DataError("study.files has no pattern for `seg`",
                        hint="add one, as in `seg: '{case}_seg.nii.gz'`, or prepare without "
                             "segmentations")
    for case_dir in folders(study_dir):
        def search(modality: str, case_dir: Path = case_dir) -> Found:
            written = study.files.get(modality, "")
            # A name may hold characters that mean something in a pattern.
            pattern = written.replace("{case}", glob.escape(case_dir.name))
            return Found(_matching(case_dir, pattern),
                         written.replace("{case}", case_dir.name))
        yield _case(Held(case_dir.name, case_dir, others=tuple(image_files(case_dir))), study,
                    required, search)


def _dicom(study_dir: Path, study: StudyConfig, required: bool, reporter: Reporter
           ) -> Iterable[Case]:
    """Any files of DICOM series below `<case>/`, in folders or not; a modality by `study.series`.

    The segmentation is an image file there, by `study.files`, else one that is called `*seg*`.
    """
    for case_dir, series, unread in series_of_cases(study_dir, reporter):
        held = Held(case_dir.name, case_dir, others=tuple(image_files(case_dir)))

        def search(modality: str, held: Held = held) -> Found:
            if modality not in study.files:
                return Found([path for path in held.files if modality in compared(path.name)],
                             f"*{modality}*.nii.gz")
            written = study.files[modality]
            return Found(_matching(held.folder,
                                   written.replace("{case}", glob.escape(held.name))),
                         written.replace("{case}", held.name))

        masks = study.inputs[len(study.modalities):]
        case = _case(held, study, required, search, modalities=masks)
        chosen, faults = choose_series(series, study.modalities, study.series, case_dir)
        yield replace(case, volumes={**chosen, **case.volumes},
                      faults=(*case.faults, *unread, *faults))


def series_of_cases(study_dir: Path, reporter: Reporter
                    ) -> Iterator[tuple[Path, list[DicomSeries], list[DataError]]]:
    """Each case's folder of a study of DICOM, its series, and what is wrong with its files."""
    cases = folders(study_dir)
    for number, case_dir in enumerate(cases, start=1):
        series, faults = series_in(case_dir)
        reporter.progress("reading series", number, len(cases), printable(case_dir.name))
        yield case_dir, series, faults


def _matching(folder: Path, pattern: str) -> list[Path]:
    """Files that a pattern finds, in either Unicode form and with an ending in small or capital
    letters; links to files that are not there are among them."""
    for ending in IMAGE_ENDINGS:
        if pattern.lower().endswith(ending):
            either = "".join(f"[{c}{c.upper()}]" if c.isalpha() else c for c in ending)
            pattern = pattern[:-len(ending)] + either
            break
    found = {folder / name for form in (pattern, *(unicodedata.normalize(form, pattern)
                                                   for form in ("NFC", "NFD")))
             for name in glob.glob(form, root_dir=folder, recursive=True)}
    return sorted(path for path in found if not is_hidden(path) and is_there(path))


@dataclass(frozen=True)
class Found:
    """What was found for a modality of a case.

    Attributes:
        paths: the files that fit.
        wanted: words for what was looked for.
        channel: number of the volume, where files have four dimensions.
    """

    paths: list[Path]
    wanted: str
    channel: int | None = None


def _search(held: Held, study: StudyConfig) -> Callable[[str], Found]:
    """How the files of a case are looked through for a modality."""
    named = {modality: held.named(written) for modality, written in study.files.items()}

    def search(modality: str) -> Found:
        if modality in named:
            paths, words = named[modality]
            written = study.files[modality]
            wanted = (_wanted(held, study.layout, modality, [written.zfill(4)])
                      if study.layout in (Layout.NNUNET, Layout.MSD) else
                      written.replace("{case}", held.name))
        else:
            words = held.words_of(modality)
            taken = [taken for other, taken in named.items() if other != modality]
            free = [word for word in words if not any(word in own for _, own in taken)]
            paths = [path for word in free for path in held.words.get(word, ())
                     if not any(path in theirs for theirs, own in taken if not own)]
            wanted = _wanted(held, study.layout, modality, words)
        numbered = held.channels and words and modality != SEGMENTATION
        return Found(paths, wanted, int(words[0]) if numbered else None)

    return search


def _wanted(held: Held, layout: Layout, modality: str, words: list[str]) -> str:
    """Words for the file that a layout expects a modality in."""
    if layout == Layout.ISLES:
        name = _ISLES_SYNONYMS.get(modality.lower(), modality.lower())
        either = "msk or OT" if name == SEGMENTATION else f"{modality} or MR_{modality.upper()}"
        return f"a file or folder named by {either}"
    if layout == Layout.BIDS:
        return ("a mask or dseg of this case, here or under derivatives"
                if modality == SEGMENTATION else f"a file with the suffix of {modality}")
    if layout in (Layout.NNUNET, Layout.MSD):
        if modality == SEGMENTATION:
            return f"{held.name}.nii.gz in the folder of labels"
        if not words:
            return (f"a channel called {modality!r} in dataset.json, which names "
                    f"{list(held.called.values())}" if held.called else
                    "a dataset.json that names the channels, or the channel's number in "
                    "study.files")
        return f"{held.name}{f'_{words[0]}' if layout == Layout.NNUNET else ''}.nii.gz"
    return f"{held.name}_{modality}.nii.gz"


def _case(held: Held, study: StudyConfig, required: bool, search: Callable[[str], Found],
          modalities: Sequence[str] | None = None) -> Case:
    """Build a case; `search` finds the files of a modality.

    modalities: those whose files are looked for; None takes all of the study's.
    """
    if fault := name_fault(held.name):
        return Case(printable(held.name), faults=(fault,))
    volumes: dict[str, Source] = {}
    segmentation: Path | None = None
    faults = list(held.faults)
    segmentation_faults: list[DataError] = []
    for modality in (*(study.inputs if modalities is None else modalities), SEGMENTATION):
        found = search(modality)
        # What lies beside a NIfTI file in another form is a copy of it.
        paths = [path for path in found.paths if nifti_stem(path.name)] or found.paths
        own = segmentation_faults if modality == SEGMENTATION else faults
        if len(paths) == 1 and (fault := name_fault(str(paths[0]))):
            own.append(fault)
        elif len(paths) == 1 and modality == SEGMENTATION:
            segmentation = paths[0]
        elif len(paths) == 1:
            volumes[modality] = (paths[0] if found.channel is None else
                                 Channel(paths[0], found.channel, held.channels))
        elif paths:
            own.append(DataError(
                f"{modality}: {len(paths)} files fit, {[printable(p.name) for p in paths]}",
                file=held.folder, value=modality,
                hint="leave one of them, or name it by study.files or `layout: pattern`"))
        elif modality != SEGMENTATION or (required and not held.test):
            shown = [printable(path.relative_to(held.folder).as_posix())
                     if path.is_relative_to(held.folder) else printable(path.name)
                     for path in held.files]
            what = f"modality {modality!r}" if modality in study.modalities else {
                SEGMENTATION: "segmentation", BRAIN_MASK: "brain mask"}[modality]
            kind = DataError if modality == BRAIN_MASK else MissingVolume
            own.append(kind(
                f"{what} is missing: looked for {found.wanted} in this folder, which holds "
                + (f"{shown[:8]}" if shown else "no image"), file=held.folder, value=modality,
                hint="add it, or say by study.layout and study.files where it lies"))
    return Case(case_name(held.name), volumes, segmentation, held.smir_id, tuple(faults),
                tuple(segmentation_faults), held.test)
