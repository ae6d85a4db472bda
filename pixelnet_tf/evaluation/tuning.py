"""Post-processing chosen on validation cases, one step after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pixelnet_tf.cases.labels import judged_alone
from pixelnet_tf.cases.split import Split
from pixelnet_tf.config import PostprocessConfig, StudyConfig
from pixelnet_tf.errors import DataError
from pixelnet_tf.evaluation.label_files import check_same_grid, read_labels
from pixelnet_tf.evaluation.matching import Matching
from pixelnet_tf.evaluation.overlap import count_overlaps, ratio
from pixelnet_tf.inference.postprocess import postprocess_labels
from pixelnet_tf.reporting import Reporter, reporter_or_log

#: Smallest components that are tried, in voxels.
COMPONENTS = (10, 30, 100, 300, 1000, 3000)
#: Sizes of an enhancing tumour, in voxels, below which it is taken for none.
ENHANCING = (25, 50, 100, 200, 500)


@dataclass(frozen=True)
class LabelledCase:
    """A prediction with its truth, to choose settings by: label values, uint8 `(x, y, z)`."""

    name: str
    prediction: np.ndarray
    reference: np.ndarray


@dataclass(frozen=True)
class Round:
    """One step of the choice: the values tried, their mean Dice, and the one that was taken."""

    step: str
    values: tuple[int | bool, ...]
    dice: tuple[float, ...]
    taken: int | bool


def tune_postprocess(matching: Matching, split: Split, study: StudyConfig,
                     reporter: Reporter | None = None
                     ) -> tuple[PostprocessConfig, list[Round]]:
    """Choose `prediction.postprocess` by the mean Dice over cases and regions.

    Step by step, each on top of what was taken before: the smallest component of each region, the
    one with most labels first, and whether the largest alone does better; filled holes; BraTS'
    rule of the small enhancing tumour where the study has its classes. A step is taken only where
    it gains.

    Args:
        matching: predictions of validation cases, made without post-processing.
        split: the split of the run; a case outside its validation cases is refused.
        reporter: hears of the task "choosing", in steps.

    Raises:
        DataError: a case that is not a validation case, or a file that cannot be used.
    """
    reporter = reporter_or_log(reporter)
    chosen, rounds, steps = PostprocessConfig(), [], list(tuning_steps(study))
    for step, values, settings in steps:
        candidates = [settings(chosen, value) for value in values]
        chosen, dice = best_on_validation(candidates, _cases(matching, study), split, study)
        taken = values[candidates.index(chosen)]
        rounds.append(Round(step, values, tuple(dice), taken))
        reporter.progress("choosing", len(rounds), len(steps), step)
    return chosen, rounds


def best_on_validation(candidates: Sequence[PostprocessConfig], cases: Iterable[LabelledCase],
                       split: Split, study: StudyConfig
                       ) -> tuple[PostprocessConfig, list[float]]:
    """Choose the settings with the best mean Dice over validation cases, and over no others.

    Args:
        candidates: settings to try, the simplest first: it wins a tie.
        cases: validation cases; taken one at a time.
        split: what the model was trained by.
        study: regions and class names.

    Returns:
        The chosen settings and the mean Dice of each candidate.

    Raises:
        DataError: a case that is not a validation case, or none at all.
    """
    sums, count = np.zeros(len(candidates)), 0
    for case in cases:
        if case.name not in split.validation:
            raise DataError(f"is not among the validation cases {list(split.validation)}: "
                            "settings are chosen on these alone", case=case.name)
        # No step that is tried needs a brain mask.
        sums += [mean_dice(case.reference, postprocess_labels(case.prediction, None, study, c),
                           study) for c in candidates]
        count += 1
    if not count:
        raise DataError("there is no validation case to choose post-processing on",
                        hint="set split.validation and prepare again")
    means = sums / count
    # argmax takes the first of equals.
    return candidates[int(np.argmax(means))], [float(mean) for mean in means]


def mean_dice(reference: np.ndarray, prediction: np.ndarray, study: StudyConfig) -> float:
    """Mean Dice over the study's regions; 1 where a region is empty on both sides.

    What the reference does not judge (`study.ignore_label`) is left out.
    """
    reference, prediction, _ = judged_alone(reference, prediction, study)
    counts = count_overlaps(reference, prediction, study.regions).values()
    return float(np.mean([ratio(2 * each.true_positive, each.reference + each.prediction, 1.0)
                          for each in counts]))


def as_overrides(config: PostprocessConfig) -> list[str]:
    """The settings that are on, as `--set` takes them."""
    key, found = "prediction.postprocess", []
    if config.minimum_component:
        sizes = ", ".join(f"{region}: {size}" for region, size in config.minimum_component.items())
        found.append(f"{key}.minimum_component={{{sizes}}}")
    if config.largest_component:
        found.append(f"{key}.largest_component=[{', '.join(config.largest_component)}]")
    if config.fill_holes:
        found.append(f"{key}.fill_holes=true")
    if config.small_enhancing_tumour:
        found.append(f"{key}.small_enhancing_tumour={config.small_enhancing_tumour}")
    return found


def tuning_steps(study: StudyConfig) -> Iterator[tuple[str, tuple, Callable]]:
    """(name, values with the one that changes nothing first, function (settings, value))."""
    for region in sorted(study.regions, key=lambda name: -len(study.regions[name])):
        def component(before: PostprocessConfig, size: int, region: str = region
                      ) -> PostprocessConfig:
            own = {**before.minimum_component, region: size} if size else before.minimum_component
            return replace(before, minimum_component=own)

        def largest(before: PostprocessConfig, value: bool, region: str = region
                    ) -> PostprocessConfig:
            own = (*before.largest_component, region) if value else before.largest_component
            return replace(before, largest_component=own)

        yield f"minimum_component.{region}", (0, *COMPONENTS), component
        yield f"largest_component.{region}", (False, True), largest
    yield "fill_holes", (False, True), lambda before, value: replace(before, fill_holes=value)
    if {"enhancing", "necrosis"} <= set(study.class_names):
        yield ("small_enhancing_tumour", (0, *ENHANCING),
               lambda before, value: replace(before, small_enhancing_tumour=value))


def _cases(matching: Matching, study: StudyConfig) -> Iterator[LabelledCase]:
    for case, (reference, prediction) in matching.pairs.items():
        truth, truth_geometry = read_labels(reference, study, case, reference=True)
        labels, geometry = read_labels(prediction, study, case)
        check_same_grid(case, truth_geometry, geometry, reference, prediction)
        yield LabelledCase(case, labels, truth)
