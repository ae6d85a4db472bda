"""Decisions about the prediction, made on the validation cases of a training, or on the held-out
cases of several trainings, each judged by the network that has not seen it; and on no others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from pixelnet_tf.cases.class_priors import ClassPriors
from pixelnet_tf.cases.labels import classes_to_values
from pixelnet_tf.config import (
    GuidedFilterConfig,
    Mode,
    PostprocessConfig,
    PredictionConfig,
    Prior,
    config_to_dict,
)
from pixelnet_tf.dataset.prepared import PreparedStudy
from pixelnet_tf.errors import ConfigError
from pixelnet_tf.evaluation.comparison import GAIN_RULE, Gain, gain_of
from pixelnet_tf.evaluation.tuning import mean_dice, tuning_steps
from pixelnet_tf.inference.decoding import HALF, Decoding
from pixelnet_tf.inference.guided_filter import refine_scores
from pixelnet_tf.inference.postprocess import postprocess_labels
from pixelnet_tf.inference.slice_segmenter import SliceSegmenter
from pixelnet_tf.inference.volume import PredictionGrid, clean_up
from pixelnet_tf.io.scratch import scratch_folder
from pixelnet_tf.model.pixelnet import PixelNet
from pixelnet_tf.reporting import Reporter
from pixelnet_tf.runs.decisions import DECIDED, Decisions, LatticeTrial, Trial
from pixelnet_tf.training.lattice import ExactCase, decide_lattice, words
from pixelnet_tf.training.validation import (
    STRENGTHS,
    best_strength,
    confusion,
    labelled_volume,
    region_dice,
)
from pixelnet_tf.volumes.case_volume import PreparedVolume

#: What is added to the score of a lesion class, the others left alone: log-odds. They go so far
#: because short trainings were seen to choose 3, with the score still rising there.
OFFSETS = (0.0, *(sign * size for size in (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0) for sign in (-1, 1)))
#: Probabilities above which a voxel is in a region. Of equals the first is taken, as of offsets:
#: the one that changes least.
THRESHOLDS = (HALF, *(side for low in (0.4, 0.3, 0.2, 0.1, 0.05, 0.02) for side in (low, 1 - low)))
#: The guided filter that is tried where the configuration has none.
FILTER = GuidedFilterConfig(radius=8)


@dataclass(frozen=True, eq=False)
class Judged:
    """A network and the cases that it may be judged by: none that it has learned from.

    Attributes:
        model: gives the network; called once, so that one is in memory at a time.
        cases: cases with segmentations.
        priors: class frequencies of its training.
    """

    model: Callable[[], PixelNet]
    cases: tuple[str, ...]
    priors: ClassPriors


@dataclass(frozen=True, eq=False)
class _Candidate:
    """How scores become labels: (score,) added to them, or (case, score) where it differs from case
    to case; the filter; whether they are the mean with those of the mirrored slices; and the
    thresholds of regions, by their names."""

    correction: np.ndarray
    smoothing: GuidedFilterConfig
    flips: bool
    thresholds: Mapping[str, float] = field(default_factory=dict)

    def scored_as(self, other: _Candidate | None) -> bool:
        """Whether another one has the same scores, so that labels alone may differ."""
        return other is not None and (
            np.array_equal(self.correction, other.correction)
            and (self.smoothing, self.flips) == (other.smoothing, other.flips))


@dataclass(frozen=True, eq=False)
class _Part:
    """A case cut along one plane: whole (3,), the shape of its slices; busy, numbers of those with
    something to read; their domain (busy, height, width); plain (pixel of the domain, class), the
    scores."""

    volume: PreparedVolume
    whole: tuple[int, ...]
    busy: np.ndarray
    domain: np.ndarray
    plain: np.ndarray

    def spread(self, values: np.ndarray, beyond: int) -> np.ndarray:
        """Values (pixel of the domain) over all slices (slice, height, width); `beyond` is what
        pixels outside of the domain have."""
        whole = np.full(self.whole, beyond, values.dtype)
        inside = whole[self.busy]
        inside[self.domain] = values
        whole[self.busy] = inside
        return whole


class ScoredCases:
    """Scores of cases in a folder, each by its own network, from which candidates make labels.

    The network runs twice over every slice, mirrored the second time, and never again: memory
    holds one case, the folder (pixels of the domain, scores) float32 twice a case and plane.

    Args:
        folder: an empty one, for files of the work alone.

    Raises:
        DataError: a case without segmentation.
    """

    def __init__(self, judged: Sequence[Judged], study: PreparedStudy,
                 prediction: PredictionConfig, precision: str, folder: Path,
                 reporter: Reporter | None = None):
        self.study, self._folder, self._prediction = study, folder, prediction
        self.cases = tuple(case for each in judged for case in each.cases)
        self.networks = len(judged)
        #: Class frequencies that count for each case.
        self.priors = tuple(each.priors for each in judged for _ in each.cases)
        self.classes = len(study.config.study.labels)
        self._planes: tuple[str, ...] = ()
        number = 0
        for each in judged:
            segmenter = SliceSegmenter(each.model(), precision=precision, frozen=True)
            self._planes = segmenter.planes
            #: Whether the networks score regions.
            self.by_region = segmenter.sigmoid
            self._width = segmenter.classes
            self._background = segmenter.background.numpy()
            self._reach = segmenter.reach
            #: The network's layers, and its images' channels.
            self.table, self.channels = (segmenter.scorer.model.architecture,
                                         segmenter.scorer.model.channels)
            for case in each.cases:
                self._score(segmenter, number, case)
                number += 1
                if reporter is not None:
                    reporter.progress("judging", number, len(self.cases), case)

    def _score(self, segmenter: SliceSegmenter, number: int, case: str) -> None:
        """Write the scores of a case and of its mirrored slices, plane by plane."""
        volume = labelled_volume(self.study, case)
        for plane in self._planes:
            self._score_in_plane(segmenter, number, volume.in_plane(plane))

    def _score_in_plane(self, segmenter: SliceSegmenter, number: int, volume: PreparedVolume
                        ) -> None:
        grid = self._grid(volume)
        plain, mirrored = [], []
        for rows in grid.batches(self._prediction.batch_slices, segmenter.reach):
            image = volume.images[rows]
            domain = grid.domain[rows] & grid.busy[rows, None, None]
            plain.append(segmenter.scores(tf.constant(image), tf.constant(domain)).numpy()[domain])
            turned = segmenter.scores(tf.constant(image[:, :, ::-1]),
                                      tf.constant(domain[:, :, ::-1])).numpy()
            mirrored.append(turned[:, :, ::-1][domain])
        for name, parts in (("plain", plain), ("mirrored", mirrored)):
            np.save(self._file(number, volume.plan.plane, name), np.concatenate(
                [*parts, np.zeros((0, self._width), np.float32)]))

    def confusions(self, candidates: Sequence[_Candidate]) -> np.ndarray:
        """Voxels by true and predicted class, (case, candidate, class, class) int64."""
        return np.array([self._confusions(number, candidates)
                         for number in range(len(self.cases))])

    def _confusions(self, number: int, candidates: Sequence[_Candidate]) -> list[np.ndarray]:
        volume = labelled_volume(self.study, self.cases[number])
        assert volume.labels is not None
        truth = volume.plan.read_voxels(volume.labels)
        first, found = self._classes(number, volume, candidates)
        # Which pixel of the domain each voxel is read from; most voxels are from none, and for
        # every candidate background.
        places = first.spread(np.arange(first.domain.sum(), dtype=np.int32), -1)
        places = volume.plan.read_voxels(places)
        within = places >= 0
        outside = truth[~within]
        same = confusion(np.zeros_like(outside), outside, self.classes)
        truth, places = truth[within], places[within]
        return [same + confusion(classes[places], truth, self.classes) for classes in found]

    def volumes(self, candidate: _Candidate, clean: PostprocessConfig
                ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Label values of each case, predicted and cleaned up, and true: uint8 (x, y, z)."""
        found, study = [], self.study.config.study
        for number, case in enumerate(self.cases):
            volume = labelled_volume(self.study, case)
            assert volume.labels is not None
            first, (classes,) = self._classes(number, volume, [candidate])
            values = [volume.plan.to_volume(classes_to_values(
                volume.plan.read_voxels(slices), study))
                for slices in (first.spread(classes, 0), volume.labels)]
            found.append((clean_up(values[0], volume, study, clean), values[1]))
        return found

    def exact_cases(self, candidate: _Candidate) -> _ExactCases | None:
        """The cases with their scores as a candidate has them; None where these are not what the
        adaptive mode fills from: with several planes or slices, mirrored slices, which it looks at
        by themselves, and the guided filter, which it applies to what is filled."""
        if (len(self._planes) > 1 or self._reach or candidate.flips or candidate.smoothing.radius
                or not self.cases):
            return None
        return _ExactCases(self, candidate)

    def exact_case(self, number: int, candidate: _Candidate) -> ExactCase:
        """A case with its scores as a candidate has them."""
        volume = labelled_volume(self.study, self.cases[number])
        part = self._part(number, volume.in_plane(self._planes[0]))
        scores = np.broadcast_to(self._background, (*part.whole, self._width)).copy()
        inside = scores[part.busy]
        inside[part.domain] = self._scores(number, part, candidate)
        scores[part.busy] = inside
        return ExactCase(volume, self._grid(volume), scores)

    def _classes(self, number: int, volume: PreparedVolume, candidates: Sequence[_Candidate]
                 ) -> tuple[_Part, list[np.ndarray]]:
        """The first plane's part of a case, and by each candidate the classes (pixel of its domain)
        uint8."""
        parts = [self._part(number, volume.in_plane(plane)) for plane in self._planes]
        found, before = [], None
        odds: np.ndarray | None = None
        for candidate in candidates:
            if not candidate.scored_as(before):
                scores, odds = self._mean_scores(number, parts, candidate), None
            before = candidate
            decoding = Decoding.of(self.study.config.study, replace(
                self._prediction, region_thresholds=dict(candidate.thresholds)), self.by_region)
            if not decoding.regions:
                found.append(decoding.class_numbers(scores))
                continue
            if odds is None:
                odds = np.asarray(decoding.odds(tf.constant(scores)))
            found.append(decoding.cut_out(odds))
        return parts[0], found

    def _part(self, number: int, volume: PreparedVolume) -> _Part:
        grid = self._grid(volume)
        busy = np.concatenate([*grid.batches(1), np.zeros(0, int)])
        return _Part(volume, grid.domain.shape, busy, grid.domain[busy], np.load(
            self._file(number, volume.plan.plane, "plain")))

    def _mean_scores(self, number: int, parts: Sequence[_Part], candidate: _Candidate
                     ) -> np.ndarray:
        """Scores (pixel of the first part's domain, score) of a case, the mean over the planes."""
        first = parts[0]
        scores = self._scores(number, first, candidate)
        if len(parts) == 1:
            return scores
        # Several planes are cut on the volume's own grid: its voxels are the pixels.
        for part in parts[1:]:
            whole = np.broadcast_to(self._background, (*part.whole, self._width)).copy()
            inside = whole[part.busy]
            inside[part.domain] = self._scores(number, part, candidate)
            whole[part.busy] = inside
            voxels = part.volume.plan.to_axial(part.volume.plan.read_voxels(whole))
            scores = scores + voxels[first.busy][first.domain]
        return scores / len(parts)

    def _scores(self, number: int, part: _Part, candidate: _Candidate) -> np.ndarray:
        """Scores (pixel of the domain, score) of a case in one plane, as a candidate has them."""
        scores = part.plain
        if candidate.flips:
            scores = (scores + np.load(self._file(number, part.volume.plan.plane,
                                                  "mirrored"))) / 2
        scores = scores + np.broadcast_to(candidate.correction,
                                          (len(self.cases), self._width))[number]
        if candidate.smoothing.radius:
            scores = self._smoothed(scores, part.volume.images[part.busy], part.domain,
                                    candidate.smoothing)
        return scores

    def _smoothed(self, scores: np.ndarray, images: np.ndarray, domain: np.ndarray,
                  smoothing: GuidedFilterConfig) -> np.ndarray:
        done, ends = [], np.cumsum(domain.sum(axis=(1, 2)))
        for image, inside, part in zip(images, domain, np.split(scores, ends[:-1]), strict=True):
            whole = np.broadcast_to(self._background, (*inside.shape, self._width)).copy()
            whole[inside] = part
            refined = refine_scores(tf.constant(whole[None]), tf.constant(image[None]),
                                    tf.constant(inside[None]), smoothing.radius,
                                    smoothing.epsilon, self.by_region)
            done.append(refined.numpy()[0][inside])
        return np.concatenate(done)

    def _grid(self, volume: PreparedVolume) -> PredictionGrid:
        return PredictionGrid.of(volume, self._prediction.inside_brain(self.study.config.study))

    def _file(self, number: int, plane: str, name: str) -> Path:
        return self._folder / f"{number}_{plane}_{name}.npy"


