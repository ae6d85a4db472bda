"""Taps of equal strength: the same network, another scale at each tap."""

import numpy as np
import pytest
import tensorflow as tf

from pixelnet_tf.config import ModelConfig
from pixelnet_tf.model.fast_trunk import fast_taps
from pixelnet_tf.model.pixelnet import PixelNet
from pixelnet_tf.training.initial import balance_taps
from tests.listening import Listening


@pytest.mark.parametrize("fc7", ["none", "aligned"])
def test_every_tap_is_the_old_one_times_its_factor(fc7):
    config = ModelConfig(widths=(4, 4, 6, 6, 6), fc_width=8, fc7=fc7, head_widths=(8,))
    model = PixelNet(config, channels=2, classes=2, seed=3)
    rng = np.random.default_rng(0)
    for layer in model.parts.values():
        if getattr(layer, "bias", None) is not None:
            layer.bias.assign(rng.normal(size=layer.bias.shape))
    images = rng.normal(size=(2, 40, 48, 2)).astype(np.float32)
    before = [tap.values.numpy() for tap in fast_taps(model, tf.constant(images))]
    factors = balance_taps(model, images)
    after = [tap.values.numpy() for tap in fast_taps(model, tf.constant(images))]
    assert len(factors) == len(before) == (5 if fc7 == "none" else 6)
    for old, new, factor in zip(before, after, factors, strict=True):
        np.testing.assert_allclose(new, old * factor, rtol=1e-4, atol=1e-5)
        assert np.sqrt(np.mean(new**2)) == pytest.approx(1.0, rel=1e-4)


def test_a_silent_tap_keeps_its_weights():
    model = PixelNet(ModelConfig(widths=(2, 2, 2, 2, 2), fc7="none", head_widths=(4,)), 1, 2, 0)
    for layer in model.parts.values():
        if layer.weights:
            layer.set_weights([np.zeros(w.shape, np.float32) for w in layer.weights])
    assert balance_taps(model, np.ones((1, 32, 32, 1), np.float32)) == [1.0] * 5


def test_training_balances_at_its_start_and_not_again_on_resume(make_trainer):
    ears = Listening()
    trainer = make_trainer(steps=2, checkpoint_every=2, validates=False, balance_taps=True)
    trainer.reporter = ears
    first = trainer.run().get_weights()
    assert sum("taps balanced" in line for line in ears.said) == 1
    again = make_trainer(steps=2, checkpoint_every=2, validates=False, balance_taps=True)
    again.reporter = ears
    for mine, theirs in zip(again.run(resume=True).get_weights(), first, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert sum("taps balanced" in line for line in ears.said) == 1
