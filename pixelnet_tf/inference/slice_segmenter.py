"""From normalised slices to labels and probabilities, in one graph that serving exports too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import tensorflow as tf

from pixelnet_tf.config import (
    GuidedFilterConfig,
    LatticeConfig,
    Mode,
    Precision,
    PredictionConfig,
    StudyConfig,
)
from pixelnet_tf.errors import ConfigError, ModelError
from pixelnet_tf.inference.adaptive import Beside, adaptive_scores
from pixelnet_tf.inference.decoding import Decoding
from pixelnet_tf.inference.dense import DenseScorer, Known, slices_together
from pixelnet_tf.inference.guided_filter import refine_scores
from pixelnet_tf.model.fast_trunk import Tap, joined, mask_box
from pixelnet_tf.model.hypercolumn import slices_beside
from pixelnet_tf.model.pixelnet import PixelNet
from pixelnet_tf.runs.network import TrainedNetwork

#: Values and origin of a map (`Tap`).
_Map = tuple[tf.Tensor, tf.Tensor]


class _Slab(NamedTuple):
    """Slices (batch, height, width, channel), which of them the hypercolumns of the wanted ones are
    read from (None: each from itself), and their maps, where they are known."""

    images: tf.Tensor
    neighbours: tf.Tensor | None = None
    taps: list[Tap] | None = None


class _Held:
    """What is known for slices of the size (height, width) that was seen last. An object that
    TensorFlow does not track: none of it belongs into an exported model."""

    def __init__(self) -> None:
        self.last: tuple[tuple[int, ...], Known] | None = None


class SliceSegmenter(tf.Module):
    """Segments slices of any size and number without retracing.

    Args:
        model: trained network.
        correction: (class,) added to the scores (`ClassPriors.correction`); None: nothing.
        mode: `exact`, `adaptive`, or `reference` (the plain hypercolumn of every pixel).
        precision: `float32` or `bfloat16`; the reference is always float32.
        smoothing: the guided filter; by default it is off.
        flips: take the mean of the scores of each slice and of its mirror image, left and right.
        batch_slices: slices that a network with `context_slices` computes together, or `auto`.
        decoding: how classes follow from scores; None: those of the network alone.
        lattice: that of the adaptive mode; None: the configuration's default.
        frozen: the weights do not change any more, so that what depends on them alone is worked out
            once for all slices of a size.

    Attributes:
        sigmoid: whether the scores are those of regions, each before a sigmoid of its own, and not
            those of classes before the softmax.
        reach: how many slices on each side a slice's scores depend on. Where there are any, a batch
            is a stack: consecutive slices of one volume, the lowest first. The trunk sees each
            slice once, and in place of one that is not in the stack the nearest is taken.
        planes: planes over whose slices the scores of a voxel are averaged (`score_voxels`); each
            call is of one of them.
        every: how many slices of a volume apart those are that the adaptive mode looks at first;
            what lies between, the slices beside may decide (`scores`). 1: every slice.
    """

    def __init__(self, model: PixelNet, correction: np.ndarray | None = None,
                 mode: str = Mode.EXACT, precision: str = Precision.FLOAT32,
                 smoothing: GuidedFilterConfig | None = None, flips: bool = False,
                 batch_slices: int | Literal["auto"] = PredictionConfig.batch_slices,
                 decoding: Decoding | None = None, lattice: LatticeConfig | None = None,
                 frozen: bool = False):
        super().__init__()
        if mode not in Mode.texts():
            raise ConfigError(f"prediction.mode must be one of {Mode.texts()}, got {mode!r}",
                              value=mode)
        self.mode, self.flips, self.batch_slices = mode, flips, batch_slices
        self.reach, self.offsets = model.config.reach, model.architecture.offsets
        self.planes = model.config.planes
        self.smoothing = smoothing or GuidedFilterConfig()
        self.scorer = DenseScorer(model, precision)
        self.classes = model.classes
        self.sigmoid = model.config.region_based
        self.decoding = decoding or Decoding.plain(model.classes, self.sigmoid)
        self.background = tf.constant(self.decoding.background)
        self.lattice = lattice or LatticeConfig()
        # Hypercolumns of several slices need the trunk of all, the filter all scores.
        alone = not self.reach and not self.smoothing.radius and len(self.planes) == 1
        self.every = self.lattice.slices if mode == Mode.ADAPTIVE and alone else 1
        zeros = np.zeros(model.classes, np.float32)
        self.correction = tf.constant(zeros if correction is None else correction, tf.float32)
        image = tf.TensorSpec([None, None, None, model.channels], tf.float32)
        mask = tf.TensorSpec([None, None, None], tf.bool)
        known = self.scorer.known_spec()
        #: The one graph of all shapes.
        self.graph = tf.function(self._stack_scores if self.reach else self._scores,
                                 autograph=False, input_signature=[image, mask, mask, known])
        scores = tf.TensorSpec([None, None, None, model.classes], tf.float32)
        #: The graph of slices of which others decide a part.
        self._between = tf.function(
            self._scores_between, autograph=False,
            input_signature=[image, mask, mask, known, Beside(scores, mask)])
        #: The maps of slices, traced once for all the places where a stack needs them.
        self.trunk = tf.function(
            lambda slices, known, read: [(tap.values, tap.origin) for tap in
                                         self.scorer.taps(slices, known=known, read=read)],
            autograph=False, input_signature=[image, known, tf.TensorSpec([4], tf.int32)])
        self._known = tf.function(self.scorer.known, autograph=False,
                                  input_signature=[tf.TensorSpec([2], tf.int32)])
        self._frozen = frozen
        self._held = _Held()

    @property
    def members(self) -> tuple[SliceSegmenter, ...]:
        """The segmenters of single networks: this one, as those of an `Ensemble`."""
        return (self,)

    @classmethod
    def of(cls, prediction: PredictionConfig, network: TrainedNetwork,
           decoding: Decoding | None = None) -> SliceSegmenter:
        """The segmenter that a configuration's section `prediction` asks for."""
        return cls(network.model, network.correction, prediction.mode, prediction.precision,
                   prediction.guided_filter, prediction.flips, prediction.batch_slices, decoding,
                   prediction.lattice, frozen=True)

    def scores(self, image: tf.Tensor, domain: tf.Tensor, read_out: tf.Tensor | None = None,
               beside: Beside | None = None) -> tf.Tensor:
        """Corrected scores (batch, height, width, class) float32.

        Args:
            image: (batch, height, width, channel) float32, normalised slices.
            domain: (batch, height, width) bool. A pixel outside it is background beyond doubt, and
                nothing of it reaches the pixels inside but by the network's own view of the image.
            read_out: (batch, height, width) bool, the pixels of the domain whose scores are used;
                None takes all. The others are computed only where these need them, and else stay
                at the background's scores.
            beside: what the slices beside decide, where `every` is above 1.
        """
        read_out = domain if read_out is None else read_out
        if beside is None:
            return self.graph(image, domain, read_out, self._known_of(image))
        return self._between(image, domain, read_out, self._known_of(image), beside)

    def _scores_between(self, image: tf.Tensor, domain: tf.Tensor, read_out: tf.Tensor,
                        known: Known, beside: Beside) -> tf.Tensor:
        """Scores of slices of which others decide a part."""
        return self._mean_scores(image, domain, domain & read_out, known, (), beside)

    def _known_of(self, image: tf.Tensor) -> Known:
        """What is known for slices of a size; kept where neither graph nor training needs it anew.
        """
        size = tf.shape(image)[1:3]
        if not (self._frozen and tf.executing_eagerly()):
            return self._known(size)
        own, last = tuple(int(length) for length in size), self._held.last
        if last is None or last[0] != own:
            # Set as one: other threads may ask for other sizes.
            self._held.last = last = own, self._known(size)
        return last[1]

    def _stack_scores(self, image: tf.Tensor, domain: tf.Tensor, read_out: tf.Tensor, known: Known
                      ) -> tf.Tensor:
        """Scores of consecutive slices, a few at a time; the trunk sees each slice once.

        The maps of a part's last slices are held, because the next part reads them, too.
        """
        count, height, width = tf.unstack(tf.shape(image)[:3])
        step, reach = slices_together(self.batch_slices, height, width), self.reach
        images, boxes = [image], [mask_box(domain)]
        if self.flips:
            images.append(tf.reverse(image, [2]))
            boxes.append(mask_box(tf.reverse(domain, [2])))
        held = self._maps([each[:reach] for each in images], known, boxes)

        def add_part(number: tf.Tensor, parts: tf.TensorArray, held: list[_Map]
                     ) -> tuple[tf.Tensor, tf.TensorArray, list[_Map]]:
            start, stop = number * step, tf.minimum((number + 1) * step, count)
            low, high = tf.maximum(start - reach, 0), tf.minimum(stop + reach, count)
            seen = tf.minimum(start + reach, count)
            held = tf.cond(seen < high, lambda: _joined(held, self._maps(
                [each[seen:high] for each in images], known, boxes)), lambda: held)
            slabs = self._slabs([each[low:high] for each in images],
                                slices_beside(count, self.offsets)[start:stop] - low, held)
            scores = self._scores(image[start:stop], domain[start:stop], read_out[start:stop],
                                  known, slabs)
            kept = tf.maximum(stop - reach, 0) - low
            return number + 1, parts.write(number, scores), [
                (values[kept:], origin) for values, origin in held]

        number = (count + step - 1) // step
        parts = tf.TensorArray(tf.float32, number, infer_shape=False,
                               element_shape=[None, None, None, self.classes])
        _, parts, _ = tf.while_loop(
            lambda at, *_: at < number, add_part, (tf.constant(0), parts, held),
            shape_invariants=(tf.TensorShape([]), tf.TensorShape(None),
                              [_any_size(maps) for maps in held]), parallel_iterations=1)
        return tf.ensure_shape(parts.concat(), [None, None, None, self.classes])

    def _maps(self, images: Sequence[tf.Tensor], known: Known, boxes: Sequence[tf.Tensor]
              ) -> list[_Map]:
        """The maps of some slices and of their mirror images, read within a box each, all in one
        list."""
        # The reference computes everything anew.
        return [] if self.mode == Mode.REFERENCE else [
            held for image, box in zip(images, boxes, strict=True)
            for held in self.trunk(image, known, box)]

    def _slabs(self, images: Sequence[tf.Tensor], neighbours: tf.Tensor, held: Sequence[_Map]
               ) -> list[_Slab]:
        if not held:
            return [_Slab(image, neighbours) for image in images]
        rates = self.scorer.model.rates
        taps = [Tap(values, rate, origin, neighbours) for (values, origin), rate
                in zip(held, rates * len(images), strict=True)]
        return [_Slab(image, neighbours, taps[n * len(rates):(n + 1) * len(rates)])
                for n, image in enumerate(images)]

    def _scores(self, image: tf.Tensor, domain: tf.Tensor, read_out: tf.Tensor, known: Known,
                slabs: Sequence[_Slab] = ()) -> tf.Tensor:
        """Scores of slices; slabs: they and what their hypercolumns are read from, as they are and,
        for `flips`, mirrored; none: from the slices alone."""
        if not self.smoothing.radius:
            return self._mean_scores(image, domain, domain & read_out, known, slabs)
        # The filter reads every pixel of the windows around the ones that are used.
        scores = self._mean_scores(image, domain, domain, known, slabs)
        scores = refine_scores(scores, image, domain, self.smoothing.radius,
                               self.smoothing.epsilon, self.sigmoid)
        return tf.where(domain[..., None], scores, self.background)

    def _mean_scores(self, image: tf.Tensor, domain: tf.Tensor, read_out: tf.Tensor,
                     known: Known, slabs: Sequence[_Slab], beside: Beside | None = None
                     ) -> tf.Tensor:
        """Scores of the slices, or their mean with those of the mirrored ones."""
        scores = self._plain_scores(slabs[0] if slabs else _Slab(image), domain, read_out,
                                    known, beside)
        if not self.flips:
            return scores
        # One after the other: no more than one pass's intermediate results are held.
        with tf.control_dependencies([scores]):
            mirrored = slabs[1] if slabs else _Slab(tf.reverse(image, [2]))
            domain, read_out = tf.reverse(domain, [2]), tf.reverse(read_out, [2])
            if beside is not None:
                beside = Beside(*(tf.reverse(part, [2]) for part in beside))
        return (scores + tf.reverse(self._plain_scores(mirrored, domain, read_out, known, beside),
                                    [2])) / 2

    def _plain_scores(self, slab: _Slab, domain: tf.Tensor, read_out: tf.Tensor, known: Known,
                      beside: Beside | None = None) -> tf.Tensor:
        if self.mode == Mode.REFERENCE:
            scores = self.scorer.reference(slab.images, slab.neighbours) + self.correction
            return tf.where(domain[..., None], scores, self.background)
        taps = (self.scorer.taps(slab.images, known=known, read=mask_box(domain))
                if slab.taps is None else slab.taps)
        if self.mode == Mode.ADAPTIVE:
            return adaptive_scores(self.scorer, taps, domain, read_out, self.correction,
                                   self.decoding, self.lattice, beside)[0]
        # Each pixel for itself: no other than those that are used.
        pixels, values = self.scorer.exact(taps, read_out)
        shape = tf.concat([tf.shape(domain), [self.classes]], 0)
        return tf.tensor_scatter_nd_update(tf.broadcast_to(self.background, shape), pixels,
                                           values + self.correction)


