"""Prediction of many cases: prepared or raw volumes in, a file each out."""

from __future__ import annotations

import copy
import hashlib
import os
import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from pixelnet_tf import __version__
from pixelnet_tf.cases.case import Case
from pixelnet_tf.cases.layouts import case_of_files, find_cases_or_one, split_name
from pixelnet_tf.cases.names import image_stem
from pixelnet_tf.cases.parts import Part
from pixelnet_tf.cases.predictions import (
    PREDICTION_FILE,
    LeftOutRecord,
    MadeFrom,
    NetworkRecord,
    PredictionRecord,
)
from pixelnet_tf.config import (
    Config,
    Mode,
    OutputForm,
    PrepareConfig,
    StudyConfig,
    config_to_json,
)
from pixelnet_tf.dataset.fingerprint import inputs_of, preparation_of
from pixelnet_tf.dataset.prepared import PreparedStudy
from pixelnet_tf.dataset.workers import Engine, Outcome
from pixelnet_tf.errors import (
    ConfigError,
    DataError,
    ModelError,
    PixelNetError,
    RunError,
    nearest_hint,
)
from pixelnet_tf.inference.lesion_table import (
    LESIONS_FILE,
    CaseLesions,
    lesions_of,
    write_lesion_table,
)
from pixelnet_tf.inference.outputs import output_of
from pixelnet_tf.inference.slice_segmenter import segmenter_of
from pixelnet_tf.inference.volume import SegmentedVolume, on_own_grid, segment_volume
from pixelnet_tf.io import manifest
from pixelnet_tf.io.ahead import ahead
from pixelnet_tf.io.files import (
    begin_folder,
    check_apart,
    digest,
    remove,
    remove_leftovers,
    sync,
    write_bytes,
    write_json,
)
from pixelnet_tf.io.locks import Sharing, Ticket, joined, shared
from pixelnet_tf.io.plain import build
from pixelnet_tf.model.architecture import Architecture
from pixelnet_tf.reporting import LogReporter, Reporter, reporter_or_log
from pixelnet_tf.runs.compatibility import PREDICT, Basis, check_fit
from pixelnet_tf.runs.network import TrainedNetwork
from pixelnet_tf.volumes.case_volume import PreparedVolume, prepare_case
from pixelnet_tf.volumes.checks import Problem, check_case, refusal
from pixelnet_tf.volumes.lesions import list_lesions
from pixelnet_tf.volumes.nifti import write_volume
from pixelnet_tf.volumes.slicing import plans_of

#: Draws a segmented volume into OUT/overlays: receives it and its labels (x, y, z).
Draw = Callable[[PreparedVolume, np.ndarray], None]
#: Segments one volume.
Segment = Callable[[PreparedVolume], SegmentedVolume]

PICTURES = "overlays"
#: Kind of file -> its place in OUT; those of labels and probabilities are the form's.
ENTROPY, INFORMATION, LESIONS = "entropy", "mutual_information", "lesions"
_FILES = {PICTURES: "overlays/{}.png", ENTROPY: "uncertainty/{}_entropy.nii.gz",
          INFORMATION: "uncertainty/{}_mutual_information.nii.gz", LESIONS: "lesions/{}.json"}

#: Cases that are checked at once: reading waits for the disk, unpacking for a core.
_READERS = 4
#: Parts of what a segmentation is made from (`MadeFrom`) -> words for another one.
_PARTS = {"images": "other images", "preparation": "images prepared otherwise",
          "networks": "another network", "prediction": "other settings of the prediction"}


@dataclass(frozen=True)
class _Checked:
    """What is wrong with a case, with its truth alone, and what a reader should look at."""

    faults: Sequence[PixelNetError]
    truth_faults: Sequence[str] = ()
    doubts: Sequence[str] = ()


