import numpy as np
import tensorflow as tf

from pixelnet_tf.model.fast_trunk import matrix_product


def test_values_and_gradients_are_those_of_a_product():
    rng = np.random.default_rng(0)
    rows, kernel = (tf.constant(rng.normal(size=shape), tf.float32) for shape in ((3, 5), (5, 2)))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([rows, kernel])
        mine = tf.reduce_sum(tf.sin(matrix_product(rows, kernel)))
        theirs = tf.reduce_sum(tf.sin(tf.matmul(rows, kernel)))
    np.testing.assert_array_equal(mine, theirs)
    for source in (rows, kernel):
        np.testing.assert_allclose(tape.gradient(mine, source), tape.gradient(theirs, source),
                                   rtol=1e-6)


def test_the_kernels_gradient_waits_for_the_rows():
    @tf.function
    def gradients(rows, kernel):
        with tf.GradientTape() as tape:
            tape.watch([rows, kernel])
            value = tf.reduce_sum(matrix_product(rows, kernel))
        return tape.gradient(value, [rows, kernel])

    spec = tf.TensorSpec([4, 4])
    products = [op for op in gradients.get_concrete_function(spec, spec).graph.get_operations()
                if op.type == "MatMul"]
    assert len(products) == 3
    rows_diff, kernel_diff = products[1:]
    assert rows_diff in kernel_diff.control_inputs
