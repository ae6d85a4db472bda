"""Compiled scores of whole slices: the reference's."""

import numpy as np
import pytest
import tensorflow as tf

from pixelnet_tf.inference.compiled import scores_program, whole_scores
from pixelnet_tf.inference.dense import DenseScorer

from .conftest import VARIANTS, slices


@pytest.mark.parametrize("name", ["original", "linear", "without fc7"])
def test_compiled_scores_are_the_reference(narrow_net, name):
    model = narrow_net(**VARIANTS[name])
    image = tf.constant(slices("inner", 32, 48, batch=2))
    compiled = tf.function(lambda given: whole_scores(model, given), jit_compile=True,
                           autograph=False)(image)
    reference = DenseScorer(model).reference(image)
    np.testing.assert_allclose(compiled, reference, rtol=0,
                               atol=1e-4 * np.abs(reference).max())


def test_the_program_takes_every_weight(narrow_net):
    model = narrow_net(**VARIANTS["original"])
    program = scores_program(model, 1, 32, 32)
    # The others count the draws of dropout layers, or never change.
    paths = [variable.path for variable in model.variables]
    assert {paths[number] for number in program.inputs} >= {
        variable.path for variable in model.trainable_variables}
    assert program.module[:4] == b"ML\xefR"
