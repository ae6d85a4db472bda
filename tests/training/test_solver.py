import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from pixelnet_tf.config import SolverConfig
from pixelnet_tf.errors import ConfigError, ModelError
from pixelnet_tf.training.solver import CaffePolicy, CaffeSGD, solver_from_config


def variable(value, name):
    return keras.Variable(np.array(value, np.float32), name=name)


def test_two_steps_by_hand():
    weight = variable([1.0], "kernel")
    solver = CaffeSGD(0.1, momentum=0.5, weight_decay=0.2)
    solver.apply([tf.constant([2.0])], [weight])
    # g = 2 + 0.2*1 = 2.2; h = 0.1*2.2 = 0.22; w = 0.78
    np.testing.assert_allclose(weight.numpy(), [0.78], rtol=1e-6)
    solver.apply([tf.constant([-1.0])], [weight])
    # g = -1 + 0.2*0.78 = -0.844; h = 0.5*0.22 - 0.0844 = 0.0256; w = 0.7544
    np.testing.assert_allclose(weight.numpy(), [0.7544], rtol=1e-6)


def test_the_learning_rate_is_inside_the_momentum():
    weight = variable([0.0], "kernel")
    schedule = CaffePolicy(1.0, "step", gamma=0.1, stepsize=1)
    solver = CaffeSGD(schedule, momentum=1.0, weight_decay=0.0)
    for _ in range(3):
        solver.apply([tf.constant([1.0])], [weight])
    # Histories 1, 1.1, 1.11: what a step gathered keeps the rate of its own time.
    np.testing.assert_allclose(weight.numpy(), [-3.21], rtol=1e-6)


def test_multipliers():
    weights = {name: variable([1.0], name) for name in ("plain", "bias", "frozen")}
    solver = CaffeSGD(
        0.1, momentum=0.0, weight_decay=0.5,
        multipliers={"bias": (2, 0), "frozen": (0, 1)},
    )
    solver.apply([tf.constant([1.0])] * 3, list(weights.values()))
    assert weights["plain"].numpy()[0] == pytest.approx(1 - 0.1 * 1.5)
    assert weights["bias"].numpy()[0] == pytest.approx(1 - 0.1 * 2 * 1)
    assert weights["frozen"].numpy()[0] == 1.0


def test_gradients_are_clipped_by_their_norm_over_all_layers_before_the_decay():
    weights = [variable([1.0], "a"), variable([0.0], "b")]
    config = SolverConfig(base_lr=0.1, momentum=0.0, weight_decay=0.5, lr_policy="fixed",
                          clip_gradients=2.5)
    solver = solver_from_config(config, 100)
    solver.apply([tf.constant([3.0]), tf.constant([4.0])], weights)
    # Norm 5, halved: 1.5 and 2; the decay of a, 0.5, is added after that.
    np.testing.assert_allclose([w.numpy()[0] for w in weights], [1 - 0.1 * 2.0, -0.2], rtol=1e-6)
    solver.apply([tf.constant([0.0]), tf.constant([2.0])], weights)
    # Norm 2 lies below.
    np.testing.assert_allclose(weights[1].numpy(), [-0.2 - 0.1 * (2 - 0.5 * 0.2)], rtol=1e-6)


