"""Whole volumes: slices in batches through the segmenter, labels on the input's own grid out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import tensorflow as tf

from pixelnet_tf.cases.labels import classes_to_values
from pixelnet_tf.config import (
    PLANES,
    LatticeConfig,
    PostprocessConfig,
    PredictionConfig,
    StudyConfig,
)
from pixelnet_tf.inference.adaptive import Beside, decided_between
from pixelnet_tf.inference.decoding import Decoding
from pixelnet_tf.inference.dense import slices_together
from pixelnet_tf.inference.postprocess import postprocess_labels
from pixelnet_tf.inference.slice_segmenter import Ensemble, SliceSegmenter
from pixelnet_tf.reporting import Reporter, reporter_or_log
from pixelnet_tf.volumes.case_volume import OwnGrid, PreparedVolume
from pixelnet_tf.volumes.geometry import VolumeGeometry
from pixelnet_tf.volumes.lesions import LesionVoxels, entropy
from pixelnet_tf.volumes.slicing import SlicePlan

#: Slices that are sent together to a model with a reach: the trunk sees those at both ends twice.
STACK = 16
#: Slices (batch, height, width, channel) and their domain (batch, height, width) bool to label
#: values (batch, height, width) uint8, and probabilities (batch, height, width, class), or None
#: where none are asked for.
SegmentSlices = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray | None]]


@dataclass(frozen=True, eq=False)
class PredictionGrid:
    """Which pixels of a volume's prepared slices are computed, and which of them are read.

    The two differ where slices are scaled: pixels between the voxels of the original grid are
    image like all others, and what works with neighbouring pixels (the lattice of the adaptive
    mode, the guided filter) needs them, although no voxel is read there.

    Attributes:
        domain: (slice, height, width) bool, the pixels that show the volume (not the padding
            around it), and where prediction takes place inside the brain alone
            (`PredictionConfig.inside_brain`) only those inside the brain. What lies outside the
            domain is background by definition.
        read_out: (slice, height, width) bool, the pixels of the domain at which a voxel of the
            original grid is read; without scaling, all of them.
    """

    domain: np.ndarray
    read_out: np.ndarray

    @classmethod
    def of(cls, volume: PreparedVolume, inside_brain: bool) -> PredictionGrid:
        """The grid of a prepared volume: of all that it shows, or of its brain alone."""
        domain, native = np.zeros((2, *volume.brain.shape), bool)
        top_to_bottom, left_to_right = volume.plan.picture
        domain[:, top_to_bottom, left_to_right] = True
        rows, columns = volume.plan.native_pixels_yx.T
        native[:, rows, columns] = True
        if inside_brain:
            domain &= volume.brain
        return cls(domain, domain & native)

    @property
    def busy(self) -> np.ndarray:
        """(slice,) bool, whether a slice has something to read."""
        return np.asarray(self.read_out.any(axis=(1, 2)))

    def together(self, batch_slices: int | Literal["auto"]) -> int:
        """How many slices are computed together (`prediction.batch_slices`)."""
        return int(slices_together(batch_slices, *self.domain.shape[1:]))

    def batches(self, batch_slices: int | Literal["auto"], reach: int = 0
                ) -> Iterator[np.ndarray]:
        """Numbers of the slices that have something to read, so many at a time.

        With a reach (`SliceSegmenter.reach`) it is one stack: consecutive slices, from those below
        the first to those above the last that have something.
        """
        busy = np.flatnonzero(self.busy)
        if reach and len(busy):
            yield np.arange(max(busy[0] - reach, 0), min(busy[-1] + reach + 1, len(self.busy)))
            return
        step = self.together(batch_slices)
        for start in range(0, len(busy), step):
            yield busy[start:start + step]


@dataclass(frozen=True, eq=False)
class Uncertainty:
    """How sure networks are of each voxel, float32 in nats.

    Attributes:
        entropy: entropy of the mean of the networks' probabilities.
        mutual_information: that less the mean of the networks' entropies, which is what they
            disagree about; None of a single network.
    """

    entropy: np.ndarray
    mutual_information: np.ndarray | None = None

    def to_volume(self, plan: SlicePlan) -> Uncertainty:
        """Turn voxels as `SlicePlan.read_voxels` gives them into the volume's own axes."""
        return Uncertainty(plan.to_volume(self.entropy), None if self.mutual_information is None
                           else plan.to_volume(self.mutual_information))


