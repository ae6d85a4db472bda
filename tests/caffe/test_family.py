"""Every form of the PixelNet family builds, and gives the numbers of Caffe's layers in numpy."""

import caffe_numpy
import numpy as np
import pixelnet_family as family
import pytest
import tensorflow as tf

from pixelnet_tf.caffe.build import build_model

ROWS = 9


def inputs_for(name: str, train: bool) -> dict[str, np.ndarray]:
    member = family.MEMBERS[name]
    rng = np.random.default_rng(7)
    height, width = member.canvas
    pixels = np.stack([rng.integers(0, 2, ROWS), rng.integers(0, min(height, 96) - 16, ROWS),
                       rng.integers(0, min(width, 96) - 16, ROWS)], -1)
    arrays = {"data": rng.normal(size=(2, 3, height, width)), "pixels": pixels}
    if train:
        labels = rng.integers(0, max(member.classes, 2), (ROWS, 1))
        arrays["labels"] = labels
        arrays["pixel_sn"] = rng.normal(size=(ROWS, 3))
    return {key: value.astype(np.float32) for key, value in arrays.items()}


@pytest.mark.parametrize("train", [False, True], ids=["deploy", "train"])
@pytest.mark.parametrize("name", family.MEMBERS)
def test_member(name, train, network_of, randomise):
    network = network_of(family.prototxt(name, train, dropout=0.0 if train else 0.5))
    model = build_model(network, "TRAIN" if train else "TEST", blobs="all", fixed_shape=False)
    weights = randomise(model)
    arrays = inputs_for(name, train)
    expected = caffe_numpy.run(network, weights, arrays, training=train)
    found = model.run_caffe(arrays, training=train)
    assert set(found) == {top for layer in network.layers for top in layer.tops} - set(
        one.name for one in network.inputs
    )
    for blob, values in found.items():
        largest = np.abs(expected[blob]).max()
        assert values.shape == expected[blob].shape
        np.testing.assert_allclose(values, expected[blob], rtol=0, atol=2e-5 * largest,
                                   err_msg=blob)


@pytest.mark.parametrize("name", family.MEMBERS)
def test_outputs_and_multipliers(name, network_of):
    member = family.MEMBERS[name]
    model = build_model(network_of(family.prototxt(name)))
    assert list(model.output) == [member.final or member.score]
    assert set(model.input) == {"data", "pixels"}  # not the labels that nothing reads
    assert model.output[member.final or member.score].shape == (None, member.classes)
    factor = 10 if member.faster else 1
    multipliers = model.multipliers
    assert multipliers["conv1_1/kernel"] == (1, 1)
    assert multipliers["conv1_1/bias"] == (2, 0)
    assert multipliers[f"{member.head[-1]}/kernel"] == (factor, 1)
    assert multipliers[f"{member.head[-1]}/bias"] == (2 * factor, 0)
    if 7 in member.taps:
        assert multipliers[f"fc6{member.fc_suffix}/bias"] == (1, 1)
    assert set(multipliers) == {variable.path for variable in model.trainable_variables}


def test_a_train_network_learns(network_of):
    text = family.prototxt("scratch_c12345", train=True)
    network = network_of(text.replace("std: 0.001", "std: 0.1"))
    model = build_model(network, "TRAIN")
    assert list(model.output) == ["loss"]
    arrays = inputs_for("scratch_c12345", train=True)
    inputs = {name: tf.constant(arrays[name]) for name in ("pixels", "labels")}
    inputs["data"] = tf.transpose(arrays["data"], (0, 2, 3, 1))
    losses = []
    for _ in range(5):
        with tf.GradientTape() as tape:
            loss = model.total_loss(model(inputs, training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
            variable.assign_sub(0.1 * gradient)
        losses.append(float(loss))
    assert losses[-1] < losses[0]
