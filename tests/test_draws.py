"""Random numbers: those of TensorFlow's kernels, and the same ones where XLA compiles."""

import numpy as np
import pytest
import tensorflow as tf

from pixelnet_tf import draws

SEED = tf.constant([3, -4])


@pytest.mark.parametrize("shape", [[], [5], [7, 3]], ids=str)
def test_uniform_numbers_are_those_of_the_kernel_bit_for_bit(shape):
    np.testing.assert_array_equal(draws.uniform(shape, SEED),
                                  tf.random.stateless_uniform(shape, SEED))
    np.testing.assert_array_equal(draws.uniform(shape, SEED, -0.3, 0.3),
                                  tf.random.stateless_uniform(shape, SEED, -0.3, 0.3))


@pytest.mark.parametrize("shape", [[], [5], [40, 30]], ids=str)
def test_normal_numbers_are_those_of_the_kernel_but_for_rounding(shape):
    np.testing.assert_allclose(draws.normal(shape, SEED), tf.random.stateless_normal(shape, SEED),
                               rtol=0, atol=1e-5)


def test_a_compiled_graph_draws_the_same_numbers():
    def drawn():
        split = draws.split(SEED, 2)
        return [draws.uniform([9], split[0]), draws.integers([9], split[1], 2, 90),
                draws.normal([9], draws.fold_in(SEED, 7)), draws.bits([9], SEED)]

    for one, other in zip(drawn(), tf.function(drawn, jit_compile=True, autograph=False)(),
                          strict=True):
        np.testing.assert_allclose(tf.cast(one, tf.float64), tf.cast(other, tf.float64),
                                   rtol=0, atol=1e-6)
