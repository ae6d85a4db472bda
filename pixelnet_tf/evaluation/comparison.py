"""Evaluated runs side by side: means, and paired differences with their uncertainty.

The paper's Tables 2 and 4 give means only; whether a difference is more than chance is answered
here by Wilcoxon's signed-rank test and by a bootstrap interval over cases.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from pixelnet_tf.config import ProtocolName
from pixelnet_tf.errors import DataError
from pixelnet_tf.evaluation.lesions import LESION_MEASURES, SIZE_CLASSES
from pixelnet_tf.evaluation.summary import Evaluation, spread
from pixelnet_tf.evaluation.tables import Table, emptiness_notes, number, training_notes

#: Measures that the paper compares (Tables 2 and 4), by protocol.
PAPER_MEASURES: dict[str, tuple[str, ...]] = {
    ProtocolName.BRATS: ("Dice", "Hausdorff95"),
    ProtocolName.ISLES: ("Dice", "Hausdorff", "AverageDistance", "Precision", "Recall"),
    ProtocolName.BRATS2023: ("LesionDice", "LesionHausdorff95", "Dice", "Hausdorff95")}
#: Table of the paper that has their form.
_PAPER_TABLE: dict[str, int] = {ProtocolName.BRATS: 2, ProtocolName.ISLES: 4,
                                ProtocolName.BRATS2023: 2}
_RESAMPLES = 10_000
#: Per cent of the resampled means beyond each end of the interval, which holds 95% of them.
_TAIL = 50 * (1 - 0.95)


@dataclass(frozen=True)
class PairedDifference:
    """One run against another in one measure of one region, over the cases that both have.

    Attributes:
        differences: case -> value of the first minus value of the second.
        mean, median: mean and median of the differences; None without cases.
        low, high: 95% bootstrap interval of the mean; None below two cases.
        p_value: two-sided Wilcoxon signed-rank test; None where every difference is zero.
    """

    differences: dict[str, float]
    mean: float | None
    median: float | None
    low: float | None
    high: float | None
    p_value: float | None


def check_comparable(runs: Mapping[str, Evaluation]) -> None:
    """Raise `DataError` unless the runs share protocol, definitions, regions and a case, and every
    case its truth."""
    names = list(runs)
    first = runs[names[0]]
    for name in names[1:]:
        other = runs[name]
        for what in ("protocol", "definitions", "regions"):
            if getattr(first, what) != getattr(other, what):
                raise DataError(f"{names[0]!r} and {name!r} cannot be compared: their {what} "
                                f"differ, {getattr(first, what)} against {getattr(other, what)}",
                                hint="evaluate both with the same options")
    common = common_cases(runs)
    if not common:
        raise DataError(f"{names} have no case in common", value=names,
                        hint="evaluate them on the same cases")
    for name in names[1:]:
        different = [case for case in common if _truth(first, case) != _truth(runs[name], case)
                     and None not in (_truth(first, case), _truth(runs[name], case))]
        if different:
            raise DataError(f"{names[0]!r} and {name!r} cannot be compared: {len(different)} "
                            f"cases, such as {different[0]!r}, were scored against other "
                            "references", hint="evaluate both against the same")


def _truth(run: Evaluation, case: str) -> str | None:
    """Digest of the reference that a case was scored against, where the record says it."""
    return run.about.get("made_from", {}).get(case, {}).get("reference")


def common_cases(runs: Mapping[str, Evaluation]) -> list[str]:
    """Return the cases that every run has, in the order of the first."""
    first, *others = runs.values()
    return [case for case in first.scores if all(case in other.scores for other in others)]


def paired_difference(
    first: Evaluation, second: Evaluation, region: str, measure: str, seed: int = 0
) -> PairedDifference:
    """Compare two runs case by case; a case counts where both values are averaged."""
    a, b = first.values(region, measure), second.values(region, measure)
    differences = {case: a[case] - b[case] for case in a if case in b}
    values = np.array(list(differences.values()))
    if not values.size:
        return PairedDifference({}, None, None, None, None, None)
    low, high = bootstrap_interval(values, seed) if values.size > 1 else (None, None)
    return PairedDifference(differences, float(values.mean()), float(np.median(values)), low, high,
                            wilcoxon(values))


def bootstrap_interval(values: np.ndarray, seed: int) -> tuple[float, float]:
    """Return the 95% percentile interval of the mean over resampled cases; the same for a seed."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, values.size, (_RESAMPLES, values.size))
    low, high = np.percentile(values[drawn].mean(axis=1), [_TAIL, 100 - _TAIL])
    return float(low), float(high)