class CaseSource(ABC):
    """Cases to segment, from a prepared study or from raw volumes.

    Attributes:
        data: folder of the study.
        names: the cases.
    """

    def __init__(self, data: str, names: Sequence[str], network: Architecture):
        self.data, self.names, self._network = data, tuple(names), network

    @property
    def cases(self) -> dict[str, Case]:
        """The cases as they were found on disk; of a prepared study, their names alone."""
        return {name: Case(name) for name in self.names}

    @staticmethod
    def of_files(files: Mapping[str, Path], config: Config, name: str | None = None) -> CaseSource:
        """The one case that files make, a modality each.

        name: of the case; None takes that in the name of the first file, as the layout `flat` does.

        Raises:
            DataError: a modality that the model does not have, or one of its own that is not among
                the files.
        """
        study = config.study
        own, _ = split_name(image_stem(next(iter(files.values())).name) or "case")
        case = case_of_files(name or own, files, study)
        if config.prediction.allow_missing:
            case = case.allowing_missing()
        # The first file stands for the data: nothing lies within it.
        return _RawCases(str(next(iter(files.values()))), {case.name: case},
                         Architecture.of(config.model, len(config.score_names)), study,
                         config.prepare)

    @staticmethod
    def open(data: str, config: Config, names: Sequence[str] | None = None,
             only: Sequence[str] = (), truth: bool = False,
             reporter: Reporter | None = None) -> CaseSource:
        """Find the cases; a folder that is itself one case is that case.

        Args:
            config: the model's configuration: what the cases must have been prepared by, or will
            be.
            names: the ones of a split; None takes all.
            only: of these, the ones that are asked for; empty takes all.
            truth: read segmentations too, for pictures. Otherwise they are not looked at.
            reporter: hears how many folders of DICOM have been read.

        Raises:
            DataError: no such folder, no case, a name that is not there, or slices that were
                prepared in another way than the configuration says.
        """
        raw: dict[str, Case] = {}
        prepared = None
        if tf.io.gfile.exists(os.path.join(data, "index.json")):
            prepared = PreparedStudy.open(data)
            check_fit(Basis("the model", config, on_disk=False), Basis(data, prepared.config),
                      PREDICT)
            known = prepared.cases
        else:
            raw = {case.name: case if truth else case.without_segmentation()
                   for case in find_cases_or_one(Path(data), config.study, reporter)}
            if config.prediction.allow_missing:
                raw = {name: case.allowing_missing() for name, case in raw.items()}
            known = tuple(raw)
        wanted = tuple(dict.fromkeys(only)) or (tuple(names) if names is not None else known)
        for name in wanted:
            if name not in known:
                raise DataError(f"no case {name!r}{nearest_hint(name, known)}; it has "
                                f"{len(known)} cases", file=data, value=name)
        if not wanted:
            raise DataError("the chosen part of the split has no case", file=data)
        network = Architecture.of(config.model, len(config.score_names))
        if prepared is not None:
            return _PreparedCases(prepared, wanted, network)
        return _RawCases(data, {name: raw[name] for name in wanted}, network, config.study,
                         config.prepare)

    def check(self, reporter: Reporter | None = None) -> tuple[CaseSource, list[Problem]]:
        """Look every case through before any work; returns the sound ones, and what is wrong with
        the others."""
        reporter = reporter_or_log(reporter)
        sound, undrawn, problems = [], [], []
        found = ahead(self._check, self.names, _READERS)
        for number, (name, checked) in enumerate(zip(self.names, found, strict=True), start=1):
            reporter.progress("checking", number, len(self.names), name)
            problems += [Problem.of(name, fault) for fault in checked.faults]
            if checked.faults:
                continue
            sound.append(name)
            for doubt in checked.truth_faults:
                reporter.warning(f"the truth of {name} is not drawn: {doubt}")
                undrawn.append(name)
            for doubt in checked.doubts:
                reporter.warning(f"{name}: {doubt}")
        return self.only(sound, undrawn), problems

    @abstractmethod
    def made_from(self) -> dict[str, dict[str, Any]]:
        """Say what each case's slices are made from: digests of its images and of the settings."""

    @abstractmethod
    def read(self, name: str) -> PreparedVolume:
        """Read one prepared volume, or prepare it from its files; raises `DataError`."""

    @abstractmethod
    def _check(self, name: str) -> _Checked:
        """Look through a case."""

    @abstractmethod
    def only(self, names: Sequence[str], without_truth: Collection[str] = ()) -> CaseSource:
        """Return the source of these cases alone, some of them without their segmentations."""

    def _size_faults(self, sizes: Collection[tuple[int, int]]) -> list[PixelNetError]:
        """Say which sizes of slices are too small for the network."""
        faults: list[PixelNetError] = []
        for height, width in sorted(sizes):
            try:
                self._network.check_image_size(height, width)
            except ModelError as error:
                faults.append(error)
        return faults


