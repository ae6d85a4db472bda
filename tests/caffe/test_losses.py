"""Losses: the order of labels, odd axes, what is refused; by hand or against numpy."""

import caffe_numpy
import numpy as np
import pytest
import tensorflow as tf
from layer_cases import layer

from pixelnet_tf.caffe.build import build_model
from pixelnet_tf.caffe.layers.losses import (
    EuclideanLoss,
    SigmoidCrossEntropyLoss,
    SoftmaxWithLoss,
)
from pixelnet_tf.caffe.layout import from_caffe, to_caffe
from pixelnet_tf.errors import ModelError

LOG = np.log(np.float64([1, 2, 4]))


def inputs(**shapes) -> str:
    return 'name: "net"\n' + "".join(
        f'input: "{name}" input_shape {{ {" ".join(f"dim: {size}" for size in shape)} }}\n'
        for name, shape in shapes.items()
    )


def run(text, arrays, network_of, training=True):
    """Loss and its gradient to `data` in Caffe's order, and the same in numpy."""
    network = network_of(text)
    model = build_model(network, "TRAIN")
    values = {name: tf.Variable(from_caffe(np.float32(array))) for name, array in arrays.items()}
    with tf.GradientTape() as tape:
        loss = model.total_loss(model(values, training=True))
    gradient = tape.gradient(loss, values["data"])
    expected = caffe_numpy.total_loss(network, {}, arrays)
    numeric = np.zeros_like(arrays["data"], np.float64)
    for index in np.ndindex(numeric.shape):
        both = []
        for change in (1e-6, -1e-6):
            moved = np.array(arrays["data"], np.float64)
            moved[index] += change
            both.append(caffe_numpy.total_loss(network, {}, {**arrays, "data": moved}))
        numeric[index] = (both[0] - both[1]) / 2e-6
    return float(loss), to_caffe(gradient.numpy()), expected, numeric


# Loss, Caffe's shapes of predictions and labels.
ORDERS = [
    ("EuclideanLoss", (2, 3, 2, 4), (2, 24)),
    ("EuclideanLoss", (2, 3, 2, 4), (2, 4, 2, 3)),
    ("EuclideanLoss", (2, 3, 2, 4), (2, 3, 2, 4)),
    ("EuclideanLoss", (2, 24), (2, 2, 3, 4)),
    ("EuclideanLoss", (2, 6, 4), (2, 2, 3, 4)),
    ("SigmoidCrossEntropyLoss", (2, 3, 2, 4), (2, 24)),
    ("SigmoidCrossEntropyLoss", (2, 3, 2, 4), (2, 4, 6, 1)),
    ("SigmoidCrossEntropyLoss", (2, 24), (2, 2, 3, 4)),
]


@pytest.mark.parametrize(("kind", "predictions", "labels"), ORDERS)
def test_labels_of_another_shape_belong_in_caffes_order(kind, predictions, labels, network_of):
    rng = np.random.default_rng(1)
    arrays = {"data": rng.normal(size=predictions), "label": rng.uniform(size=labels)}
    text = inputs(data=predictions, label=labels) + layer(kind, bottoms=("data", "label"))
    loss, gradient, expected, numeric = run(text, arrays, network_of)
    assert loss == pytest.approx(expected, rel=2e-6)
    np.testing.assert_allclose(gradient, numeric, rtol=0, atol=2e-5 * np.abs(numeric).max())


SHAPE = (2, 3, 4, 5)