#: Cases from which on the bootstrap decides whether a gain is more than noise.
ENOUGH_CASES = 5
#: Mean gain that fewer cases must show, each of them gaining.
LEAST_GAIN = 0.02
#: The rule of `gain_of` in words.
GAIN_RULE = (f"with {ENOUGH_CASES} cases and more, the 95% bootstrap interval over cases of the "
             f"mean gain in Dice lies above 0; with fewer, every case gains and the mean gain is "
             f"{LEAST_GAIN:g} or more")


@dataclass(frozen=True)
class Gain:
    """What one setting gains against another over the same cases: mean and 95% interval (None
    below two cases), and whether it is more than noise by `GAIN_RULE`."""

    mean: float
    low: float | None
    high: float | None
    beyond_noise: bool


def gain_of(new: np.ndarray, old: np.ndarray, seed: int = 0) -> Gain:
    """Compare scores (case,) of one setting with those of another, paired by case."""
    gains = np.asarray(new, np.float64) - np.asarray(old, np.float64)
    low, high = bootstrap_interval(gains, seed) if gains.size > 1 else (None, None)
    if gains.size >= ENOUGH_CASES and low is not None:
        beyond = low > 0
    else:
        beyond = bool(gains.min() > 0 and gains.mean() >= LEAST_GAIN)
    return Gain(float(gains.mean()), low, high, beyond)


def wilcoxon(differences: np.ndarray) -> float | None:
    """Return the two-sided p-value of the signed-rank test (zeros dropped), None if all are 0."""
    if not np.any(differences):
        return None
    with warnings.catch_warnings():
        # scipy warns that few cases make the p-value coarse; the table's `n` says it.
        warnings.simplefilter("ignore")
        return float(stats.wilcoxon(differences).pvalue)


def comparison_tables(
    runs: Mapping[str, Evaluation], seed: int = 0, per_case: bool = False
) -> list[Table]:
    """Set runs side by side.

    Args:
        runs: name -> evaluation, at least one; the first is the one that others are held against.
        seed: seed of the bootstrap's resampling.
        per_case: add a table of every case's difference.

    Returns:
        The means in the form of the paper's Table 2 or 4, the differences, and on request the
        differences by case.

    Raises:
        DataError: runs that cannot be compared.
    """
    check_comparable(runs)
    tables = [means_table(runs)]
    counted = all(run.lesion_measures for run in runs.values())
    if counted:
        tables.append(lesion_means_table(runs))
    if len(runs) > 1:
        tables.append(differences_table(runs, seed))
        if counted:
            tables.append(differences_table(runs, seed, lesions=True))
        if per_case:
            tables.append(per_case_table(runs))
    return tables


def means_table(runs: Mapping[str, Evaluation]) -> Table:
    """Means over the common cases: the paper's Table 2 (`brats`) or Table 4 (`isles`)."""
    first = next(iter(runs.values()))
    cases = common_cases(runs)
    columns = [(m, r) for m in PAPER_MEASURES[first.protocol] for r in first.regions]
    rows = []
    for name, run in runs.items():
        cells = []
        for measure, region in columns:
            values = [v for case, v in run.values(region, measure).items() if case in cases]
            few = f" (n={len(values)})" if len(values) < len(cases) else ""
            cells.append(number(spread(values)["mean"], measure) + few)
        rows.append((name, *cells))
    several = len(first.regions) > 1
    return Table(
        f"Means over {len(cases)} common cases (form of the paper's Table "
        f"{_PAPER_TABLE[first.protocol]})",
        ("Model", *(f"{m} {r}" if several else m for m, r in columns)), tuple(rows),
        (*(f"{m}: {first.definitions[m]}." for m in PAPER_MEASURES[first.protocol]),
         *(note for name, run in runs.items() for note in (
             *emptiness_notes(run, f" in {name}"), *training_notes(run, f" of {name}")))))


