"""`prepare`: a study on disk to shards, an index and a split; restartable."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pixelnet_tf.cases.case import Case
from pixelnet_tf.cases.layouts import find_cases
from pixelnet_tf.cases.own_split import OwnSplit, own_split_of
from pixelnet_tf.cases.parts import Part
from pixelnet_tf.cases.split import (
    SPLIT_ADVICE,
    DrawnSplit,
    Split,
    draw_split,
    group_patients,
    unmatched_cases,
)
from pixelnet_tf.config import (
    PLANES,
    Config,
    PrepareConfig,
    SplitConfig,
    StudyConfig,
    Unlabelled,
    config_to_dict,
    config_to_yaml,
)
from pixelnet_tf.dataset.encode import EncodedCase, encode_or_say_why
from pixelnet_tf.dataset.fingerprint import inputs_of, preparation_of
from pixelnet_tf.dataset.index import SliceIndex, read_case_record
from pixelnet_tf.dataset.shards import RECORD_FORMAT, check_shard, write_shard
from pixelnet_tf.dataset.workers import Engine, Outcome, run_cases, worker_count
from pixelnet_tf.errors import DataError, PixelNetError, RunError, WorkerDied
from pixelnet_tf.io.files import (
    begin_folder,
    check_apart,
    digest,
    read_json_as,
    remove,
    remove_leftovers,
    write_json,
    write_text,
)
from pixelnet_tf.io.locks import Sharing, Ticket, joined, shared
from pixelnet_tf.io.plain import convert
from pixelnet_tf.io.processor import free_memory, own_cores
from pixelnet_tf.reporting import LogReporter, Reporter, reporter_or_log
from pixelnet_tf.volumes.case_volume import PROGRAM_BYTES, memory_to_prepare
from pixelnet_tf.volumes.checks import (
    Problem,
    check_case,
    equal_images,
    no_lesion,
    refusal,
)
from pixelnet_tf.volumes.geometry import VolumeGeometry
from pixelnet_tf.volumes.raw_volume import geometry_of
from pixelnet_tf.volumes.slicing import plans_of

#: A shard takes at least this part of its float32 images: brains fill a sixth of a BraTS volume
#: and compress by a tenth.
_SMALLEST_SHARD = 0.1


@dataclass(frozen=True)
class PrepareSummary:
    """What `prepare_study` did, or, on a dry run, would do.

    Attributes:
        prepared, kept: cases done now, and finished earlier and unchanged.
        left_out: what was wrong with the cases that were left out.
        split: training, validation and test cases; None of a call that did a part of the cases.
        index: the index of all slices; None on a dry run.
        notes: what the user should know, in sentences.
    """

    prepared: tuple[str, ...]
    kept: tuple[str, ...]
    left_out: tuple[Problem, ...]
    split: Split | None
    index: SliceIndex | None = None
    notes: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class LeftOut:
    """An entry of `left_out.json`.

    Attributes:
        case, reason: which one, and what is wrong with it.
        made_from: of a case that failed when it was prepared, what it would have been made from.
    """

    case: str
    reason: str
    made_from: dict[str, Any] | None = None


def prepare_study(config: Config, study_dir: str | Path, out: str | os.PathLike,
                  workers: int | Engine | None = None, skip_bad_cases: bool = False,
                  *, require_segmentation: bool = True, redraw_split: bool = False,
                  part: Part | None = None, finish: bool = False,
                  dry_run: bool = False, reporter: Reporter | None = None) -> PrepareSummary:
    """Check a study, prepare the cases that are missing or changed, write split and index.

    Several calls, of several programs, may prepare the same study with the same settings into one
    folder at a time: each case is done by one of them. Calls for parts (`part`) check and prepare
    their cases alone and write neither split nor index; a last one (`finish`) joins them.

    Args:
        config: sections `study`, `prepare` and `split` are used.
        study_dir: folder of the study.
        out: folder of the prepared study.
        workers: cases in work at once, or others' workers; None takes `prepare.workers`.
        skip_bad_cases: leave bad cases out instead of refusing the study.
        require_segmentation: a case without segmentation is bad; if not, no segmentation is looked
            for, and the study is prepared for prediction alone.
        redraw_split: draw the split anew, whatever was drawn before.
        part: prepare this part of the cases alone.
        finish: prepare none, refuse where a case is missing, and write split and index.
        dry_run: check and plan, write nothing.
        reporter: hears of the tasks "checking" and "preparing", in cases, and at the end of the
            cases that were left out and of the notes.

    Raises:
        DataError: bad cases, cases that the kept split does not know, or, to `finish`, missing
            ones.
        ConfigError: the split cannot be drawn, or `out` lies within the study.
        RunError: the disk is full, or a worker failed; finished cases are kept. Or another program
            prepares something else into the folder.
    """
    reporter = reporter_or_log(reporter)
    check_apart(out, study_dir)
    summary = _prepare(config, study_dir, os.fspath(out), workers, skip_bad_cases,
                       require_segmentation, redraw_split, part, finish, dry_run, reporter)
    for problem in summary.left_out:
        reporter.warning(f"left out {problem.case}: {problem.message}")
    for note in summary.notes:
        reporter.message(f"note: {note}")
    return summary


def _prepare(config: Config, study_dir: str | Path, out: str, workers: int | Engine | None,
             skip_bad_cases: bool, require_segmentation: bool, redraw_split: bool,
             part: Part | None, finish: bool, dry_run: bool, reporter: Reporter) -> PrepareSummary:
    workers = config.prepare.workers if workers is None else workers
    if not isinstance(workers, int):
        # Workers elsewhere have another working directory.
        study_dir, out = Path(study_dir).absolute(), os.path.abspath(out)
    own = own_split_of(config.split)
    cases = find_cases(Path(study_dir), config.study, require_segmentation, reporter)
    if not require_segmentation:
        cases = [case.without_segmentation() for case in cases]
    else:
        # Of a test case nobody learns: it may be there to be predicted alone.
        cases = [case.allowing_unlabelled() if config.split.unlabelled == Unlabelled.TEST
                 or (own is not None and case.name in own.test) else case for case in cases]
    aside = {case.name for case in cases
             if case.test or (require_segmentation and case.segmentation is None
                              and not case.segmentation_faults)}
    names = [case.name for case in cases]
    if part is not None:
        cases = part.of(cases)
    work = _Work(config, out, workers, skip_bad_cases, redraw_split, reporter, cases,
                 _made_from(cases, config.study, config.prepare, config.model.planes), own, aside)
    if part is not None:
        plan, do = work.plan_part, work.do_part
    elif finish:
        plan, do = work.plan_finish, work.finish
    else:
        plan, do = work.plan, work.do
    if dry_run:
        return plan()
    # Whatever makes a difference to what is written. Calls for parts write nothing that is of all
    # cases, and the contents of the others' would take each of them as long as all of its own.
    key = digest([config_to_dict(config), skip_bad_cases, require_segmentation,
                  ["parts of", names] if part is not None else [redraw_split, work.made_from]])

    def remove_of_killed() -> None:
        for folder in (out, os.path.join(out, "cases")):
            remove_leftovers(folder)

    with shared(out, "prepare", key, reporter, alone=remove_of_killed) as sharing:
        return do(sharing)


class _Work:
    """One call's way from the cases of a study to a prepared one."""

    def __init__(self, config: Config, out: str, workers: int | Engine, skip_bad_cases: bool,
                 redraw_split: bool, reporter: Reporter, cases: list[Case],
                 made_from: dict[str, dict[str, Any]], own_split: OwnSplit | None,
                 set_aside: Collection[str]):
        self.own_split, self.set_aside = own_split, set_aside
        self.config, self.out, self.workers = config, out, workers
        self.skip_bad_cases, self.redraw_split = skip_bad_cases, redraw_split
        self.reporter, self.cases, self.made_from = reporter, cases, made_from
        #: Cases whose workers died, which another call tries again.
        self.died: set[str] = set()

    def plan(self) -> PrepareSummary:
        """Check everything, and say what is to be done."""
        doubts = self._check_cases()
        split, self.drawn, notes = self._split()
        return self._planned(split, notes + self._said(doubts))

    def plan_part(self) -> PrepareSummary:
        """Check the cases, which are some of the study's, and say what is to be done."""
        return self._planned(None, self._said(self._check_cases(whole=False)))

    def plan_finish(self) -> PrepareSummary:
        """See that every case is prepared, or has been left out."""
        left_out = {entry.case for entry in _left_out(self.out)} if self.skip_bad_cases else set()
        self._refuse_missing([case for case in self.cases if case.name not in left_out
                              and self._finished(case) is None])
        planned = self.plan()
        self._refuse_missing(self.todo)
        return planned

    def do(self, sharing: Sharing) -> PrepareSummary:
        """Prepare what is to be done, and write split and index."""
        planned = self.plan()
        begin_folder(self.out)
        return self._write_whole(planned, self._prepare_cases(sharing), sharing)

    def do_part(self, sharing: Sharing) -> PrepareSummary:
        """Prepare what is to be done of the cases, and say in `left_out.json` which cannot be."""
        planned = self.plan_part()
        begin_folder(self.out)
        mine = self._prepare_cases(sharing, whole=False)
        own = {case.name for case in self.cases}
        with sharing.turn():
            entries = [entry for entry in _left_out(self.out) if entry.case not in own]
            self._write_left_out(sorted([*entries, *self._left_out_now()],
                                        key=lambda entry: entry.case))
        return self._done(mine, None, None, planned.notes)

    def finish(self, sharing: Sharing) -> PrepareSummary:
        """Write split and index of cases that are all prepared."""
        return self._write_whole(self.plan_finish(), [], sharing)

    def _check_cases(self, whole: bool = True) -> list[Problem]:
        """Tell the good cases from the bad ones; returns the doubts about the good ones.

        whole: they are a study, of which some case must be good and have a lesion.
        """
        self.finished = {case.name: details for case in self.cases
                         if (details := self._finished(case)) is not None}
        self.failed = _failed_before(self.cases, self.made_from, self.out)
        self.problems, doubts, self.voxels = _check(
            self.cases, self.finished, self.failed, self.config, self.workers,
            self.skip_bad_cases, whole, self.reporter)
        _refuse_bad(self.problems, self.cases, self.skip_bad_cases, whole)
        bad = {problem.case for problem in self.problems}
        self.good = [case for case in self.cases if case.name not in bad]
        self.todo = [case for case in self.good if case.name not in self.finished]
        geometries = {case.name: geometry_of(case.files[0]) for case in self.todo}
        _check_disk(geometries, self.config, self.out)
        self.workers = _fitting_workers(geometries, self.config, self.workers, self.reporter)
        return [doubt for doubt in doubts if doubt.case not in bad]

    def _said(self, doubts: list[Problem]) -> tuple[str, ...]:
        return tuple(f"{doubt.case}: {doubt.message}" for doubt in doubts)

    def _planned(self, split: Split | None, notes: tuple[str, ...]) -> PrepareSummary:
        kept = tuple(case.name for case in self.good if case.name in self.finished)
        return PrepareSummary(tuple(c.name for c in self.todo), kept, tuple(self.problems), split,
                              notes=notes)

    def _refuse_missing(self, missing: list[Case]) -> None:
        if missing:
            names = ", ".join(case.name for case in missing[:5])
            raise DataError(f"{len(missing)} of {len(self.cases)} cases are not prepared from "
                            f"these files by these settings: {names}"
                            f"{' ...' if len(missing) > 5 else ''}", file=self.out,
                            hint="run their parts again, or prepare without --finish, which does "
                                 "what is missing")

    def _write_whole(self, planned: PrepareSummary, mine: list[str], sharing: Sharing
                     ) -> PrepareSummary:
        """Write what is of all cases, the index last."""
        split, notes, config, out = planned.split, planned.notes, self.config, self.out
        if any(case.name in self.failed for case in self.todo):
            self.good = [case for case in self.good if case.name not in self.failed]
            split, self.drawn, notes = self._split()
        assert split is not None
        index = SliceIndex.from_case_files([self.finished[case.name] for case in self.good],
                                           len(config.study.labels))
        with sharing.turn():
            self._write_left_out(self._left_out_now())
            if self.drawn:
                write_json(os.path.join(out, "split.json"),
                           {"settings": config_to_dict(config.split), "split": split.to_json()})
            write_text(os.path.join(out, "config.yaml"), config_to_yaml(config))
            write_json(os.path.join(out, "index.json"), index.to_json())
        return self._done(mine, split, index, notes)

    def _done(self, mine: list[str], split: Split | None, index: SliceIndex | None,
              notes: tuple[str, ...]) -> PrepareSummary:
        kept = tuple(case.name for case in self.good
                     if case.name not in mine and case.name not in self.failed)
        return PrepareSummary(tuple(mine), kept, tuple(self.problems), split, index, notes)

    def _left_out_now(self) -> list[LeftOut]:
        lasting = {*self.failed} - self.died
        return [LeftOut(problem.case, problem.message,
                        self.made_from[problem.case] if problem.case in lasting else None)
                for problem in self.problems]

    def _write_left_out(self, entries: list[LeftOut]) -> None:
        write_json(os.path.join(self.out, "left_out.json"), [asdict(entry) for entry in entries])

    def _prepare_cases(self, sharing: Sharing, whole: bool = True) -> list[str]:
        """Prepare each case that nobody else does; returns the names of those done here.

        whole: as of `_check_cases`.
        """
        done: list[str] = []
        left = self.todo
        while left:
            busy: list[Case] = []
            found = (self._here(left, busy, sharing, self.workers)
                     if isinstance(self.workers, int)
                     else self._elsewhere(left, busy, sharing, self.workers))
            for case, outcome in found:
                if isinstance(outcome, PixelNetError):
                    self.failed[case.name] = outcome.text
                    if isinstance(outcome, WorkerDied):
                        self.died.add(case.name)
                    self.problems.append(Problem.of(case.name, outcome))
                    _refuse_bad(self.problems, self.cases, self.skip_bad_cases, whole)
                elif outcome == Outcome.DONE:
                    done.append(case.name)
                self._report(case)
            left = busy
            if left:
                sharing.wait(left)
        return done

    def _here(self, left: list[Case], busy: list[Case], sharing: Sharing, workers: int
              ) -> Iterator[tuple[Case, Outcome | PixelNetError]]:
        """Prepare cases by this program and its processes, which end with it."""
        free = sharing.take(left, self._done_by_another, busy)
        for case, encoded in run_cases(
                encode_or_say_why, free,
                (self.config.study, self.config.prepare, self.config.model.planes),
                worker_count(workers, len(left)), spare=self.skip_bad_cases):
            if isinstance(encoded, PixelNetError):
                yield case, encoded
            else:
                self._write(case, encoded, sharing)
                yield case, Outcome.DONE
            sharing.give_back(case.name)

    def _elsewhere(self, left: list[Case], busy: list[Case], sharing: Sharing, engine: Engine
                   ) -> Iterator[tuple[Case, Outcome | PixelNetError]]:
        """Have cases prepared by workers that claim and write them themselves."""
        sent = (_Sent(case, self.made_from[case.name], self.voxels[case.name]) for case in left)
        for each, outcome in engine.run(
                _prepare_there, sent, (self.config.study, self.config.prepare,
                                       self.config.model.planes, self.out, sharing.ticket),
                self.skip_bad_cases):
            if outcome == Outcome.BUSY:
                busy.append(each.case)
                continue
            if isinstance(outcome, Outcome):
                details = self._finished(each.case)
                if details is None:
                    raise RunError("a worker says that the case is prepared, but it is not there",
                                   case=each.name, file=self.out,
                                   hint="give workers the same file system under the same path")
                self.finished[each.name] = details
            yield each.case, outcome

    def _write(self, case: Case, encoded: EncodedCase, sharing: Sharing) -> None:
        sharing.check(case.name)
        try:
            self.finished[case.name] = _write_case(encoded, self.made_from[case.name],
                                                   self.voxels[case.name], self.out)
        except RunError as error:
            whole = sum(c.name in self.finished for c in self.good)
            raise RunError(f"{error}\n{whole} of {len(self.good)} cases are finished and kept",
                           case=case.name, file=error.file, hint=None if error.hint else
                           "make room and run the same command again to go on") from None

    def _done_by_another(self, case: Case) -> bool:
        details = self._finished(case)
        if details is None:
            return False
        self.finished[case.name] = details
        self._report(case)
        return True

    def _report(self, case: Case) -> None:
        done = sum(c.name in self.finished or c.name in self.failed for c in self.todo)
        self.reporter.progress("preparing", done, len(self.todo), case.name)

    def _finished(self, case: Case) -> dict[str, Any] | None:
        return _finished(case, self.made_from[case.name], self.out)

    def _split(self) -> tuple[Split, bool, tuple[str, ...]]:
        names = [case.name for case in self.good]
        same = equal_images({name: self.voxels[name] for name in names})
        aside, settings, own = [n for n in names if n in self.set_aside], self.config.split, None
        if self.own_split is not None:
            own = self.own_split.split(names, settings, same, set_aside=aside,
                                       left_out=[case.name for case in self.cases])
        split, drawn, notes = _split(settings, self.out, names, same, aside, own,
                                     self.redraw_split)
        blind = [case.name for case in self.good
                 if case.name in aside and case.segmentation is None]
        if blind:
            notes += (f"{len(blind)} test cases have no segmentation: they can be predicted, not "
                      f"scored: {', '.join(blind[:5])}{' ...' if len(blind) > 5 else ''}",)
        return split, drawn, notes