@dataclass(frozen=True)
class _ExactCases(Sequence[ExactCase]):
    """Cases with the scores of a candidate; memory holds the one that is looked at."""

    scored: ScoredCases
    candidate: _Candidate

    def __len__(self) -> int:
        return len(self.scored.cases)

    def __getitem__(self, number: Any) -> Any:
        if number >= len(self):
            raise IndexError(number)
        return self.scored.exact_case(number, self.candidate)


def fit_prior_strength(scored: ScoredCases) -> dict[float, float]:
    """Mean Dice over the cases of every strength of the prior correction.

    Dice is that of the lesion classes (or the regions, where they are scored), in voxels of the
    original grid; the strength with the largest, the first of equals, is the fitted one.
    """
    unit, off = _corrections(scored, Prior.CORRECTED), GuidedFilterConfig()
    _, means = best_strength(scored.confusions(
        [_Candidate(strength * unit, off, False) for strength in STRENGTHS]),
        scored.study.config.study, scored.by_region)
    return dict(zip(STRENGTHS, means, strict=True))


def _corrections(scored: ScoredCases, prior: Prior, strength: float | None = None) -> np.ndarray:
    """What a prior adds to the scores of each case, (case, score) float32."""
    return np.array([(each if strength is None else replace(each, strength=strength)
                      ).correction(prior) for each in scored.priors])