@pytest.mark.parametrize("normalization", ["VALID", "FULL", "BATCH_SIZE", "NONE"])
@pytest.mark.parametrize(("axis", "labels"), [
    (1, (2, 1, 4, 5)), (1, (2, 20)), (1, (2, 4, 5)), (2, (2, 3, 5)), (2, (2, 3, 1, 5)),
    (2, (2, 5, 1, 3)), (3, (2, 3, 4)), (3, (2, 12)), (-1, (2, 4, 3, 1)), (-2, (2, 15)),
])
def test_softmax_on_any_axis(axis, labels, normalization, network_of):
    rng = np.random.default_rng(2)
    classes = SHAPE[axis]
    arrays = {"data": rng.normal(size=SHAPE), "label": rng.integers(0, classes, labels)}
    arrays["label"].flat[::4] = 255
    text = inputs(data=SHAPE, label=labels) + layer(
        "SoftmaxWithLoss", f"softmax_param {{ axis: {axis} }} loss_param {{ ignore_label: 255 "
        f"normalization: {normalization} }}", ("data", "label"))
    loss, gradient, expected, numeric = run(text, arrays, network_of)
    assert loss == pytest.approx(expected, rel=2e-6)
    np.testing.assert_allclose(gradient, numeric, rtol=0, atol=2e-5 * np.abs(numeric).max())


def test_softmax_on_the_last_axis_by_hand():
    """Rows of width 3 with probabilities 1/7, 2/7, 4/7; labels in the order n, c, h."""
    logits = np.zeros((1, 2, 2, 3))
    logits[0, 0, 0] = LOG          # label 2: 4/7
    logits[0, 0, 1] = LOG[::-1]    # label 2: 1/7
    logits[0, 1, 0] = LOG[[1, 0, 2]]  # label 0: 2/7
    labels = np.float32([2, 2, 0, 1]).reshape(1, 4)  # the last row is even: 1/3
    loss = SoftmaxWithLoss("loss", axis=3)([from_caffe(np.float32(logits)), labels])
    by_hand = -(np.log(4 / 7) + np.log(1 / 7) + np.log(2 / 7) + np.log(1 / 3)) / 4
    assert float(loss) == pytest.approx(by_hand, rel=1e-6)


def test_euclidean_by_hand():
    values = np.arange(12, dtype=np.float32).reshape(2, 2, 1, 3)  # n, c, h, w
    targets = values.reshape(2, 6) + np.float32([1, 0, 0, 0, 0, 2])
    loss = EuclideanLoss("loss")([from_caffe(values), targets])
    assert float(loss) == pytest.approx((1 + 4) * 2 / (2 * 2))


def test_sigmoid_by_hand():
    logits = np.log(np.float32([[3, 1 / 3]])).reshape(1, 2, 1, 1)  # probabilities 3/4, 1/4
    loss = SigmoidCrossEntropyLoss("loss", normalization="BATCH_SIZE")(
        [from_caffe(logits), np.float32([[1, 0]])])
    assert float(loss) == pytest.approx(-2 * np.log(3 / 4), rel=1e-6)
    # Caffe cuts a target's fraction off before it compares it with ignore_label.
    loss = SigmoidCrossEntropyLoss("loss", normalization="VALID", ignore_label=1)(
        [from_caffe(logits), np.float32([[1.5, 0]])])
    assert float(loss) == pytest.approx(-np.log(3 / 4), rel=1e-6)


@pytest.mark.parametrize(("kind", "predictions", "labels", "is_free"), [
    ("EuclideanLoss", (2, 3), (2, 1), False),
    ("EuclideanLoss", (2, 6), (4, 3), False),
    ("SigmoidCrossEntropyLoss", (2, 3), (2, 1), False),
    ("SigmoidCrossEntropyLoss", (2, 3, 4, 5), (2, 1, 4, 5), True),
    ("SoftmaxWithLoss", (2, 3), (1, 1), True),
    ("SoftmaxWithLoss", (2, 3, 4, 5), (2, 1), True),
    ("SoftmaxWithLoss", (2, 3, 4, 5), (1, 40), True),
])
def test_labels_of_another_number_are_refused(kind, predictions, labels, is_free, network_of):
    """Caffe's check; one label would otherwise be taken for all positions."""
    text = inputs(data=predictions, label=labels) + layer(kind, bottoms=("data", "label"))
    if not is_free:
        with pytest.raises(ModelError, match=r"need labels of shape"):
            build_model(network_of(text), "TRAIN")
        return
    model = build_model(network_of(text), "TRAIN")
    with pytest.raises(ModelError, match="its labels do not fit"):
        model.run_caffe({"data": np.zeros(predictions), "label": np.zeros(labels)}, training=True)