class _PreparedCases(CaseSource):
    def __init__(self, study: PreparedStudy, names: Sequence[str], network: Architecture):
        super().__init__(study.path, names, network)
        self._study = study

    def made_from(self) -> dict[str, dict[str, Any]]:
        found = {}
        for name in self.names:
            details = self._study.case_details(name)
            # A study that an earlier version prepared says less.
            made_from = details.get("made_from") or {
                "inputs": {"images": details.get("fingerprint")}, "preparation": None}
            found[name] = {"images": made_from["inputs"]["images"],
                           "preparation": made_from["preparation"]}
        return found

    def read(self, name: str) -> PreparedVolume:
        return self._study.read_volume(name)

    def _check(self, name: str) -> _Checked:
        try:
            self._study.check_shard(name)
        except DataError as error:
            return _Checked([error])
        index, planes = self._study.index, self._network.planes
        rows = index.rows_of([name])
        sizes = {*zip(index.height[rows].tolist(), index.width[rows].tolist(), strict=True)}
        if len(planes) > 1:
            # They are cut at prediction, whether they were prepared or not.
            try:
                plans = plans_of(self._study.geometry(name), 0, planes)
            except DataError as error:
                return _Checked([error])
            sizes = {(plan.height, plan.width) for plan in plans}
        return _Checked(self._size_faults(sizes))

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker opens the study itself.
        return _prepared_cases, (self.data, self.names, self._network)

    def only(self, names: Sequence[str], without_truth: Collection[str] = ()) -> CaseSource:
        return _PreparedCases(self._study, names, self._network)


def _prepared_cases(path: str, names: Sequence[str], network: Architecture) -> CaseSource:
    # One that was prepared anew is another one.
    index = tf.io.gfile.stat(os.path.join(path, "index.json"))
    return _PreparedCases(_opened(path, index.mtime_nsec, index.length), names, network)


@lru_cache(maxsize=1)
def _opened(path: str, *stamp: int) -> PreparedStudy:
    return PreparedStudy.open(path)


class _RawCases(CaseSource):
    def __init__(self, data: str, cases: dict[str, Case], network: Architecture,
                 study: StudyConfig, prepare: PrepareConfig):
        super().__init__(data, tuple(cases), network)
        self._cases, self._study, self._prepare = cases, study, prepare

    @property
    def cases(self) -> dict[str, Case]:
        return dict(self._cases)

    def made_from(self) -> dict[str, dict[str, Any]]:
        preparation = preparation_of(self._study, self._prepare)
        # Of the images alone: nothing else of a case reaches its segmentation.
        inputs = inputs_of([case.without_segmentation() for case in self._cases.values()])
        return {name: {"images": (inputs[name] or {}).get("images"), "preparation": preparation}
                for name in self.names}

    def read(self, name: str) -> PreparedVolume:
        return prepare_case(self._cases[name], self._study, self._prepare)

    def _check(self, name: str) -> _Checked:
        found = check_case(self._cases[name], self._study, self._prepare.slice_size,
                           self._network.planes)
        faults: list[PixelNetError] = [problem.fault for problem in found.image_problems]
        if found.plan is not None and not faults:
            faults = self._size_faults({(plan.height, plan.width) for plan in plans_of(
                found.plan.geometry, self._prepare.slice_size, self._network.planes)})
        return _Checked(faults, [problem.message for problem in found.segmentation_problems],
                        [doubt.message for doubt in found.doubts])

    def only(self, names: Sequence[str], without_truth: Collection[str] = ()) -> CaseSource:
        cases = {name: self._cases[name].without_segmentation() if name in without_truth
                 else self._cases[name] for name in names}
        return _RawCases(self.data, cases, self._network, self._study, self._prepare)


@dataclass(frozen=True)
class PredictionSummary:
    """What a prediction did, or, on a dry run, would do.

    Attributes:
        segmented, kept: cases segmented now, and finished earlier from the same.
        left_out: what was wrong with the cases that were left out.
    """

    segmented: tuple[str, ...]
    kept: tuple[str, ...]
    left_out: tuple[Problem, ...]


def predict_cases(networks: Sequence[TrainedNetwork], source: CaseSource, config: Config,
                  out: Path, **options: Any) -> PredictionSummary:
    """Segment every case of a source with models of this process.

    Args:
        networks: one, or several whose scores are averaged (`Ensemble`).
        options: what else `write_cases` takes.

    Raises:
        ModelError: the study has other numbers of modalities or labels than a model.
        PixelNetError: as `write_cases`.
    """
    segmenter = segmenter_of(networks, config.study, config.prediction)
    about = {"networks": [network.record() for network in networks]}
    return write_cases(lambda volume: segment_volume(segmenter, volume, config.study,
                                                     config.prediction,
                                                     config.prediction.probability_maps,
                                                     config.prediction.uncertainty_maps),
                       about, source, config, out, **options)


