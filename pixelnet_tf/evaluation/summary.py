"""Means and spread over cases, and the files that hold them: `summary.json` and `cases.csv`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from pixelnet_tf.cases.predictions import PredictionRecord
from pixelnet_tf.config import EvaluationConfig, StudyConfig
from pixelnet_tf.dataset.workers import Engine
from pixelnet_tf.errors import DataError, shown
from pixelnet_tf.evaluation.agreement import (
    AGREEMENT_MEASURES,
    Agreement,
    VolumeAgreement,
    agreement_measures,
)
from pixelnet_tf.evaluation.calibration import DEFINITIONS as CALIBRATION_DEFINITIONS
from pixelnet_tf.evaluation.calibration import Calibration, calibrate
from pixelnet_tf.evaluation.lesions import LESION_MEASURES, SIZE_BOUNDS_ML, LesionCounts
from pixelnet_tf.evaluation.matching import Matching
from pixelnet_tf.evaluation.overlap import EMPTINESS
from pixelnet_tf.evaluation.protocols import PROTOCOLS, Protocol, RegionScore
from pixelnet_tf.evaluation.score_cases import PairContent, Scores, score_cases
from pixelnet_tf.io import remote
from pixelnet_tf.io.csv_text import csv_text
from pixelnet_tf.io.files import (
    begin_folder,
    read_json_as,
    remove,
    write_json,
    write_text,
)
from pixelnet_tf.io.plain import PlainError, build, convert
from pixelnet_tf.reporting import Reporter
from pixelnet_tf.volumes.images import image_digest

SUMMARY_FILE, CASES_FILE = "summary.json", "cases.csv"
#: Folder within a cross-validation of what its networks make of the cases that they have not seen.
OUT_OF_FOLD = "out_of_fold"
#: Rows of `cases.csv` under the cases, as the challenges' tables have them -> key of a summary.
SPREAD_ROWS = {"Mean": "mean", "StdDev": "std", "Median": "median",
               "25quantile": "quantile25", "75quantile": "quantile75"}


@dataclass(frozen=True)
class Evaluation:
    """An evaluated folder, as `summary.json` keeps it.

    Attributes:
        protocol: one of `PROTOCOLS`.
        definitions: measure -> definition in words, in column order.
        regions: region -> label values.
        scores: case -> region -> score.
        about: whatever else belongs to the record; JSON values. `made_from` is case -> SHA-256 of
            its reference and of its prediction; `trained_on` the scored cases that a network of the
            predictions has learned from, `predicted_by` its weights, prior and mode, where
            `prediction.json` says so; `missing_modalities` is case -> those that it was segmented
            without, where there are such cases; `calibration` what `Calibration` holds, where there
            were probabilities.
    """

    protocol: str
    definitions: dict[str, str]
    regions: dict[str, tuple[int, ...]]
    scores: Scores
    about: dict[str, Any]

    @classmethod
    def of(cls, protocol: Protocol, regions: dict[str, tuple[int, ...]], scores: Scores,
           **about: Any) -> Evaluation:
        """Put the scores of a protocol together with what belongs to the record."""
        return cls(protocol.name, protocol.definitions, regions, scores,
                   {**about, **protocol.settings})

    @property
    def measures(self) -> tuple[str, ...]:
        """Names of the measures in the challenge's column order."""
        return tuple(self.definitions)

    @property
    def lesion_measures(self) -> tuple[str, ...]:
        """Names of the measures of lesions; none where an earlier version did not count them."""
        return tuple(LESION_MEASURES) if self._all("lesions") else ()

    @property
    def agreement_measures(self) -> tuple[str, ...]:
        """Names of the measures of surfaces and volumes; none where an earlier version had none."""
        return AGREEMENT_MEASURES if self._all("agreement") else ()

    @property
    def surface_tolerance_mm(self) -> float:
        """Distance within which surfaces agree, for the surface Dice."""
        return self.about.get("surface_tolerance_mm", EvaluationConfig.surface_tolerance_mm)

    @property
    def calibration(self) -> Calibration | None:
        """Calibration of the probabilities; None where there were none."""
        found = self.about.get("calibration")
        return None if found is None else build(Calibration, found)

    @property
    def further_measures(self) -> tuple[str, ...]:
        """Names of the measures that stand beside the challenge's."""
        return (*self.lesion_measures, *self.agreement_measures)

    @property
    def further_definitions(self) -> dict[str, str]:
        """Measure of `further_measures` -> its definition in words."""
        known = {**LESION_MEASURES, **agreement_measures(self.surface_tolerance_mm)}
        return {measure: known[measure] for measure in self.further_measures}

    def _all(self, part: str) -> bool:
        return all(getattr(score, part) is not None for by_region in self.scores.values()
                   for score in by_region.values())

    def lesions(self, region: str) -> LesionCounts:
        """Lesions of a region over all cases, which must have been counted."""
        return LesionCounts.total([counts for by_region in self.scores.values()
                                   if (counts := by_region[region].lesions) is not None])

    def agreement(self, region: str) -> dict[str, Agreement]:
        """Case -> agreement of surfaces and volumes of a region, where it was measured."""
        return {case: found for case, by_region in self.scores.items()
                if (found := by_region[region].agreement) is not None}

    def volume_agreement(self, region: str) -> VolumeAgreement:
        """Bias and limits of agreement of a region's volumes."""
        return VolumeAgreement.of(self.agreement(region))

    def values(self, region: str, measure: str) -> dict[str, float]:
        """Case -> value, of the cases that are averaged; the measure may be a further one."""
        if measure not in self.definitions:
            return {case: value for case, by_region in self.scores.items()
                    if (value := by_region[region].further_values.get(measure)) is not None}
        return {case: value for case, by_region in self.scores.items()
                if by_region[region].averaged[measure]
                and (value := by_region[region].values[measure]) is not None}

    def spread(self, region: str, measure: str) -> dict[str, float | int | None]:
        """Mean, sample standard deviation, median, quartiles and `n`; None where undefined."""
        return spread(list(self.values(region, measure).values()))

    def emptiness(self, region: str) -> dict[str, int]:
        """Kind of empty mask -> number of cases."""
        kinds = [by_region[region].emptiness for by_region in self.scores.values()]
        return {kind: kinds.count(kind) for kind in EMPTINESS}

    def to_json(self) -> dict[str, Any]:
        """Return plain values; what is infinite or undefined is null, and `empty` says why."""
        return {
            "protocol": self.protocol,
            "definitions": self.definitions,
            "standard_deviation": "of the sample (n - 1)",
            **({"lesion_definitions": {**LESION_MEASURES, "size_bounds_ml": list(SIZE_BOUNDS_ML)}}
               if self.lesion_measures else {}),
            **({"agreement_definitions": agreement_measures(self.surface_tolerance_mm)}
               if self.agreement_measures else {}),
            **({"calibration_definitions": CALIBRATION_DEFINITIONS}
               if "calibration" in self.about else {}),
            "regions": {region: list(values) for region, values in self.regions.items()},
            "cases": len(self.scores),
            **self.about,
            "scores": {
                region: {"empty": self.emptiness(region),
                         **{m: self.spread(region, m)
                            for m in (*self.measures, *self.further_measures)}}
                for region in self.regions
            },
            **({"volume_agreement": {region: asdict(self.volume_agreement(region))
                                     for region in self.regions}}
               if self.agreement_measures else {}),
            "per_case": {
                case: {region: {"empty": score.emptiness,
                                "averaged": [m for m in self.measures if score.averaged[m]],
                                **{m: _finite(score.values[m]) for m in self.measures},
                                **({"lesions": asdict(score.lesions)} if score.lesions else {}),
                                **({"agreement": asdict(score.agreement)} if score.agreement
                                   else {})}
                       for region, score in by_region.items()}
                for case, by_region in self.scores.items()
            },
        }

    def to_csv(self) -> str:
        """Return `cases.csv`: a row a case, then the rows of `SPREAD_ROWS`.

        Columns are `case`, then each measure over the regions (`Dice_ET, Dice_WT, ...`), the
        challenge's first, then those of lesions and of agreement. An infinite distance reads
        `inf`; an empty cell is a value that the rules leave out.
        """
        columns = [(m, r) for m in (*self.measures, *self.further_measures) for r in self.regions]
        rows = [["case", *(f"{measure}_{region}" for measure, region in columns)]]
        rows += [[case, *(_cell(by_region[r].all_values[m]) for m, r in columns)]
                 for case, by_region in self.scores.items()]
        spreads = {column: self.spread(column[1], column[0]) for column in columns}
        rows += [[row, *(_cell(spreads[column][key]) for column in columns)]
                 for row, key in SPREAD_ROWS.items()]
        return csv_text(rows)


