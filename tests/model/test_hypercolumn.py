import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from pixelnet_tf.errors import ModelError
from pixelnet_tf.model.hypercolumn import Hypercolumn, interpolation_weights, sample_map

GOLDEN = Path(__file__).parents[1] / "golden"
ABORT_PROBES = json.loads((GOLDEN / "randbi.json").read_text())["abort_probes"]


def golden_cases(layer: str) -> list:
    notes = json.loads((GOLDEN / f"{layer}.json").read_text())
    return [pytest.param(case, id=case["name"]) for case in notes["cases"]]


def check_against_caffe(arrays, case: dict, interpolation: str) -> None:
    name = case["name"]
    maps = [
        tf.Variable(arrays[f"{name}/bottom{i}"].transpose(0, 2, 3, 1))
        for i in range(len(case["compression_rate"]))
    ]
    layer = Hypercolumn(case["compression_rate"], case["pad"], interpolation)
    with tf.GradientTape() as tape:
        top = layer([*maps, arrays[f"{name}/pixels"]])
    np.testing.assert_allclose(top, arrays[f"{name}/top"], rtol=0, atol=1e-6)
    gradients = tape.gradient(top, maps, output_gradients=arrays[f"{name}/top_diff"])
    for i, gradient in enumerate(gradients):
        gradient = tf.convert_to_tensor(gradient).numpy().transpose(0, 3, 1, 2)
        np.testing.assert_allclose(gradient, arrays[f"{name}/bottom_diff{i}"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("case", golden_cases("randbi"))
def test_bilinear_is_randbi(case):
    with np.load(GOLDEN / "randbi.npz") as arrays:
        check_against_caffe(arrays, case, "bilinear")


@pytest.mark.parametrize("case", golden_cases("randcomp"))
def test_nearest_is_randcomp(case):
    with np.load(GOLDEN / "randcomp.npz") as arrays:
        check_against_caffe(arrays, case, "nearest")


@pytest.mark.parametrize("layer", ["randbi", "randcomp"])
def test_all_golden_cases(layer, shared_caffe):
    cases = json.loads((shared_caffe / f"{layer}.json").read_text())["cases"]
    with np.load(shared_caffe / f"{layer}.npz") as arrays:
        for case in cases:
            check_against_caffe(arrays, case, "bilinear" if layer == "randbi" else "nearest")


def test_where_caffe_aborts_there_is_an_error_and_nowhere_else():
    probes = [probe for probe in ABORT_PROBES if "map_hw" in probe]
    assert {probe["aborts"] for probe in probes} == {True, False}
    for probe in probes:
        feature_map = tf.zeros((2, *probe["map_hw"], 1))
        pixels = tf.constant([probe["pixel_n_y_x"]], tf.float32)
        layer = Hypercolumn([probe["compression_rate"]], probe["pad"])
        if probe["aborts"]:
            with pytest.raises(tf.errors.InvalidArgumentError) as error:
                layer([feature_map, pixels])
            expected = "image number" if "n " in probe["message"] else "past the last"
            assert expected in str(error.value), probe
        else:
            assert layer([feature_map, pixels]).shape == (1, 1)


@pytest.mark.parametrize("shape", [(5, 4), (5, 3, 1, 1)])
def test_pixels_of_another_shape(shape):
    with pytest.raises(ModelError, match="rows of n, y, x"):
        Hypercolumn([1])([tf.zeros((2, 5, 7, 1)), tf.zeros(shape)])


@pytest.mark.parametrize("n", [-1.0, 2.0])
@pytest.mark.parametrize("out_of_range", ["error", "clamp"])
def test_image_outside_the_batch(n, out_of_range):
    layer = Hypercolumn([1], out_of_range=out_of_range)
    with pytest.raises(tf.errors.InvalidArgumentError, match="outside the batch"):
        layer([tf.zeros((2, 3, 3, 1)), tf.constant([[n, 0.0, 0.0]])])


def test_image_number_is_truncated():
    feature_map = tf.reshape(tf.constant([10.0, 20.0]), (2, 1, 1, 1))
    pixels = tf.constant([[0.9, 0, 0], [1.9, 0, 0], [-0.9, 0, 0]])
    values = sample_map(feature_map, pixels, 1)
    assert values.numpy().ravel().tolist() == [10.0, 20.0, 10.0]


def test_clamp_reads_the_last_cell():
    feature_map = tf.reshape(tf.range(6, dtype=tf.float32), (1, 2, 3, 1))
    pixels = tf.constant([[0, 1e30, 1e30], [0, 3.0, 5.0], [0, 0.5, 4.5]])
    # Rate 2: the centres of the cells are 0.5, 2.5 and 4.5.
    values = sample_map(feature_map, pixels, 2, out_of_range="clamp")
    assert values.numpy().ravel().tolist() == [5.0, 5.0, 2.0]


def test_nan_coordinate_is_an_error():
    with pytest.raises(tf.errors.InvalidArgumentError):
        Hypercolumn([1])([tf.zeros((1, 3, 3, 1)), tf.constant([[0, np.nan, 0]])])


def test_weights_by_hand():
    t1, t2, r = interpolation_weights(tf.constant([-3.0, 0.5, 1.0, 2.5, 9.0]), 2, True, 3)
    assert t1.numpy().tolist() == [0, 0, 0, 1, 2]
    assert t2.numpy().tolist() == [0, 0, 1, 1, 2]
    assert r.numpy().tolist() == [0.0, 0.0, 0.25, 0.0, 0.0]


def test_wrong_number_of_maps():
    with pytest.raises(ModelError, match=r"2 rates .* got 1 maps"):
        Hypercolumn([1, 2])([tf.zeros((1, 3, 3, 1)), tf.zeros((1, 3))])


@pytest.mark.parametrize(
    "options",
    [{"rates": []}, {"rates": [0]}, {"rates": [1], "interpolation": "cubic"},
     {"rates": [1], "out_of_range": "wrap"}],
)
def test_wrong_options(options):
    with pytest.raises(ModelError):
        Hypercolumn(**options)


def test_gradient_reaches_later_maps_when_the_first_is_frozen():
    maps = [tf.ones((1, 4, 4, 1)), tf.Variable(tf.ones((1, 2, 2, 1)))]
    pixels = tf.constant([[0.0, 0.5, 0.5]] * 3)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(Hypercolumn([1, 2])([*maps, pixels]))
    gradient = tf.convert_to_tensor(tape.gradient(total, maps[1]))
    assert gradient.numpy().ravel().tolist() == [3.0, 0.0, 0.0, 0.0]


def test_bfloat16_maps_keep_float32_coordinates():
    # 301 is not a bfloat16 number: rounded to it, the pixel would read another column.
    values = np.arange(400, dtype=np.float32) % 7
    feature_map = tf.cast(values.reshape(1, 1, 400, 1), tf.bfloat16)
    layer = Hypercolumn([1], dtype="mixed_bfloat16")
    value = layer([feature_map, tf.constant([[0.0, 0.0, 301.0]])])
    assert value.dtype == tf.bfloat16
    assert float(value[0, 0]) == 301 % 7


def test_functional_model_saves_and_reloads(tmp_path):
    maps = [keras.Input((None, None, c)) for c in (2, 3)]
    pixels = keras.Input(batch_shape=(None, 3))
    top = Hypercolumn([1, 2], pad=False, out_of_range="clamp")([*maps, pixels])
    assert top.shape == (None, 5)
    model = keras.Model([*maps, pixels], top)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=(2, 6, 6, 2)), rng.normal(size=(2, 3, 3, 3)),
              [[0, 1.5, 2], [1, 5, 5]]]
    inputs = [tf.constant(value, tf.float32) for value in inputs]
    np.testing.assert_array_equal(model(inputs), again(inputs))