@dataclass(frozen=True)
class Elsewhere:
    """Workers that segment cases, and how they come by the network.

    Attributes:
        engine: the workers.
        make: a function that can be pickled; it returns what segments a volume, and `about` as
            `write_cases` takes it.
    """

    engine: Engine
    make: Callable[[], tuple[Segment, dict[str, Any]]]


def write_cases(segment: Segment, about: dict[str, Any],
                source: CaseSource, config: Config, out: Path, *,
                output: OutputForm = OutputForm.NIFTI, grid: str = "", draw: Draw | None = None,
                trained_on: Collection[str] = (), skip_bad_cases: bool = False,
                overwrite: bool = False, dry_run: bool = False, part: Part | None = None,
                elsewhere: Elsewhere | None = None, reporter: Reporter | None = None
                ) -> PredictionSummary:
    """Check every case of a source, segment it and write its files, `prediction.json` first, and
    `lesions.tsv` of all cases of the folder last.

    `prediction.json` says of every case what it is made from: digests of its images, of how they
    are prepared, of the networks and of the settings. A finished case that was made from the same
    is kept, so that a call that was stopped goes on; a folder with segmentations that were made
    from anything else is refused. The next case is read (or prepared) while one is computed, and
    results are written beside. Several programs may make the same in one folder at a time: each
    case is segmented by one of them. Calls for parts (`part`) look at their cases alone;
    `prediction.json` then tells all cases that were asked for, and what they are made from of the
    parts that have begun.

    Args:
        segment: function that segments one volume.
        about: `networks` is a list of what `NetworkRecord` says of each.
        output: the form of the segmentations; as NIfTI they are `<case>.nii.gz`.
        grid: modality on whose own grid they are written; empty: the first.
        draw: called for every case that has no picture yet.
        trained_on: names of the cases that a network has learned from.
        skip_bad_cases: leave cases out that cannot be used, instead of refusing all.
        overwrite: replace segmentations that were made from something else.
        dry_run: check and plan, write nothing.
        part: segment this part of the cases alone.
        elsewhere: workers that segment instead of this program.

    Raises:
        ConfigError: `out` lies within the data.
        DataError: the folder holds other results, or a case cannot be used.
        RunError: another program is making something else there.
    """
    reporter = reporter_or_log(reporter)
    check_apart(out, source.data)
    asked = source.names
    if part is not None:
        source = source.only(part.of(asked))
    mine, whole = source.names, source
    source, problems = source.check(reporter)
    for name, case in source.cases.items():
        if grid and grid in case.missing:
            raise DataError(f"the segmentation is to lie on the grid of {grid}, which the case "
                            "lacks", case=name, value=grid, hint="give another --grid, or leave "
                                                                 "the case out")
        if case.missing:
            reporter.warning(f"{name} lacks {', '.join(case.missing)}: segmented without "
                             f"{'it' if len(case.missing) == 1 else 'them'}")
    if problems and not (skip_bad_cases and (source.names or part is not None)):
        lacking = {name for name, case in whole.cases.items() if case.lacks}
        raise refusal(problems, len(mine), "correct them, " + (
            "segment those that lack a modality without it by --allow-missing, "
            if lacking else "") + "or leave them out by --skip-bad-cases"
            if source.names or lacking else None)
    unusable = [name for name in mine if name not in source.names]
    folder = _Folder(out, about, source, config, output, unusable, grid,
                     None if part is None else [name for name in asked if name not in mine])
    for words in folder.check():
        reporter.message(words)

    def plan() -> None:
        folder.plan(overwrite)
        for problem in problems:
            reporter.warning(f"left out {problem.case}: {problem.message}")
        if folder.stale:
            reporter.warning(f"{len(folder.stale)} segmentations that were made from something "
                             f"else are removed: {_some(folder.stale)}")
        if folder.kept:
            reporter.message(f"{len(folder.kept)} finished cases are kept")
        if learned := [name for name in source.names if name in trained_on]:
            reporter.warning(
                f"the network was trained on, or chosen by, {len(learned)} of the "
                f"{len(source.names)} cases ({_some(learned)}): their scores say nothing about new "
                "cases; --split test leaves them out")

    if dry_run:
        plan()
        return PredictionSummary(folder.todo, folder.kept, tuple(problems))
    begun = []

    def begin() -> None:
        plan()
        folder.start(asked, problems, trained_on, alone=True)
        begun.append(True)

    # Whatever makes a difference to what is written.
    key = digest([folder.identity, asked, unusable if part is None else "parts", draw is not None,
                  sorted(trained_on)])
    with shared(out, "predict", key, reporter, alone=begin) as sharing:
        if not begun:
            with sharing.turn():
                plan()
                folder.start(asked, problems, trained_on, alone=False)
        work = _Work(source, folder, sharing, draw, skip_bad_cases, problems, reporter)
        segmented = (work.segment(segment) if elsewhere is None
                     else work.segment_elsewhere(elsewhere, about))
        with sharing.turn():
            folder.list_lesions()
    bad = {problem.case for problem in problems}
    return PredictionSummary(
        segmented, tuple(name for name in source.names if name not in (*segmented, *bad)),
        tuple(problems))


