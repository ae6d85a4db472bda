"""Prepared slices: shards and their index, the pixel sampler, the tf.data pipeline."""
