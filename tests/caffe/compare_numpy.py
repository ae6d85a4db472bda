"""A network built here against caffe_numpy: every blob, the loss, and gradients of the weights."""

from __future__ import annotations

import caffe_numpy
import numpy as np
import pytest
import tensorflow as tf

from pixelnet_tf.caffe.layout import from_caffe


def keras_gradients(model, arrays):
    """Total loss, and layer name -> gradients of its blobs in Caffe's order."""
    inputs = {name: tf.constant(from_caffe(arrays[name]), model.input[name].dtype)
              for name in model.input}
    variables = model.trainable_variables
    with tf.GradientTape() as tape:
        loss = model.total_loss(model(inputs, training=True))
    held = {id(v): v.numpy() for v in variables}
    for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
        variable.assign(tf.zeros_like(variable) if gradient is None else gradient)
    found = model.caffe_weights()
    for variable in variables:
        variable.assign(held[id(variable)])
    return float(loss), found


def check(network, model, weights, arrays, shared=(), per_blob=6):
    """Forward within 2e-5 of each blob's largest, gradients within 2e-4 of each layer's.

    `shared`: tuples of (layers, number of the blob) that are one blob.
    """
    expected = caffe_numpy.run(network, weights, arrays, training=True)
    for blob, values in model.run_caffe(arrays, training=True).items():
        largest = np.abs(expected[blob]).max()
        np.testing.assert_allclose(values, expected[blob], rtol=0, atol=2e-5 * largest,
                                   err_msg=blob)
    loss, found = keras_gradients(model, arrays)
    assert loss == pytest.approx(caffe_numpy.total_loss(network, weights, arrays, True), rel=2e-5)
    tied = {(name, number): layers for layers, number in shared for name in layers}
    rng = np.random.default_rng(5)
    for name, blobs in found.items():
        picks = []
        for number, blob in enumerate(blobs):
            layers = tied.get((name, number), (name,))
            picks += [(layers, number, tuple(rng.integers(0, blob.shape)))
                      for _ in range(per_blob)]
        expected = caffe_numpy.gradients(network, weights, arrays, picks)
        largest = max(np.abs(blob).max() for blob in blobs)
        for (_, number, index), value in zip(picks, expected, strict=True):
            assert abs(blobs[number][index] - value) <= 2e-4 * largest, (name, number, index)


def normal(network, seed=3):
    rng = np.random.default_rng(seed)
    return {one.name: rng.normal(size=one.shape).astype(np.float32) for one in network.inputs}