@dataclass(frozen=True)
class _Case:
    """What is locked while it is in work."""

    name: str


class _Work:
    """The cases that are to be segmented, or drawn, each by one program."""

    def __init__(self, source: CaseSource, folder: _Folder, sharing: Sharing, draw: Draw | None,
                 skip_bad_cases: bool, problems: list[Problem], reporter: Reporter):
        self._source, self._folder, self._sharing, self._draw = source, folder, sharing, draw
        self._skip_bad_cases, self._problems = skip_bad_cases, problems
        self._reporter = reporter
        self._left = [case for case in map(_Case, source.names) if not self._done(case)]
        self._number, self._total = 0, len(self._left)
        self._segmented: list[str] = []

    def segment(self, segment: Segment) -> tuple[str, ...]:
        """Segment each case that nobody else does; returns the names of those segmented here."""
        sharing, folder, draw = self._sharing, self._folder, self._draw

        def write(volume: PreparedVolume, result: SegmentedVolume | None) -> None:
            sharing.check(volume.name)
            folder.write(volume, result, draw)
            sharing.give_back(volume.name)

        left = self._left
        with ThreadPoolExecutor(1) as writer:
            written: Future | None = None
            while left:
                busy: list[_Case] = []
                for case, volume in ahead(self._read, sharing.take(left, self._done, busy)):
                    if isinstance(volume, DataError):
                        self._leave_out(case, volume)
                        sharing.give_back(case.name)
                        continue
                    result = None
                    if not folder.finished(case.name):
                        result = segment(volume)
                        self._segmented.append(case.name)
                    if written is not None:
                        written.result()
                    written = writer.submit(write, volume, result)
                    self._report(case)
                if written is not None:
                    written.result()
                    written = None
                left = busy
                if left:
                    sharing.wait(left)
        return tuple(self._segmented)

    def segment_elsewhere(self, elsewhere: Elsewhere, about: dict[str, Any]) -> tuple[str, ...]:
        """Have each case segmented by workers that claim and write it themselves."""
        left = self._left
        while left:
            busy: list[_Case] = []
            sent = (_Sent(case.name, self._source.only([case.name]), self._folder.of(case.name))
                    for case in left)
            for each, outcome in elsewhere.engine.run(
                    _segment_there, sent, (elsewhere.make, _weights(about), self._draw,
                                           self._sharing.ticket), self._skip_bad_cases):
                case = _Case(each.name)
                if isinstance(outcome, PixelNetError):
                    self._leave_out(case, outcome)
                elif outcome == Outcome.BUSY:
                    busy.append(case)
                elif not self._done(case):
                    raise RunError("a worker says that the case is segmented, but it is not there",
                                   case=case.name, file=each.folder.file(case.name),
                                   hint="give workers the same file system under the same path")
                else:
                    if outcome == Outcome.DONE:
                        self._segmented.append(case.name)
                    self._report(case)
            left = busy
            if left:
                self._sharing.wait(left)
        return tuple(self._segmented)

    def _done(self, case: _Case) -> bool:
        return self._folder.done(case.name, self._draw)

    def _read(self, case: _Case) -> tuple[_Case, PreparedVolume | DataError]:
        try:
            return case, self._source.read(case.name)
        except DataError as error:
            return case, error

    def _leave_out(self, case: _Case, fault: PixelNetError) -> None:
        self._number += 1
        if not self._skip_bad_cases:
            raise fault
        self._problems.append(Problem.of(case.name, fault))
        self._reporter.warning(f"left out {case.name}: {fault.text}")
        with self._sharing.turn():
            self._folder.leave_out(self._problems)

    def _report(self, case: _Case) -> None:
        self._number += 1
        self._reporter.progress("segmenting", self._number, self._total, case.name)


@dataclass(frozen=True)
class _Sent:
    """A case as a worker elsewhere gets it: where it is read, and where it is written."""

    name: str
    source: CaseSource
    folder: _Folder


