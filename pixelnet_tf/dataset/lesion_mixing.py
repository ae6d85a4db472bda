"""Lesions of one training slice laid into another: more places and neighbours than were scanned."""

from __future__ import annotations

import tensorflow as tf

from pixelnet_tf.dataset.augment import Slice
from pixelnet_tf.dataset.core_graph import deep_inside

#: A lesion is moved by up to this part of the slice's height and width.
_MOVE = 1 / 6
#: Side of the windows, pixels, by which a lesion's outline is grown and then smoothed: it brings
#: its own rim along, and no edge shows where the two slices meet.
_RIM = 5


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
    move_seed, use_seed = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    size = tf.shape(record["labels"])
    reach = tf.cast(size, tf.float32) * _MOVE
    move = tf.cast(tf.round(tf.random.stateless_uniform([2], move_seed, -1.0, 1.0) * reach),
                   tf.int32)

    def moved(values: tf.Tensor) -> tf.Tensor:
        centred = tf.image.resize_with_crop_or_pad(values, size[0], size[1])
        return tf.roll(centred, move, [0, 1])

    image = moved(donor["image"])
    labels = moved(donor["labels"][..., None])[..., 0]
    donor_brain = moved(tf.cast(donor["brain"], tf.uint8)[..., None])[..., 0] > 0
    inside = record["brain"] & donor_brain
    lesion = (labels > 0) & inside & deep_inside(record["brain"][None])[0]
    lesion &= tf.random.stateless_uniform([], use_seed) < share
    weight = tf.nn.max_pool2d(_map(lesion), _RIM, 1, "SAME")
    weight = tf.nn.avg_pool2d(weight, _RIM, 1, "SAME")[0] * _map(inside)[0]
    mixed = record["image"] * (1 - weight) + image * weight
    return record | {"image": tf.where(weight > 0, mixed, record["image"]),
                     "labels": tf.where(lesion, labels, record["labels"])}


def _map(mask: tf.Tensor) -> tf.Tensor:
    return tf.cast(mask, tf.float32)[None, ..., None]
