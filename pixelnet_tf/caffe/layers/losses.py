"""Caffe's losses as layers: called with [prediction, label], they return one number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pixelnet_tf.caffe.layers.base import GradientOf, Size, require
from pixelnet_tf.caffe.layout import caffe_shape, keras_axis, to_caffe

_SMALLEST = float(np.finfo(np.float32).tiny)


class CaffeLoss(keras.layers.Layer):
    """A loss: the name of its top and its factor in the sum that is minimised.

    As in Caffe, labels belong to predictions by their place in Caffe's axis order. They may have
    another shape, if its first size is the same and it holds as many numbers as there are labels.

    The `normalization` says by what the sum is divided: FULL by the number of positions, VALID by
    that of the positions without `ignore_label`, BATCH_SIZE by the size of the first axis, NONE by
    1. It is never divided by less than 1.

    Raises `ValueError` for a number of labels that does not fit, where sizes are known beforehand,
    else `tf.errors.InvalidArgumentError`.
    """

    def __init__(self, top: str, weight: float = 1.0, normalization: str = "VALID",
                 ignore_label: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.top = top
        self.weight = weight
        self.normalization = normalization
        self.ignore_label = ignore_label

    def labelled_shape(self, shape: list[Size | None]) -> list[Size | None]:
        """Sizes (of Caffe's axes) whose product is the number of labels for a prediction."""
        return shape

    def _flat_labels(self, values: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """Labels in Caffe's order as one row, after a check that they are as many as needed."""
        shape, given = (list(tf.unstack(tf.shape(to_caffe(each)), num=len(each.shape)))
                        for each in (values, labels))
        wanted = self.labelled_shape(shape)
        return require(
            (tf.reduce_prod(wanted) == tf.reduce_prod(given)) & (shape[0] == given[0]),
            [f"layer {self.name!r}: its labels do not fit (Caffe's shapes of predictions and "
             "labels):", tf.stack(shape), tf.stack(given)],
            tf.reshape(to_caffe(labels), (-1,)),
        )

    def _valid(self, labels: tf.Tensor) -> tf.Tensor:
        working = _working(self.compute_dtype)
        if self.ignore_label is None:
            return tf.ones_like(labels, working)
        return tf.cast(tf.cast(labels, tf.int32) != self.ignore_label, working)

    def _normalizer(self, valid: tf.Tensor, batch: tf.Tensor) -> tf.Tensor:
        counts = {
            "FULL": tf.size(valid),
            "VALID": tf.reduce_sum(valid),
            "BATCH_SIZE": batch,
            "NONE": 1,
        }
        return tf.maximum(tf.cast(counts[self.normalization], valid.dtype), 1)

    def compute_output_spec(self, inputs: Sequence[keras.KerasTensor]) -> keras.KerasTensor:
        shape, given = (caffe_shape(each.shape) for each in inputs)
        if not shape or not given:
            raise ValueError("predictions and labels must have an axis")
        wanted = self.labelled_shape(list(shape))
        is_known = [None not in sizes or (sizes.index(None) == 0 and None not in sizes[1:])
                    for sizes in (wanted, list(given))]
        counts = [math.prod(size for size in sizes if size is not None)
                  for sizes in (wanted, given)]
        differs = None not in (shape[0], given[0]) and shape[0] != given[0]
        if differs or (all(is_known) and (None in wanted) == (None in given)
                       and counts[0] != counts[1]):
            raise ValueError(
                f"predictions of shape {shape} (Caffe's order) need labels of shape "
                f"{tuple(wanted)} or as many in another shape with the same first size; they have "
                f"the shape {given}"
            )
        return keras.KerasTensor((), dtype=_working(self.compute_dtype))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "top": self.top, "weight": self.weight, "normalization": self.normalization,
            "ignore_label": self.ignore_label,
        }


@keras.saving.register_keras_serializable("pixelnet_tf")
class LossTerm(keras.layers.Layer):
    """A blob whose sum times `weight` is part of what is minimised; it is returned as it is.

    In Caffe this is the `loss_weight` of a layer that is no loss.
    """

    def __init__(self, top: str, weight: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.top = top
        self.weight = weight

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.identity(inputs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "top": self.top, "weight": self.weight}


@keras.saving.register_keras_serializable("pixelnet_tf")
class SoftmaxWithLoss(CaffeLoss):
    """Caffe's SoftmaxWithLoss along Caffe's `axis`; labels are cast to integers.

    The probability is clamped at the smallest normal float32 in the loss, not in the gradient.
    Raises `tf.errors.InvalidArgumentError` for a label that is no class.
    """

    def __init__(self, top: str, axis: int = 1, **kwargs: Any) -> None:
        super().__init__(top, **kwargs)
        self.axis = axis

    def labelled_shape(self, shape: list[Size | None]) -> list[Size | None]:
        keras_axis(self.axis, len(shape))
        axis = self.axis % len(shape)
        return [*shape[:axis], *shape[axis + 1:]]

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        logits, labels = inputs
        rank = len(logits.shape)
        axis = self.axis % rank
        # Positions in Caffe's order, which is that of the labels, and each one's classes last.
        order = [keras_axis(i, rank) for i in range(rank) if i != axis] + [keras_axis(axis, rank)]
        rows = tf.transpose(tf.cast(logits, _working(logits.dtype)), order)
        classes = logits.shape[order[-1]]
        rows = tf.reshape(rows, (-1, classes))
        labels = tf.cast(self._flat_labels(logits, labels), tf.int32)
        valid = self._valid(labels)
        labels = require(
            tf.reduce_all((valid == 0) | ((labels >= 0) & (labels < classes))),
            [f"layer {self.name!r}: a label is none of the {classes} classes; smallest, largest:",
             tf.reduce_min(labels), tf.reduce_max(labels)],
            labels,
        )
        # Caffe's outer number: the product of the axes before the classes.
        batch = tf.reduce_prod(tf.shape(to_caffe(logits))[:axis])
        return _softmax_loss(rows, labels, valid, self._normalizer(valid, batch))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "axis": self.axis}


@tf.custom_gradient
def _softmax_loss(rows: tf.Tensor, labels: tf.Tensor, valid: tf.Tensor,
                  normalizer: tf.Tensor) -> tuple[tf.Tensor, GradientOf]:
    targets = tf.one_hot(labels, rows.shape[-1], dtype=rows.dtype)
    probabilities = tf.nn.softmax(rows)
    picked = tf.reduce_sum(probabilities * targets, axis=-1)
    losses = -tf.math.log(tf.maximum(picked, _SMALLEST)) * valid
    loss = tf.reduce_sum(losses) / normalizer

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor | None, ...]:
        difference = (probabilities - targets) * valid[:, None]
        return difference * (upstream / normalizer), None, None, None

    return loss, gradient