@dataclass(frozen=True)
class PredictedBy:
    """How scored predictions were made: SHA-256 of the networks' weights, prior and mode."""

    networks: tuple[str | None, ...]
    prior: str | None = None
    mode: str | None = None


def spread(values: list[float]) -> dict[str, float | int | None]:
    """Summarise values; everything but `n` is None without values, `std` needs two."""
    if not values:
        return {"mean": None, "std": None, "median": None, "quantile25": None,
                "quantile75": None, "n": 0}
    array = np.asarray(values, np.float64)
    low, median, high = (float(q) for q in np.percentile(array, [25, 50, 75]))
    return {"mean": float(array.mean()),
            "std": float(array.std(ddof=1)) if array.size > 1 else None,
            "median": median, "quantile25": low, "quantile75": high, "n": int(array.size)}


def evaluate(matching: Matching, study: StudyConfig, protocol: Protocol, predictions_dir: Path,
             references_dir: Path, contents: Mapping[str, PairContent], workers: int | Engine = 0,
             reporter: Reporter | None = None) -> Evaluation:
    """Score every pair of a matching and put it together with what belongs to the record.

    Args:
        contents: what `check_pairs` found.
        workers: processes, or others' workers; 0: one per core.

    Raises:
        DataError: naming every case that cannot be scored. RunError: a worker process died.
    """
    if not isinstance(workers, int):
        # Workers elsewhere have another working directory.
        matching = replace(matching, pairs={
            case: (reference.absolute(), prediction.absolute())
            for case, (reference, prediction) in matching.pairs.items()})
    scores = score_cases(matching, study, protocol, workers, reporter)
    calibration = calibrate(matching, study, workers, reporter,
                            PredictionRecord.read(predictions_dir).by_region)
    return Evaluation.of(protocol, protocol.regions(study), scores,
                         **record(matching, predictions_dir, contents),
                         **({"calibration": asdict(calibration)} if calibration else {}),
                         predictions=remote.named(predictions_dir),
                         references=remote.named(references_dir))


