"""The paper's comparison: class-balanced against uniform sampling, over folds (section 3.3)."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from pixelnet_tf.cases.predictions import merge_predictions
from pixelnet_tf.cases.split import Split
from pixelnet_tf.config import Config, Prior, Strategy
from pixelnet_tf.dataset.prepared import PreparedStudy
from pixelnet_tf.dataset.workers import Engine
from pixelnet_tf.errors import DataError, nearest_hint
from pixelnet_tf.evaluation.comparison import comparison_tables
from pixelnet_tf.evaluation.label_files import read_labels
from pixelnet_tf.evaluation.matching import find_references, match_cases
from pixelnet_tf.evaluation.protocols import make_protocol
from pixelnet_tf.evaluation.score_cases import check_pairs
from pixelnet_tf.evaluation.summary import Evaluation, evaluate, write_evaluation
from pixelnet_tf.evaluation.tables import FORMATS, paper_table, render_all
from pixelnet_tf.inference.predict import CaseSource, predict_cases
from pixelnet_tf.io.files import (
    begin_folder,
    check_apart,
    read_text,
    remove_leftovers,
    write_text,
)
from pixelnet_tf.io.locks import Lock, check_free, exclusive
from pixelnet_tf.reporting import LogReporter, Reporter, reporter_or_log
from pixelnet_tf.runs.folder import RunFolder
from pixelnet_tf.training.loop import Trainer
from pixelnet_tf.volumes.geometry import VolumeGeometry

STRATEGIES = (Strategy.BALANCED, Strategy.UNIFORM)
PRIORS = (Prior.SAMPLED, Prior.CORRECTED)
_ENDINGS = {"text": "txt", "markdown": "md", "csv": "csv", "latex": "tex"}


class Experiment:
    """Trains both samplings from one configuration and seed, and scores each with both priors.

    Everything else is equal between the variants: split, start weights, order of the slices,
    number of steps. OUT/<sampling>/fold<i> holds a run, OUT/<sampling>-<prior>/fold<i> what it
    predicts of its test cases, OUT/<sampling>-<prior>/predictions these of all folds, with their
    scores beside, and OUT/tables.* the comparison.

    A second call does only what is missing: a killed training is resumed, predictions are kept if
    they would be made from the same, else made anew; scores and tables are made again. A folder
    that holds trainings of another configuration, split or study is refused.

    Args:
        config: the resolved configuration; its `sampling.strategy` and `prediction.prior` are set
            by the experiment.
        study: prepared slices. references: the study with its segmentations.
        out: folder of the experiment.
        reporter: hears of each training, prediction and scoring.

    Raises:
        DataError: a split without test cases.
    """

    def __init__(self, config: Config, study: PreparedStudy, references: Path, out: Path, *,
                 reporter: Reporter | None = None):
        self.config, self.study, self.references, self.out = config, study, references, Path(out)
        self.reporter = reporter_or_log(reporter)
        split = study.split
        self.splits = [split.fold(i) for i in range(len(split.folds))] or [split]
        if not all(part.test for part in self.splits):
            raise DataError("the split has no test case", file=study.path,
                            hint="prepare with split.test or split.folds")

    def describe(self) -> str:
        """One line that says what the experiment will do."""
        training, folds = self.config.training, len(self.splits)
        length = f"{training.steps} steps" if training.steps else f"{training.epochs} epochs"
        return (f"{len(STRATEGIES)} samplings x {folds} folds: {2 * folds} trainings of {length}, "
                f"each scored with the priors {' and '.join(PRIORS)}")

    def tables(self) -> str:
        """The tables that `run` wrote, as text."""
        return read_text(self.out / "tables.txt")

    def check(self) -> None:
        """Raise what can be told before any work; writes nothing.

        Raises:
            DataError: a test case has no reference, or one that cannot be scored against; slices
                are missing.
            ConfigError: `out` lies within the data, or holds trainings of another configuration,
                split or study.
            ModelError: start weights that cannot be had, or do not fit.
        """
        check_apart(self.out, self.study.path, self.references)
        check_free(self.out)
        for strategy in STRATEGIES:
            for number, split in enumerate(self.splits):
                # A run of other settings, cases or slices is neither taken for this one nor gone
                # on with.
                self._trainer(strategy, number, split).check(resume=True)
        self._check_test_cases()
        self._trainer(STRATEGIES[0], 0, self.splits[0]).check_start_weights()

    def run(self, workers: Engine | None = None) -> dict[str, Evaluation]:
        """Do the whole experiment; returns the evaluation of each `<sampling>-<prior>`.

        Args:
            workers: they train and predict, a fold of a sampling each, and score; None: this
                program does, one after the other.

        Raises:
            PixelNetError: as `check`, and as training, prediction and evaluation raise it.
        """
        self.check()
        with exclusive(self.out, "experiment", self.reporter) as lock:
            return self._run(lock, workers)

    def _run(self, lock: Lock, workers: Engine | None) -> dict[str, Evaluation]:
        begin_folder(self.out)
        for folder in ("", *(f"{strategy}-{prior}" for strategy in STRATEGIES for prior in PRIORS)):
            remove_leftovers(self.out / folder)
        tasks = [_Task(strategy, number) for strategy in STRATEGIES
                 for number in range(len(self.splits))]
        if workers is None:
            for task in tasks:
                lock.check()
                self._do(task)
        else:
            data = os.path.abspath(self.study.path)
            for done, (task, _) in enumerate(workers.run(
                    _do_there, tasks, (self.config, data, self.references.absolute(),
                                       self.out.absolute()), False), start=1):
                self.reporter.progress("trainings", done, len(tasks), task.name)
        lock.check()
        found = {f"{strategy}-{prior}": self._evaluate(strategy, prior, workers)
                 for strategy in STRATEGIES for prior in PRIORS}
        tables = [*comparison_tables(found),
                  *(paper_table(result, name) for name, result in found.items())]
        for form in FORMATS:
            write_text(self.out / f"tables.{_ENDINGS[form]}", render_all(tables, form))
        return found

    def _do(self, task: _Task) -> None:
        split = self.splits[task.number]
        self._train(task.strategy, task.number, split)
        self._predict(task.strategy, task.number, split)

    def _variant(self, strategy: Strategy) -> Config:
        return replace(self.config, sampling=replace(self.config.sampling, strategy=strategy))

    def _run_folder(self, strategy: Strategy, number: int) -> RunFolder:
        return RunFolder(str(self.out / strategy / f"fold{number}"))

    def _trainer(self, strategy: Strategy, number: int, split: Split) -> Trainer:
        config, run = self._variant(strategy), self._run_folder(strategy, number)
        if run.exists():
            # The tables are of no decisions: cases may be predicted otherwise than the training
            # was told when it began, under the prior that chose its checkpoint.
            asked = config.prediction
            config = replace(config, prediction=replace(
                run.config().prediction, prior=asked.prior, decisions=asked.decisions))
        return Trainer(config, self.study, split, run.path, reporter=self.reporter)

    def _check_test_cases(self) -> None:
        """Read the truth of every test case, and see whether its slices are there."""
        references, reasons = find_references(self.references, self.config.study)
        faults = []
        for case in (name for split in self.splits for name in split.test):
            try:
                self.study.check_shard(case)
                if case not in references:
                    raise DataError("has no segmentation of the case to score against"
                                    f"{nearest_hint(case, references)} "
                                    f"{reasons.get(case, '')}".rstrip(), file=self.references)
                path = references[case]
                _, geometry = read_labels(path, self.config.study, case, reference=True)
                own = VolumeGeometry.from_json(self.study.case_details(case)["geometry"])
                if difference := geometry.difference(own):
                    raise DataError("is not on the grid of the images that "
                                    f"{self.study.path} was prepared from: {difference}", file=path,
                                    hint="give the study that was prepared")
            except DataError as error:
                faults.append(DataError.of(error, case=case))
        if faults:
            raise DataError.listing(faults)

    def _train(self, strategy: Strategy, number: int, split: Split) -> None:
        run = self._run_folder(strategy, number)
        if Path(run.file("model.keras")).exists():
            self.reporter.message(f"{strategy} fold {number}: trained before")
            with exclusive(run.path, "experiment", self.reporter):
                # A program that died after its last step has left its lock there.
                pass
            return
        self.reporter.message(f"{strategy} fold {number}: {len(split.train)} cases to train, "
                              f"{len(split.test)} to test")
        self._trainer(strategy, number, split).run(resume=True)

    def _predict(self, strategy: Strategy, number: int, split: Split) -> None:
        run = self._run_folder(strategy, number)
        network = run.network(PRIORS[0])
        for prior in PRIORS:
            config = self._variant(strategy)
            config = replace(config, prediction=replace(config.prediction, prior=prior))
            source = CaseSource.open(self.study.path, config, split.test)
            correction = run.correction(prior, config.prediction.class_offsets)
            predict_cases([replace(network, correction=correction)], source, config,
                          self.out / f"{strategy}-{prior}" / f"fold{number}",
                          trained_on=(*split.train, *split.validation), overwrite=True,
                          reporter=self.reporter)

    def _evaluate(self, strategy: Strategy, prior: Prior, workers: Engine | None) -> Evaluation:
        folder = self.out / f"{strategy}-{prior}"
        predictions = folder / "predictions"
        merge_predictions({folder / f"fold{number}": split.test
                           for number, split in enumerate(self.splits)}, predictions)
        protocol = make_protocol(self.config.evaluation)
        matching = match_cases(predictions, self.references, self.config.study)
        contents = check_pairs(matching, self.config.study, self.reporter)
        result = evaluate(matching, self.config.study, protocol, predictions, self.references,
                          contents, workers or self.config.evaluation.workers, self.reporter)
        write_evaluation(result, folder)
        return result


@dataclass(frozen=True)
class _Task:
    """The training of a sampling on a fold, and its predictions."""

    strategy: Strategy
    number: int

    @property
    def name(self) -> str:
        return f"{self.strategy} fold {self.number}"


def _do_there(task: _Task, config: Config, data: str, references: Path, out: Path) -> None:
    """Do a task on a worker; a run holds its own lock, and one that was killed is resumed."""
    Experiment(config, PreparedStudy.open(data), references, out, reporter=LogReporter())._do(task)