def decide(model: PixelNet, study: PreparedStudy, cases: Sequence[str],
           prediction: PredictionConfig, precision: str, priors: ClassPriors,
           reporter: Reporter) -> tuple[ClassPriors, Decisions]:
    """Choose the settings of the prediction with one network by its validation cases.

    Returns:
        The priors with the fitted strength, and what was decided.

    Raises:
        PixelNetError: as `decide_over`.
    """
    decisions = decide_over([Judged(lambda: model, tuple(cases), priors)], study, prediction,
                            precision, reporter)
    assert decisions.strength is not None
    return replace(priors, strength=decisions.strength), replace(decisions, strength=None)


def decide_over(judged: Sequence[Judged], study: PreparedStudy, prediction: PredictionConfig,
                precision: str, reporter: Reporter) -> Decisions:
    """Choose the settings of the prediction by the mean Dice over cases and regions.

    Step by step, each on top of what was taken before: the prior with its fitted strength, an
    offset for each lesion class (not where regions are scored), the guided filter, the mean with
    mirrored slices, a threshold for all regions and for each, where regions overlap, and the
    clean-up as `tune_postprocess` tries it. A step is taken only where its gain over the cases
    exceeds its noise (`gain_of`). Steps before the clean-up are judged without any. The cases of
    several networks count as one set, each under the class frequencies of its own network's
    training.

    Raises:
        DataError: a case without segmentation.
        RunError: there is no room for the scores.
    """
    with scratch_folder() as folder:
        scored = ScoredCases(judged, study, prediction, precision, folder,
                             reporter if len(judged) > 1 else None)
        strengths = fit_prior_strength(scored)
        strength = max(strengths, key=lambda each: strengths[each])
        reporter.message(
            f"prior correction fitted on the {'validation' if len(judged) == 1 else 'held-out'} "
            f"cases: strength {strength:g} (Dice " + ", ".join(
                f"{tried:g}: {value:.3f}" for tried, value in strengths.items()) + ")")
        choice = _Choice(scored, prediction, strength)
        choice.decide_prior()
        if not scored.by_region:
            choice.decide_offsets()
        choice.decide_filter()
        choice.decide_flips()
        choice.decide_thresholds(reporter)
        choice.decide_clean_up()
        choice.decide_lattice(reporter)
    return Decisions(GAIN_RULE, scored.cases, choice.settings(), tuple(choice.trials), strength,
                     len(judged), choice.adaptive)