def lesion_means_table(runs: Mapping[str, Evaluation]) -> Table:
    """Lesions found and missed over the common cases: means, and the sensitivity by size."""
    first = next(iter(runs.values()))
    cases = common_cases(runs)
    rows = []
    for name, run in runs.items():
        for region in first.regions:
            means = [number(spread([value for case, value in run.values(region, measure).items()
                                    if case in cases])["mean"], measure)
                     for measure in LESION_MEASURES]
            counts = replace(run, scores={case: run.scores[case] for case in cases}).lesions(region)
            rows.append((name, region, *means, *(
                f"{found}/{there}" for found, there in
                zip(counts.detected, counts.reference, strict=True))))
    return Table(f"Lesions found, means over {len(cases)} common cases",
                 ("Model", "Region", *LESION_MEASURES, *SIZE_CLASSES), tuple(rows),
                 (*(f"{measure}: {text}." for measure, text in LESION_MEASURES.items()),
                  "By size of the lesion: detected of those in the reference, all cases together."))


def differences_table(runs: Mapping[str, Evaluation], seed: int = 0, lesions: bool = False
                      ) -> Table:
    """The first run minus each other one: mean, interval, median and test, for all measures of the
    challenge, or for those of lesions."""
    (base, first), *others = runs.items()
    rows = []
    for name, other in others:
        for region in first.regions:
            for measure in first.lesion_measures if lesions else first.measures:
                d = paired_difference(first, other, region, measure, seed)
                interval = "-" if d.low is None else (
                    f"[{number(d.low, measure, True)}, {number(d.high, measure, True)}]")
                rows.append((f"{base} − {name}", region, measure, number(d.mean, measure, True),
                             interval, number(d.median, measure, True), _p(d.p_value),
                             str(len(d.differences))))
    return Table(
        f"Differences {'in lesions found ' if lesions else ''}per case, {base} minus the others",
        ("Difference", "Region", "Measure", "Mean", "95% interval", "Median", "p", "n"),
        tuple(rows),
        (f"Interval: percentile bootstrap of the mean over cases, {_RESAMPLES} resamples, seed "
         f"{seed}. p: two-sided Wilcoxon signed-rank test, not corrected for the number of rows.",
         "Below 6 cases p cannot fall under 0.05, whatever the difference."))


def per_case_table(runs: Mapping[str, Evaluation]) -> Table:
    """The first run minus each other one, case by case, in the measures that the paper compares."""
    (base, first), *others = runs.items()
    columns = [(m, r) for m in PAPER_MEASURES[first.protocol] for r in first.regions]
    rows = []
    for name, other in others:
        found = {(m, r): paired_difference(first, other, r, m).differences for m, r in columns}
        rows += [(f"{base} − {name}", case,
                  *(number(found[m, r].get(case), m, signed=True) for m, r in columns))
                 for case in common_cases({base: first, name: other})]
    return Table("Differences case by case",
                 ("Difference", "Case", *(f"{m} {r}" for m, r in columns)), tuple(rows))


def unique_names(names: Sequence[str]) -> None:
    """Raise `DataError` when two runs would carry one name in the tables."""
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise DataError(f"two runs are called {twice[0]!r}", hint="tell them apart with --names")


def _p(value: float | None) -> str:
    if value is None:
        return "-"
    return "<0.001" if value < 0.001 else f"{value:.3f}"
