"""Random variation of training slices: mirrored, turned, scaled, blurred, noisy, in contrast, and
with lesions of other slices laid into them."""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf

from pixelnet_tf import draws
from pixelnet_tf.cases.labels import lesion_classes
from pixelnet_tf.config import SamplingConfig
from pixelnet_tf.volumes.normalize import CORE_DEPTH

#: A prepared slice: `image` (height, width, channel) float32, `labels` (height, width) int32,
#: `brain` (height, width) bool.
Slice = dict[str, tf.Tensor]
#: Moves values (height, width, channel) by a matrix (8,), row by row, that leads from (x, y, 1) of
#: the result to where it comes from, "BILINEAR" or "NEAREST"; zeros come in from beyond the edges.
Warp = Callable[[tf.Tensor, tf.Tensor, str], tf.Tensor]


def warp(values: tf.Tensor, matrix: tf.Tensor, interpolation: str) -> tf.Tensor:
    """A `Warp` by TensorFlow's own kernel."""
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=values[None], transforms=matrix[None], output_shape=tf.shape(values)[:2],
        fill_value=0.0, interpolation=interpolation, fill_mode="CONSTANT")[0]


def gathered_warp(values: tf.Tensor, matrix: tf.Tensor, interpolation: str) -> tf.Tensor:
    """The same of an affine matrix by gathers, which XLA compiles; TensorFlow's kernel it knows
    not. The two differ in rounding alone."""
    height, width, channels = values.shape
    rows, columns = tf.meshgrid(tf.range(height, dtype=tf.float32),
                                tf.range(width, dtype=tf.float32), indexing="ij")
    x = matrix[0] * columns + matrix[1] * rows + matrix[2]
    y = matrix[3] * columns + matrix[4] * rows + matrix[5]
    flat = tf.reshape(values, [-1, channels])

    def read(row: tf.Tensor, column: tf.Tensor) -> tf.Tensor:
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        place = tf.cast(tf.where(inside, row * width + column, 0.0), tf.int32)
        return tf.where(inside[..., None], tf.gather(flat, place), tf.zeros([], values.dtype))

    if interpolation == "NEAREST":
        return read(tf.floor(y + 0.5), tf.floor(x + 0.5))
    top, left = tf.floor(y), tf.floor(x)
    down, right = (y - top)[..., None], (x - left)[..., None]
    upper = (1 - right) * read(top, left) + right * read(top, left + 1)
    lower = (1 - right) * read(top + 1, left) + right * read(top + 1, left + 1)
    return (1 - down) * upper + down * lower

#: A lesion is moved by up to this part of the slice's height and width.
_MOVE = 1 / 6
#: Side of the windows, pixels, by which a lesion's outline is grown and then smoothed: it brings
#: its own rim along, and no edge shows where the two slices meet.
_RIM = 5


def training_slice(varied: Callable[[tf.Tensor, tf.Tensor], Slice], place: tf.Tensor,
                   own: tf.Tensor, donors: tf.Tensor, donor_count: tf.Tensor, config: SamplingConfig
                   ) -> tuple[Slice, tf.Tensor]:
    """A slice as it is trained on, with lesions of another one, and the seed (2,) of its pixels.

    Args:
        varied: from the place of a slice and a seed (2,) int32 to that slice, varied.
        place: of the slice.
        own: (2,) int32, the slice's seed.
        donors, donor_count: places of slices with a lesion, and how many of them count.
    """
    vary_seed, pixel_seed = tf.unstack(draws.split(own, 2))
    record = varied(place, vary_seed)
    if config.lesion_mixing:
        pick_seed, donor_seed, mix_seed = tf.unstack(draws.split(draws.fold_in(own, 2), 3))
        pick = draws.integers([], pick_seed, 0, donor_count)
        record = mix_lesions(record, varied(donors[pick], donor_seed), config.lesion_mixing,
                             mix_seed)
    return record, pixel_seed


