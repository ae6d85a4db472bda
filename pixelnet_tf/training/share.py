"""What a replica knows of a mini-batch of which it holds a part: its sums, and what is drawn in it.

Everything that is drawn belongs to a slice or a pixel of the whole mini-batch, by its number there,
so that it is the same for any number of replicas.
"""

from __future__ import annotations

import tensorflow as tf


class Share:
    """A replica's part of a mini-batch, inside `strategy.run`.

    Args:
        batch: a part of a mini-batch, as the pipeline gives it.

    Attributes:
        places: (batch,) int32, the numbers of the part's images in the whole mini-batch.
    """

    def __init__(self, batch: dict[str, tf.Tensor]):
        self.places: tf.Tensor = batch["places"]
        self._images = batch["images"]
        # Pixels follow each other as the images do that show them.
        self._drawn = (tf.gather(self.places, batch["neighbours"][:, 0])
                       if "neighbours" in batch else self.places)

    def total(self, own: tf.Tensor) -> tf.Tensor:
        """The sum of a number over all replicas, which each counts its own share of.

        Its gradient is that of the own share, so that the replicas' gradients add up to those of a
        function of the sum.
        """
        constant = tf.stop_gradient(own)
        return tf.stop_gradient(_all_reduced(constant)) + (own - constant)

    def numbered(self, pixels_nyx: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The numbers of pixels among those of the whole mini-batch, (pixel,) int32, and how many
        these are.

        pixels_nyx (pixel, 3): rows of n, y, x, those of an image together, in the order of the
        images; n is the number of the drawn slice in the part.
        """
        images = tf.gather(self._drawn, tf.cast(pixels_nyx[:, 0], tf.int32))
        own = tf.math.unsorted_segment_sum(tf.ones_like(images), images, self._images)
        counts = _all_reduced(own)
        shift = tf.cumsum(counts, exclusive=True) - tf.cumsum(own, exclusive=True)
        return tf.range(tf.size(images)) + tf.gather(shift, images), tf.reduce_sum(counts)


def _all_reduced(value: tf.Tensor) -> tf.Tensor:
    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)


def drawn_rows(seed: tf.Tensor, rows: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Some rows of a matrix of random numbers, (row * width,) uint16, whatever the others.

    They are those of `draws.bits` with this seed (2,) int32, each of whose uint32
    gives two of them. Of the matrix only the rows from the first one to the last one are drawn:
    the generator counts in blocks of four uint32, and can begin with any of them.
    """
    there = tf.size(rows) > 0
    low, high = (tf.where(there, edge, 0) for edge in (tf.reduce_min(rows),
                                                       tf.reduce_max(rows) + 1))
    first, stop = (tf.cast(row, tf.int64) * tf.cast(width, tf.int64) for row in (low, high))
    block = first // 8
    key, counter = tf.raw_ops.StatelessRandomGetKeyCounter(seed=seed)
    # Its lower half is 0 for every seed.
    counter = tf.stack([tf.cast(block, tf.uint64), counter[1]])
    bits = tf.raw_ops.StatelessRandomUniformFullIntV2(
        shape=[(stop - 8 * block + 1) // 2], key=key, counter=counter,
        alg=tf.random.Algorithm.PHILOX.value, dtype=tf.uint32)
    numbers = tf.reshape(tf.bitcast(bits, tf.uint16), [-1])[first - 8 * block:stop - 8 * block]
    return tf.reshape(tf.gather(tf.reshape(numbers, [high - low, width]), rows - low), [-1])