@keras.saving.register_keras_serializable("pixelnet_tf")
class EuclideanLoss(CaffeLoss):
    """Caffe's EuclideanLoss: half the sum of squared differences over the first axis' size.

    Both inputs get a gradient.
    """

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        working = _working(inputs[0].dtype)
        values, targets = (tf.cast(each, working) for each in inputs)
        difference = tf.reshape(to_caffe(values), (-1,)) - self._flat_labels(values, targets)
        batch = tf.cast(tf.shape(values)[0], working)
        return tf.reduce_sum(difference * difference) / (2 * batch)


@keras.saving.register_keras_serializable("pixelnet_tf")
class SigmoidCrossEntropyLoss(CaffeLoss):
    """Caffe's SigmoidCrossEntropyLoss against targets in [0, 1], which get no gradient."""

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        working = _working(inputs[0].dtype)
        logits, targets = (tf.cast(each, working) for each in inputs)
        targets = tf.stop_gradient(self._flat_labels(logits, targets))
        valid = self._valid(targets)
        losses = tf.nn.sigmoid_cross_entropy_with_logits(
            labels=targets, logits=tf.reshape(to_caffe(logits), (-1,))
        )
        return tf.reduce_sum(losses * valid) / self._normalizer(valid, tf.shape(logits)[0])


def _working(dtype: tf.DType | str) -> str:
    """Type that a loss is computed in: float64 in a float64 network, else float32."""
    return "float64" if tf.as_dtype(dtype) == tf.float64 else "float32"
