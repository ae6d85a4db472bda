"""Scores of segmentations by the challenges' rules."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pixelnet_tf.api.images import Image, read_image
from pixelnet_tf.cases.labels import judged_alone
from pixelnet_tf.cases.predictions import PREDICTION_FILE, PredictionRecord
from pixelnet_tf.config import Config, ProtocolName, as_config, config_from_json
from pixelnet_tf.dataset.workers import Engine
from pixelnet_tf.errors import ConfigError, DataError
from pixelnet_tf.evaluation.label_files import check_same_grid, labels_of
from pixelnet_tf.evaluation.matching import match_cases
from pixelnet_tf.evaluation.protocols import Protocol, make_protocol
from pixelnet_tf.evaluation.score_cases import check_pairs
from pixelnet_tf.evaluation.summary import (
    CASES_FILE,
    SUMMARY_FILE,
    Evaluation,
    check_replaceable,
    write_evaluation,
)
from pixelnet_tf.evaluation.summary import evaluate as evaluate_matching
from pixelnet_tf.evaluation.tables import (
    lesion_tables,
    missing_tables,
    render_all,
    spread_table,
)
from pixelnet_tf.io import remote
from pixelnet_tf.reporting import Reporter, reporter_or_log

Path_ = str | os.PathLike[str]


class Scores(list):
    """A row for each case and region, as `pandas.DataFrame` takes it.

    A row is a dictionary of `case`, `region`, the protocol's measures, those of lesions, surfaces
    and volumes (None where a measure is undefined), and `empty`, which of the two masks is empty.

    Attributes
    ----------
    evaluation
        The same with definitions of the measures, means and spread.

    Examples
    --------
    >>> import pixelnet_tf as px
    >>> truth = "study/phantom_001/phantom_001_seg.nii.gz"
    >>> scores = px.evaluate({"one": truth}, {"one": truth}, "brats", config="phantom")
    >>> [(row["case"], row["region"], row["Dice"]) for row in scores]
    [('one', 'ET', 1.0), ('one', 'WT', 1.0), ('one', 'TC', 1.0)]
    >>> [path.name for path in scores.save("scores")]
    ['summary.json', 'cases.csv']
    """

    def __init__(self, evaluation: Evaluation):
        super().__init__(
            {"case": case, "region": region, **score.all_values, "empty": score.emptiness}
            for case, by_region in evaluation.scores.items()
            for region, score in by_region.items())
        self.evaluation = evaluation

    def mean(self, measure: str = "Dice", region: str | None = None) -> float | None:
        """Mean of a measure over the cases, of one region or, by default, of the first."""
        region = region or next(iter(self.evaluation.regions))
        return self.evaluation.spread(region, measure)["mean"]

    def table(self) -> str:
        """Mean and spread of every measure and region, and lesions found by size, as text."""
        return render_all([spread_table(self.evaluation), *missing_tables(self.evaluation),
                           *lesion_tables(self.evaluation)], "text")

    def save(self, folder: Path_) -> list[Path]:
        """Write summary.json and cases.csv; what was there is replaced."""
        folder = remote.local(folder)
        write_evaluation(self.evaluation, Path(folder))
        return [Path(folder) / SUMMARY_FILE, Path(folder) / CASES_FILE]


def evaluate(predictions: Any, references: Any, protocol: str | None = None, *,
             config: Config | Path_ | None = None, overrides: Sequence[str] = (),
             hausdorff95: str = "pooled", allow_missing: bool = False,
             workers: int | Engine | None = None, reporter: Reporter | None = None) -> Scores:
    """Score segmentations as BraTS or ISLES does.

    Parameters
    ----------
    predictions, references
        Two folders (`<case>.nii.gz`, or a study), two dictionaries case -> image, or two images. An
        image is a path, a nibabel or SimpleITK image, or a pair (array, affine).
    protocol
        "brats", "isles" or "brats2023"; by default the configuration's `evaluation.protocol`.
    config
        Labels and regions: a `Config`, or a file or built-in name as `load_config` takes it; by
        default what stands beside the predictions, else BraTS' labels 0, 1, 2, 4.
    overrides
        Settings as `--set` takes them, "section.key=value".
    hausdorff95
        Which Hausdorff95 the brats protocol computes: "pooled", "directed" or "directed_lower".
    allow_missing
        Score the common cases where names are missing on either side.
    workers
        Processes; 0 is one per core, None the configuration's `evaluation.workers`. Or the workers
        of Dask, as `pixelnet_tf.api.cluster.open_workers` gives them.

    Returns
    -------
    Scores
        A list of rows; `pandas.DataFrame(scores)` makes a table of it.

    Raises
    ------
    DataError
        A segmentation that cannot be scored: unreadable, unknown labels, another grid.
    ConfigError
        Labels that nobody named and that are not BraTS', or another Hausdorff95 than "pooled" for
        a protocol that has its own.

    Examples
    --------
    >>> import numpy as np, pixelnet_tf as px
    >>> truth, found = np.zeros((2, 8, 8, 4), "uint8")
    >>> truth[2:6, 2:6], found[2:6, 2:5] = 1, 1                   # 64 voxels, of which 48 are found
    >>> scores = px.evaluate((found, np.eye(4)), (truth, np.eye(4)), overrides=[
    ...     "study.labels={0: background, 1: lesion}", "study.regions={lesion: [1]}"])
    >>> round(scores.mean("Dice", "lesion"), 4)                   # 2 x 48 / (48 + 64)
    0.8571
    """
    if _is_folder(predictions) and _is_folder(references):
        return FolderScoring(predictions, references, protocol, config=config,
                             overrides=overrides, hausdorff95=hausdorff95,
                             allow_missing=allow_missing, reporter=reporter).run(workers, reporter)
    reporter = reporter_or_log(reporter)
    source = scoring_config(predictions, config, overrides)
    resolved = _with_protocol(source.config, protocol)
    rules = _rules(resolved, hausdorff95)
    regions = rules.regions(resolved.study)
    pairs = _pairs(predictions, references, allow_missing)
    scores, present = {}, set()
    for number, (case, (reference, prediction)) in enumerate(pairs.items(), start=1):
        truth, found = (read_image(image, f"{what} of {case}") for image, what in
                        ((reference, "reference"), (prediction, "prediction")))
        check_same_grid(case, truth.geometry, found.geometry, truth.source, found.source)
        true, labels, ignored = judged_alone(
            labels_of(truth.array, resolved.study, case, truth.source, reference=True),
            labels_of(found.array, resolved.study, case, found.source), resolved.study)
        present |= {int(value) for array in (true, labels) for value in np.unique(array)}
        scores[case] = rules.score(true, labels, regions, truth.geometry.spacing_mm, ignored,
                                   truth.geometry.voxel_mm3)
        reporter.progress("scoring", number, len(pairs), case)
    _check_labels(present, len(pairs), rules, regions, source.named, reporter)
    return Scores(Evaluation.of(rules, regions, scores))


class FolderScoring:
    """Two folders of segmentations, read and checked, before the work of scoring them.

    Attributes
    ----------
    cases
        Names of the cases that will be scored.
    protocol
        Name of the rules.

    Parameters
    ----------
    predictions, references
        A folder of <case>.nii.gz, and a study with segmentations or another such folder. Only the
        cases that prediction.json lists are expected; without it, every case of the references.

    The others are as `evaluate` takes them.

    Raises
    ------
    DataError
        Cases that are missing on one side, or files that cannot be scored.
    ConfigError
        Labels that nobody named and that are not BraTS'.
    """

    def __init__(self, predictions: Path_, references: Path_, protocol: str | None = None, *,
                 config: Config | Path_ | None = None, overrides: Sequence[str] = (),
                 hausdorff95: str = "pooled", allow_missing: bool = False,
                 reporter: Reporter | None = None):
        reporter = reporter_or_log(reporter)
        self._predictions, self._references = (Path(remote.local(each, reporter))
                                               for each in (predictions, references))
        found = scoring_config(self._predictions, config, overrides)
        self._config = _with_protocol(found.config, protocol)
        study = self._config.study
        self._rules = _rules(self._config, hausdorff95)
        self._regions = self._rules.regions(study)
        self._matching = match_cases(self._predictions, self._references, study, allow_missing,
                                     reporter)
        self.cases, self.protocol = tuple(self._matching.pairs), self._rules.name
        if self._matching.missing:
            reporter.warning(self._matching.missing)
        self._contents = check_pairs(self._matching, study, reporter)
        present = frozenset().union(*(one.values for one in self._contents.values()))
        _check_labels(present, len(self._contents), self._rules, self._regions, found.named,
                      reporter)
        same = [case for case, one in self._contents.items() if one.reference == one.prediction]
        if same:
            reporter.warning(f"{len(same)} of {len(self._contents)} predictions are, byte for "
                             f"byte, their references ({', '.join(same[:5])})")

    def check_target(self, out: Path_) -> None:
        """Raise `DataError` where a folder holds the scores of anything else."""
        check_replaceable(Path(remote.local(out)), self._rules, self._regions, self._contents)

    def run(self, workers: int | Engine | None = None, reporter: Reporter | None = None) -> Scores:
        """Score them, with as many processes as `evaluate` says."""
        workers = self._config.evaluation.workers if workers is None else workers
        if not isinstance(workers, int):
            for folder in (self._predictions, self._references):
                remote.refuse(folder, "workers elsewhere read from folders",
                              "leave the scheduler out")
        return Scores(evaluate_matching(self._matching, self._config.study, self._rules,
                                        self._predictions, self._references, self._contents,
                                        workers, reporter))


def _check_labels(present: Collection[int], cases: int, rules: Protocol,
                  regions: Mapping[str, Sequence[int]], named: bool, reporter: Reporter) -> None:
    """Say what the label values that are present make of the regions; raises `ConfigError` where
    labels that nobody named are those of another study."""
    if not named:
        words = ", ".join(f"{region}: {list(values)}" for region, values in regions.items())
        reporter.message(f"labels and regions are BraTS' ({words}): neither --config nor a file "
                         "beside the predictions says otherwise")
        if rules.name != ProtocolName.ISLES and not {2, 4} & set(present):
            raise ConfigError(f"{cases} cases hold the labels {sorted(present)} alone, which are "
                              "not BraTS'",
                              hint="say what they are by --config, or, for a mask of 0 and 1, by "
                                   "--set study.labels='{0: background, 1: lesion}' --set "
                                   "study.regions='{lesion: [1]}'")
    for region, values in regions.items():
        if not set(values) & set(present):
            reporter.warning(f"region {region} (labels {list(values)}) is empty in every reference "
                             "and every prediction: its scores are those of empty masks")


class ScoringConfig(NamedTuple):
    """The configuration that labels and regions come from, and whether anything names them."""

    config: Config
    named: bool


def scoring_config(predictions: Any, config: Config | Path_ | None = None,
                   overrides: Sequence[str] = (), run: Path_ | None = None) -> ScoringConfig:
    """Find the configuration that labels and regions come from, and apply overrides.

    It is a given one, else what `prediction.json` or `config.yaml` beside a folder of predictions
    say, else that of the run, else the defaults (BraTS).
    """
    if config is None and _is_folder(predictions):
        folder = Path(remote.local(predictions))
        stored = PredictionRecord.read(folder).config
        if stored is not None:
            return ScoringConfig(config_from_json(stored, overrides=overrides,
                                                  source=folder / PREDICTION_FILE), True)
        beside = [folder / "config.yaml", *([Path(run) / "config.yaml"] if run else [])]
        config = next((str(path) for path in beside if path.is_file()), None)
    named = config is not None or any(setting.startswith("study.labels") for setting in overrides)
    return ScoringConfig(as_config(config, overrides), named)


def _rules(config: Config, hausdorff95: str) -> Protocol:
    """The protocol; raises `ConfigError` for a definition of Hausdorff95 that it has not."""
    rules = make_protocol(config.evaluation, f"hausdorff95_{hausdorff95}")
    if hausdorff95 != "pooled" and rules.name != ProtocolName.BRATS:
        raise ConfigError(f"--hausdorff95 {hausdorff95} is for the brats protocol, and these are "
                          f"the rules of {rules.name}", value=hausdorff95, hint="leave it out")
    return rules


def _with_protocol(config: Config, protocol: str | None) -> Config:
    if protocol is None:
        return config
    name = ProtocolName.of(protocol, "evaluation.protocol")
    return replace(config, evaluation=replace(config.evaluation, protocol=name))


def _is_folder(given: Any) -> bool:
    return isinstance(given, (str, os.PathLike)) and not os.path.isfile(given)


def _pairs(predictions: Any, references: Any, allow_missing: bool
           ) -> dict[str, tuple[Image, Image]]:
    if not isinstance(predictions, Mapping) and not isinstance(references, Mapping):
        return {"case": (references, predictions)}
    if not (isinstance(predictions, Mapping) and isinstance(references, Mapping)):
        raise DataError("predictions and references are not in the same form",
                        hint="give two folders, two dictionaries case -> image, or two images")
    common = [case for case in references if case in predictions]
    alone = sorted({*predictions, *references} - set(common))
    if not common and not alone:
        raise DataError("there is no case to score: both dictionaries are empty")
    if not common or (alone and not allow_missing):
        raise DataError(f"cases are on one side alone: {alone[:5]}", value=alone,
                        hint="add them, or give allow_missing=True to score the common ones")
    return {case: (references[case], predictions[case]) for case in common}