def caffe_steps(kind, weights, gradients, multipliers, clip=0.0, iter_size=1):
    """Caffe's formulas in float64, from its documentation: weights after each step, histories.

    gradients: for each step and each of its mini-batches the gradients of all weights.
    """
    weights = {name: np.float64(value) for name, value in weights.items()}
    first = {name: np.zeros_like(value) for name, value in weights.items()}
    second = {name: np.zeros_like(value) for name, value in weights.items()}
    done = []
    for step, batches in enumerate(gradients):
        rate = 0.1 * 0.5 ** (step // 2)
        total = {name: sum(np.float64(batch[name]) for batch in batches) for name in weights}
        norm = np.sqrt(sum((value ** 2).sum() for value in total.values()))
        scale = clip / norm if clip and norm > clip else 1.0
        for name, w in weights.items():
            lr, decay = multipliers.get(name, (1, 1))
            # Clipped as a sum, then divided by iter_size, then decayed.
            g = total[name] * scale / iter_size + 0.01 * decay * w
            h, k, lr = first[name], second[name], rate * lr
            if kind == "SGD":
                h = 0.9 * h + lr * g
                change = h
            elif kind == "Nesterov":
                before, h = h, 0.9 * h + lr * g
                change = (1 + 0.9) * h - 0.9 * before
            elif kind == "AdaGrad":
                h = h + g ** 2
                change = lr * g / (np.sqrt(h) + 1e-3)
            elif kind == "RMSProp":
                h = 0.8 * h + 0.2 * g ** 2
                change = lr * g / (np.sqrt(h) + 1e-3)
            elif kind == "AdaDelta":
                h = 0.9 * h + 0.1 * g ** 2
                update = g * np.sqrt((k + 1e-3) / (h + 1e-3))
                k = 0.9 * k + 0.1 * update ** 2
                change = lr * update
            else:
                h = 0.9 * h + 0.1 * g
                k = 0.95 * k + 0.05 * g ** 2
                t = step + 1
                change = (lr * np.sqrt(1 - 0.95 ** t) / (1 - 0.9 ** t)
                          * h / (np.sqrt(k) + 1e-3))
            first[name], second[name], weights[name] = h, k, w - change
        done.append(dict(weights))
    two = kind in ("AdaDelta", "Adam")
    return done, {name: (first[name], second[name]) if two else (first[name],) for name in weights}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam"])
def test_five_steps_of_each_type_are_caffes(kind, dtype):
    rng = np.random.default_rng(7)
    start = {"kernel": rng.normal(size=(3, 2)), "bias": rng.normal(size=2)}
    gradients = [[{name: np.float32(rng.normal(size=value.shape))
                   for name, value in start.items()}] for _ in range(5)]
    multipliers = {"bias": (2, 0)}
    start = {name: np.float32(value) for name, value in start.items()}
    expected, histories = caffe_steps(kind, start, gradients, multipliers)
    config = SolverConfig(
        type=kind, base_lr=0.1, lr_policy="step", gamma=0.5, stepsize=2, weight_decay=0.01,
        momentum=0.0 if kind in ("AdaGrad", "RMSProp") else 0.9, momentum2=0.95, rms_decay=0.8,
        delta=1e-3)
    solver = solver_from_config(config, 5, multipliers)
    variables = [keras.Variable(value, name=name, dtype=dtype) for name, value in start.items()]
    for step, (batch,) in enumerate(gradients):
        solver.apply([tf.constant(batch[v.name], dtype) for v in variables], variables)
        for each in variables:
            np.testing.assert_allclose(each.numpy(), expected[step][each.name], rtol=2e-6,
                                       atol=2e-6)
    found = solver.histories()
    assert found.keys() == histories.keys()
    for name, arrays in histories.items():
        assert len(found[name]) == len(arrays)
        for one, other in zip(found[name], arrays, strict=True):
            np.testing.assert_allclose(one, other, rtol=2e-6, atol=2e-6)
    # Taken over by another solver, they make the same sixth step.
    again = solver_from_config(config, 5, multipliers)
    copies = [keras.Variable(v.numpy(), name=v.name, dtype=dtype) for v in variables]
    again.build(copies)
    again.set_histories(found)
    again.iterations.assign(5)
    for each, own in ((solver, variables), (again, copies)):
        each.apply([tf.constant(gradients[0][0][v.name], dtype) for v in own], own)
    for one, other in zip(variables, copies, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_adamw_by_hand_with_multipliers_clipping_and_no_decay_of_vectors():
    rng = np.random.default_rng(3)
    start = {"kernel": rng.normal(size=(3, 2)), "bias": rng.normal(size=2),
             "scale": rng.normal(size=2), "frozen": rng.normal(size=(2, 2))}
    gradients = [{name: np.float32(rng.normal(size=value.shape)) for name, value in start.items()}
                 for _ in range(5)]
    multipliers = {"kernel": (3, 1), "bias": (2, 0), "frozen": (0, 1)}
    # The sum over two mini-batches is clipped at 2, hence their mean at 1.
    solver = solver_from_config(SolverConfig(
        type="adamw", base_lr=0.1, lr_policy="cosine", weight_decay=0.05, momentum=0.9,
        momentum2=0.95, delta=1e-3, clip_gradients=2.0, iter_size=2), 10, multipliers)
    variables = [variable(value, name) for name, value in start.items()]
    weights = {name: np.float64(np.float32(value)) for name, value in start.items()}
    first = {name: np.zeros_like(value) for name, value in weights.items()}
    second = dict(first)
    for step, batch in enumerate(gradients):
        solver.apply([tf.constant(batch[v.name]) for v in variables], variables)
        norm = np.sqrt(sum((np.float64(g) ** 2).sum() for g in batch.values()))
        for name in weights:
            rate = (0.05 * (1 + np.cos(np.pi * step / 10)) * multipliers.get(name, (1, 1))[0])
            g, t = batch[name] / max(norm, 1.0), step + 1
            first[name] = 0.9 * first[name] + 0.1 * g
            second[name] = 0.95 * second[name] + 0.05 * g ** 2
            if name == "kernel":
                weights[name] = weights[name] * (1 - rate * 0.05)
            weights[name] = weights[name] - (
                rate * np.sqrt(1 - 0.95 ** t) / (1 - 0.9 ** t) * first[name]
                / (np.sqrt(second[name]) + 1e-3))
    for each in variables:
        np.testing.assert_allclose(each.numpy(), weights[each.name], rtol=2e-5, atol=2e-6,
                                   err_msg=each.name)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(solver))
    assert again.get_config() == solver.get_config()


def test_adamw_without_multipliers_is_keras_own():
    rng = np.random.default_rng(4)
    start = {"kernel": rng.normal(size=(3, 2)), "bias": rng.normal(size=2)}
    mine, theirs = ([variable(value, name) for name, value in start.items()] for _ in range(2))
    solver = solver_from_config(SolverConfig(type="adamw", base_lr=0.01, lr_policy="fixed",
                                             weight_decay=0.1), 5)
    keras_own = keras.optimizers.AdamW(0.01, weight_decay=0.1, epsilon=1e-8)
    keras_own.exclude_from_weight_decay(var_list=theirs[1:])
    for _ in range(4):
        gradients = [tf.constant(rng.normal(size=v.shape), tf.float32) for v in mine]
        solver.apply(gradients, mine)
        keras_own.apply(gradients, theirs)
    for one, other in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-6)


