"""Scores of segmentations by the challenges' rules."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pixelnet_tf.api.images import Image, read_image
from pixelnet_tf.config import Config, load_config
from pixelnet_tf.errors import DataError
from pixelnet_tf.evaluation.labels import check_same_grid, labels_of
from pixelnet_tf.evaluation.matching import match_cases, stored_config
from pixelnet_tf.evaluation.protocols import make_protocol
from pixelnet_tf.evaluation.scoring import check_pairs
from pixelnet_tf.evaluation.summary import Evaluation, write_evaluation
from pixelnet_tf.evaluation.summary import evaluate as evaluate_matching
from pixelnet_tf.reporting import Reporter, reporter_or_log


class Scores(list):
    """A row for each case and region, as `pandas.DataFrame` takes it.

    A row is a dictionary of `case`, `region`, the protocol's measures (None where a measure is
    undefined), and `empty`, which of the two masks is empty.

    Attributes
    ----------
    evaluation
        The same with definitions of the measures, means and spread.
    """

    def __init__(self, evaluation: Evaluation):
        super().__init__(
            {"case": case, "region": region, **score.values, "empty": score.emptiness}
            for case, by_region in evaluation.scores.items()
            for region, score in by_region.items())
        self.evaluation = evaluation

    def mean(self, measure: str = "Dice", region: str | None = None) -> float | None:
        """Mean of a measure over the cases, of one region or, by default, of the first."""
        region = region or next(iter(self.evaluation.regions))
        return self.evaluation.spread(region, measure)["mean"]

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write summary.json and cases.csv, as `pixelnet-tf evaluate` does."""
        write_evaluation(self.evaluation, Path(folder))


def evaluate(predictions: Any, references: Any, protocol: str | None = None, *,
             config: Config | str | os.PathLike[str] | None = None,
             hausdorff95: str = "pooled", allow_missing: bool = False, workers: int | None = None,
             reporter: Reporter | None = None) -> Scores:
    """Score segmentations as BraTS or ISLES does.

    Parameters
    ----------
    predictions, references
        Two folders (`<case>.nii.gz`, or a study), two dictionaries case -> image, or two images. An
        image is a path, a nibabel or SimpleITK image, or a pair (array, affine).
    protocol
        "brats" or "isles"; by default the configuration's `evaluation.protocol`.
    config
        Labels and regions: a `Config`, or a file or built-in name as `load_config` takes it; by
        default what stands beside the predictions, else BraTS' labels 0, 1, 2, 4.
    hausdorff95
        Which Hausdorff95 the brats protocol computes: "pooled", "directed" or "directed_lower".
    allow_missing
        Score the common cases where names are missing on either side.
    workers
        Processes; 0 is one per core, None the configuration's `evaluation.workers`.

    Returns
    -------
    Scores
        A list of rows; `pandas.DataFrame(scores)` makes a table of it.

    Raises
    ------
    DataError
        A segmentation that cannot be scored: unreadable, unknown labels, another grid.
    """
    reporter = reporter_or_log(reporter)
    resolved = scoring_config(predictions, config)
    evaluation = resolved.evaluation
    if protocol:
        evaluation = replace(evaluation, protocol=protocol)
    rules = make_protocol(evaluation, f"hausdorff95_{hausdorff95}")
    regions = rules.regions(resolved.study)
    if _is_folder(predictions) and _is_folder(references):
        folder = Path(predictions)
        matching = match_cases(folder, Path(references), resolved.study, allow_missing)
        if matching.missing:
            reporter.warning(matching.missing)
        contents = check_pairs(matching, resolved.study, reporter)
        return Scores(evaluate_matching(matching, resolved, rules, folder, Path(references),
                                        contents, workers, reporter))
    pairs = _pairs(predictions, references, allow_missing)
    scores = {}
    for number, (case, (reference, prediction)) in enumerate(pairs.items(), start=1):
        truth, found = (read_image(image, f"{what} of {case}") for image, what in
                        ((reference, "reference"), (prediction, "prediction")))
        check_same_grid(case, truth.geometry, found.geometry, truth.source, found.source)
        arrays = [labels_of(volume.array, resolved.study, case, volume.source)
                  for volume in (truth, found)]
        scores[case] = rules.score(*arrays, regions, truth.geometry.spacing_mm)
        reporter.progress("scoring", number, len(pairs), case)
    about = {"empty_policy": evaluation.empty_policy} if rules.name == "brats" else {}
    return Scores(Evaluation.of(rules, regions, scores, **about))


def scoring_config(predictions: Any, config: Config | str | os.PathLike[str] | None) -> Config:
    """The configuration that labels and regions come from.

    A given one, else what `prediction.json` or `config.yaml` beside a folder of predictions say,
    else the defaults (BraTS).
    """
    if isinstance(config, Config):
        return config
    if config is not None:
        return load_config(config)
    stored = stored_config(Path(predictions)) if _is_folder(predictions) else None
    return Config() if stored is None else stored


def _is_folder(given: Any) -> bool:
    return isinstance(given, (str, os.PathLike)) and not os.path.isfile(given)


def _pairs(predictions: Any, references: Any, allow_missing: bool
           ) -> dict[str, tuple[Image, Image]]:
    if not isinstance(predictions, Mapping) and not isinstance(references, Mapping):
        return {"case": (references, predictions)}
    if not (isinstance(predictions, Mapping) and isinstance(references, Mapping)):
        raise DataError("give predictions and references in the same form: two folders, two "
                        "dictionaries case -> image, or two images")
    common = [case for case in references if case in predictions]
    alone = sorted({*predictions, *references} - set(common))
    if not common or (alone and not allow_missing):
        raise DataError(f"cases are on one side alone: {alone[:5]}; add them, or give "
                        "allow_missing=True to score the common ones", value=alone,
                        hint="allow_missing=True")
    return {case: (references[case], predictions[case]) for case in common}


