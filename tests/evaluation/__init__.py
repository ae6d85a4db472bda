"""Tests of `pixelnet_tf.evaluation`."""
