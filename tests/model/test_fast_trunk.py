"""The trunk computed where the image is, against the trunk of the whole canvas."""

import numpy as np
import pytest
import tensorflow as tf

from pixelnet_tf.model.fast_trunk import (
    canvas_pixels,
    empty_responses,
    fast_taps,
    image_box,
    trunk_weights,
)
from pixelnet_tf.model.hypercolumn import sample_map
from pixelnet_tf.model.pixelnet import plain_taps

BORDERS = (0, 5, 16, 32, 48, 64, 100)
KINDS = ("inner", "edge", "full", "empty", "corner")


def all_pixels(image) -> tf.Tensor:
    return tf.constant(np.argwhere(np.ones(image.shape[:3])), tf.float32)


def both_ways(model, image):
    """Features at every pixel, and gradients of a random sum of them, fast and plain."""
    pixels = canvas_pixels(model, all_pixels(image))
    variables = [v.value for name, layer in model.parts.items() if name.startswith(("conv", "fc"))
                 and not name.endswith("_new") for v in layer.trainable_variables]
    found = []
    for fast in (True, False):
        with tf.GradientTape() as tape:
            if fast:
                columns = [tap.sample(pixels) for tap in fast_taps(model, image)]
            else:
                columns = [sample_map(values, pixels, rate, True, "clamp") for values, rate in
                           zip(plain_taps(model, image), model.rates, strict=True)]
            weighted = [tf.reduce_sum(column * tf.random.stateless_normal(column.shape, [7, i]))
                        for i, column in enumerate(columns)]
            total = tf.add_n(weighted)
        found.append((columns, tape.gradient(total, variables)))
    return found


def assert_equal(model, image) -> None:
    (fast, fast_gradients), (plain, plain_gradients) = both_ways(model, tf.constant(image))
    for mine, theirs, rate in zip(fast, plain, model.rates, strict=True):
        scale = np.abs(theirs).max()
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-5 * scale, err_msg=f"rate {rate}")
    for mine, theirs in zip(fast_gradients, plain_gradients, strict=True):
        mine, theirs = tf.convert_to_tensor(mine), tf.convert_to_tensor(theirs)
        # Only an empty image leaves a kernel (the first) without a gradient.
        assert np.abs(theirs).max() > 0 or not image.any()
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("border", BORDERS)
def test_every_border(narrow_net, images, border, kind):
    assert_equal(narrow_net(fc7="none", border=border), images(kind, 40, 57))


@pytest.mark.parametrize("size", [(1, 1), (7, 90), (33, 64), (96, 31), (65, 65)])
@pytest.mark.parametrize("border", [48, 100])
def test_sizes(narrow_net, images, size, border):
    assert_equal(narrow_net(fc7="none", border=border), images("full", *size))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fields", [
    {"fc7": "faithful", "border": 100},
    {"fc7": "faithful", "border": 100, "batch_norm": True, "head": "linear"},
    {"fc7": "aligned", "border": 100},
    {"fc7": "aligned", "border": 16},
    {"fc7": "aligned", "border": 0},
    {"fc7": "none", "border": 48, "batch_norm": True},
], ids=lambda fields: "-".join(str(value) for value in fields.values()))
def test_every_variant(narrow_net, images, fields, kind):
    assert_equal(narrow_net(**fields), images(kind, 45, 38))


@pytest.mark.parametrize("fc7", ["faithful", "none"])
def test_batches_share_one_box(narrow_net, images, fc7):
    assert_equal(narrow_net(fc7=fc7, border=100), images("mixed", 36, 40, batch=3))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fields", [
    {"fc7": "faithful", "border": 100},
    {"fc7": "aligned", "border": 100, "batch_norm": True, "head": "linear"},
    {"fc7": "none", "border": 16},
    {"fc7": "none", "border": 48},
    {"fc7": "none", "border": 0},
], ids=lambda fields: "-".join(str(value) for value in fields.values()))
def test_with_what_an_empty_canvas_answers(narrow_net, images, fields, kind):
    """The last blocks pasted into the known responses, against the whole canvas."""
    model = narrow_net(**fields)
    image = tf.constant(images(kind, 45, 38))
    weights = trunk_weights(model)
    empty = empty_responses(model, weights, tf.constant([45, 38]))
    assert bool(empty) == (fields["border"] > 0)
    pixels = canvas_pixels(model, all_pixels(image))
    for tap, values in zip(fast_taps(model, image, weights=weights, empty=empty),
                           plain_taps(model, image), strict=True):
        theirs = sample_map(values, pixels, tap.rate, True, "clamp")
        np.testing.assert_allclose(tap.sample(pixels), theirs, rtol=0,
                                   atol=1e-5 * np.abs(theirs).max())


