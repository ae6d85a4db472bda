"""Scores that follow the edges of the image: the guided filter of He, Sun and Tang (2013)."""

from __future__ import annotations

import tensorflow as tf

#: No probability of a class is below this after filtering: its logarithm is a score.
_LEAST = 1e-6


def refine_scores(scores: tf.Tensor, image: tf.Tensor, domain: tf.Tensor, radius: int,
                  epsilon: float, sigmoid: bool = False) -> tf.Tensor:
    """Smooth the probabilities of scores inside each region of the image, but not across edges.

    Args:
        scores: (batch, height, width, class) float32.
        image: (batch, height, width, channel) float32, normalised slices; an edge in any channel
            counts.
        domain, radius, epsilon: as for `guided_filter`.
        sigmoid: the scores are those of regions, each with a probability of its own.

    Returns scores of the shape of `scores`: logarithms of the filtered probabilities, or the
    log-odds of those of regions.
    """
    if sigmoid:
        filtered = guided_filter(image, tf.sigmoid(scores), domain, radius, epsilon)
        filtered = tf.clip_by_value(filtered, _LEAST, 1 - _LEAST)
        return tf.math.log(filtered) - tf.math.log1p(-filtered)
    filtered = guided_filter(image, tf.nn.softmax(scores), domain, radius, epsilon)
    # The local lines may leave [0, 1] a little.
    filtered = tf.maximum(filtered, _LEAST)
    return tf.math.log(filtered / tf.reduce_sum(filtered, axis=-1, keepdims=True))


def guided_filter(guide: tf.Tensor, values: tf.Tensor, domain: tf.Tensor, radius: int,
                  epsilon: float) -> tf.Tensor:
    """Filter values (batch, height, width, value) by a guide (batch, height, width, channel).

    In every square window the values are fitted by a linear function of the guide's channels
    (ridge regression); a pixel receives the mean of what the windows that hold it say. The edge of
    the domain is treated as the edge of the image is: windows end there, and none lies around a
    pixel outside.

    Args:
        domain: (batch, height, width) bool, the pixels that count. What is returned outside it has
            no meaning.
        radius: radius of the windows in pixels: their side is 2 * radius + 1, less at the
            domain's edges.
        epsilon: weight of the ridge: the guide's variance, in its units squared, below which it
            counts as flat and the values are merely averaged.
    """
    share = _window_mean(tf.cast(domain, guide.dtype), radius)

    def mean(numbers: tf.Tensor) -> tf.Tensor:
        """Of (batch, height, width, ...) over the pixels of each window that are in the domain."""
        apart = [slice(None)] * 3 + [tf.newaxis] * (len(numbers.shape) - 3)
        inside = tf.where(domain[tuple(apart)], numbers, tf.zeros([], numbers.dtype))
        return tf.math.divide_no_nan(_window_mean(inside, radius), share[tuple(apart)])

    def covariance(one: tf.Tensor, other: tf.Tensor, mean_one: tf.Tensor, mean_other: tf.Tensor
                   ) -> tf.Tensor:
        """Over each window, (batch, height, width, number of one, number of other)."""
        return (mean(one[..., None] * other[..., None, :])
                - mean_one[..., None] * mean_other[..., None, :])

    mean_guide, mean_values = mean(guide), mean(values)
    ridge = epsilon * tf.eye(guide.shape[-1])
    slope = tf.linalg.solve(covariance(guide, guide, mean_guide, mean_guide) + ridge,
                            covariance(guide, values, mean_guide, mean_values))
    offset = mean_values - tf.einsum("nyxc,nyxcv->nyxv", mean_guide, slope)
    return tf.einsum("nyxc,nyxcv->nyxv", guide, mean(slope)) + mean(offset)


def _window_mean(values: tf.Tensor, radius: int) -> tf.Tensor:
    """Mean of (batch, height, width, ...) over each pixel's window, as far as it lies inside."""
    side, maps = 2 * radius + 1, values.shape[3:].num_elements()
    means = tf.reshape(values, tf.concat([tf.shape(values)[:3], [maps]], 0))
    for window in ([side, 1], [1, side]):
        # SAME counts no padding: rows and columns apart give the mean over the square.
        means = tf.nn.avg_pool2d(means, window, 1, "SAME")
    return tf.reshape(means, tf.shape(values))
