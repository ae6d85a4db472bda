"""The whole job by one call: plan, prepare, train, predict the test cases, score them, report."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pixelnet_tf.api.plan import plan
from pixelnet_tf.api.scoring import FolderScoring, Scores
from pixelnet_tf.api.study import Study, make_cross_validation, make_trainer, with_network
from pixelnet_tf.config import (
    Config,
    as_config,
    config_from_yaml,
    config_to_yaml,
)
from pixelnet_tf.errors import ConfigError, PixelNetError, require
from pixelnet_tf.evaluation.summary import OUT_OF_FOLD, SUMMARY_FILE, read_evaluation
from pixelnet_tf.io.files import begin_folder, check_apart, read_text, remove_leftovers, write_text
from pixelnet_tf.io.locks import check_free, exclusive
from pixelnet_tf.reporting import Reporter, reporter_or_log

if TYPE_CHECKING:
    from pixelnet_tf.dataset.prepared import PreparedStudy
    from pixelnet_tf.training.cross_validation import CrossValidation
    from pixelnet_tf.training.loop import Trainer

Path_ = str | os.PathLike[str]
#: Begins a comment of OUT/plan.yaml that holds an option which the plan was made by.
_ASKED = "# Asked for: "


@dataclass(frozen=True)
class JobFolder:
    """Where each part of a job lies.

    Attributes
    ----------
    path
        The folder of the job.
    """

    path: Path

    @property
    def plan(self) -> Path:
        """The configuration."""
        return self.path / "plan.yaml"

    @property
    def prepared(self) -> Path:
        """The prepared study."""
        return self.path / "prepared"

    @property
    def run(self) -> Path:
        """The training."""
        return self.path / "run"

    @property
    def predictions(self) -> Path:
        """Segmentations of the test cases."""
        return self.path / "predictions"

    @property
    def scores(self) -> Path:
        """Their scores."""
        return self.path / "scores"

    @property
    def report(self) -> Path:
        """The report about all of it."""
        return self.path / "report.html"

    def parts(self) -> list[Path]:
        """Those that are there, in the order in which they are made."""
        return [path for path in (self.plan, self.prepared, self.run, self.predictions,
                                  self.scores, self.report) if path.exists()]


class Job:
    """From a folder of scans to scores and a report, in one folder; each part is done once.

    A second call goes on where the first one stopped, whatever stopped it. Where the split has
    folds, a network is trained for each, and their average segments the test cases.

    Attributes
    ----------
    folder
        Where each part lies.
    config
        The configuration, as planned or given.
    told
        The plan for a reader, line by line; empty where the configuration was given, or is there
        from before.

    Parameters
    ----------
    study
        Folder of the study.
    out
        Folder of the job; holds its parts.
    preset, minutes, weights, trial
        As `plan` takes them; not beside a configuration. A second call may leave them out, or give
        those of the first one.
    config
        A configuration in the place of a plan; a file must name a network or its training.
    overrides
        Settings as `--set` takes them, on top of either.
    folds
        Cut the cases that are not set aside into so many folds, the same as the setting
        "split.folds=N".

    Raises
    ------
    DataError
        No case is found. ConfigError: the folder holds a job of another configuration or of other
        options, or an option takes no part beside another one.

    Examples
    --------
    >>> import pixelnet_tf as px
    >>> job = px.Job("study", "job", preset="laptop", trial=False)
    >>> job.left()
    ['prepare', 'train', 'predict', 'evaluate', 'report']
    >>> job.config.model.widths
    (16, 32, 64, 64, 64)

    `job.run()` does all of it and returns the scores of the test cases.
    """

    def __init__(self, study: Path_, out: Path_, *, preset: str | None = None,
                 minutes: float | None = None, weights: Path_ | None = None,
                 config: Config | Path_ | None = None, overrides: Sequence[str] = (),
                 folds: int | None = None, trial: bool = True, reporter: Reporter | None = None):
        if folds is not None:
            overrides = (*overrides, f"split.folds={folds}")
        self.study, self.folder = Path(study), JobFolder(Path(out))
        self.reporter = reporter_or_log(reporter)
        self.told: tuple[str, ...] = ()
        asked = _plan_options(preset, minutes, weights, trial)
        if config is not None and asked:
            raise ConfigError(f"{' and '.join(asked)} would make a plan, and --config takes "
                              "its place", value=list(asked),
                              hint=f"leave out {', '.join(asked)}, or --config")
        check_apart(out, study)
        check_free(self.folder.path)
        given = None if config is None else with_network(config, overrides)
        if self.folder.plan.is_file():
            self._text = read_text(self.folder.plan)
            self.config = config_from_yaml(self._text, self.folder.plan)
            wanted = given or as_config(self.config, overrides)
            if wanted != self.config:
                raise ConfigError("holds a job of another configuration than this call asks for",
                                  file=self.folder.plan,
                                  hint="give a new OUT, or leave --config and --set out to go on")
            before = self._text.splitlines()
            if other := [option for option, line in asked.items() if line not in before]:
                raise ConfigError("holds a job of another plan than this call asks for by "
                                  f"{' and '.join(other)}", file=self.folder.plan, value=other,
                                  hint=f"give a new OUT, or leave {', '.join(other)} out to go on")
        elif given is not None:
            self.config, self._text = given, config_to_yaml(given)
        else:
            found = plan(self.study, preset=preset, minutes=minutes, weights=weights,
                         overrides=overrides, trial=trial, reporter=self.reporter)
            self.told = tuple(found.lines())
            lines = "".join(f"{line}\n" for line in asked.values())
            self.config, self._text = found.config, lines + found.yaml()

    def check(self) -> None:
        """Read and check every file, and say what is left to do; writes nothing.

        Raises
        ------
        DataError
            What is wrong with the cases.
        """
        if not self._is_prepared():
            self._opened().update(self.folder.prepared, dry_run=True, reporter=self.reporter)

    def left(self) -> list[str]:
        """The parts that are still to be done, in their order."""
        folder = self.folder
        prepared = self._is_prepared()
        done = {"prepare": prepared, "train": prepared and self._is_trained(self._prepared()),
                "predict": False, "evaluate": (folder.scores / SUMMARY_FILE).is_file(),
                "report": folder.report.is_file()}
        return [part for part, there in done.items() if not there]

    def run(self) -> Scores | None:
        """Do what is left; returns the scores of the test cases.

        They are None where no test case has a segmentation; those out of fold, where there are
        folds, are in `out_of_fold`.

        Raises
        ------
        PixelNetError
            As each part raises it. KeyboardInterrupt, SystemExit: as `train`; the state is saved.
        """
        with exclusive(self.folder.path, "run", self.reporter):
            begin_folder(self.folder.path)
            remove_leftovers(self.folder.path)
            if not self.folder.plan.is_file():
                write_text(self.folder.plan, self._text)
            self._prepare()
            prepared = self._prepared()
            self._train(prepared)
            scored = self._predict(prepared)
            scores = self._evaluate() if scored else None
            self._report(scored)
            return scores

    @property
    def out_of_fold(self) -> Scores | None:
        """Scores of the cases that each network of a cross-validation has not seen; None without
        folds, or before they have ended."""
        place = self.folder.run / OUT_OF_FOLD
        return Scores(read_evaluation(place)) if (place / SUMMARY_FILE).is_file() else None

    def _is_prepared(self) -> bool:
        return (self.folder.prepared / "index.json").is_file()

    def _prepare(self) -> None:
        if self._is_prepared():
            self.reporter.message("prepare: done before")
            return
        self.reporter.message(f"prepare: {self.study}")
        self._opened().update(self.folder.prepared, reporter=self.reporter)

    def _opened(self) -> Study:
        return Study.open(self.study, self.config, reporter=self.reporter)

    def _prepared(self) -> PreparedStudy:
        from pixelnet_tf.dataset.prepared import PreparedStudy

        return PreparedStudy.open(self.folder.prepared)

    def _is_trained(self, prepared: PreparedStudy) -> bool:
        run, folds = self.folder.run, len(prepared.split.folds)
        if not folds:
            return (run / "model.keras").is_file()
        return (run / "decisions.json").is_file() and (run / OUT_OF_FOLD / SUMMARY_FILE).is_file(
            ) and all((run / f"fold_{number}" / "model.keras").is_file()
                      for number in range(folds))

    def _train(self, prepared: PreparedStudy) -> None:
        """Train a network, or one for each fold."""
        folder = self.folder.run
        trainer: Trainer | CrossValidation
        if prepared.split.folds:
            trainer = make_cross_validation(prepared, self.config, folder, reporter=self.reporter)
        else:
            trainer = make_trainer(prepared, self.config, folder, reporter=self.reporter)
        trainer.check(resume=True)
        if self._is_trained(prepared):
            self.reporter.message("train: done before")
            return
        self.reporter.message(f"train: {trainer.describe()}")
        trainer.run(resume=True)

    def _predict(self, prepared: PreparedStudy) -> bool:
        """Segment the test cases; False where there are none, or none that can be scored."""
        from pixelnet_tf.api.segmenter import Segmenter

        tested = prepared.split.test
        if not tested:
            self.reporter.warning("no test cases: nothing is predicted or scored; set split.test")
            return False
        self.reporter.message(f"predict: {len(tested)} test cases")
        Segmenter.from_run(self.folder.run, same_split=True).predict_study(
            self.folder.prepared, self.folder.predictions, split="test", overlays=_draws(),
            overwrite=True, reporter=self.reporter)
        scored = sum(bool(prepared.case_details(name)["labelled"]) for name in tested)
        if not scored:
            self.reporter.warning("no test case has a segmentation: they are segmented, not scored")
        return bool(scored)

    def _evaluate(self) -> Scores | None:
        self.reporter.message("evaluate")
        # A test case may be there to be segmented alone.
        scoring = FolderScoring(self.folder.predictions, self.study, config=self.config,
                                allow_missing=True, reporter=self.reporter)
        scores = scoring.run(reporter=self.reporter)
        scores.save(self.folder.scores)
        return scores

    def _report(self, scored: bool) -> None:
        """About the test cases, or where none of them is scored, about those out of fold."""
        if not _draws():
            self.reporter.message("no report: it needs the extra `report`")
            return
        from pixelnet_tf.api.reports import Report

        predictions, scores, references = self.folder.predictions, self.folder.scores, self.study
        if not scored:
            scores = self.folder.run / OUT_OF_FOLD
            if not (scores / SUMMARY_FILE).is_file():
                return
            predictions, references = scores / "predictions", scores / "truth"
        self.reporter.message("report")
        Report(self.folder.run, predictions, scores, references=references,
               data=self.folder.prepared, reporter=self.reporter).save(self.folder.report)


def _plan_options(preset: str | None, minutes: float | None, weights: Path_ | None, trial: bool
                  ) -> dict[str, str]:
    """The options of a plan that a call gives, each with the line of plan.yaml that says so."""
    given = {"--preset": preset, "--minutes": None if minutes is None else float(minutes),
             "--weights": None if weights is None else os.path.abspath(weights),
             "--no-trial": None if trial else True}
    return {option: f"{_ASKED}{option} {json.dumps(value)}" for option, value in given.items()
            if value is not None}


def _draws() -> bool:
    """Whether pictures and the report can be made."""
    try:
        require("report", "report", "matplotlib", "jinja2")
    except PixelNetError:
        return False
    return True
