"""What is made of predictions and scores: comparisons, reports, archives, a clean-up."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pixelnet_tf.api.scoring import scoring_config
from pixelnet_tf.cases.predictions import PredictionRecord
from pixelnet_tf.config import Config, PostprocessConfig
from pixelnet_tf.errors import ConfigError, DataError, ModelError, require
from pixelnet_tf.evaluation.comparison import common_cases, comparison_tables, unique_names
from pixelnet_tf.evaluation.matching import match_cases
from pixelnet_tf.evaluation.score_cases import check_pairs
from pixelnet_tf.evaluation.submission import write_submission
from pixelnet_tf.evaluation.summary import (
    OUT_OF_FOLD,
    SUMMARY_FILE,
    check_scored_files,
    read_evaluation,
)
from pixelnet_tf.evaluation.tables import (
    Table,
    lesion_tables,
    paper_table,
    render_all,
    spread_table,
)
from pixelnet_tf.io.files import file_digest
from pixelnet_tf.reporting import Reporter, reporter_or_log

Path_ = str | os.PathLike[str]


def compare(folders: Sequence[Path_], names: Sequence[str] | None = None, *, seed: int = 0,
            per_case: bool = False, single: bool = False, form: str = "text",
            reporter: Reporter | None = None) -> str:
    """Set evaluated runs side by side: the paper's Tables 2 and 4.

    The differences are of the first run minus each other one, over the cases that all have.

    Parameters
    ----------
    folders
        Folders that `Scores.save` or `pixelnet-tf evaluate --out` wrote.
    names
        Names in the tables; by default the folders'.
    seed
        Seed of the bootstrap's resampling.
    per_case
        Add the difference of every case.
    single
        Add each run's own table (the paper's Table 1 or 3) and its spread.
    form
        "text", "markdown", "csv" or "latex".

    Raises
    ------
    DataError
        A folder without scores, or scores that cannot be compared.
    """
    reporter = reporter_or_log(reporter)
    labels = [Path(folder).resolve().name for folder in folders] if names is None else list(names)
    if len(labels) != len(folders):
        raise ConfigError(f"--names gives {len(labels)} names for {len(folders)} runs",
                          hint="give one each, with commas between")
    unique_names(labels)
    runs = {label: read_evaluation(Path(folder))
            for label, folder in zip(labels, folders, strict=True)}
    tables: list[Table] = comparison_tables(runs, seed, per_case)
    if single:
        tables += [make(run, name) for name, run in runs.items()
                   for make in (paper_table, spread_table)]
        tables += [table for name, run in runs.items() for table in lesion_tables(run, name)]
    common = set(common_cases(runs))
    for label, run in runs.items():
        alone = sorted(set(run.scores) - common)
        if alone:
            reporter.message(f"{label}: left out {len(alone)} cases that others lack: {alone}")
    return render_all(tables, form)


class Report:
    """What one HTML file about a run is made from, read and checked.

    Attributes
    ----------
    cases
        Names of the cases with scores.

    Parameters
    ----------
    run
        What `train` wrote, for one training or for all folds.
    predictions, scores
        Folders of `Segmenter.predict_study` and of `Scores.save`, of this run.
    references
        What they were scored against; by default as recorded with the scores.
    data
        Where the pictures under the overlays come from, a study or a prepared one; by default the
        references, where they are a study. Without any there are no overlays.
    config
        Labels and regions; by default what stands beside the predictions or in the run.
    overrides
        Settings as `--set` takes them, "section.key=value".
    overlays
        How many of the worst and of the best cases are pictured.
    viewers
        Whether the worst, the median and the best case can be scrolled through in the page.

    Raises
    ------
    DataError
        Files that are not those that were scored. ModelError: no such run, or another run's
        predictions.
    """

    def __init__(self, run: Path_, predictions: Path_, scores: Path_, *,
                 references: Path_ | None = None, data: Path_ | None = None,
                 config: Config | Path_ | None = None, overrides: Sequence[str] = (),
                 overlays: int = 3, viewers: bool = True, reporter: Reporter | None = None):
        require("report", "report", "matplotlib", "jinja2")
        from pixelnet_tf.evaluation.case_images import image_reader
        from pixelnet_tf.evaluation.report import ReportSource

        run, predictions, scores = Path(run), Path(predictions), Path(scores)
        study = scoring_config(predictions, config, overrides, run).config.study
        if not run.is_dir():
            raise ModelError("no such folder", file=run,
                             hint="give the folder that `train --out` wrote")
        evaluation = read_evaluation(scores)
        if references is None:
            references = evaluation.about.get("references", "")
            if not Path(references).is_dir():
                raise DataError(f"its references {str(references)!r} are not there any more",
                                file=scores, hint="name them with --references")
        truths = Path(references)
        matching = match_cases(predictions, truths, study, allow_missing=True)
        check_scored_files(evaluation, matching)
        _check_model(run, predictions)
        if data is None and any(path.is_dir() for path in truths.iterdir()):
            data = truths
        reader = image_reader(Path(data), study) if data and (overlays or viewers) else None
        if reader is None:
            reporter_or_log(reporter).message("no pictures of cases: name the images with --data")
        self.cases = tuple(evaluation.scores)
        own = run / OUT_OF_FOLD
        held_out = own.is_dir() and scores.resolve() == own.resolve()
        aside = None if held_out or not (own / SUMMARY_FILE).is_file() else read_evaluation(own)
        self._source = ReportSource(run, evaluation, matching, study, reader, aside, held_out)
        self._overlays, self._viewers = overlays, viewers

    def save(self, out: Path_) -> list[Path]:
        """Write the HTML file, and its figures beside it in <out>_figures; return the paths."""
        from pixelnet_tf.evaluation.report import write_report

        return write_report(self._source, Path(out), self._overlays, self._viewers)


def _check_model(run: Path, predictions: Path) -> None:
    """Raise `ModelError` where the predictions are known to be of another model than the run's."""
    networks = PredictionRecord.read(predictions).networks
    files = {network.file for network in networks}
    own = {file_digest(path) for path in (run / "model.keras", *run.glob("fold_*/model.keras"))
           if path.is_file()}
    if files and None not in files and own and not own & files:
        raise ModelError(f"was predicted by {networks[0].model}, whose model.keras is not that of "
                         f"{run}", file=predictions, hint="give its own run, or predict again")