def augment(record: Slice, config: SamplingConfig, seed: tf.Tensor,
            own_seed: tf.Tensor | None = None, by: Warp = warp) -> Slice:
    """Vary a slice as the configuration says; the same seed (2,) int32 varies it equally.

    own_seed: (2,) int32, of the noise in each pixel, whose strength is the seed's: with one for
    each of several slices they are varied alike, as if they came from one scan. by: what turns.
    """
    flip_seed, turn_seed, blur_seed, noise_seed, jitter_seed = tf.unstack(
        draws.split(seed, 5))
    if config.flips:
        flip = draws.uniform([], flip_seed) < 0.5
        record = {key: tf.where(flip, tf.reverse(value, [1]), value)
                  for key, value in record.items()}
    if config.rotation or config.scaling:
        record = turn(record, config.rotation, config.scaling, turn_seed, by)
    if config.blur:
        record |= {"image": blur(record["image"], config.blur, blur_seed)}
    if config.noise:
        record |= {"image": add_noise(record["image"], config.noise, noise_seed, own_seed)}
    if config.intensity_jitter:
        record |= {"image": jitter(record["image"], config.intensity_jitter, jitter_seed)}
    return record


def turn(record: Slice, rotation: float, scaling: float, seed: tf.Tensor, by: Warp = warp
         ) -> Slice:
    """Rotate a slice about its centre and scale it; the size of the array stays.

    Images are interpolated bilinearly, labels and brain mask taken from the nearest pixel, and the
    image is exactly zero outside the mask, as in prepared slices of skull-stripped studies, where
    it was zero before. What comes in from beyond the edges is zero.

    Args:
        rotation: largest angle to either side, degrees.
        scaling: factors lie between 1 / (1 + scaling) and 1 + scaling, evenly in their logarithm.
    """
    drawn = draws.uniform([2], seed, -1.0, 1.0)
    angle = drawn[0] * math.radians(rotation)
    shrink = tf.exp(-drawn[1] * math.log1p(scaling))
    cos, sin = shrink * tf.cos(angle), shrink * tf.sin(angle)
    shape = tf.shape(record["labels"])
    y, x = tf.unstack((tf.cast(shape, tf.float32) - 1) / 2)
    # From a pixel of the result to where it comes from, both about the centre.
    matrix = tf.stack([cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y, 0.0, 0.0])

    outside = tf.cast(~_inside(record["image"]), tf.uint8)
    empty = by(outside, matrix, "NEAREST") > 0
    brain = tf.cast(record["brain"], tf.uint8)
    return {"image": tf.where(empty, 0.0, by(record["image"], matrix, "BILINEAR")),
            "labels": by(record["labels"][..., None], matrix, "NEAREST")[..., 0],
            "brain": by(brain[..., None], matrix, "NEAREST")[..., 0] > 0}


def blur(image: tf.Tensor, largest: float, seed: tf.Tensor) -> tf.Tensor:
    """Smooth a slice by a Gaussian, as a scanner of lower resolution does; outside stays zero.

    image (height, width, channel) float32; largest: the standard deviation in pixels is drawn
    evenly between 0 and this.
    """
    radius = math.ceil(3 * largest)
    sigma = draws.uniform([], seed, 1e-3, largest)
    line = tf.exp(-0.5 * (tf.range(-radius, radius + 1, dtype=tf.float32) / sigma) ** 2)
    line = tf.tile((line / tf.reduce_sum(line))[:, None, None, None], [1, 1, image.shape[-1], 1])
    smooth = image[None]
    for kernel in (line, tf.transpose(line, [1, 0, 2, 3])):
        smooth = tf.nn.depthwise_conv2d(smooth, kernel, [1] * 4, "SAME")
    return tf.where(_inside(image), smooth[0], 0.0)


def add_noise(image: tf.Tensor, largest: float, seed: tf.Tensor,
              own_seed: tf.Tensor | None = None) -> tf.Tensor:
    """Add Gaussian noise to a normalised slice; outside stays zero.

    image (height, width, channel) float32; largest: the noise's standard deviation is drawn evenly
    between 0 and this; own_seed: of the noise alone, where it is not to follow from the seed.
    """
    strength_seed, noise_seed = tf.unstack(draws.split(seed, 2))
    noise_seed = noise_seed if own_seed is None else own_seed
    strength = draws.uniform([], strength_seed, 0.0, largest)
    noise = draws.normal(tf.shape(image), noise_seed) * strength
    return tf.where(_inside(image), image + noise, 0.0)