@dataclass(frozen=True, eq=False)
class SegmentedVolume:
    """A segmented volume, on the input's grid.

    Attributes:
        labels: (x, y, z) uint8 in the study's label values.
        probabilities: (x, y, z, class) float32, or (x, y, z, region) of a network that scores
            regions; None where they were not asked for.
        uncertainty: (x, y, z); None where it was not asked for.
        voxels: what was said of the voxels whose label is no background; None where a server gave
            labels alone.
    """

    labels: np.ndarray
    probabilities: np.ndarray | None
    uncertainty: Uncertainty | None = None
    voxels: LesionVoxels | None = None


def score_voxels(segmenter: SliceSegmenter | Ensemble, volume: PreparedVolume,
                 study: StudyConfig, prediction: PredictionConfig) -> np.ndarray:
    """Scores of every voxel of the original grid, in radiological view.

    Returns (slice, native height, native width, class) float32, as `SlicePlan.read_voxels` orders
    voxels; outside the domain of the `PredictionGrid` they are those of certain background.
    Slices without anything to read never reach the network, unless others' hypercolumns do.

    Where the segmenter has several planes, the volume is segmented over the slices of each, and
    the scores are their mean: after the softmax the normalised geometric mean of the planes'
    probabilities, as several networks are averaged.
    """
    return _scored(segmenter.scores, segmenter, volume, study, prediction)[0]


def score_uncertain_voxels(segmenter: SliceSegmenter | Ensemble, volume: PreparedVolume,
                           study: StudyConfig, prediction: PredictionConfig
                           ) -> tuple[np.ndarray, Uncertainty | None]:
    """What `score_voxels` returns, and how sure several networks are of each of the voxels.

    The uncertainty is (slice, native height, native width), of several planes the mean of theirs.
    Of a single network it is None: there `finish_volume` takes it from the scores.
    """
    if not isinstance(segmenter, Ensemble):
        return score_voxels(segmenter, volume, study, prediction), None
    scores, entropies, information = _scored(segmenter.uncertain_scores, segmenter, volume, study,
                                             prediction)
    return scores, Uncertainty(entropies, information)


def _scored(answer: Callable[..., Any], segmenter: SliceSegmenter | Ensemble,
            volume: PreparedVolume, study: StudyConfig, prediction: PredictionConfig
            ) -> list[np.ndarray]:
    """Voxels of all that an answer gives: of scores, and of maps that are 0 outside the domain."""
    total = _scored_in_plane(answer, segmenter, volume, study, prediction)
    for plane in segmenter.planes[1:]:
        cut = volume.in_plane(plane)
        found = _scored_in_plane(answer, segmenter, cut, study, prediction)
        for whole, part in zip(total, found, strict=True):
            whole += cut.plan.to_axial(part)
    if len(segmenter.planes) > 1:
        for whole in total:
            whole /= len(segmenter.planes)
    return total


def _scored_in_plane(answer: Callable[..., Any], segmenter: SliceSegmenter | Ensemble,
                     volume: PreparedVolume, study: StudyConfig, prediction: PredictionConfig
                     ) -> list[np.ndarray]:
    """The same over the slices that a volume is cut into."""
    grid, plan = PredictionGrid.of(volume, prediction.inside_brain(study)), volume.plan
    scores = np.empty((plan.slices, *plan.native_size, segmenter.classes), np.float32)
    scores[...] = segmenter.background.numpy()
    found = [scores]
    # Where slices are scaled, not all of the domain is read, and so not all of it is known. How
    # sure several networks are is asked of every slice.
    if (not isinstance(segmenter, Ensemble) and segmenter.every > 1
            and np.array_equal(grid.read_out, grid.domain)):
        score_between(segmenter, volume, grid, grid.together(prediction.batch_slices), scores)
        return found
    for rows in grid.batches(prediction.batch_slices, segmenter.reach):
        given = answer(tf.constant(volume.images[rows]), tf.constant(grid.domain[rows]),
                       tf.constant(grid.read_out[rows]))
        parts = given if isinstance(given, tuple) else (given,)
        found += [np.zeros(scores.shape[:-1], np.float32) for _ in parts[len(found):]]
        for voxels, part in zip(found, parts, strict=True):
            voxels[rows] = plan.read_voxels(part.numpy())
    return found


