"""Telling by itself how the folder of a study is laid out, from its names and its dataset.json."""

from __future__ import annotations

import glob
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pixelnet_tf.cases.case import Case
from pixelnet_tf.cases.dataset_json import DatasetJson
from pixelnet_tf.cases.layouts import (
    NUMBERED,
    TrainingTree,
    existing_folder,
    find_cases,
    held_cases,
    is_smir,
    series_of_cases,
)
from pixelnet_tf.cases.names import (
    SEGMENTATION,
    canonical,
    folders,
    image_files,
    image_stem,
    is_known,
    modality_in,
    printable,
    usual_order,
)
from pixelnet_tf.config import Layout, StudyConfig
from pixelnet_tf.errors import DataError
from pixelnet_tf.reporting import Reporter, reporter_or_log

#: ISLES 2022 calls its cases so; their names are otherwise BIDS'.
_ISLES_2022 = re.compile(r"sub-stroke", re.IGNORECASE)
#: Names of the cases of BraTS 2023 and of its words for the modalities.
_BRATS_2023 = frozenset({"t1c", "t1n", "t2w", "t2f"})
#: Labels and regions of BraTS 2023: its enhancing tumour was 4 before.
_BRATS_2023_LABELS = {0: "background", 1: "necrosis", 2: "edema", 3: "enhancing"}
_BRATS_2023_REGIONS = {"ET": (3,), "WT": (1, 2, 3), "TC": (1, 3)}
#: Modalities that are series of volumes.
_SERIES = ("4dpwi", "bold", "asl", "m0scan")
#: A layout fits where at least this part of the folders is named by it.
_MOST = 0.5


@dataclass(frozen=True)
class DetectedStudy:
    """What a folder is, as its names say; no image was opened.

    Attributes:
        folder: the study.
        layout: how it is laid out.
        modalities: every modality that a case has, in the paper's order; not every case has to.
        files: `study.files` for them, and for `seg`, where the layout needs it; else empty.
        series: `study.series` for them, where they are DICOM series.
        labels: label value -> name, where dataset.json or the challenge's names say it.
        regions: name -> label values, where dataset.json or the challenge's names say it.
        regions_class_order: region -> the label value that its voxels get, where dataset.json is
            meant for region-based training.
        ignore_label: the label value that dataset.json calls `ignore`; None: there is none.
        cases: those to train on, with all of their modalities; a fault of a case says which it
            lacks.
        test_cases: those that the layout sets aside, such as imagesTs. `find_cases` lists both.
        reasons: sentences that say what was found, and by what it was told.
    """

    folder: Path
    layout: Layout
    modalities: tuple[str, ...]
    cases: tuple[Case, ...]
    test_cases: tuple[Case, ...] = ()
    files: dict[str, str] = field(default_factory=dict)
    series: dict[str, str] = field(default_factory=dict)
    labels: dict[int, str] = field(default_factory=dict)
    regions: dict[str, tuple[int, ...]] = field(default_factory=dict)
    ignore_label: int | None = None
    reasons: tuple[str, ...] = ()
    regions_class_order: dict[str, int] = field(default_factory=dict)

    @property
    def without_segmentation(self) -> tuple[str, ...]:
        """The cases that have no segmentation, the test cases left aside."""
        return tuple(case.name for case in self.cases if case.segmentation is None)

    @property
    def common_modalities(self) -> tuple[str, ...]:
        """The modalities that every case has, be it several times: that is a fault to be mended."""
        return tuple(modality for modality in self.modalities
                     if all(case.holds(modality) for case in self.cases))

    def settings(self, modalities: Sequence[str] = ()) -> dict[str, Any]:
        """The keys of the section `study` by which `find_cases` finds these cases.

        modalities: some of them, in the order of the channels; empty takes those of every case.
        """
        chosen = tuple(modalities) or self.common_modalities or self.modalities
        files = {key: text for key, text in self.files.items() if key in (*chosen, SEGMENTATION)}
        settings: dict[str, Any] = {"layout": self.layout.value, "modalities": list(chosen)}
        if files:
            settings["files"] = files
        if series := {key: text for key, text in self.series.items() if key in chosen}:
            settings["series"] = series
        if len(self.labels) > 1:
            settings["labels"] = dict(self.labels)
            # Where nothing names regions, each label is one.
            settings["regions"] = {name: list(values) for name, values in self.regions.items()} or {
                name: [value] for value, name in self.labels.items() if value}
            if self.regions_class_order:
                settings["regions_class_order"] = dict(self.regions_class_order)
        if self.ignore_label is not None:
            settings["ignore_label"] = self.ignore_label
        return settings


