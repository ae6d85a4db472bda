"""Scoring a folder of predictions: every pair of files checked first, then scored in processes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from pixelnet_tf.cases.labels import judged_alone, values_in
from pixelnet_tf.config import StudyConfig
from pixelnet_tf.dataset.workers import Engine, run_cases, worker_count
from pixelnet_tf.errors import DataError, PixelNetError
from pixelnet_tf.evaluation.label_files import check_same_grid, read_labels
from pixelnet_tf.evaluation.matching import Matching
from pixelnet_tf.evaluation.protocols import Protocol, RegionScore
from pixelnet_tf.io.ahead import ahead
from pixelnet_tf.reporting import Reporter, reporter_or_log
from pixelnet_tf.volumes.geometry import VolumeGeometry
from pixelnet_tf.volumes.images import image_digest

#: Case -> region -> score.
Scores = dict[str, dict[str, RegionScore]]
#: Pairs that are checked at once: reading waits for the disk, unpacking for a core.
_READERS = 4


@dataclass(frozen=True)
class Pair:
    """The two files of a case."""

    name: str
    reference: Path
    prediction: Path


@dataclass(frozen=True)
class PairContent:
    """What a pair holds: SHA-256 of either image, and the label values that occur in either."""

    reference: str
    prediction: str
    values: frozenset[int]


def pairs_of(matching: Matching) -> list[Pair]:
    """The pairs of a matching, in its order."""
    return [Pair(case, *paths) for case, paths in matching.pairs.items()]


def check_pairs(matching: Matching, study: StudyConfig, reporter: Reporter | None = None
                ) -> dict[str, PairContent]:
    """Read all pairs of a matching and refuse those that cannot be scored, before any is.

    Returns:
        Case -> what its files hold, in the order of the matching.

    Raises:
        DataError: naming every case that cannot be scored, and why.
    """
    reporter, pairs = reporter_or_log(reporter), pairs_of(matching)
    found, faults = {}, []
    for number, (pair, content) in enumerate(
            zip(pairs, ahead(partial(_content, study=study), pairs, _READERS), strict=True), 1):
        reporter.progress("checking", number, len(pairs), pair.name)
        if isinstance(content, PixelNetError):
            faults.append(content)
        else:
            found[pair.name] = content
    if faults:
        raise DataError.listing(faults)
    return found


def score_cases(matching: Matching, study: StudyConfig, protocol: Protocol,
                workers: int | Engine = 1, reporter: Reporter | None = None) -> Scores:
    """Score all pairs of a matching.

    Args:
        matching: which files belong together.
        study: labels and regions.
        protocol: the challenge's rules.
        workers: processes, or others' workers; 0 means one per processor core.

    Returns:
        The scores in the order of the matching.

    Raises:
        DataError: naming every case that cannot be scored.
        RunError: a worker process died.
    """
    reporter, pairs = reporter_or_log(reporter), pairs_of(matching)
    scores: Scores = {}
    faults: dict[str, PixelNetError] = {}
    for number, (pair, outcome) in enumerate(run_cases(
            _score, pairs, (study, protocol), worker_count(workers, len(pairs))), 1):
        reporter.progress("scoring", number, len(pairs), pair.name)
        if isinstance(outcome, PixelNetError):
            faults[pair.name] = outcome
        else:
            scores[pair.name] = outcome
    if faults:
        raise DataError.listing([faults[pair.name] for pair in pairs if pair.name in faults])
    return {case: scores[case] for case in matching.pairs}


def score_pair(pair: Pair, study: StudyConfig, protocol: Protocol) -> dict[str, RegionScore]:
    """Score one prediction file against one reference file, by region.

    Raises:
        DataError: a file that cannot be read, an unknown label, or two grids.
    """
    reference, prediction, geometry = _read(pair, study)
    reference, prediction, ignored = judged_alone(reference, prediction, study)
    return protocol.score(reference, prediction, protocol.regions(study), geometry.spacing_mm,
                          ignored, geometry.voxel_mm3)


def _read(pair: Pair, study: StudyConfig) -> tuple[np.ndarray, np.ndarray, VolumeGeometry]:
    """Label values of both files, and their grid."""
    reference, geometry = read_labels(pair.reference, study, pair.name, reference=True)
    prediction, other = read_labels(pair.prediction, study, pair.name)
    check_same_grid(pair.name, geometry, other, pair.reference, pair.prediction)
    return reference, prediction, geometry


def _score(pair: Pair, study: StudyConfig, protocol: Protocol
           ) -> dict[str, RegionScore] | PixelNetError:
    try:
        return score_pair(pair, study, protocol)
    except PixelNetError as error:
        return type(error).of(error, case=pair.name)


def _content(pair: Pair, study: StudyConfig) -> PairContent | PixelNetError:
    try:
        arrays = judged_alone(*_read(pair, study)[:2], study)[:2]
        values = {value for array in arrays for value in values_in(array)}
        return PairContent(image_digest(pair.reference), image_digest(pair.prediction),
                           frozenset(values))
    except PixelNetError as error:
        return type(error).of(error, case=pair.name)
