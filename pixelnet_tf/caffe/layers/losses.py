"""Caffe's losses as layers: called with [prediction, label], they return one number."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from pixelnet_tf.caffe.layout import keras_axis, to_caffe

_SMALLEST = float(np.finfo(np.float32).tiny)


class CaffeLoss(keras.layers.Layer):
    """A loss: the name of its top and its factor in the sum that is minimised.

    `normalization`: FULL divides by the number of positions, VALID by those without `ignore_label`,
    BATCH_SIZE by the size of the first axis, NONE by 1; never by less than 1.
    """

    def __init__(self, top, weight=1.0, normalization="VALID", ignore_label=None, **kwargs):
        super().__init__(**kwargs)
        self.top = top
        self.weight = weight
        self.normalization = normalization
        self.ignore_label = ignore_label

    def _valid(self, labels):
        working = _working(self.compute_dtype)
        if self.ignore_label is None:
            return tf.ones_like(labels, working)
        return tf.cast(labels != self.ignore_label, working)

    def _normalizer(self, valid, batch):
        counts = {
            "FULL": tf.size(valid),
            "VALID": tf.reduce_sum(valid),
            "BATCH_SIZE": batch,
            "NONE": 1,
        }
        return tf.maximum(tf.cast(counts[self.normalization], valid.dtype), 1)

    def compute_output_spec(self, inputs):
        return keras.KerasTensor((), dtype=_working(self.compute_dtype))

    def get_config(self):
        return {
            **super().get_config(),
            "top": self.top, "weight": self.weight, "normalization": self.normalization,
            "ignore_label": self.ignore_label,
        }


@keras.saving.register_keras_serializable("pixelnet_tf")
class LossTerm(keras.layers.Layer):
    """A blob as it is, whose sum times `weight` is part of what is minimised: Caffe's
    `loss_weight` on a layer that is no loss."""

    def __init__(self, top, weight, **kwargs):
        super().__init__(**kwargs)
        self.top = top
        self.weight = weight

    def call(self, inputs):
        return tf.identity(inputs)

    def get_config(self):
        return {**super().get_config(), "top": self.top, "weight": self.weight}


@keras.saving.register_keras_serializable("pixelnet_tf")
class SoftmaxWithLoss(CaffeLoss):
    """Caffe's SoftmaxWithLoss along Caffe's `axis`; labels are cast to integers.

    The probability is clamped at the smallest normal float32 in the loss, not in the gradient.
    Raises `tf.errors.InvalidArgumentError` for a label that is no class.
    """

    def __init__(self, top, axis=1, **kwargs):
        super().__init__(top, **kwargs)
        self.axis = axis

    def call(self, inputs):
        logits, labels = inputs
        rank = len(logits.shape)
        axis = keras_axis(self.axis, rank)
        order = [i for i in range(rank) if i != axis] + [axis]
        rows = tf.transpose(tf.cast(logits, _working(logits.dtype)), order)
        rows = tf.reshape(rows, (-1, logits.shape[axis]))
        labels = tf.reshape(tf.cast(to_caffe(labels), tf.int32), (-1,))
        valid = self._valid(labels)
        classes = logits.shape[axis]
        known = tf.debugging.Assert(
            tf.reduce_all((valid == 0) | ((labels >= 0) & (labels < classes))),
            [f"layer {self.name!r}: a label is none of the {classes} classes; smallest, largest:",
             tf.reduce_min(labels), tf.reduce_max(labels)],
        )
        with tf.control_dependencies([] if known is None else [known]):
            labels = tf.identity(labels)
        # Caffe's outer number: the product of the axes before the classes.
        batch = tf.reduce_prod(tf.shape(to_caffe(logits))[: self.axis % rank])
        return _softmax_loss(rows, labels, valid, self._normalizer(valid, batch))

    def get_config(self):
        return {**super().get_config(), "axis": self.axis}


@tf.custom_gradient
def _softmax_loss(rows, labels, valid, normalizer):
    targets = tf.one_hot(labels, rows.shape[-1], dtype=rows.dtype)
    probabilities = tf.nn.softmax(rows)
    picked = tf.reduce_sum(probabilities * targets, axis=-1)
    losses = -tf.math.log(tf.maximum(picked, _SMALLEST)) * valid
    loss = tf.reduce_sum(losses) / normalizer

    def gradient(upstream):
        difference = (probabilities - targets) * valid[:, None]
        return difference * (upstream / normalizer), None, None, None

    return loss, gradient


@keras.saving.register_keras_serializable("pixelnet_tf")
class EuclideanLoss(CaffeLoss):
    """Caffe's EuclideanLoss: half the sum of squared differences over the first axis' size."""

    def call(self, inputs):
        working = _working(inputs[0].dtype)
        values, targets = (tf.cast(each, working) for each in inputs)
        difference = values - tf.reshape(targets, tf.shape(values))
        batch = tf.cast(tf.shape(values)[0], working)
        return tf.reduce_sum(difference * difference) / (2 * batch)


@keras.saving.register_keras_serializable("pixelnet_tf")
class SigmoidCrossEntropyLoss(CaffeLoss):
    """Caffe's SigmoidCrossEntropyLoss against targets in [0, 1] of the logits' shape."""

    def call(self, inputs):
        working = _working(inputs[0].dtype)
        logits, targets = (tf.cast(each, working) for each in inputs)
        targets = tf.reshape(targets, tf.shape(logits))
        valid = self._valid(targets)
        losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=targets, logits=logits) * valid
        return tf.reduce_sum(losses) / self._normalizer(valid, tf.shape(logits)[0])


def _working(dtype) -> str:
    """Type that a loss is computed in: float64 in a float64 network, else float32."""
    return "float64" if tf.as_dtype(dtype) == tf.float64 else "float32"