def detect_study(study_dir: Path, reporter: Reporter | None = None) -> DetectedStudy:
    """Find out how a folder is laid out, its modalities and its cases.

    Names of folders and files are read, and dataset.json where there is one; the headers of all
    files where they are DICOM, of which the reporter hears.

    Raises:
        DataError: no such folder, no images in a form of any layout, or a dataset.json that
            cannot be read or contradicts the files.
    """
    study_dir = existing_folder(study_dir)
    for rule in _RULES:
        if found := rule(study_dir):
            return found
    if found := _dicom(study_dir, reporter_or_log(reporter)):
        return found
    files = image_files(study_dir)
    if files:
        raise DataError("no layout fits its files, which are called as "
                        f"{[printable(str(p.relative_to(study_dir))) for p in files[:3]]}",
                        file=study_dir, hint="say by `study.layout: pattern` and study.files what "
                                             "they are")
    raise DataError("holds no image of a form that is read", file=study_dir,
                    hint="give the folder above the cases")


def _training_tree(study_dir: Path) -> DetectedStudy | None:
    """nnU-Net's and the Decathlon's: `imagesTr` and `labelsTr`, or one folder of such images."""
    tree = TrainingTree.of(study_dir)
    files = [path for part in tree.folders for path in image_files(part.images, below=False)]
    if tree.dataset.listed and tree.whole:
        return _nnunet(study_dir, tree, "nnU-Net: dataset.json lists the files of each case.", [])
    numbered = [path for path in files if NUMBERED.match(image_stem(path.name) or "")]
    if not (tree.whole or study_dir.name.startswith("images")
            or (files and len(numbered) == len(files))):
        return None
    # A Decathlon case may be called as a numbered channel; its segmentation then is, too.
    labels = {image_stem(path.name) for part in tree.folders if part.labels
              for path in image_files(part.labels, below=False)}
    same = sum(image_stem(path.name) in labels for path in numbered)
    if numbered and same <= _MOST * len(numbered):
        return _nnunet(study_dir, tree, "nnU-Net: files are numbered by channel, as "
                       f"{printable(numbered[0].name)}.", numbered)
    if tree.dataset.channels:
        return _nnunet(study_dir, tree, "Medical Segmentation Decathlon: a file holds all channels "
                       "of a case in its fourth dimension.", numbered, Layout.MSD)
    return None


def _nnunet(study_dir: Path, tree: TrainingTree, why: str, numbered: Sequence[Path],
            layout: Layout = Layout.NNUNET) -> DetectedStudy:
    """A study whose channels have numbers, which dataset.json names, or else the files' names."""
    reasons = [why]
    numbers = sorted(tree.dataset.channels) or sorted(
        {int(NUMBERED.match(image_stem(path.name) or "")["channel"])  # type: ignore[index]
         for path in numbered} | {number for images, _ in tree.dataset.listed.values()
                                  for number in range(len(images))})
    names = {number: canonical(tree.dataset.channels.get(number, f"channel_{number}"))
             for number in numbers}
    if not tree.dataset.channels:
        reasons.append("No dataset.json names the channels; they are called by their numbers.")
    counts = Counter(names.values())
    names = {number: name if counts[name] == 1 else f"{name}_{number}"
             for number, name in names.items()}
    return _detected(study_dir, layout, names.values(), reasons, tree.dataset,
                     {name: f"{number:04d}" for number, name in names.items()})