def record(matching: Matching, predictions_dir: Path, contents: Mapping[str, PairContent]
           ) -> dict[str, Any]:
    """What belongs to the record of an evaluation beside its scores."""
    about = PredictionRecord.read(predictions_dir)
    learned = set(about.trained_on)
    found: dict[str, Any] = {
        "without_prediction": list(matching.without_prediction),
        "without_reference": list(matching.without_reference),
        "trained_on": [case for case in matching.pairs if case in learned],
        "made_from": {case: {"reference": content.reference, "prediction": content.prediction}
                      for case, content in contents.items()}}
    if about.missing:
        found["missing_modalities"] = {case: list(about.missing[case]) for case in matching.pairs
                                       if case in about.missing}
    if about.networks:
        found["predicted_by"] = asdict(PredictedBy(
            tuple(network.weights for network in about.networks), about.prior, about.mode))
    return found


def check_replaceable(out_dir: Path, protocol: Protocol, regions: dict[str, tuple[int, ...]],
                      contents: Mapping[str, PairContent]) -> None:
    """Raise `DataError` where a folder holds the scores of anything else than what is asked for."""
    if not (Path(out_dir) / SUMMARY_FILE).exists():
        return
    before = read_evaluation(out_dir)
    made_from = before.about.get("made_from", {})
    different = [case for case, content in contents.items() if made_from.get(case) != {
        "reference": content.reference, "prediction": content.prediction}]
    different += [case for case in made_from if case not in contents]
    what = [f"of other files ({', '.join(different[:5])})"] if different else []
    tolerance = before.about.get("surface_tolerance_mm", protocol.surface_tolerance_mm)
    if (before.protocol, before.definitions, before.regions, tolerance) != (
            protocol.name, protocol.definitions, regions, protocol.surface_tolerance_mm):
        what.append("by other rules or regions")
    if what:
        raise DataError(f"holds scores {' and '.join(what)}", file=out_dir,
                        hint="give a new --out, or replace them by --overwrite")


def check_scored_files(evaluation: Evaluation, matching: Matching) -> None:
    """Raise `DataError` where files are not those that an evaluation scored.

    A record of an earlier version does not say which those were.
    """
    made_from = evaluation.about.get("made_from", {})
    for case, paths in matching.pairs.items():
        for part, path in zip(("reference", "prediction"), paths, strict=True):
            if case in made_from and image_digest(path) != made_from[case][part]:
                raise DataError(f"is not the {part} that was scored", case=case, file=path,
                                hint="evaluate again, or give the folder that was")