def jitter(image: tf.Tensor, amount: float, seed: tf.Tensor) -> tf.Tensor:
    """Scale and shift each channel of a normalised slice; exact zeros outside the brain stay.

    image (height, width, channel) float32; factors lie in [1 - amount, 1 + amount], shifts in
    [-amount, amount]; the same seed (2,) int32 draws the same ones.
    """
    drawn = draws.uniform([2, image.shape[-1]], seed, -amount, amount)
    return tf.where(_inside(image), image * (1 + drawn[0]) + drawn[1], image)


def _inside(image: tf.Tensor) -> tf.Tensor:
    return tf.reduce_any(image != 0, axis=-1, keepdims=True)


def mix_lesions(record: Slice, donor: Slice, share: float, seed: tf.Tensor) -> Slice:
    """Lay the lesions of another slice into this one, in a share of the draws.

    Images are normalised, so intensities are taken as they are. The lesions are moved at random,
    and only what comes to lie deep inside this slice's brain mask (`deep_inside`) and inside the
    donor's own is taken: none in the skull, none in the air. Idea of CarveMix (Zhang
    et al., 2021), with a soft rim.

    Args:
        record, donor: as `augment` takes them, with the same channels; sizes may differ, centres
            then lie on each other.
        share: probability that anything is laid in, 0 to 1.
        seed: (2,) int32; the same seed mixes the same way.
    """
    move_seed, use_seed = tf.unstack(draws.split(seed, 2))
    size = tf.shape(record["labels"])
    reach = tf.cast(size, tf.float32) * _MOVE
    move = tf.cast(tf.round(draws.uniform([2], move_seed, -1.0, 1.0) * reach),
                   tf.int32)

    def moved(values: tf.Tensor) -> tf.Tensor:
        centred = tf.image.resize_with_crop_or_pad(values, size[0], size[1])
        return tf.roll(centred, move, [0, 1])

    image = moved(donor["image"])
    labels = moved(donor["labels"][..., None])[..., 0]
    donor_brain = moved(tf.cast(donor["brain"], tf.uint8)[..., None])[..., 0] > 0
    inside = record["brain"] & donor_brain
    lesion = lesion_classes(labels) & inside & deep_inside(record["brain"][None])[0]
    lesion &= draws.uniform([], use_seed) < share
    weight = tf.nn.max_pool2d(_map(lesion), _RIM, 1, "SAME")
    weight = tf.nn.avg_pool2d(weight, _RIM, 1, "SAME")[0] * _map(inside)[0]
    mixed = record["image"] * (1 - weight) + image * weight
    return record | {"image": tf.where(weight > 0, mixed, record["image"]),
                     "labels": tf.where(lesion, labels, record["labels"])}


def _map(mask: tf.Tensor) -> tf.Tensor:
    return tf.cast(mask, tf.float32)[None, ..., None]


def deep_inside(brain: tf.Tensor) -> tf.Tensor:
    """Pixels with nothing but mask in a square of 2 * CORE_DEPTH + 1 pixels around them.

    The core of a head inside a graph; `volumes.normalize` has it for numpy arrays.
    brain (slice, height, width) bool; returns the same. Beyond the edges there is no mask.
    """
    room, side = [CORE_DEPTH, CORE_DEPTH], 2 * CORE_DEPTH + 1
    outside = tf.pad(tf.cast(~brain, tf.float32), [[0, 0], room, room], constant_values=1.0)
    return tf.nn.max_pool2d(outside[..., None], side, 1, "VALID")[..., 0] == 0


def drop_modalities(image: tf.Tensor, share: float, seed: tf.Tensor) -> tf.Tensor:
    """Set a random proper subset of the channels to 0, in a share of the slices.

    Every subset that is neither empty nor all channels is equally likely. 0 is the value outside
    the brain and the mean within, as a missing modality has it in prediction.

    Args:
        image: (height, width, channel) float32, at least two channels.
        seed: (2,) int32; the same seed drops the same channels.
    """
    channels = image.shape[-1]
    first, second = tf.unstack(draws.split(seed, 2))
    dropped = draws.uniform([], first) < share
    # A bit a channel: from 1, the first one alone, to all but the last.
    subset = draws.integers([], second, 1, 2**channels - 1)
    bits = tf.bitwise.bitwise_and(tf.bitwise.right_shift(subset, tf.range(channels)), 1)
    return tf.where(dropped & (bits == 1), 0.0, image)