def _subjects(study_dir: Path) -> DetectedStudy | None:
    """BIDS' and ISLES 2022's: folders `sub-*`."""
    for place in (study_dir, study_dir / "rawdata"):
        subjects = [path for path in folders(place) if path.name.startswith("sub-")
                    ] if place.is_dir() else []
        if subjects:
            break
    else:
        return None
    if place == study_dir and _ISLES_2022.match(subjects[0].name):
        return _by_words(study_dir, Layout.ISLES, "ISLES 2022: cases are called as "
                                                  f"{printable(subjects[0].name)}.")
    return _by_words(study_dir, Layout.BIDS, "BIDS: subjects are called as "
                     f"{printable(subjects[0].name)}.")


def _smir(study_dir: Path) -> DetectedStudy | None:
    """ISLES 2015 to 2018: a folder or file `VSD.Brain...MR_ADC.128020` for each volume."""
    cases = [path for path in folders(study_dir)]
    named = [path for path in cases if any(is_smir(file) for file in image_files(path))]
    if not named or len(named) < _MOST * len(cases):
        return None
    return _by_words(study_dir, Layout.ISLES, "ISLES 2017: a volume is named by SMIR, as in "
                                              f"{printable(named[0].name)}.")


def _brats(study_dir: Path) -> DetectedStudy | None:
    """A folder a case, whose files begin with its name."""
    held = held_cases(study_dir, Layout.BRATS)
    named = [case for case in held if any(map(is_known, case.words))]
    if not named or len(named) < _MOST * len(held):
        return None
    words = {word for case in named for word in case.words}
    if len(words & _BRATS_2023) > 1:
        return _by_words(study_dir, Layout.BRATS, "BraTS 2023: a case's files are called by "
                         f"{sorted(words & _BRATS_2023)}; its enhancing tumour is label 3.",
                         _BRATS_2023_LABELS, _BRATS_2023_REGIONS)
    return _by_words(study_dir, Layout.BRATS, "BraTS: a folder a case, whose files begin with its "
                                              f"name, as in {printable(named[0].name)}.")


def _flat(study_dir: Path) -> DetectedStudy | None:
    """Files of all cases beside each other."""
    files = image_files(study_dir, below=False)
    if not files:
        return None
    return _by_words(study_dir, Layout.FLAT, "Flat: the files of all cases lie beside each other, "
                                             f"as {printable(files[0].name)}.")


def _pattern(study_dir: Path) -> DetectedStudy | None:
    """A folder a case, whose files are called alike in most of them."""
    cases = folders(study_dir)
    patterns: Counter[str] = Counter()
    for case in cases:
        patterns.update({path.relative_to(case).as_posix().replace(case.name, "{case}")
                         for path in image_files(case)})
    files: dict[str, str] = {}
    for pattern, count in patterns.most_common():
        if count >= _MOST * len(cases):
            files.setdefault(_last_word(pattern), pattern)
    modalities, reasons = _modalities_among({word: [] for word in files})
    if not modalities:
        return None
    files = {word: files[word] for word in (*modalities, SEGMENTATION) if word in files}
    return _detected(study_dir, Layout.PATTERN, modalities,
                     ["A folder a case, whose files are called alike in each, as "
                      f"{printable(files[modalities[0]])}.", *reasons], files=files)


def _dicom(study_dir: Path, reporter: Reporter) -> DetectedStudy | None:
    """A folder of DICOM series a case; their descriptions tell the modalities."""
    described: dict[str, set[str]] = {}
    for _, held, _ in series_of_cases(study_dir, reporter):
        for series in held:
            if modality := modality_in(series.description):
                described.setdefault(modality, set()).add(series.description.lower())
    if not described:
        return None
    patterns = {modality: glob.escape(next(iter(texts))) if len(texts) == 1 else f"*{modality}*"
                for modality, texts in described.items()}
    return _detected(study_dir, Layout.DICOM, described, [
        "DICOM: a folder of series a case; descriptions as "
        f"{printable(next(iter(next(iter(described.values())))))!r} tell the modality."],
        series=patterns)