@dataclass(frozen=True)
class _Sent:
    """A case as a worker elsewhere gets it."""

    case: Case
    made_from: dict[str, Any]
    voxels: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.case.name


def _prepare_there(sent: _Sent, study: StudyConfig, prepare: PrepareConfig, planes: Sequence[str],
                   out: str, ticket: Ticket) -> Outcome | DataError:
    """Prepare a case on a worker, unless another program has it."""
    busy: list[Case] = []
    with joined(ticket, LogReporter()) as sharing:
        for case in sharing.take([sent.case],
                                 lambda case: _finished(case, sent.made_from, out) is not None,
                                 busy):
            encoded = encode_or_say_why(case, study, prepare, planes)
            if not isinstance(encoded, DataError):
                sharing.check(case.name)
                _write_case(encoded, sent.made_from, sent.voxels, out)
            sharing.give_back(case.name)
            return encoded if isinstance(encoded, DataError) else Outcome.DONE
    return Outcome.BUSY if busy else Outcome.THERE


def _refuse_bad(problems: list[Problem], cases: list[Case], skip_bad_cases: bool,
                whole: bool = True) -> None:
    """Raise `DataError` where bad cases are not to be left out, or none would be left."""
    if problems and not skip_bad_cases:
        raise refusal(problems, len(cases), "correct them, or leave them out by --skip-bad-cases")
    if whole and {case.name for case in cases} == {problem.case for problem in problems}:
        raise refusal(problems, len(cases), "no case is left")


