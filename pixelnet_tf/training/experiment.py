"""The paper's comparison: class-balanced against uniform sampling, over folds (section 3.3)."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from pixelnet_tf.cases.split import Split
from pixelnet_tf.config import Config
from pixelnet_tf.dataset.prepared import PreparedStudy
from pixelnet_tf.errors import DataError
from pixelnet_tf.evaluation.comparison import comparison_tables
from pixelnet_tf.evaluation.matching import match_cases
from pixelnet_tf.evaluation.protocols import make_protocol
from pixelnet_tf.evaluation.scoring import check_pairs
from pixelnet_tf.evaluation.summary import Evaluation, evaluate, write_evaluation
from pixelnet_tf.evaluation.tables import FORMATS, paper_table, render_all
from pixelnet_tf.inference.predict import CaseSource, predict_cases
from pixelnet_tf.io.files import write_text
from pixelnet_tf.runs.folder import RunFolder
from pixelnet_tf.training.loop import Progress, Trainer

STRATEGIES = ("balanced", "uniform")
PRIORS = ("sampled", "corrected")
_ENDINGS = {"text": "txt", "markdown": "md", "csv": "csv", "latex": "tex"}


class Experiment:
    """Trains both samplings from one configuration and seed, and scores each with both priors.

    Everything else is equal between the variants: split, start weights, order of the slices,
    number of steps. OUT/<sampling>/fold<i> holds a run, OUT/<sampling>-<prior> its predictions
    over all folds and their scores, OUT/tables.* the comparison. A second call does only what is
    missing; a killed training is resumed. A folder that holds trainings of another configuration,
    split or study is refused.

    Args:
        config: the resolved configuration; its `sampling.strategy` and `prediction.prior` are set
            by the experiment.
        study: prepared slices. references: the study with its segmentations.
        out: folder of the experiment.

    Raises:
        DataError: a split without test cases. ConfigError (by `run`): the folder holds trainings of
            another configuration, split or study.
    """

    def __init__(self, config: Config, study: PreparedStudy, references: Path, out: Path, *,
                 progress: Progress | None = None,
                 say: Callable[[str], None] = lambda line: None):
        self.config, self.study, self.references, self.out = config, study, references, out
        self.progress, self.say = progress, say
        split = study.split
        self.splits = [split.fold(i) for i in range(len(split.folds))] or [split]
        if not all(part.test for part in self.splits):
            raise DataError(f"{study.path}: the split has no test case; prepare with split.test or "
                            "split.folds")

    def run(self) -> dict[str, Evaluation]:
        """Do the whole experiment; returns the evaluation of each `<sampling>-<prior>`."""
        for strategy in STRATEGIES:
            for number, split in enumerate(self.splits):
                self._train(strategy, number, split)
                for prior in PRIORS:
                    self._predict(strategy, prior, number, split)
        found = {f"{strategy}-{prior}": self._evaluate(strategy, prior)
                 for strategy in STRATEGIES for prior in PRIORS}
        tables = [*comparison_tables(found),
                  *(paper_table(result, name) for name, result in found.items())]
        for form in FORMATS:
            write_text(self.out / f"tables.{_ENDINGS[form]}", render_all(tables, form))
        return found

    def _variant(self, strategy: str) -> Config:
        return replace(self.config, sampling=replace(self.config.sampling, strategy=strategy))

    def _run_folder(self, strategy: str, number: int) -> RunFolder:
        return RunFolder(str(self.out / strategy / f"fold{number}"))

    def _train(self, strategy: str, number: int, split: Split) -> None:
        folder = self._run_folder(strategy, number)
        trainer = Trainer(self._variant(strategy), self.study, split, folder.path,
                          progress=self.progress, say=self.say)
        # A run of other settings, cases or slices is neither taken for this one nor gone on with.
        trainer.check(resume=True)
        if Path(folder.file("model.keras")).exists():
            self.say(f"{strategy} fold {number}: trained before")
            return
        self.say(f"{strategy} fold {number}: {len(split.train)} cases to train, "
                 f"{len(split.test)} to test")
        trainer.run(resume=True)

    def _predict(self, strategy: str, prior: str, number: int, split: Split) -> None:
        config = self._variant(strategy)
        config = replace(config, prediction=replace(config.prediction, prior=prior))
        target = self.out / f"{strategy}-{prior}" / "predictions"
        part = target.parent / f"fold{number}"
        if all((target / f"{name}.nii.gz").is_file() for name in split.test):
            return
        folder = self._run_folder(strategy, number)
        source = CaseSource.open(self.study.path, config, split.test)
        predict_cases([folder.network(prior)], source, config, part)
        target.mkdir(parents=True, exist_ok=True)
        for name in split.test:
            shutil.move(part / f"{name}.nii.gz", target / f"{name}.nii.gz")
        shutil.rmtree(part)

    def _evaluate(self, strategy: str, prior: str) -> Evaluation:
        folder = self.out / f"{strategy}-{prior}"
        protocol = make_protocol(self.config.evaluation)
        matching = match_cases(folder / "predictions", self.references, self.config.study,
                               allow_missing=True)
        contents = check_pairs(matching, self.config.study)
        result = evaluate(matching, self.config, protocol, folder / "predictions", self.references,
                          contents)
        write_evaluation(result, folder)
        return result


def describe(splits: Sequence[Split], config: Config) -> str:
    """One line that says what the experiment will do."""
    return (f"{len(STRATEGIES)} samplings x {len(splits)} folds: {2 * len(splits)} trainings of "
            f"{config.training.steps or f'{config.training.epochs} epochs'}"
            f"{' steps' if config.training.steps else ''}, each scored with the priors "
            f"{' and '.join(PRIORS)}")