def submit(challenge: str, predictions: Path_, study: Path_, out: Path_, *,
           description: str = "pixelnet", config: Config | Path_ | None = None,
           overrides: Sequence[str] = (), dry_run: bool = False) -> list[str]:
    """Check predictions as the challenge's server would, and write the archive.

    Grid, labels, names and number of cases must be right, else nothing is written and every fault
    is listed.

    Parameters
    ----------
    challenge
        "brats2017" or "isles2017".
    predictions
        Folder of <case>.nii.gz (or .nii).
    study
        The challenge's cases; they give names and grids and need no segmentation.
    out
        The zip archive.
    description
        Part of ISLES' file names: SMIR.<description>.<id>.nii.
    config
        The layout; by default what stands beside the predictions, else the challenge's own.

    Returns
    -------
    list of str
        Names in the archive.
    """
    found = submission_config(challenge, predictions, config, overrides)
    return write_submission(challenge, Path(predictions), Path(study), found.study, Path(out),
                            description, dry_run)


def submission_config(challenge: str, predictions: Path_, config: Config | Path_ | None = None,
                      overrides: Sequence[str] = ()) -> Config:
    """The configuration that `submit` takes the layout from."""
    beside = any((Path(predictions) / name).is_file() for name in ("prediction.json",
                                                                   "config.yaml"))
    return scoring_config(predictions, config or (None if beside else challenge), overrides).config


@dataclass(frozen=True)
class PostprocessChoice:
    """The clean-up that was chosen on validation cases.

    Attributes
    ----------
    settings
        Section `prediction.postprocess`.
    overrides
        The same as `--set` takes it; empty where nothing gains.
    cases, regions
        How many the mean Dice is over.
    rounds
        What was tried, in order: a line for each step, with the mean Dice of every value.
    """

    settings: PostprocessConfig
    overrides: tuple[str, ...]
    cases: int
    regions: int
    rounds: tuple[str, ...]


def choose_postprocess(run: Path_, predictions: Path_, references: Path_,
                       reporter: Reporter | None = None) -> PostprocessChoice:
    """Choose post-processing on validation cases, and on no others.

    Tries the smallest component that stays and the largest alone, region by region, filled holes
    and BraTS' rule of the small enhancing tumour, each on top of the ones before.

    Parameters
    ----------
    run
        The trained run, for its split.
    predictions
        Predictions of this run's validation cases, made without post-processing.
    references
        Study with segmentations, or a folder of <case>.nii.gz.

    Raises
    ------
    DataError
        A case that is not a validation case, or a file that cannot be used.
    ModelError
        Another run's predictions. ConfigError: predictions that were cleaned up.
    """
    from pixelnet_tf.evaluation.tuning import as_overrides, tune_postprocess
    from pixelnet_tf.runs.folder import RunFolder

    folder = RunFolder(os.fspath(run))
    study = folder.config().study
    _check_model(Path(run), Path(predictions))
    cleaned = scoring_config(predictions).config.prediction.postprocess
    if cleaned != PostprocessConfig():
        raise ConfigError(f"was cleaned up already ({cleaned}), and what is chosen would come on "
                          "top", file=predictions,
                          hint="predict again with --set prediction.postprocess={}")
    matching = match_cases(Path(predictions), Path(references), study)
    check_pairs(matching, study, reporter)
    chosen, rounds = tune_postprocess(matching, folder.split(), study, reporter)
    lines = tuple(
        f"{found.step}: " + "  ".join(f"{value}: {dice:.4f}" for value, dice in
                                      zip(found.values, found.dice, strict=True))
        + f"  -> {found.taken}" for found in rounds)
    return PostprocessChoice(chosen, tuple(as_overrides(chosen)), len(matching.pairs),
                             len(study.regions), lines)