def _joined(lower: Sequence[_Map], upper: Sequence[_Map]) -> list[_Map]:
    """Maps of the slices of two lists."""
    found = []
    for one, other in zip(lower, upper, strict=True):
        # The rate is of no matter here.
        tap = joined(Tap(one[0], 1, one[1]), Tap(other[0], 1, other[1]))
        found.append((tap.values, tap.origin))
    return found


def _any_size(held: _Map) -> tuple[tf.TensorShape, tf.TensorShape]:
    """The shapes that a map takes, whatever its slices and their size."""
    return tf.TensorShape([None, None, None, held[0].shape[-1]]), tf.TensorShape([2])


class Ensemble:
    """Segments slices by the mean of the corrected scores of several networks.

    The mean of scores is, after the softmax (or the sigmoid of each region), the normalised
    geometric mean of the networks' probabilities. Each network brings its own correction of the
    prior. In use like a `SliceSegmenter`.

    Raises:
        ModelError: there is no network, or they have other numbers of classes, or some score
            classes and some regions, or their hypercolumns are read from other numbers of slices,
            or other planes are averaged.
    """

    def __init__(self, members: Sequence[SliceSegmenter]):
        if len({member.classes for member in members}) != 1:
            raise ModelError("an ensemble needs networks of the same classes, got "
                             f"{[member.classes for member in members]} classes",
                             value=[member.classes for member in members])
        if len({member.sigmoid for member in members}) != 1:
            raise ModelError("an ensemble needs networks of the same model.region_based: regions "
                             "cannot be averaged with classes")
        self.members = tuple(members)
        self.sigmoid = self.members[0].sigmoid
        self.classes = self.members[0].classes
        self.background = self.members[0].background
        reaches = {member.reach for member in self.members}
        if len(reaches) != 1:
            raise ModelError("an ensemble needs networks of the same model.context_slices, got "
                             f"{sorted(1 + 2 * reach for reach in reaches)}",
                             value=sorted(1 + 2 * reach for reach in reaches))
        self.reach, = reaches
        planes = {member.planes for member in self.members}
        if len(planes) != 1:
            raise ModelError("an ensemble needs networks of the same model.planes, got "
                             f"{sorted(map(list, planes))}", value=sorted(map(list, planes)))
        self.planes, = planes

    def scores(self, image: tf.Tensor, domain: tf.Tensor, read_out: tf.Tensor | None = None
               ) -> tf.Tensor:
        """Mean scores (batch, height, width, class) float32; called as `SliceSegmenter.scores`."""
        # One after the other: no more than one network's intermediate results are held.
        total = self.members[0].scores(image, domain, read_out)
        for member in self.members[1:]:
            with tf.control_dependencies([total]):
                image = tf.identity(image)
            total += member.scores(image, domain, read_out)
        return total / len(self.members)

    def uncertain_scores(self, image: tf.Tensor, domain: tf.Tensor,
                         read_out: tf.Tensor | None = None
                         ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Mean scores as `scores` gives them, and how sure the networks are of each pixel.

        The mean probability is here the arithmetic mean of the networks' probabilities, the
        mixture that the predictive entropy and the mutual information are defined by. Of regions
        both are the mean over the regions.

        Returns:
            The scores, and (batch, height, width) float32 in nats each: the entropy of the mean
            probability, and the mutual information, which is that entropy less the mean of the
            networks' own.
        """
        scores, shares, entropies = 0.0, 0.0, 0.0
        for member in self.members:
            found = member.scores(image, domain, read_out)
            scores += found
            if self.sigmoid:
                each = tf.sigmoid(found)
                shares += each
                entropies += _mean_binary_entropy(each)
                continue
            logs = tf.nn.log_softmax(found)
            shares += tf.exp(logs)
            entropies -= tf.reduce_sum(tf.exp(logs) * logs, axis=-1)
        count = len(self.members)
        if self.sigmoid:
            total = _mean_binary_entropy(shares / count)
        else:
            total = -tf.reduce_sum(tf.math.xlogy(shares / count, shares / count), axis=-1)
        # Rounding alone would let it be negative.
        return scores / count, total, tf.maximum(total - entropies / count, 0.0)


def _mean_binary_entropy(shares: tf.Tensor) -> tf.Tensor:
    """Entropy (...) in nats of being in a region or not, the mean over the regions (..., region).
    """
    return -tf.reduce_mean(tf.math.xlogy(shares, shares) + tf.math.xlogy(1 - shares, 1 - shares),
                           axis=-1)


def segmenter_of(networks: Sequence[TrainedNetwork], study: StudyConfig,
                 prediction: PredictionConfig) -> SliceSegmenter | Ensemble:
    """What segments slices with one network, or with several, as the section `prediction` says.

    Raises:
        ModelError: the study has other numbers of modalities, labels or regions than a network.
    """
    members = []
    for network in networks:
        network.model.check_study(study)
        members.append(SliceSegmenter.of(prediction, network, Decoding.of(
            study, prediction, network.model.config.region_based)))
    return members[0] if len(members) == 1 else Ensemble(members)
