"""More modalities than VGG-16's three channels, mixed by a trained 1x1 layer before conv1_1."""

from functools import partial

import numpy as np
import pytest
import tensorflow as tf

from pixelnet_tf.config import ModelConfig
from pixelnet_tf.errors import ModelError
from pixelnet_tf.model.fast_head import fast_scores
from pixelnet_tf.model.fast_trunk import canvas_pixels, fast_taps
from pixelnet_tf.model.pixelnet import PixelNet
from pixelnet_tf.runs.keras_file import load_model


def image_of(channels: int, count: int = 2) -> np.ndarray:
    """Slices with a head amid zeros."""
    image = np.random.default_rng(0).normal(size=(count, 24, 28, channels)).astype(np.float32)
    image[:, :5] = image[:, :, 22:] = 0
    return image


PIXELS = np.float32([[0, 7, 3], [1, 12, 20], [1, 23, 27], [0, 0, 0], [0, 15, 12]])


def test_at_the_start_the_first_three_modalities_pass_and_the_others_have_no_part():
    fields = {"widths": (3, 4, 4, 5, 5), "fc7": "none", "head_widths": (7,), "border": 16,
              "head_filler": "he"}
    mixing = PixelNet(ModelConfig(**fields, mix_channels=True), 5, 3, seed=1)
    plain = PixelNet(ModelConfig(**fields), 3, 3, seed=1)
    assert mixing.architecture.blob_shapes(5)["mix_channels"] == ((3, 5),)
    assert mixing.parts["mix_channels"].kernel.shape == (5, 3)
    assert mixing.multipliers["mix_channels/kernel"] == (1.0, 1.0)
    image = image_of(5)
    np.testing.assert_allclose(mixing([image, PIXELS]), plain([image[..., :3], PIXELS]),
                               rtol=0, atol=1e-6)


@pytest.mark.parametrize("fields", [{"border": 32, "fc7": "aligned"}, {"fc7": "none", "border": 0}],
                         ids=str)
def test_the_folded_kernel_gives_the_scores_and_gradients_of_the_two_layers(
        narrow_net, scores_and_gradients, fields):
    model = narrow_net(channels=7, mix_channels=True, **fields)
    kernel = model.parts["mix_channels"].kernel
    kernel.assign(np.random.default_rng(2).normal(size=kernel.shape))
    image, pixels = tf.constant(image_of(7)), tf.constant(PIXELS)
    plain, expected = scores_and_gradients(model, lambda: model([image, pixels]))
    fast, gradients = scores_and_gradients(model, lambda: fast_scores(
        model, fast_taps(model, image), canvas_pixels(model, pixels)))
    np.testing.assert_allclose(fast, plain, rtol=0, atol=1e-5 * np.abs(plain).max())
    close = partial(np.testing.assert_allclose, rtol=0)
    for variable, mine, theirs in zip(model.trainable_variables, gradients, expected, strict=True):
        # Those of the modalities without any part at the start are there, too.
        assert np.abs(theirs).max() > 0
        close(mine, theirs, atol=2e-5 * np.abs(theirs).max(), err_msg=variable.path)
    assert (np.abs(gradients[0]).max(axis=1) > 0).all()


def test_three_modalities_and_fewer_are_not_mixed():
    with pytest.raises(ModelError, match="mix_channels needs images of more than 3 channels, got"):
        PixelNet(ModelConfig(mix_channels=True), 3, 2)


def test_a_network_that_mixes_is_read_from_its_file(tmp_path):
    model = PixelNet(ModelConfig(widths=(2, 2, 2, 2, 2), fc7="none", head_widths=(3,), border=16,
                                 mix_channels=True), 4, 2, seed=1)
    model.parts["mix_channels"].kernel.assign(np.arange(12).reshape(4, 3))
    model.save(tmp_path / "model.keras")
    again = load_model(str(tmp_path / "model.keras"))
    np.testing.assert_array_equal(again.parts["mix_channels"].kernel,
                                  np.arange(12).reshape(4, 3))
    assert again([image_of(4), PIXELS]).shape == (5, 2)