def _last_word(pattern: str) -> str:
    """What a file is by its name: the longest ending of it that is known, else all of it."""
    name = pattern.rsplit("/", 1)[-1]
    stem = (image_stem(name) or name).replace("{case}", "").strip("_- .")
    parts = re.split(r"[_\-. ]", stem)
    known = next((word for word in ("_".join(parts[place:]) for place in range(len(parts)))
                  if is_known(word)), None)
    return canonical(known or stem)


_RULES: tuple[Callable[[Path], DetectedStudy | None], ...] = (
    _training_tree, _subjects, _smir, _brats, _flat, _pattern)


def _by_words(study_dir: Path, layout: Layout, reason: str,
              labels: dict[int, str] | None = None,
              regions: dict[str, tuple[int, ...]] | None = None) -> DetectedStudy | None:
    """What is found in a layout in which a file's word tells its modality."""
    words: dict[str, list[Path]] = {}
    for case in held_cases(study_dir, layout):
        for word, paths in case.words.items():
            words.setdefault(canonical(word), []).extend(paths)
    modalities, reasons = _modalities_among(words)
    return _detected(study_dir, layout, modalities, [reason, *reasons], labels=labels,
                     regions=regions) if modalities else None


def _modalities_among(words: Mapping[str, Sequence[Path]]) -> tuple[list[str], list[str]]:
    """Which words are modalities, and sentences on those that are not.

    words: what files are called, canonical -> the files.
    """
    modalities: list[str] = []
    series: list[str] = []
    unknown: list[str] = []
    for word, paths in words.items():
        if word == SEGMENTATION or not word:
            continue
        # A file of directions beside it says that it holds an image for each.
        if word in _SERIES or 2 * sum(_has_directions(path) for path in paths) > len(paths):
            series.append(word)
        else:
            (modalities if is_known(word) else unknown).append(word)
    return modalities, [
        *([f"Left out, since a file of it is a series of volumes: {', '.join(sorted(series))}."]
          if series else []),
        *(["Left out, since no modality is called so: "
           f"{printable(', '.join(sorted(unknown)[:8]))}."] if unknown and modalities else [])]


def _has_directions(path: Path) -> bool:
    return path.with_name(f"{image_stem(path.name)}.bval").exists()


def _detected(study_dir: Path, layout: Layout, modalities: Iterable[str], reasons: list[str],
              dataset: DatasetJson | None = None, files: dict[str, str] | None = None,
              series: dict[str, str] | None = None,
              labels: dict[int, str] | None = None,
              regions: dict[str, tuple[int, ...]] | None = None) -> DetectedStudy:
    """Find the cases, and put into words what there is."""
    modalities, files = tuple(sorted(modalities, key=usual_order)), dict(files or {})
    study = StudyConfig(layout=layout, modalities=modalities, files=files, series=series or {})
    found = find_cases(study_dir, study, require_segmentation=False)
    cases, test = ([case for case in found if case.test == aside] for aside in (False, True))
    labels = dict(dataset.labels if dataset and dataset.labels else labels or {})
    having = {modality: sum(modality in case.volumes for case in cases) for modality in modalities}
    reasons.append(f"{len(cases)} cases; " + ", ".join(
        f"{modality} in {'all' if count == len(cases) else count}"
        for modality, count in having.items()) + ".")
    truths = sum(case.segmentation is not None for case in cases)
    reasons.append(f"{truths} of them have a segmentation." if truths < len(cases) else
                   "Each has a segmentation.")
    if test:
        reasons.append(f"{len(test)} more cases are set aside as test cases.")
    if dataset and dataset.labels:
        reasons.append(f"dataset.json names the labels {labels}.")
    return DetectedStudy(study_dir, layout, modalities, tuple(cases), tuple(test), files,
                         dict(series or {}), labels,
                         dict((dataset.regions if dataset else regions) or {}),
                         dataset.ignore_label if dataset else None, tuple(reasons),
                         dict(dataset.regions_class_order if dataset else {}))
