"""The model as one Keras object: shapes, names, sizes, save and reload."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from pixelnet_tf.config import ModelConfig
from pixelnet_tf.errors import ModelError
from pixelnet_tf.model.architecture import Architecture
from pixelnet_tf.model.fast_head import fast_scores
from pixelnet_tf.model.fast_trunk import canvas_pixels, fast_taps
from pixelnet_tf.model.pixelnet import PixelNet, plain_scores, plain_taps

VARIANTS = {
    "original": {"fc7": "faithful", "border": 100},
    "linear": {"fc7": "faithful", "border": 100, "head": "linear", "batch_norm": True},
    "aligned": {"fc7": "aligned", "border": 48},
    "without fc7": {"fc7": "none", "border": 16},
    "without border": {"fc7": "none", "border": 0, "head": "linear"},
    "one hidden layer": {"fc7": "none", "border": 16, "head_widths": (5,)},
}


def some_pixels(image, count=40, seed=0) -> tf.Tensor:
    rng = np.random.default_rng(seed)
    return tf.constant(rng.integers(0, image.shape[:3], (count, 3)), tf.float32)


@pytest.mark.parametrize("fields", VARIANTS.values(), ids=VARIANTS)
def test_called_plain_and_fast_it_gives_the_same(narrow_net, images, fields):
    model = narrow_net(**fields)
    image = tf.constant(images("mixed", 45, 38, batch=2))
    pixels = some_pixels(image)
    scores = model([image, pixels])
    assert scores.shape == (40, 3)
    assert scores.dtype == tf.float32
    plain = plain_scores(model, plain_taps(model, image), pixels)
    fast = fast_scores(model, fast_taps(model, image), canvas_pixels(model, pixels))
    np.testing.assert_allclose(plain, scores, rtol=0, atol=1e-6 * np.abs(scores).max())
    np.testing.assert_allclose(fast, scores, rtol=0, atol=1e-5 * np.abs(scores).max())
    assert np.ptp(scores, axis=0).min() > 0


@pytest.mark.parametrize("fields", VARIANTS.values(), ids=VARIANTS)
def test_saved_and_reloaded_it_is_the_same(narrow_net, images, fields, tmp_path):
    model = narrow_net(**fields)
    image = tf.constant(images("full", 31, 52))
    pixels = some_pixels(image)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(again, PixelNet)
    assert again.config == model.config
    assert list(again.parts) == list(model.parts)
    np.testing.assert_array_equal(again([image, pixels]), model([image, pixels]))


@pytest.mark.parametrize("size", [(25, 25), (26, 90), (131, 27)])
def test_any_size(narrow_net, images, size):
    model = narrow_net(fc7="faithful", border=100)
    image = tf.constant(images("full", *size))
    model.architecture.check_image_size(*size)
    assert np.isfinite(model([image, some_pixels(image)])).all()


def test_every_pixel_has_room_where_the_check_says_so(narrow_net, images):
    """The check draws the line exactly where the hypercolumn raises an error."""
    model = narrow_net(fc7="faithful", border=20, widths=(1, 1, 1, 1, 1))
    outcomes = set()
    for length in (180, 184, 185, 191, 192, 193, 200, 300, 400):
        image = tf.constant(images("full", length, length))
        corner = tf.constant([[0, length - 1, length - 1]], tf.float32)
        try:
            model.architecture.check_image_size(length, length)
            fits = True
        except ModelError:
            fits = False
        if fits:
            model([image, corner])
        else:
            # A map without cells, or one that ends before the image does.
            with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
                model([image, corner])
        outcomes.add(fits)
    assert outcomes == {True, False}


def test_an_image_that_is_too_small():
    with pytest.raises(ModelError, match=r"width 150 with a border of 20 .* rate 224 on fc7_conv"):
        Architecture.of(ModelConfig(border=20), 2).check_image_size(600, 150)


def test_without_a_border_the_last_pixels_read_the_last_cell(narrow_net, images):
    model = narrow_net(fc7="none", border=0, head="linear")
    image = tf.constant(images("full", 33, 47))
    model.architecture.check_image_size(33, 47)
    assert np.isfinite(model([image, tf.constant([[0.0, 32.0, 46.0]])])).all()
    # fc6 without padding needs seven cells of stride 32.
    with pytest.raises(ModelError, match=r"height 192 with a border of 0 .* on fc7_conv"):
        Architecture.of(ModelConfig(border=0), 2).check_image_size(192, 300)


def test_the_originals_layers():
    """Names, shapes and number of weights of the authors' network, without building it whole."""
    widths = [tap.width for tap in Architecture.of(ModelConfig(), 4).taps]
    assert widths == [64, 128, 256, 512, 512, 4096]
    assert sum(widths) == 5568
    narrow = PixelNet(ModelConfig(widths=(1,) * 5, fc_width=1, head_widths=(1, 1)), 3, 4)
    assert list(narrow.rates) == [1, 2, 4, 8, 16, 224]
    assert list(narrow.parts) == [
        "conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_2", "conv3_3", "conv4_1",
        "conv4_2", "conv4_3", "conv5_1", "conv5_2", "conv5_3", "fc6_conv", "fc7_conv",
        "rand_concat", "fc6_new", "fc7_new", "cls_score_new"]
    assert narrow.parts["fc6_conv"].kernel.shape == (7, 7, 1, 1)
    assert narrow.parts["cls_score_new"].kernel.shape == (1, 4)
    assert narrow.config.dropout == 0.5


def test_multipliers_as_in_the_authors_files(narrow_net):
    model = narrow_net()
    found = {(path.split("/")[-2], path.split("/")[-1]): value
             for path, value in model.multipliers.items()}
    assert len(found) == len(model.trainable_variables)
    assert found["conv3_2", "kernel"] == (1.0, 1.0)
    assert found["conv3_2", "bias"] == (2.0, 0.0)
    assert found["fc6_conv", "bias"] == (1.0, 1.0)
    assert found["cls_score_new", "bias"] == (2.0, 0.0)


def test_a_seed_gives_the_same_start_and_layers_differ():
    config = ModelConfig(widths=(4,) * 5, fc7="none", head_widths=(20, 20), head_filler="he")
    one, again, other = (PixelNet(config, 3, 2, seed=seed) for seed in (1, 1, 2))
    for mine, same, theirs in zip(one.get_weights(), again.get_weights(), other.get_weights(),
                                  strict=True):
        np.testing.assert_array_equal(mine, same)
        assert mine.ndim == 1 or not np.array_equal(mine, theirs)
    kernels = [one.parts[name].kernel.numpy() for name in ("conv2_2", "conv3_2", "conv4_1")]
    assert not np.array_equal(kernels[0], kernels[1])
    assert not np.array_equal(kernels[1], kernels[2])


def test_dropout_is_off_at_prediction_and_on_in_training(narrow_net, images):
    model = narrow_net(fc7="none", border=16, dropout=0.5, head_widths=(50, 50))
    image = tf.constant(images("full", 20, 20))
    pixels = some_pixels(image)
    np.testing.assert_array_equal(model([image, pixels]), model([image, pixels]))
    assert not np.array_equal(model([image, pixels], training=True), model([image, pixels]))


@pytest.mark.parametrize("numbers", [(0, 2), (3, 0)])
def test_no_channels_or_classes(numbers):
    with pytest.raises(ModelError, match="must be positive"):
        PixelNet(ModelConfig(), *numbers)
