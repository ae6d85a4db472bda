"""Scoring a folder of predictions, case by case, in worker processes."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from pixelnet_tf.config import StudyConfig
from pixelnet_tf.errors import DataError, PixelNetError, RunError
from pixelnet_tf.evaluation.labels import check_same_grid, read_labels
from pixelnet_tf.evaluation.matching import Matching
from pixelnet_tf.evaluation.protocols import Protocol, RegionScore

#: Case -> region -> score.
Scores = dict[str, dict[str, RegionScore]]


def score_case(
    case: str, reference: Path, prediction: Path, study: StudyConfig, protocol: Protocol
) -> dict[str, RegionScore]:
    """Score one prediction file against one reference file, by region.

    Raises:
        DataError: a file that cannot be read, an unknown label, or two grids.
    """
    ref, ref_geometry = read_labels(reference, study, case, allow_float=True)
    pred, pred_geometry = read_labels(prediction, study, case)
    check_same_grid(case, ref_geometry, pred_geometry, reference, prediction)
    return protocol.score(ref, pred, protocol.regions(study), ref_geometry.spacing_mm)


def score_cases(
    matching: Matching,
    study: StudyConfig,
    protocol: Protocol,
    workers: int = 1,
    on_case: Callable[[str, int, int], None] | None = None,
) -> Scores:
    """Score all pairs of a matching.

    Args:
        matching: which files belong together.
        study: labels and regions.
        protocol: the challenge's rules.
        workers: processes; 0 means one per processor core.
        on_case: called with (case, number done, number of cases) after each case.

    Returns:
        The scores in the order of the matching.

    Raises:
        DataError: naming every case that cannot be scored.
        RunError: a worker process died.
    """
    scores: Scores = {}
    faults: list[str] = []
    total = len(matching.pairs)
    for done, (case, outcome) in enumerate(_outcomes(matching, study, protocol, workers), 1):
        if isinstance(outcome, str):
            faults.append(outcome)
        else:
            scores[case] = outcome
        if on_case:
            on_case(case, done, total)
    if faults:
        raise DataError("\n".join(sorted(faults)))
    return {case: scores[case] for case in matching.pairs}


def _outcomes(
    matching: Matching, study: StudyConfig, protocol: Protocol, workers: int
) -> Iterator[tuple[str, dict[str, RegionScore] | str]]:
    workers = min(workers or os.cpu_count() or 1, len(matching.pairs))
    jobs = [(case, *paths, study, protocol) for case, paths in matching.pairs.items()]
    if workers == 1:
        yield from ((job[0], _score_or_say_why(*job)) for job in jobs)
        return
    # Spawned, not forked: the caller may have started TensorFlow's threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        futures = {pool.submit(_score_or_say_why, *job): job[0] for job in jobs}
        for future in as_completed(futures):
            case = futures[future]
            try:
                yield case, future.result()
            except BrokenProcessPool:
                raise RunError(f"a scoring process died at or after case {case!r} (out of "
                               "memory?); use fewer: --workers 1") from None


def _score_or_say_why(case, reference, prediction, study, protocol):
    try:
        return score_case(case, reference, prediction, study, protocol)
    except PixelNetError as error:
        # Readers name the file; the case is what the user looks for.
        text = str(error)
        return text if case in text else f"case {case!r}: {text}"