def test_several_cells_of_the_context(narrow_net, images):
    # A canvas of 520 pixels has 11 cells of fc7_conv at rate 224: the image spans three of them.
    assert_equal(narrow_net(fc7="faithful", border=100, widths=(1, 2, 2, 2, 2)),
                 images("inner", 320, 300))


@pytest.mark.parametrize("fc7", ["faithful", "aligned", "none"])
def test_one_graph_for_every_size(narrow_net, images, fc7):
    model = narrow_net(fc7=fc7, border=100)
    traces = []

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 2], tf.float32),
                                  tf.TensorSpec([None, 3], tf.float32)])
    def columns(image, pixels):
        traces.append(1)
        return [tap.sample(pixels) for tap in fast_taps(model, image)]

    for kind, size in (("inner", (40, 57)), ("empty", (33, 30)), ("edge", (64, 70))):
        image = tf.constant(images(kind, *size))
        pixels = canvas_pixels(model, all_pixels(image))
        for mine, values, rate in zip(columns(image, pixels), plain_taps(model, image),
                                      model.rates, strict=True):
            theirs = sample_map(values, pixels, rate, True, "clamp")
            np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())
    assert len(traces) == 1


def test_bfloat16_is_close(narrow_net, images):
    model = narrow_net(fc7="none", border=100)
    image = tf.constant(images("inner", 40, 57))
    pixels = canvas_pixels(model, all_pixels(image))
    for half, whole in zip(fast_taps(model, image, precision=tf.bfloat16),
                           fast_taps(model, image), strict=True):
        assert half.values.dtype == tf.bfloat16
        one, other = (tf.cast(tap.sample(pixels), tf.float32) for tap in (half, whole))
        # Eight bits of mantissa, thirteen convolutions deep.
        assert np.abs(one - other).mean() < 0.03 * np.abs(other).mean()


def test_it_saves_work(narrow_net, images):
    model = narrow_net(fc7="none", border=100)
    taps = fast_taps(model, tf.constant(images("inner", 64, 64)))
    whole = plain_taps(model, tf.constant(images("inner", 64, 64)))
    cells = [np.prod(tap.values.shape[1:3]) for tap in taps]
    assert cells[0] < np.prod(whole[0].shape[1:3]) / 5
    assert cells[1] < np.prod(whole[1].shape[1:3]) / 5


def test_image_box_by_hand():
    image = np.zeros((2, 9, 8, 1), np.float32)
    assert image_box(tf.constant(image)).numpy().tolist() == [0, 0, 1, 1]
    image[0, 2, 5] = -1
    image[1, 6, 3] = 0.5
    assert image_box(tf.constant(image)).numpy().tolist() == [2, 3, 7, 6]


def test_no_convolution_of_bfloat16_pads_by_itself(narrow_net):
    """With paddings of its own, oneDNN leaves a convolution's gradients to far slower code."""
    model = narrow_net(fc7="faithful", border=100)
    graph = tf.function(lambda image: [tap.values for tap in fast_taps(
        model, image, precision=tf.bfloat16)]
                        ).get_concrete_function(tf.TensorSpec([1, 40, 40, 2])).graph
    convolutions = [operation for operation in graph.get_operations()
                    if operation.type == "Conv2D"]
    assert len(convolutions) >= 13
    assert {operation.get_attr("padding") for operation in convolutions} <= {b"SAME", b"VALID"}


@pytest.mark.parametrize("box", [(5, 10, 60, 290), (250, 200, 320, 201)])
def test_the_context_is_right_where_it_is_read(narrow_net, images, box):
    model = narrow_net(fc7="faithful", border=100, widths=(1, 2, 2, 2, 2))
    image = tf.constant(images("inner", 320, 300))
    top, left, bottom, right = box
    pixels = canvas_pixels(model, tf.constant(
        [[0, y, x] for y in (top, bottom - 1) for x in (left, right - 1)], tf.float32))
    whole = fast_taps(model, image)[-1]
    part = fast_taps(model, image, read=tf.constant(box))[-1]
    assert np.prod(part.values.shape[1:3]) < np.prod(whole.values.shape[1:3])
    expected = whole.sample(pixels)
    np.testing.assert_allclose(part.sample(pixels), expected, rtol=0,
                               atol=1e-5 * np.abs(expected).max())