class Looking(Protocol):
    """What `score_between` asks of a segmenter."""

    classes: int
    every: int
    background: tf.Tensor

    @property
    def decoding(self) -> Decoding: ...

    @property
    def lattice(self) -> LatticeConfig: ...

    def scores(self, image: tf.Tensor, domain: tf.Tensor, read_out: tf.Tensor,
               beside: Beside | None = None) -> tf.Tensor: ...


def score_between(segmenter: Looking, volume: PreparedVolume,
                  grid: PredictionGrid, batch_slices: int, voxels: np.ndarray) -> None:
    """Scores of a volume's voxels: first of every so many slices, then of those between.

    A slice between two others takes what these decide, and only the rest is asked for; where
    nothing is left, it never reaches the network. A slice that there is nothing to read of counts
    as background.

    Args:
        voxels: as `score_voxels` returns them, here filled in.
    """
    #: Scores of the slices that others may still lie between.
    held: dict[int, np.ndarray] = {}
    busy, count = grid.busy, len(grid.busy)
    nothing = np.broadcast_to(segmenter.background.numpy(),
                              (*grid.domain.shape[1:], segmenter.classes))
    nowhere = np.zeros(grid.domain.shape[1:], bool)

    def keep(row: int, scores: np.ndarray) -> None:
        held[row] = scores
        voxels[row] = volume.plan.read_voxels(scores[None])[0]

    def look(rows: list[int], beside: Beside | None = None) -> None:
        found = segmenter.scores(
            tf.constant(volume.images[rows]), tf.constant(grid.domain[rows]),
            tf.constant(grid.read_out[rows]), beside).numpy()
        for row, scores in zip(rows, found, strict=True):
            keep(row, scores)

    def between(row: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        """What both sides of a slice decide: scores, and the pixels that have them."""
        sides = (row - step, row + step)
        below, above = (held.get(side, nothing) for side in sides)
        domains = np.stack([grid.domain[side] if side in held else nowhere for side in sides])
        decided = grid.domain[row] & decided_between(
            below[None], above[None], domains[:, None], segmenter.decoding,
            segmenter.lattice.margin)[0]
        return np.where((decided & domains[0])[..., None], below, np.where(
            (decided & domains[1])[..., None], above, nothing)), decided

    def look_between(rows: list[int], step: int) -> None:
        left, known = [], []
        # One by one: arrays of all of them, several at a time, would be memory that stays taken.
        for row in rows:
            scores, decided = between(row, step)
            if (grid.read_out[row] & ~decided).any():
                left.append(row)
                known.append((scores, decided))
            else:
                keep(row, scores)
        if left:
            look(left, Beside(*(tf.constant(np.stack(part))
                                for part in zip(*known, strict=True))))

    every = segmenter.every
    # One beyond the last slice, so that each other one lies between two.
    first = range(0, count + every, every)
    for start in range(0, len(first), batch_slices):
        part = first[start:start + batch_slices]
        if rows := [row for row in part if row < count and busy[row]]:
            look(rows)
        step = every
        while step := step // 2:
            rows = [row for row in range(part[0] - every + step, part[-1], 2 * step)
                    if 0 <= row < count and busy[row]]
            for place in range(0, len(rows), batch_slices):
                look_between(rows[place:place + batch_slices], step)
        # The next ones lie above this part's last slice.
        for row in [row for row in held if row != part[-1]]:
            del held[row]


def segment_volume(segmenter: SliceSegmenter | Ensemble, volume: PreparedVolume,
                   study: StudyConfig, prediction: PredictionConfig,
                   probabilities: bool = False, uncertainty: bool = False) -> SegmentedVolume:
    """Segment a prepared volume and lead the result back to its original grid.

    Clean-up (`prediction.postprocess`) is applied to the labels, not to the probabilities.

    Args:
        probabilities, uncertainty: keep those of every voxel.
    """
    scores, spread = score_uncertain_voxels(segmenter, volume, study, prediction)
    return finish_volume(scores, volume, study, prediction.postprocess, probabilities,
                         uncertainty, spread,
                         Decoding.of(study, prediction, segmenter.sigmoid))


def finish_volume(scores: np.ndarray, volume: PreparedVolume, study: StudyConfig,
                  postprocess: PostprocessConfig, probabilities: bool = False,
                  uncertainty: bool = False, spread: Uncertainty | None = None,
                  decoding: Decoding | None = None) -> SegmentedVolume:
    """Scores of voxels, as `score_voxels` gives them, to labels, probabilities and uncertainty.

    spread: the uncertainty of several networks; None takes the entropy from the scores.
    decoding: how classes follow from scores; None: the most probable class.
    """
    plan, decoding = volume.plan, decoding or Decoding(scores.shape[-1])
    labels = classes_to_values(decoding.class_numbers(scores), study)
    labels = clean_up(plan.to_volume(labels), volume, study, postprocess)
    by_region = decoding.sigmoid
    shares = (decoding.shares(scores) if probabilities or (uncertainty and spread is None)
              else None)
    # Voxels of a lesion are few: where maps are not asked for, nothing is computed of the others.
    inside = decoding.shares(plan.seen_as_volume(scores)[labels > 0])
    voxels = LesionVoxels(inside, entropy(inside, by_region) if spread is None
                          else plan.seen_as_volume(spread.entropy)[labels > 0], by_region)
    if uncertainty and spread is None:
        assert shares is not None
        spread = Uncertainty(entropy(shares, by_region))
    return SegmentedVolume(
        labels, plan.to_volume(shares) if probabilities and shares is not None else None,
        spread.to_volume(plan) if uncertainty and spread is not None else None, voxels)


def segment_remotely(segment_slices: SegmentSlices, volume: PreparedVolume, study: StudyConfig,
                     prediction: PredictionConfig, probabilities: bool = False,
                     uncertainty: bool = False, *, reach: int = 0,
                     planes: Sequence[str] = PLANES[:1], by_region: bool = False,
                     shift: np.ndarray | None = None, reporter: Reporter | None = None
                     ) -> SegmentedVolume:
    """What `segment_volume` returns, by the labels that an exported or served model gives slices.

    The same slices in the same batches and with the same domain; outside it is background,
    whatever the answer says of it. `segment_slices` must give probabilities where these or the
    uncertainty are asked for, there are several planes, or a shift; else nothing is known of the
    lesions' voxels but their labels. Where the model has a reach (`SliceSegmenter.reach`), `STACK`
    or more slices are sent together, with those beside them, of which no pixel is asked for.

    Args:
        by_region: its probabilities are those of the study's regions, not of its classes.
        shift: (score,) float32, added to the scores before the classes follow from them, as that of
            another prior is; None adds nothing.
        reporter: hears how many slices are answered.
    """
    shown, plan = probabilities or uncertainty, volume.plan
    several, reporter = len(planes) > 1 or shift is not None, reporter_or_log(reporter)
    decoding = Decoding.of(study, prediction, by_region)
    labels, maps = _answered(segment_slices, volume, study, prediction, reach,
                             shown or several, by_region, reporter)
    if several:
        scores = _logs(maps, by_region)
        for plane in planes[1:]:
            cut = volume.in_plane(plane)
            scores += cut.plan.to_axial(_logs(_answered(
                segment_slices, cut, study, prediction, reach, True, by_region, reporter)[1],
                by_region))
        scores /= len(planes)
        if shift is not None:
            scores += shift
        maps = decoding.shares(scores)
        labels = classes_to_values(decoding.class_numbers(scores), study)
    labels = clean_up(plan.to_volume(labels), volume, study, prediction.postprocess)
    if not shown:
        return SegmentedVolume(labels, None)
    shares = plan.to_volume(maps)
    spread = Uncertainty(entropy(maps, by_region)).to_volume(plan)
    return SegmentedVolume(labels, shares if probabilities else None,
                           spread if uncertainty else None,
                           LesionVoxels.of(labels, shares, spread.entropy, by_region))


def _logs(shares: np.ndarray, by_region: bool) -> np.ndarray:
    """Scores that probabilities come from; what is 0 for want of digits counts as the least."""
    least = np.finfo(np.float32).tiny
    logs = np.log(np.maximum(shares, least))
    return logs - np.log(np.maximum(1 - shares, least)) if by_region else logs


def _answered(segment_slices: SegmentSlices, volume: PreparedVolume, study: StudyConfig,
              prediction: PredictionConfig, reach: int, shown: bool, by_region: bool,
              reporter: Reporter) -> tuple[np.ndarray, np.ndarray]:
    """Label values of the voxels of a volume's slices and, where shown, their probabilities."""
    grid, plan = PredictionGrid.of(volume, prediction.inside_brain(study)), volume.plan
    shape = (plan.slices, *plan.native_size)
    labels = np.zeros(shape, np.uint8)
    width = len(study.regions if by_region else study.labels)
    maps = np.zeros((*shape, width if shown else 0), np.float32)
    if not by_region:
        maps[..., :1] = 1
    together = grid.together(prediction.batch_slices)
    for rows in grid.batches(max(together, STACK) if reach else together):
        reporter.progress("segmenting", int(rows[0]), len(labels), plan.plane)
        found, shares = _answer(segment_slices, volume.images, grid.domain, rows, reach)
        inside = plan.read_voxels(grid.domain[rows])
        labels[rows] = np.where(inside, plan.read_voxels(found), 0)
        if shown and shares is not None:
            maps[rows] = np.where(inside[..., None], plan.read_voxels(shares), maps[rows])
    return labels, maps


def _answer(segment_slices: SegmentSlices, images: np.ndarray, domain: np.ndarray,
            rows: np.ndarray, reach: int) -> tuple[np.ndarray, np.ndarray | None]:
    """What a model answers for some slices of a volume, sent with those in its reach."""
    if not reach:
        return segment_slices(images[rows], domain[rows])
    stack = np.arange(max(rows[0] - reach, 0), min(rows[-1] + reach + 1, len(images)))
    asked = np.isin(stack, rows)
    found, shares = segment_slices(images[stack], domain[stack] & asked[:, None, None])
    return found[asked], None if shares is None else shares[asked]


def on_own_grid(result: SegmentedVolume, own: OwnGrid, first: VolumeGeometry,
                by_region: bool = False) -> SegmentedVolume:
    """Bring a result from the grid of the first modality to that of another one, by the nearest
    voxel; where the first one does not reach is background, and certainly so.

    by_region: the probabilities are those of regions, none of which is the background's.

    What was said of single voxels (`voxels`) is not brought along.
    """
    def bring(array: np.ndarray) -> np.ndarray:
        return own.bring(array, first)

    probabilities, uncertainty = result.probabilities, result.uncertainty
    if probabilities is not None:
        probabilities = bring(probabilities)
        if not by_region:
            probabilities[..., 0] += 1 - probabilities.sum(axis=-1).round()
    if uncertainty is not None:
        information = uncertainty.mutual_information
        uncertainty = Uncertainty(bring(uncertainty.entropy),
                                  None if information is None else bring(information))
    return SegmentedVolume(bring(result.labels), probabilities, uncertainty)


def clean_up(labels: np.ndarray, volume: PreparedVolume, study: StudyConfig,
             postprocess: PostprocessConfig) -> np.ndarray:
    """Labels (x, y, z) uint8 on the original grid after `prediction.postprocess`."""
    brain = volume.plan.from_slices(volume.brain.astype(np.uint8)) > 0
    return postprocess_labels(labels, brain, study, postprocess)
