"""The graph that is served: a segmenter behind named inputs and outputs."""

from __future__ import annotations

import tensorflow as tf

from pixelnet_tf.config import Config, NormRegion
from pixelnet_tf.dataset.augment import deep_inside
from pixelnet_tf.inference.decoding import Decoding
from pixelnet_tf.inference.dense import in_parts, slices_together
from pixelnet_tf.inference.slice_segmenter import Ensemble, SliceSegmenter
from pixelnet_tf.serving.planes import scores_in_plane

#: Signature -> {input: meaning}, {output: meaning}; the card and the server's description print it.
SIGNATURES = {
    "serving_default": (
        {"image": "(batch, height, width, channel) float32, normalised slices"},
        {"probabilities": "(batch, height, width, class) float32",
         "labels": "(batch, height, width) uint8, the study's label values"}),
    "segment_raw": (
        {"image": "(slice, height, width, channel) float32, intensities of all slices of one "
                  "volume",
         "brain": "(slice, height, width) bool, the brain mask; all false: where any channel is "
                  "not zero"},
        {"probabilities": "(slice, height, width, class) float32",
         "labels": "(slice, height, width) uint8, the study's label values"}),
    "classify_pixels": (
        {"image": "(batch, height, width, channel) float32, normalised slices",
         "pixels": "(pixel, 3) int32, rows of n, y, x"},
        {"scores": "(pixel, class) float32, before the softmax, the prior's correction added"}),
    "segment_domain": (
        {"image": "(batch, height, width, channel) float32, normalised slices",
         "domain": "(batch, height, width) bool, the pixels that are to be classified; the others "
                   "are background"},
        {"probabilities": "(batch, height, width, class) float32",
         "labels": "(batch, height, width) uint8, the study's label values"}),
    "segment_encoded": (
        {"image_bytes": "(batch,) bytes, each a slice (height, width, channel) as little-endian "
                        "float32, row by row",
         "size_yx": "(batch, 2) int32, height and width, the same in every row"},
        {"labels": "(batch, height, width) uint8, the study's label values"}),
    "segment_domain_encoded": (
        {"image_bytes": "(batch,) bytes, as for segment_encoded",
         "domain_bytes": "(batch,) bytes, each a slice of the domain (height, width), a byte a "
                         "pixel, 1 where it is to be classified, else 0",
         "size_yx": "(batch, 2) int32, height and width, the same in every row"},
        {"labels": "(batch, height, width) uint8, the study's label values"}),
}

#: Tensors by the names of a signature's outputs.
_Outputs = dict[str, tf.Tensor]


def signatures_of(config: Config) -> dict[str, tuple[dict[str, str], dict[str, str]]]:
    """The signatures of a model, with their meaning for it.

    Where hypercolumns reach into neighbouring slices, all slices of a request are one stack. Where
    scores are averaged over several planes, `segment_raw` does so, and the others answer for slices
    of one of them. Where the network scores regions, there is a score a region.
    """
    found = SIGNATURES
    if config.model.region_based:
        found = {name: (inputs, {key: text.replace("class)", "region)").replace(
            "before the softmax", "before the sigmoid of each region")
            for key, text in outputs.items()}) for name, (inputs, outputs) in found.items()}
    if not config.model.reach and len(config.model.planes) == 1:
        return found
    stack = (" of one volume, consecutive and the lowest first: scores depend on up to "
             f"{config.model.reach} slices on each side") if config.model.reach else ""
    found = {name: ({key: text + stack if key in ("image", "image_bytes") else text
                     for key, text in inputs.items()}, outputs)
             for name, (inputs, outputs) in found.items()}
    if len(config.model.planes) > 1:
        inputs, outputs = found["segment_raw"]
        found["segment_raw"] = ({**inputs, "spacing_mm": (
            "(3,) float32, from slice to slice, row to row and column to column: the volume is cut "
            f"into {', '.join(config.model.planes[1:])} slices, too, and the scores are averaged")},
            outputs)
    return found


def brain_is_zero_free(config: Config) -> bool:
    """Whether a normalised slice shows by itself which of its pixels are the domain of prediction.

    So where prediction takes place inside the brain alone (`PredictionConfig.inside_brain`) and
    z-scoring left exact zeros outside it. Otherwise every pixel is classified.
    """
    return (config.prediction.inside_brain(config.study)
            and config.prepare.region != NormRegion.VOLUME)