def _segment_there(sent: _Sent, make: Callable[[], tuple[Segment, dict[str, Any]]],
                   weights: list[Any], draw: Draw | None, ticket: Ticket) -> Outcome | DataError:
    """Segment a case on a worker, unless another program has it; draw it, where that is asked."""
    folder, outcome = sent.folder, Outcome.THERE
    busy: list[_Case] = []
    with joined(ticket, LogReporter()) as sharing:
        for case in sharing.take(
                [_Case(sent.name)], lambda case: folder.done(case.name, draw), busy):
            try:
                volume = sent.source.read(case.name)
            except DataError as error:
                sharing.give_back(case.name)
                return error
            result = None
            if not folder.finished(case.name):
                result = _segment_of(pickle.dumps(make), pickle.dumps(weights))(volume)
                outcome = Outcome.DONE
            sharing.check(case.name)
            folder.write(volume, result, draw)
            sharing.give_back(case.name)
    return Outcome.BUSY if busy else outcome


@lru_cache(maxsize=1)
def _segment_of(make: bytes, weights: bytes) -> Segment:
    """The network, made once in this process.

    Raises:
        RunError: it is not the one that the program has which asks.
    """
    segment, about = pickle.loads(make)()
    if _weights(about) != pickle.loads(weights):
        raise RunError("a worker finds another network than the program that sent it the case",
                       hint="let nobody train into the run meanwhile, and start again")
    return segment


def _weights(about: dict[str, Any]) -> list[Any]:
    return [[network.get("weights"), list(network.get("correction") or ())]
            for network in about["networks"]]