def write_evaluation(evaluation: Evaluation, out_dir: Path) -> None:
    """Write `summary.json` and `cases.csv`; the summary is there last, and whole.

    What was there is replaced; see `check_replaceable`.
    """
    out_dir = Path(out_dir)
    # Between the two files no summary of other scores may stand.
    begin_folder(out_dir)
    remove(out_dir / SUMMARY_FILE)
    write_text(out_dir / CASES_FILE, evaluation.to_csv())
    write_json(out_dir / SUMMARY_FILE, evaluation.to_json())


def read_evaluation(folder: Path) -> Evaluation:
    """Read an evaluated folder back.

    Raises:
        DataError: no `summary.json`, or one that `evaluate` did not write.
    """
    path = Path(folder) / SUMMARY_FILE
    if not path.is_file():
        raise DataError(f"holds no {SUMMARY_FILE}", file=folder,
                        hint="give a folder that `pixelnet-tf evaluate --out` wrote")
    return read_json_as(path, _evaluation, "evaluate again")


def _evaluation(tree: Any) -> Evaluation:
    """What `Evaluation.to_json` gave; raises `PlainError` for anything else."""
    tree = convert(dict[str, Any], tree, "the whole")
    stored = build(_Stored, {key: tree[key] for key in _OWN if key in tree})
    if stored.protocol not in PROTOCOLS:
        raise PlainError(f"protocol must be one of {list(PROTOCOLS)}, got {stored.protocol!r}",
                         value=stored.protocol)
    measures = PROTOCOLS[stored.protocol]().measures
    if tuple(stored.definitions) != measures:
        raise PlainError(f"definitions must be of {list(measures)}, got {list(stored.definitions)}",
                         value=list(stored.definitions))
    scores: Scores = {}
    for case, by_region in stored.per_case.items():
        if list(by_region) != list(stored.regions):
            raise PlainError(f"per_case.{case} must have the regions {list(stored.regions)}, got "
                             f"{list(by_region)}", value=list(by_region))
        scores[case] = {region: _score(entry, measures, f"per_case.{case}.{region}")
                        for region, entry in by_region.items()}
    for key, hint in _ABOUT.items():
        if key in tree:
            read = convert(hint, tree[key], key)
            if isinstance(read, Calibration) and read.fault:
                raise PlainError(f"{key} holds impossible numbers ({read.fault})")
    return Evaluation(stored.protocol, stored.definitions, stored.regions, scores,
                      {key: value for key, value in tree.items()
                       if key not in (*_OWN, *_WORKED_OUT)})


@dataclass(frozen=True)
class _MadeFrom:
    """Digests of the two files of a case."""

    reference: str
    prediction: str


@dataclass(frozen=True)
class _Stored:
    """What `summary.json` holds, but for what is worked out from it."""

    protocol: str
    definitions: dict[str, str]
    regions: dict[str, tuple[int, ...]]
    per_case: dict[str, dict[str, dict[str, Any]]]


#: What is read back of the rest, each of which may be missing.
_ABOUT = {"predictions": str, "references": str, "surface_tolerance_mm": float,
          "missing_modalities": dict[str, tuple[str, ...]],
          "trained_on": tuple[str, ...], "made_from": dict[str, _MadeFrom],
          "predicted_by": PredictedBy, "calibration": Calibration}
_OWN = tuple(field.name for field in fields(_Stored))
_WORKED_OUT = ("standard_deviation", "lesion_definitions", "agreement_definitions",
               "calibration_definitions", "cases", "scores", "volume_agreement")


def _score(entry: dict[str, Any], measures: tuple[str, ...], where: str) -> RegionScore:
    averaged = convert(tuple[str, ...], entry.get("averaged"), f"{where}.averaged")
    values = {m: convert(float | None, entry.get(m), f"{where}.{m}") for m in measures}
    if entry.get("empty") not in EMPTINESS:
        raise PlainError(f"{where}.empty must be one of {list(EMPTINESS)}, got "
                         f"{shown(entry.get('empty'))}", value=entry.get('empty'))
    for measure in measures:
        if measure in averaged and (values[measure] is None or not math.isfinite(values[measure])):
            raise PlainError(f"{where}.{measure} is averaged and must be a number")
    lesions = agreement = None
    if "lesions" in entry:
        lesions = build(LesionCounts, entry["lesions"], f"{where}.lesions")
        if lesions.fault:
            raise PlainError(f"{where}.lesions: {lesions.fault}")
    if "agreement" in entry:
        agreement = build(Agreement, entry["agreement"], f"{where}.agreement")
        if agreement.fault:
            raise PlainError(f"{where}.agreement: {agreement.fault}")
    return RegionScore(entry["empty"], values, {m: m in averaged for m in measures}, lesions,
                       agreement)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