def _failed_before(cases: list[Case], made_from: dict[str, dict[str, Any]], out: str
                   ) -> dict[str, str]:
    """Cases that could not be prepared from the same files by the same settings before, and why.

    No check that only reads them sees it, so that they would be counted among the good ones.
    """
    before = {entry.case: entry for entry in _left_out(out) if entry.made_from}
    return {case.name: before[case.name].reason for case in cases
            if case.name in before and before[case.name].made_from == made_from[case.name]}


def _left_out(out: str) -> tuple[LeftOut, ...]:
    path = os.path.join(out, "left_out.json")
    if not os.path.exists(path):
        return ()
    return read_json_as(path, lambda tree: convert(tuple[LeftOut, ...], tree, "the whole"),
                        "remove it")


def _case_file(out: str, name: str, suffix: str) -> str:
    return os.path.join(out, "cases", name + suffix)


def _made_from(cases: list[Case], study: StudyConfig, prepare: PrepareConfig,
               planes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Say what each case is made from: its files by their contents, and the settings."""
    preparation, inputs = preparation_of(study, prepare), inputs_of(cases)
    # The axial slices alone are what they were before there were others.
    others = {} if len(planes) == 1 else {"planes": list(planes)}
    return {case.name: {"format": RECORD_FORMAT, "preparation": preparation,
                        "smir_id": case.smir_id, "inputs": inputs[case.name], **others}
            for case in cases}


def _finished(case: Case, made_from: dict[str, Any], out: str) -> dict[str, Any] | None:
    """Return the JSON of a case that is done and was made from the same."""
    path = _case_file(out, case.name, ".json")
    if case.faults or case.segmentation_faults or not os.path.exists(path):
        return None
    try:
        details = read_case_record(path)
    except DataError:
        return None
    if made_from["inputs"] is None or details.get("made_from") != made_from:
        return None
    try:
        # Every record: a case whose shard is damaged is made anew.
        check_shard(os.path.join(out, details["shard"]),
                    [(row["offset"], row["length"]) for row in details["slices"]],
                    details["shard_bytes"])
    except DataError:
        return None
    return details


def _check(cases: list[Case], finished: dict[str, Any], failed: dict[str, str],
           config: Config, workers: int | Engine, skip_bad_cases: bool, whole: bool,
           reporter: Reporter
           ) -> tuple[list[Problem], list[Problem], dict[str, tuple[str, ...]]]:
    """Check the cases that are not finished; a whole study without any lesion is a problem too.

    Returns the problems, the doubts about cases that can be used, and for each case the digests of
    its images (`CheckResult.voxels`).
    """
    study = config.study
    unread = [case for case in cases if case.name not in finished and case.name not in failed]
    problems = [Problem(name, DataError(reason, case=name)) for name, reason in failed.items()]
    doubts = []
    sound = [case for case in cases if case.name in finished]
    lesion = any(any(row["class_counts"][1:]) for details in finished.values()
                 for row in details["slices"])
    results = {}
    for done, (case, result) in enumerate(run_cases(
            check_case, unread, (study, config.prepare.slice_size, config.model.planes),
            worker_count(workers, len(unread)), spare=skip_bad_cases), start=1):
        reporter.progress("checking", done, len(unread), case.name)
        if isinstance(result, WorkerDied):
            problems.append(Problem.of(case.name, result))
        else:
            results[case.name] = result
    for case in unread:
        if case.name not in results:
            continue
        problems += results[case.name].problems
        doubts += results[case.name].doubts
        lesion = lesion or results[case.name].has_lesion
        if not results[case.name].problems:
            sound.append(case)
    labelled = [case for case in sound if case.segmentation is not None]
    voxels = {case.name: results[case.name].voxels if case.name in results
              else tuple(finished.get(case.name, {}).get("voxels", ())) for case in cases}
    return (problems + (no_lesion(labelled, study) if whole and not lesion else []), doubts,
            voxels)


def _split(settings: SplitConfig, out: str, names: list[str], same: list[tuple[str, ...]],
           set_aside: list[str], own: Split | None, redraw: bool
           ) -> tuple[Split, bool, tuple[str, ...]]:
    """Return the split, whether it is to be written, and notes.

    same: sets of cases with equal images, which are of one patient. own: the user's split, in place
    of a drawn one.
    """
    path = os.path.join(out, "split.json")
    notes = tuple(f"{len(cases)} cases have equal images and count as one patient: "
                  f"{', '.join(cases)}" for cases in group_patients(names, "", same)
                  if len(cases) > 1)
    unmatched = unmatched_cases(names, settings.patient)
    if unmatched:
        notes += (f"split.patient matches {len(names) - len(unmatched)} of {len(names)} cases; "
                  "each of the others counts as a patient of its own: "
                  f"{', '.join(unmatched[:5])}{' ...' if len(unmatched) > 5 else ''}",)
    if redraw or not os.path.exists(path):
        return own or draw_split(names, settings, same, set_aside), True, notes
    drawn = read_json_as(path, DrawnSplit.from_json, SPLIT_ADVICE)
    split = drawn.split
    new, gone = sorted(set(names) - set(split.cases)), sorted(set(split.cases) - set(names))
    if new or gone:
        changes = [f"{word} {found[:5]}{' ...' if len(found) > 5 else ''}"
                   for word, found in (("new:", new), ("gone:", gone)) if found]
        raise DataError(
            f"was drawn for other cases ({'; '.join(changes)}). A split is kept for good, so that "
            "no test case is ever trained on", file=path,
            hint="draw a new one by --redraw-split (models trained before must not be tested on "
                 "it), or prepare into another folder")
    if own is not None and own != split:
        raise DataError(f"holds another split than {settings.file}. A split is kept for good, so "
                        "that no test case is ever trained on", file=path,
                        hint="take that of the file by --redraw-split (models trained before must "
                             "not be tested on it), or prepare into another folder")
    torn = [cases for cases in same if split.tears(cases)]
    if torn:
        raise DataError("puts cases with equal images into different parts or folds: "
                        f"{'; '.join(', '.join(cases) for cases in torn[:5])}. The same patient "
                        "would be trained on and tested", file=path,
                        hint="leave one of them out of the study, or draw a new split by "
                             "--redraw-split, which keeps them together")
    if own is None and drawn.settings != settings:
        notes += (f"{path} was drawn with other settings and is kept; "
                  "--redraw-split draws it anew",)
    return split, False, notes


def _fitting_workers(geometries: Mapping[str, VolumeGeometry], config: Config,
                     workers: int | Engine, reporter: Reporter) -> int | Engine:
    """Say what memory the largest case takes, and return how many workers there is memory for.

    Raises:
        RunError: there is not enough for one.
    """
    if not geometries:
        return workers

    def needed(name: str, cores: int) -> int:
        return PROGRAM_BYTES + memory_to_prepare(
            geometries[name], config.study, config.prepare, config.model.planes, cores)

    largest = max(geometries, key=lambda name: needed(name, 1))
    sizes = "x".join(map(str, geometries[largest].shape))
    about = f"{sizes} voxels, {len(config.study.modalities)} channels"
    if not isinstance(workers, int):
        reporter.message(f"memory: up to {needed(largest, 1) / 1e9:.2f} GB for a case in work "
                         f"({largest}: {about})")
        return workers
    wanted, free = worker_count(workers, len(geometries)), free_memory() or None
    for count in range(wanted, 0, -1):
        each = needed(largest, max(1, own_cores() // count))
        if free is None or count * each <= free:
            break
    else:
        raise RunError(f"takes up to {each / 1e9:.2f} GB of memory ({about}); "
                       f"{(free or 0) / 1e9:.2f} GB are free", case=largest,
                       hint="close other programs, take a machine with more memory, or leave the "
                            "case out")
    reporter.message(f"memory: up to {each / 1e9:.2f} GB for a case in work ({largest}: {about}), "
                     f"{count} at a time")
    if count < wanted:
        reporter.warning(f"{(free or 0) / 1e9:.2f} GB of memory are free: {count} cases are in "
                         f"work at once, not {wanted}")
    return count


def _check_disk(geometries: Mapping[str, VolumeGeometry], config: Config, out: str) -> None:
    """Refuse a run that cannot end for lack of room, where `out` is a local folder."""
    folder = Path(out)
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not geometries:
        return
    needed = 0
    for geometry in geometries.values():
        for plan in plans_of(geometry, config.prepare.slice_size, config.model.planes):
            needed += (plan.slices * plan.height * plan.width * 4
                       * len(config.study.modalities))
    needed = int(_SMALLEST_SHARD * needed)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise RunError(f"{free / 1e9:.2f} GB are free, at least {needed / 1e9:.2f} GB are needed "
                       f"for {len(geometries)} cases", file=out,
                       hint="make room or choose another --out")


def _write_case(encoded: EncodedCase, made_from: dict[str, Any], voxels: tuple[str, ...],
                out: str) -> dict[str, Any]:
    """Write a case's shard, then its JSON, which makes it finished."""
    # An index of shards that are about to change must not be read.
    remove(os.path.join(out, "index.json"))
    shard = _case_file("", encoded.name, ".tfrecord")
    path = os.path.join(out, shard)
    remove(_case_file(out, encoded.name, ".json"))
    places = write_shard(path, encoded.slices)
    rows = [{"slice": encoded_slice.number, "offset": offset, "length": length,
             "height": encoded_slice.height,
             "width": encoded_slice.width, "class_counts": list(encoded_slice.class_counts),
             "brain_fraction": float(np.float32(encoded_slice.brain_fraction)),
             **({} if encoded_slice.plane == PLANES[0] else {"plane": encoded_slice.plane})}
            for encoded_slice, (offset, length) in zip(encoded.slices, places, strict=True)]
    details = {**encoded.details, "made_from": made_from, "voxels": list(voxels), "shard": shard,
               "shard_bytes": os.path.getsize(path), "slices": rows}
    write_json(_case_file(out, encoded.name, ".json"), details)
    return details