class _Choice:
    """The state of the decisions: the settings so far, and the steps behind them."""

    def __init__(self, scored: ScoredCases, prediction: PredictionConfig, strength: float):
        self._scored, self._strength = scored, strength
        self._study = scored.study.config.study
        self._configured = self._now = prediction
        self.trials: list[Trial] = []
        #: How the adaptive mode agrees with the exact one; None where its lattice is not decided.
        self.adaptive: LatticeTrial | None = None

    def settings(self) -> dict[str, Any]:
        """What was changed of the section `prediction`, as plain values."""
        found = {}
        for key in DECIDED:
            value = getattr(self._now, key)
            if value != getattr(self._configured, key):
                found[key] = (config_to_dict(value) if is_dataclass(value)
                              else str(value) if key == "prior" else value)
        return found

    def decide_prior(self) -> None:
        priors = list(dict.fromkeys((self._now.prior, Prior.FITTED)))
        self._step("prior", priors, lambda prior: replace(self._now, prior=prior),
                   [str(prior) for prior in priors])

    def decide_offsets(self) -> None:
        """Class by class, the most frequent lesion first."""
        names = self._study.class_names
        real = np.mean([each.real for each in self._scored.priors], axis=0)
        for index in sorted(range(1, len(names)), key=lambda k: -real[k]):
            own, before = names[index], self._now.class_offsets

            def with_offset(offset: float, own: str = own, before: dict = before
                            ) -> PredictionConfig:
                offsets = {**before, own: before.get(own, 0.0) + offset}
                return replace(self._now, class_offsets=offsets if offset else before)

            self._step(f"class_offsets.{own}", OFFSETS, with_offset)

    def decide_filter(self) -> None:
        configured = self._now.guided_filter
        tried = [configured, GuidedFilterConfig() if configured.radius else FILTER]
        self._step("guided_filter", tried, lambda one: replace(self._now, guided_filter=one),
                   [asdict(one) for one in tried])

    def decide_flips(self) -> None:
        self._step("flips", [self._now.flips, not self._now.flips],
                   lambda flips: replace(self._now, flips=flips))

    def decide_thresholds(self, reporter: Reporter) -> None:
        """One for all regions, then region by region, in the order in which they become labels.

        Of a softmax they are tried where a region unites several classes: elsewhere the offsets of
        the classes have settled the same.
        """
        regions = self._study.region_classes
        if not self._scored.by_region and all(len(inside) < 2 for inside in regions.values()):
            return
        try:
            order = self._study.region_order()
        except ConfigError as error:
            reporter.message(f"no threshold of a region is tried: {error.text}")
            return
        now = dict(self._now.region_thresholds)
        # Half of each is where a sigmoid stands; a softmax stands at the most probable class.
        everywhere: list[dict[str, float]] = [now, *(dict.fromkeys(regions, threshold)
                                                     for threshold in THRESHOLDS)]
        if self._scored.by_region and not now:
            del everywhere[1]

        def words(cuts: Mapping[str, float], own: str) -> Any:
            return cuts.get(own, HALF if self._scored.by_region else "none")

        def cut(cuts: dict[str, float]) -> PredictionConfig:
            return replace(self._now, region_thresholds=cuts)

        self._step("region_thresholds", everywhere, cut,
                   [words(cuts, next(iter(regions))) for cuts in everywhere])
        for own in order if len(regions) > 1 else ():
            before = self._now.region_thresholds
            values = [before, *(one for threshold in THRESHOLDS if (one := {
                **dict.fromkeys(regions, HALF), **before, own: threshold}) != before)]
            self._step(f"region_thresholds.{own}", values, cut,
                       [words(cuts, own) for cuts in values])

    def decide_clean_up(self) -> None:
        inside = self._now.postprocess.restrict_to_brain
        volumes = self._scored.volumes(self._candidate(self._now),
                                       PostprocessConfig(restrict_to_brain=inside))
        for step, values, setting in tuning_steps(self._study):
            # With what was taken before: the order in which all are applied is not that in which
            # they are tried. The first value changes nothing.
            before = self._now.postprocess
            tried = [before, *(setting(before, value) for value in values[1:])]
            scores = np.array([[mean_dice(truth, postprocess_labels(
                labels, None, self._study, replace(one, restrict_to_brain=False)), self._study)
                for one in tried] for labels, truth in volumes])
            self._now = replace(self._now, postprocess=tried[
                self._take(f"postprocess.{step}", scores, values)])

    def decide_lattice(self, reporter: Reporter) -> None:
        """That of the adaptive mode, where it is configured, by what was decided before; of axial
        slices alone."""
        if self._now.mode != Mode.ADAPTIVE:
            return
        cases = self._scored.exact_cases(self._candidate(self._now))
        if cases is None:
            reporter.message("adaptive mode: its lattice is not decided where scores come from "
                             "several slices or planes, mirrored slices or the guided filter")
            return
        decoding = Decoding.of(self._study, self._now, self._scored.by_region)
        lattice, self.adaptive = decide_lattice(cases, self._scored.table, self._scored.channels,
                                                decoding, self._now.adaptive_bound,
                                                self._scored.networks > 1)
        self._now = replace(self._now, lattice=lattice)
        reporter.message(words(lattice, self.adaptive))

    def _step(self, step: str, values: Sequence[Any], setting: Callable[[Any], PredictionConfig],
              words: Sequence[Any] | None = None) -> None:
        candidates = [setting(value) for value in values]
        pairs = self._scored.confusions([self._candidate(one) for one in candidates])
        scores = np.array([[region_dice(each, self._study) for each in case] for case in pairs])
        # The first candidate is what holds so far.
        self._now = candidates[self._take(step, scores, words or values)]

    def _take(self, step: str, scores: np.ndarray, words: Sequence[Any]) -> int:
        """Place of the best value, the first of equals, where it gains more than its noise.

        Else 0, that of the value so far. What was tried is kept in `trials`, in these words.
        """
        means = scores.mean(axis=0)
        place = int(np.argmax(means))
        gain: Gain = gain_of(scores[:, place], scores[:, 0])
        taken = bool(place) and gain.beyond_noise
        self.trials.append(Trial(step, tuple(words), tuple(float(mean) for mean in means),
                                 words[place], gain.mean, gain.low, gain.high, taken))
        return place if taken else 0

    def _candidate(self, prediction: PredictionConfig) -> _Candidate:
        return _Candidate(
            _corrections(self._scored, prediction.prior, self._strength)
            + (0.0 if self._scored.by_region else prediction.offsets(self._study)),
            prediction.guided_filter, prediction.flips, prediction.region_thresholds)