def build_signatures(segmenter: SliceSegmenter | Ensemble, config: Config
                     ) -> tuple[tf.Module, dict[str, tf.types.experimental.PolymorphicFunction]]:
    """What `tf.saved_model.save` takes: a module with the weights, and a function a signature.

    Plain TensorFlow operations and variables: no Keras object is tracked, so that any TensorFlow
    loads it. Each function has one trace for all sizes and batches.
    """
    models = [member.scorer.model for member in segmenter.members]
    channels, classes = models[0].channels, segmenter.classes
    values = tf.constant(config.study.label_values, tf.uint8)
    decoding = Decoding.of(config.study, config.prediction, config.model.region_based)
    by_zeros = brain_is_zero_free(config)
    inside_brain_alone = config.prediction.inside_brain(config.study)
    image_spec = tf.TensorSpec([None, None, None, channels], tf.float32, "image")

    def finite(image: tf.Tensor) -> tf.Tensor:
        return tf.debugging.assert_all_finite(image, "image holds NaN or infinity")

    def computed(scores: tf.Tensor) -> tf.Tensor:
        """Scores that are numbers; of NaN the first class would be made in silence."""
        return tf.debugging.assert_all_finite(
            scores, "image holds numbers so large that the network overflows; send intensities as "
                    "they are prepared for the training")

    def mask_of(image: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        """A mask that has a value for every pixel; another one would be broadcast."""
        same = tf.reduce_all(tf.shape(mask) == tf.shape(image)[:3])
        check = tf.debugging.Assert(same, ["a mask must have the slices, height and width "
                                           "of the image, got", tf.shape(mask), "and",
                                           tf.shape(image)])
        with tf.control_dependencies([check]):
            return tf.identity(mask)

    @tf.function(autograph=False, input_signature=[
        image_spec, tf.TensorSpec([None, None, None], tf.bool)])
    def scores_in_parts(image: tf.Tensor, domain: tf.Tensor) -> tf.Tensor:
        # A few slices at a time, as in local prediction: a whole volume needs no more memory.
        image, domain = finite(image), mask_of(image, domain)
        if segmenter.reach:
            return computed(segmenter.scores(image, domain))
        slices, height, width = tf.unstack(tf.shape(image)[:3])
        step = slices_together(config.prediction.batch_slices, height, width)
        return in_parts(slices, step, lambda start: computed(segmenter.scores(
            image[start:start + step], domain[start:start + step])), [None, None, None, classes])

    def outputs(image: tf.Tensor, domain: tf.Tensor) -> _Outputs:
        return labelled(scores_in_parts(image, domain))

    def labelled(scores: tf.Tensor) -> _Outputs:
        return {"probabilities": decoding.probabilities(scores),
                "labels": tf.gather(values, decoding.classes(scores))}

    def domain_of(image: tf.Tensor) -> tf.Tensor:
        return inside_brain(image) if by_zeros else tf.ones(tf.shape(image)[:3], tf.bool)

    @tf.function(autograph=False, input_signature=[image_spec])
    def serving_default(image: tf.Tensor) -> _Outputs:
        return outputs(image, domain_of(image))

    @tf.function(autograph=False, input_signature=[
        image_spec, tf.TensorSpec([None, None, None], tf.bool, "domain")])
    def segment_domain(image: tf.Tensor, domain: tf.Tensor) -> _Outputs:
        return outputs(image, domain)

    def normalised(image: tf.Tensor, brain: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Slices of a volume as they are prepared, and their domain."""
        image, brain = finite(image), mask_of(image, brain)
        brain = tf.cond(tf.reduce_any(brain), lambda: brain,
                        lambda: tf.reduce_any(image != 0, axis=-1))
        return (z_scored(image, brain, config.prepare.region),
                brain if inside_brain_alone else tf.ones_like(brain))

    brain_spec = tf.TensorSpec([None, None, None], tf.bool, "brain")

    @tf.function(autograph=False, input_signature=[image_spec, brain_spec])
    def segment_raw(image: tf.Tensor, brain: tf.Tensor) -> _Outputs:
        return outputs(*normalised(image, brain))

    @tf.function(autograph=False, input_signature=[
        image_spec, brain_spec, tf.TensorSpec([3], tf.float32, "spacing_mm")])
    def segment_raw_planes(image: tf.Tensor, brain: tf.Tensor, spacing_mm: tf.Tensor) -> _Outputs:
        slices, domain = normalised(image, brain)
        total = scores_in_parts(slices, domain)
        for plane in segmenter.planes[1:]:
            # One after the other: no more than one plane's intermediate results are held.
            with tf.control_dependencies([total]):
                slices = tf.identity(slices)
            total += scores_in_plane(scores_in_parts, plane, slices, domain, spacing_mm)
        return labelled(total / len(segmenter.planes))

    @tf.function(autograph=False, input_signature=[
        image_spec, tf.TensorSpec([None, 3], tf.int32, "pixels")])
    def classify_pixels(image: tf.Tensor, pixels: tf.Tensor) -> _Outputs:
        image = finite(image)
        size = tf.shape(image)[:3]
        inside = tf.reduce_all((pixels >= 0) & (pixels < size))
        check = tf.debugging.Assert(inside, ["pixels must be rows of n, y, x inside the image; "
                                             "its slices, height and width are", size])
        with tf.control_dependencies([check]):
            asked = tf.scatter_nd(pixels, tf.ones_like(pixels[:, 0]), size) > 0
        shape = tf.concat([size, [classes]], 0)
        total = tf.zeros([1, classes])
        for member in segmenter.members:
            # One after the other, as in `Ensemble`.
            with tf.control_dependencies([total]):
                image = tf.identity(image)
            found, scores = member.scorer.exact(member.scorer.taps(image), asked)
            total += tf.gather_nd(tf.scatter_nd(found, scores, shape), pixels) + member.correction
        return {"scores": computed(total / len(models))}

    def decoded(data: tf.Tensor, size_yx: tf.Tensor, dtype: tf.DType, *last: int) -> tf.Tensor:
        """Strings, one a slice, to (batch, height, width, ...)."""
        same = tf.reduce_all(size_yx == size_yx[:1])
        check = tf.debugging.Assert(same, ["size_yx must be the same in every row, got", size_yx])
        with tf.control_dependencies([check]):
            shape = tf.concat([tf.shape(data), size_yx[0], list(last)], 0)
        slices = tf.reshape(tf.io.decode_raw(data, dtype), shape)
        return tf.ensure_shape(slices, [None, None, None, *last])

    bytes_of = {name: tf.TensorSpec([None], tf.string, f"{name}_bytes")
                for name in ("image", "domain")}
    size_spec = tf.TensorSpec([None, 2], tf.int32, "size_yx")

    @tf.function(autograph=False, input_signature=[bytes_of["image"], size_spec])
    def segment_encoded(image_bytes: tf.Tensor, size_yx: tf.Tensor) -> _Outputs:
        image = decoded(image_bytes, size_yx, tf.float32, channels)
        return {"labels": outputs(image, domain_of(image))["labels"]}

    @tf.function(autograph=False, input_signature=[
        bytes_of["image"], bytes_of["domain"], size_spec])
    def segment_domain_encoded(image_bytes: tf.Tensor, domain_bytes: tf.Tensor,
                               size_yx: tf.Tensor) -> _Outputs:
        image = decoded(image_bytes, size_yx, tf.float32, channels)
        domain = decoded(domain_bytes, size_yx, tf.uint8) > 0
        return {"labels": outputs(image, domain)["labels"]}

    module = tf.Module(name="pixelnet")
    # The functions hold the model by closure; only its variables are to be found in the file.
    # `variables` would bring the seeds of dropout, which are drawn anew in each process.
    module.weights = [variable.value for model in models for variable in model.weights]
    raw = segment_raw if len(segmenter.planes) == 1 else segment_raw_planes
    return module, {"serving_default": serving_default, "segment_raw": raw,
                    "classify_pixels": classify_pixels, "segment_domain": segment_domain,
                    "segment_encoded": segment_encoded,
                    "segment_domain_encoded": segment_domain_encoded}


def inside_brain(image: tf.Tensor) -> tf.Tensor:
    """Pixels of normalised slices (batch, height, width, channel) that are not outside the brain.

    Outside it every channel is exactly zero. A single pixel inside it may be zero by chance; one
    that is shut in on all four sides belongs to the brain, as hole filling has it.
    """
    filled = tf.reduce_any(image != 0, axis=-1)
    apart = tf.pad(filled, [[0, 0], [1, 1], [1, 1]])
    return filled | (apart[:, :-2, 1:-1] & apart[:, 2:, 1:-1]
                     & apart[:, 1:-1, :-2] & apart[:, 1:-1, 2:])


def z_scored(image: tf.Tensor, brain: tf.Tensor, region: NormRegion) -> tf.Tensor:
    """Channels with mean 0 and standard deviation 1 over a volume, as `volumes.normalize.z_score`.

    image (slice, height, width, channel) float32; brain (slice, height, width) bool; region
    `brain`, `core` or `volume`. A constant channel becomes 0.
    """
    over = {NormRegion.BRAIN: lambda: brain, NormRegion.CORE: lambda: _core_of(brain),
            NormRegion.VOLUME: lambda: tf.ones_like(brain)}[region]()
    weights = tf.cast(over, tf.float64)[..., None]
    total = tf.maximum(tf.reduce_sum(weights), 1.0)
    exact = tf.cast(image, tf.float64)
    mean = tf.reduce_sum(exact * weights, axis=[0, 1, 2]) / total
    std = tf.sqrt(tf.reduce_sum((exact - mean) ** 2 * weights, axis=[0, 1, 2]) / total)
    scaled = (image - tf.cast(mean, tf.float32)) / tf.cast(tf.where(std > 0, std, 1), tf.float32)
    scaled = tf.where(std > 0, scaled, 0.0)
    return scaled if region == NormRegion.VOLUME else tf.where(brain[..., None], scaled, 0.0)


def _core_of(brain: tf.Tensor) -> tf.Tensor:
    """As `volumes.normalize.core_of`, (slice, height, width) bool."""
    deep = deep_inside(brain)
    return tf.cond(tf.reduce_any(deep), lambda: deep, lambda: brain)
