"""Cross-validation: a training for each fold, scores out of fold, and decisions for the average."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pixelnet_tf.cases.labels import classes_to_values
from pixelnet_tf.cases.predictions import merge_predictions
from pixelnet_tf.config import Config, FollowDecisions
from pixelnet_tf.dataset.prepared import PreparedStudy
from pixelnet_tf.errors import ConfigError, RunError
from pixelnet_tf.evaluation.matching import match_cases
from pixelnet_tf.evaluation.protocols import make_protocol
from pixelnet_tf.evaluation.score_cases import check_pairs
from pixelnet_tf.evaluation.summary import (
    OUT_OF_FOLD,
    Evaluation,
    evaluate,
    write_evaluation,
)
from pixelnet_tf.inference.predict import CaseSource, predict_cases
from pixelnet_tf.io.files import (
    begin_folder,
    check_apart,
    remove,
    remove_leftovers,
    replacing_folder,
    write_json,
)
from pixelnet_tf.io.locks import Lock, check_free, exclusive
from pixelnet_tf.reporting import Reporter, reporter_or_log
from pixelnet_tf.runs.folder import RunFolder
from pixelnet_tf.runs.several import digests_of, fold_folder, folds_in
from pixelnet_tf.training.decisions import Judged, decide_over
from pixelnet_tf.training.loop import Trainer
from pixelnet_tf.training.validation import labelled_volume
from pixelnet_tf.volumes.nifti import write_labels


class CrossValidation:
    """Trains a network for each fold, and scores each on the cases that it has not seen.

    OUT/fold_<i> holds a run as `Trainer` writes it, OUT/split.json the split of all of them.
    OUT/out_of_fold holds what each network makes of its own held-out cases (`fold_<i>`, and all
    together in `predictions`), the truth of these as it was prepared (`truth`) and the scores.
    Every network predicts by what its own validation cases decided, so that no score knows of the
    cases that it is of. OUT/decisions.json holds what all of them together decide for the average
    of the networks, each judged by the network that has not seen it.

    A second call does what is missing: a killed training is resumed, one that has ended is kept.
    Scores and decisions are over all folds in OUT that have ended, of this call and of others.

    Args:
        config: the resolved configuration; all folds are trained by it.
        study: prepared slices, whose split has folds.
        out: folder of the cross-validation.
        folds: numbers of the folds to train; None takes all.
        reporter: hears of each training, prediction and scoring.

    Raises:
        ConfigError: the study was prepared without folds, or there is no such fold.
    """

    def __init__(self, config: Config, study: PreparedStudy, out: Path,
                 folds: Sequence[int] | None = None, *, reporter: Reporter | None = None):
        self.config = replace(config, study=study.config.study, prepare=study.config.prepare)
        self.study, self.out = study, Path(out)
        self.reporter = reporter_or_log(reporter)
        count = len(study.split.folds)
        #: The split of each fold that is asked for, by its number.
        self.splits = {number: study.split.fold(number) for number in
                       (range(max(count, 1)) if folds is None else dict.fromkeys(folds))}

    def describe(self) -> str:
        """One sentence about what the cross-validation will do."""
        folds = ", ".join(map(str, self.splits))
        return (f"folds {folds} of {len(self.study.split.folds)}; the first: "
                + self._trainer(next(iter(self.splits))).describe())

    def check(self, resume: bool = False) -> None:
        """Raise what can be told before any work; writes nothing.

        Raises:
            RunError: a fold's folder holds a run already and `resume` is False, the folder itself
                is a run, or another program is at work there.
            ConfigError: resumed with another configuration, split or study; the folder lies within
                the prepared study.
            DataError: slices are missing. ModelError: start weights that cannot be had.
        """
        check_apart(self.out, self.study.path)
        check_free(self.out)
        whole = RunFolder(str(self.out))
        if whole.exists():
            raise RunError("is a single training, not a cross-validation", file=self.out,
                           hint="give a new --out")
        if folds_in(str(self.out)) and whole.split().to_json() != self.study.split.to_json():
            raise ConfigError("holds folds of another split", file=self.out,
                              hint="give the study that they were trained on, or a new --out")
        for number in self.splits:
            self._trainer(number).check(resume)

    def check_start_weights(self) -> None:
        """As that of `Trainer`, for the first fold."""
        self._trainer(next(iter(self.splits))).check_start_weights()

    def run(self, resume: bool = False) -> Evaluation:
        """Train the folds, and return the scores of all cases out of fold.

        Args:
            resume: go on with a cross-validation that was begun.

        Raises:
            PixelNetError: as `check`, and as training, prediction and evaluation raise it.
        """
        self.check(resume)
        with exclusive(self.out, "train", self.reporter) as lock:
            begin_folder(self.out)
            for folder in (self.out, self.out / OUT_OF_FOLD):
                remove_leftovers(folder)
            for number in self.splits:
                lock.check()
                self._train(number)
            return self._judge(lock)

    def _trainer(self, number: int) -> Trainer:
        return Trainer(self.config, self.study, self.splits[number], self._run(number).path,
                       reporter=self.reporter)

    def _run(self, number: int) -> RunFolder:
        return RunFolder(fold_folder(str(self.out), number))

    def _train(self, number: int) -> None:
        run, split = self._run(number), self.splits[number]
        if Path(run.file("model.keras")).exists():
            self.reporter.message(f"fold {number}: trained before")
            return
        # What was decided holds for the folds that there were.
        remove(self.out / "decisions.json")
        write_json(self.out / "split.json", self.study.split.to_json())
        self.reporter.message(f"fold {number}: {len(split.train)} cases to train, "
                              f"{len(split.validation)} to validate, {len(split.test)} held out")
        self._trainer(number).run(resume=True)

    def _judge(self, lock: Lock) -> Evaluation:
        """Predict what each network has not seen, score it, and decide for the average."""
        numbers = [number for number in range(len(self.study.split.folds))
                   if Path(self._run(number).file("model.keras")).exists()]
        splits = {number: self.study.split.fold(number) for number in numbers}
        folder = self.out / OUT_OF_FOLD
        begin_folder(folder)
        for number, split in splits.items():
            lock.check()
            self._predict(number, split.test, (*split.train, *split.validation))
        predictions, truth = folder / "predictions", folder / "truth"
        merge_predictions({folder / f"fold_{number}": split.test
                           for number, split in splits.items()}, predictions)
        cases = [name for split in splits.values() for name in split.test]
        self._write_truth(cases, truth)
        study = self.config.study
        matching = match_cases(predictions, truth, study)
        contents = check_pairs(matching, study, self.reporter)
        result = evaluate(matching, study, make_protocol(self.config.evaluation), predictions,
                          truth, contents, self.config.evaluation.workers, self.reporter)
        write_evaluation(result, folder)
        lock.check()
        self._decide({number: split.test for number, split in splits.items()}, cases)
        return result

    def _predict(self, number: int, cases: tuple[str, ...], learned: tuple[str, ...]) -> None:
        run = self._run(number)
        config, decisions = run.config(), run.decisions()
        if decisions is not None and config.prediction.decisions == FollowDecisions.APPLY:
            config = replace(config, prediction=decisions.apply(config.prediction,
                                                                config.prediction))
        network = run.network(config.prediction.prior, config.prediction.class_offsets)
        predict_cases([network], CaseSource.open(self.study.path, config, cases), config,
                      self.out / OUT_OF_FOLD / f"fold_{number}", trained_on=learned,
                      overwrite=True, reporter=self.reporter)

    def _write_truth(self, cases: Sequence[str], folder: Path) -> None:
        """Write the segmentations that the study was prepared with, as label values."""
        with replacing_folder(folder) as target:
            begin_folder(target)
            for name in cases:
                volume = labelled_volume(self.study, name)
                assert volume.labels is not None
                values = classes_to_values(volume.plan.read_voxels(volume.labels),
                                           self.config.study)
                write_labels(target / f"{name}.nii.gz", volume.plan.to_volume(values),
                             volume.geometry)

    def _decide(self, held_out: dict[int, tuple[str, ...]], cases: Sequence[str]) -> None:
        whole, asked = RunFolder(str(self.out)), self.config.prediction
        before = whole.decisions()
        runs = {number: self._run(number) for number in held_out}
        files = digests_of(runs.values())
        if before is not None and set(before.cases) == set(cases) and before.files in ((), files):
            return
        decisions = decide_over(
            [Judged(run.model, held_out[number], run.priors()) for number, run in runs.items()],
            self.study, asked, runs[min(runs)].config().training.precision, self.reporter)
        decisions = replace(decisions, files=files)
        whole.save_decisions(decisions)
        for trial in decisions.tried:
            self.reporter.message(f"  {trial.line()}")
        use = ("predict, export and serve follow them" if asked.decisions == FollowDecisions.APPLY
               else "not applied, as prediction.decisions is ignore")
        self.reporter.message(
            f"decided on {len(decisions.cases)} held-out cases of {len(runs)} folds for the "
            f"average of their networks: {decisions.settings or 'no change'}; in decisions.json, "
            f"{use}")