class _Folder:
    """OUT of a prediction: its files, and what they are made from.

    Whoever finds the segmentation of a case can rely on it that it was made from what
    `prediction.json` says: that is written before the first case, and what it would no longer hold
    for is removed before it.
    """

    def __init__(self, out: Path, about: dict[str, Any], source: CaseSource, config: Config,
                 output: OutputForm, unusable: Collection[str] = (), grid: str = "",
                 others: Collection[str] | None = None):
        #: Cases that were asked for, too, and are other programs' part.
        self._others = frozenset(others or ())
        # On the first modality's grid there is nothing to bring.
        self._grid = "" if grid == config.study.modalities[0] else grid
        if grid and grid not in config.study.modalities:
            raise ConfigError(f"the grid of {grid!r} is asked for, which is no modality"
                              f"{nearest_hint(grid, config.study.modalities)}; these are "
                              f"{list(config.study.modalities)}", value=grid)
        if self._grid and output != OutputForm.NIFTI:
            raise ConfigError(f"segmentations as {output} lie on the grid of the first modality",
                              value=grid, hint="leave --grid out, or write --output nifti")
        self._out, self._config, self._unusable = Path(out), config, unusable
        self._names = source.names
        self._output = output_of(output, self._out, config.study, source.cases)
        networks = tuple(build(NetworkRecord, network) for network in about["networks"])
        self._common = MadeFrom(
            networks=digest([[network.weights or network.model, network.correction]
                             for network in networks]),
            prediction=_settings(config, self._output.settings()))
        if self._grid:
            self._common = replace(self._common,
                                   prediction=digest([self._common.prediction, self._grid]))
        self._now = PredictionRecord(
            networks=networks, prior=config.prediction.prior, mode=config.prediction.mode,
            config=config_to_json(config), made_from={
                name: replace(self._common, **inputs)
                for name, inputs in source.made_from().items()},
            output=output, files=self._output.places(), grid=self._grid,
            missing={name: case.missing for name, case in source.cases.items() if case.missing})
        #: Digest of what the folder is to hold, or of what all parts of it have in common.
        self.identity = digest((replace(self._now, made_from={}, files={}, missing={})
                                if others is not None else self._now).to_json())

    def check(self) -> list[str]:
        """See that the cases can be written in the form that is asked for, as `Output.check`."""
        return self._output.check()

    def plan(self, overwrite: bool) -> None:
        """See what is there: `stale` (what differs, in words, of each case), `kept` and `todo`.

        Raises:
            DataError: something is stale, and is not to be replaced; or all is in another form.
        """
        self._before = PredictionRecord.read(self._out, "remove the folder, or give a new --out")
        if self._before.made_from and self._before.output != self._now.output:
            raise DataError(f"holds segmentations as {self._before.output}, not as "
                            f"{self._now.output}", file=self._out, value=self._before.output,
                            hint="give a new --out")
        self._output.recall(self._before.files)
        self.stale = self._stale()
        if self.stale and not overwrite:
            raise self._refusal()
        self.kept = tuple(name for name in self._names
                          if name not in self.stale and self.finished(name))
        self.todo = tuple(name for name in self._names if name not in self.kept)

    def file(self, name: str, kind: str = "") -> Path:
        """Labels of a case, or its file of a kind in `_FILES`."""
        return self._out / _FILES[kind].format(name) if kind else self._output.files(name)[0]

    def _files(self, name: str) -> list[Path]:
        """Every file of a case, that of its labels first."""
        return [*self._output.files(name), *self._output.maps(name),
                *(self.file(name, kind) for kind in _FILES)]

    def done(self, name: str, draw: Draw | None) -> bool:
        """Whether a case is finished, and its picture there where one is drawn."""
        return self.finished(name) and (draw is None or self.file(name, PICTURES).is_file())

    def finished(self, name: str) -> bool:
        """Whether a case is there with all that is asked for."""
        asked, wanted = self._config.prediction, [*self._output.files(name)]
        if asked.probability_maps:
            wanted += self._output.maps(name)
        if asked.uncertainty_maps:
            wanted.append(self.file(name, ENTROPY))
        return all(path.is_file() for path in wanted)

    def _stale(self) -> dict[str, str]:
        """Finished cases that were made from something else: name -> what differs, in words.

        All cases of the folder count, those of this call and others: it is scored as one.
        """
        before, now = self._before.made_from, self._now.made_from
        found: dict[str, str] = {}
        for name in dict.fromkeys((*before, *now, *self._unusable)):
            if not self.file(name).is_file():
                continue
            if changed := manifest.difference(self.file(name)):
                found[name] = (f"{changed}: it is damaged, or was corrected by hand (accept that "
                               f"by `pixelnet-tf check {self._out} --accept "
                               f"{self.file(name).relative_to(self._out).as_posix()}`)")
            elif name in self._unusable:
                found[name] = "images that cannot be used any more"
            elif name not in before:
                found[name] = "nothing says what it was made from"
            else:
                # Of a case that is not asked for, what all have in common.
                parts = _PARTS if name in now else ("networks", "prediction")
                wanted = now.get(name, self._common)
                different = [_PARTS[part] for part in parts
                             if getattr(wanted, part) != getattr(before[name], part)]
                if different:
                    found[name] = ", ".join(different)
        return found

    def _refusal(self) -> DataError:
        """Say why the folder cannot be gone on with, and what to do."""
        stale = self.stale
        lines = [f"  {name}: {words}" for name, words in list(stale.items())[:5]]
        more = [f"  ... and {len(stale) - 5} more"] if len(stale) > 5 else []
        return DataError("\n".join([
            f"holds {len(stale)} segmentations that were made from something else, or changed "
            "since:", *lines, *more]), file=self._out,
            hint="give a new --out, or replace them by --overwrite")

    def start(self, asked: Sequence[str], problems: Sequence[Problem], trained_on: Collection[str],
              alone: bool) -> None:
        """Remove what will be made anew, and write `prediction.json`.

        alone: nobody else is at work on the same, so that what is not finished is nobody's.
        """
        begin_folder(self._out)
        if alone:
            for folder in {self._out, *(path.parent for name in self._names
                                        for path in self._files(name))}:
                remove_leftovers(folder)
        # The labels first: they say that a case is finished. The table is of all cases, and there
        # only when these are.
        old = [self._files(name) for name in sorted({*self.stale, *(self.todo if alone else ())})]
        remove(*(files[0] for files in old), *(path for files in old for path in files[1:]),
               self._out / LESIONS_FILE)
        # A power cut must not bring back what `prediction.json` no longer holds for.
        sync(self._out)
        self._asked, self._trained_on = tuple(asked), trained_on
        #: Finished cases of earlier calls that were not asked for now.
        self._kept_others = [name for name in self._before.made_from
                             if name not in asked and self.file(name).is_file()]
        self.leave_out(problems)
        self._output.begin()

    def leave_out(self, problems: Sequence[Problem]) -> None:
        """Write `prediction.json`, with what is wrong with the cases that are left out."""
        # What other parts have said since is kept.
        before = PredictionRecord.read(self._out) if self._others else self._before
        kept = {*self._kept_others, *self._others}
        cases = (*self._kept_others, *self._asked)
        # What another network learned from says nothing of cases that are made anew.
        learned = {*self._trained_on, *(name for name in before.trained_on
                                        if name in self._kept_others or name in self.kept)}

        def of_all(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
            found = {**{name: old[name] for name in old if name in kept}, **new}
            return {name: found[name] for name in cases if name in found}

        left_out = [LeftOutRecord(problem.case, problem.message) for problem in problems]
        if self._others:
            left_out = sorted([*(record for record in before.left_out
                                 if record.case in self._others), *left_out],
                              key=lambda record: cases.index(record.case))
        self._written = replace(
            self._now, cases=cases, trained_on=tuple(name for name in cases if name in learned),
            made_from=of_all(before.made_from, self._now.made_from),
            files=of_all(before.files, self._now.files),
            missing=of_all(before.missing, self._now.missing),
            left_out=tuple(left_out))
        write_json(self._out / PREDICTION_FILE, self._written.to_json())

    def of(self, name: str) -> _Folder:
        """What a worker elsewhere needs of it for one case."""
        one = copy.copy(self)
        one._names, one._others, one._unusable = (name,), frozenset(), ()
        one._now = one._before = one._written = replace(
            self._now, made_from={name: self._now.made_from[name]}, files={}, missing={})
        one.stale, one.kept, one.todo, one._asked, one._kept_others = {}, (), (), (name,), []
        one._output = copy.copy(self._output)
        one._output.cases = {name: self._output.cases[name]}
        return one

    def write(self, volume: PreparedVolume, result: SegmentedVolume | None, draw: Draw | None
              ) -> None:
        """Write the files of a case; without a result, the picture of one that is finished."""
        own = volume.grids.get(self._grid)
        geometry = volume.geometry if own is None else own.geometry
        if draw is not None:
            if result is not None:
                shown = result.labels
            else:
                shown = self._output.read(volume.name, geometry)[0]
                if own is not None:
                    shown = own.bring_back(shown, volume.geometry)
            draw(volume, shown)
        if result is not None and own is not None:
            result = on_own_grid(result, own, volume.geometry, self._config.model.region_based)
        if result is not None and result.probabilities is not None:
            self._output.write_maps(volume.name, result.probabilities, geometry,
                                    self._config.score_names)
        if result is not None and result.uncertainty is not None:
            # The entropy last: its file says that what was asked for is there.
            for kind, found in ((INFORMATION, result.uncertainty.mutual_information),
                                (ENTROPY, result.uncertainty.entropy)):
                if found is not None:
                    write_volume(self.file(volume.name, kind), found, geometry)
        if result is not None:
            # The labels last: their file says that the case is finished.
            data = self._output.data(volume.name, np.asarray(result.labels, np.uint8),
                                     geometry,
                                     digest(asdict(self._now.made_from[volume.name])))
            CaseLesions(hashlib.sha256(data).hexdigest(), tuple(list_lesions(
                result.labels, geometry.affine, self._config.study, result.voxels))
            ).write(self.file(volume.name, LESIONS))
            self._output.write_beside(volume.name)
            write_bytes(self.file(volume.name), data)

    def list_lesions(self) -> None:
        """Write `lesions.tsv`, of all cases of the folder."""
        told = self._written
        if self._others:
            told = PredictionRecord.read(self._out)
            self._output.recall(told.files)
        write_lesion_table(self._out / LESIONS_FILE, {
            name: self._lesions_of(name) for name in told.made_from
            if self.file(name).is_file()}, self._config.study)

    def _lesions_of(self, name: str) -> CaseLesions:
        return lesions_of(self.file(name, LESIONS), self.file(name), self._config.study,
                          self._output.maps(name)[0], self.file(name, ENTROPY),
                          partial(self._output.read, name), self._config.model.region_based)


def _settings(config: Config, output: Any = None) -> str:
    """Digest of every setting that shapes the labels of prepared slices, and of the program.

    How many slices are computed together, and whether maps are written, do not; what
    earlier versions did not know does where it is on.

    output: what of the form of the segmentations does (`Output.settings`).
    """
    study, prediction = config.study, config.prediction
    shown, asked = config_to_json(study), config_to_json(prediction)
    cut = config.model.region_based or prediction.region_thresholds
    return digest({"program": __version__,
                   "prediction": {key: value for key, value in asked.items()
                                  if key not in ("batch_slices", "probability_maps",
                                                 "uncertainty_maps", "decisions", "allow_missing",
                                                 "adaptive_bound")
                                  and (key != "lattice" or prediction.mode == Mode.ADAPTIVE)
                                  and (value or key not in ("class_offsets", "flips",
                                                            "region_thresholds"))},
                   "brain_only": prediction.inside_brain(study), "regions": shown["regions"],
                   # In a list: their order is that of the scores.
                   "labels": list(shown["labels"].items()),
                   **({"region_order": list(study.region_order().items())} if cut else {}),
                   **({} if output is None else {"output": output})})


def _some(names: Collection[str]) -> str:
    """Name a few."""
    first = list(names)[:5]
    return ", ".join(first) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