def test_clipping_counts_the_sum_over_the_mini_batches_of_a_step():
    gradients = [[{"a": np.float32([3.0])}, {"a": np.float32([1.0])}],
                 [{"a": np.float32([0.5])}, {"a": np.float32([0.5])}]]
    expected, _ = caffe_steps("SGD", {"a": np.float32([1.0])}, gradients, {}, 2.0, 2)
    solver = solver_from_config(SolverConfig(
        base_lr=0.1, lr_policy="step", gamma=0.5, stepsize=2, weight_decay=0.01,
        clip_gradients=2.0, iter_size=2), 5)
    weight = variable([1.0], "a")
    for step, batches in enumerate(gradients):
        solver.apply([tf.constant(sum(batch["a"] for batch in batches) / 2)], [weight])
        np.testing.assert_allclose(weight.numpy(), expected[step]["a"], rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"type": "adam"}, "one of .*'Adam'"),
        ({"type": "AdaGrad"}, "has no momentum; set training.solver.momentum=0"),
        ({"type": "RMSProp", "momentum": 0.0, "rms_decay": 1.0}, "rms_decay must be below 1"),
        ({"type": "Adam", "momentum2": 1.0}, "momentum2 must be below 1"),
        ({"type": "adamw", "momentum2": 1.0}, "momentum2 must be below 1"),
        ({"warmup_steps": -1}, "warmup_steps"),
        ({"iter_size": 0}, "iter_size"),
        ({"delta": -1.0}, "delta"),
    ],
)
def test_settings_that_a_solver_cannot_have(settings, message):
    with pytest.raises(ConfigError, match=message):
        SolverConfig(**settings)


def test_histories_of_another_type_of_solver():
    solver = CaffeSGD(0.1)
    weight = variable([1.0], "a")
    solver.build([weight])
    with pytest.raises(ModelError, match=r"2 histories .* keeps 1; set training.solver.type"):
        solver.set_histories({"a": (np.ones(1), np.ones(1))})


def test_l1_takes_the_sign():
    weight = variable([3.0, -3.0, 0.0], "kernel")
    solver = CaffeSGD(0.1, momentum=0.0, weight_decay=0.5, regularization_type="L1")
    solver.apply([tf.zeros(3)], [weight])
    np.testing.assert_allclose(weight.numpy(), [2.95, -2.95, 0.0], rtol=1e-6)
    with pytest.raises(ConfigError, match="must be one of"):
        CaffeSGD(regularization_type="L3")


def test_serialisation():
    solver = solver_from_config(
        SolverConfig(base_lr=0.5, lr_policy="poly", power=0.9), 100, {"a": (2, 0)}
    )
    again = keras.optimizers.deserialize(keras.optimizers.serialize(solver))
    first, second = variable([1.0], "a"), variable([1.0], "a")
    for _ in range(3):
        solver.apply([tf.constant([0.3])], [first])
        again.apply([tf.constant([0.3])], [second])
    assert again.get_config() == solver.get_config()
    assert first.numpy()[0] == second.numpy()[0] != 1.0
    assert again.iterations.numpy() == 3


def test_state_saves_and_reloads(tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(CaffeSGD(0.1), "mse")
    x, y = np.ones((4, 2), np.float32), np.ones((4, 1), np.float32)
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    for each in (model, again):
        each.fit(x, y, verbose=0)
    np.testing.assert_array_equal(model.get_weights()[0], again.get_weights()[0])


def test_under_a_distribution_strategy():
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    with strategy.scope():
        weight = variable([1.0, 2.0], "kernel")
        solver = CaffeSGD(0.1, momentum=0.5, weight_decay=0.2, multipliers={"kernel": (2, 1)})
        solver.build([weight])

    @tf.function
    def step():
        def replica():
            solver.apply([2 * tf.convert_to_tensor(weight)], [weight])

        strategy.run(replica)

    expected, history = np.array([1.0, 2.0]), np.zeros(2)
    for _ in range(3):
        step()
        history = 0.5 * history + 0.2 * (2 * expected + 0.2 * expected)
        expected = expected - history
    np.testing.assert_allclose(weight.numpy(), expected, rtol=1e-5)


def test_on_one_replica_no_update_waits_for_the_gradients_of_others():
    weights = [variable([1.0], name) for name in "ab"]
    solver = CaffeSGD(0.1)
    solver.build(weights)

    @tf.function
    def step(x):
        solver.apply([tf.sin(x), tf.cos(x)], weights)

    graph = step.get_concrete_function(tf.TensorSpec([1])).graph
    updates = [op for op in graph.get_operations() if op.type == "ResourceApplyKerasMomentum"]
    assert [update.inputs[3].op.type for update in updates] == ["Sin", "Cos"]


TWO_REPLICAS = """
import keras, numpy as np, tensorflow as tf
from pixelnet_tf.training.solver import CaffeSGD
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    weight = keras.Variable(np.ones(1, np.float32))
    solver = CaffeSGD(0.1, momentum=0.0, weight_decay=0.0)
    solver.build([weight])

def worker():
    number = tf.distribute.get_replica_context().replica_id_in_sync_group
    solver.apply([tf.cast([number + 1], tf.float32)], [weight])

tf.function(lambda: strategy.run(worker))()
print(*(float(each.numpy()[0]) for each in strategy.experimental_local_results(weight.value)))
with strategy.scope():
    solver = CaffeSGD(0.1, momentum=0.0, weight_decay=0.0, global_clipnorm=1.5)
    solver.build([weight])
tf.function(lambda: strategy.run(worker))()
print(*(float(each.numpy()[0]) for each in strategy.experimental_local_results(weight.value)))
"""


def test_over_two_replicas_gradients_are_added_up_once_and_clipped_together():
    # Logical devices are set before TensorFlow starts, hence a process of its own.
    done = subprocess.run([sys.executable, "-c", TWO_REPLICAS], check=True, capture_output=True,
                          text=True)
    # 1 - 0.1 * (1 + 2) on both.
    assert [float(each) for each in done.stdout.split()[:2]] == pytest.approx([0.7, 0.7])
    # It is the sum of the gradients, 3, that is clipped to 1.5, and not each replica's share.
    assert [float(each) for each in done.stdout.split()[2:]] == pytest.approx([0.55, 0.55])
