"""Loss and gradients of one solver step, fast against plain."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from pixelnet_tf.config import ModelConfig
from pixelnet_tf.model.pixelnet import PixelNet
from pixelnet_tf.training.loss import cross_entropy, make_loss
from pixelnet_tf.training.step import hard_places, loss_and_gradients, seeded_dropout

SEED = tf.constant([1, 2])


def make_batch(seed: int) -> dict[str, tf.Tensor]:
    rng = np.random.default_rng(seed)
    image = rng.normal(0, 1, (2, 40, 44, 3)).astype(np.float32)
    image[:, :6] = image[:, :, 35:] = 0
    pixels = np.concatenate([np.repeat([[0], [1]], 60, 0), rng.integers(0, 40, (120, 2))], 1)
    return {"image": tf.constant(image), "pixels": tf.constant(pixels, tf.float32),
            "classes": tf.constant(rng.integers(0, 3, 120), tf.int32)}


@pytest.fixture(scope="module")
def batch() -> dict[str, tf.Tensor]:
    return make_batch(0)


def make(dropout=0.0, **fields) -> PixelNet:
    fields = {"widths": (4, 4, 6, 6, 6), "fc_width": 8, "head_widths": (10, 9), "border": 100,
              "head_filler": "he", **fields}
    model = PixelNet(ModelConfig(dropout=dropout, **fields), 3, 3, seed=3)
    rng = np.random.default_rng(1)
    for layer in model.parts.values():
        if getattr(layer, "bias", None) is not None:
            layer.bias.assign(rng.normal(0.05, 0.1, layer.bias.shape))
    return model


def run(model, batch, **options):
    variables = [v.value for v in model.trainable_variables]
    loss, gradients = loss_and_gradients(model, batch, SEED, variables=variables, **options)
    return float(loss), [tf.convert_to_tensor(g).numpy() for g in gradients]


@pytest.mark.parametrize("fields", [
    {}, {"fc7": "aligned"}, {"fc7": "none"}, {"fc7": "none", "border": 16},
    {"fc7": "none", "border": 0}, {"head": "linear"},
], ids=lambda fields: "-".join(map(str, fields.values())) or "original")
def test_fast_gradients_are_the_plain_ones(batch, fields):
    model = make(**fields)
    fast_loss, fast = run(model, batch, fast=True)
    plain_loss, plain = run(model, batch, fast=False)
    assert fast_loss == pytest.approx(plain_loss, rel=1e-5)
    for variable, mine, theirs in zip(model.trainable_variables, fast, plain, strict=True):
        assert mine.dtype == np.float32
        assert np.abs(theirs).max() > 0, variable.path
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max(),
                                   err_msg=variable.path)


def test_gradients_by_differences(batch):
    model = make(fc7="none", border=16)
    _, gradients = run(model, batch)
    rng = np.random.default_rng(5)
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        if gradient.ndim == 1:
            continue
        direction = rng.normal(size=gradient.shape).astype(np.float32)
        # Small, because a pooling window may change its winner on the way.
        start, step, losses = variable.numpy(), 1e-4, []
        for sign in (1, -1):
            variable.assign(start + sign * step * direction)
            losses.append(run(model, batch)[0])
        variable.assign(start)
        slope = (losses[0] - losses[1]) / (2 * step)
        assert slope == pytest.approx(float((gradient * direction).sum()), rel=0.1, abs=2e-3)


def test_bfloat16_is_close():
    model = make(fc7="none")

    def cosine(one, other):
        return (one * other).sum() / np.sqrt((one**2).sum() * (other**2).sum())

    overall, by_layer = [], []
    for seed in range(4):
        batch = make_batch(seed)
        loss, gradients = run(model, batch)
        half_loss, half = run(model, batch, precision=tf.bfloat16)
        assert half_loss == pytest.approx(loss, rel=0.02)
        assert {mine.dtype for mine in half} == {np.dtype(np.float32)}
        by_layer.append([cosine(*pair) for pair in zip(half, gradients, strict=True)])
        overall.append(cosine(*(np.concatenate([g.ravel() for g in side])
                                for side in (half, gradients))))
    # Means over batches: a ReLU at zero moves those of a single one, in so small a network.
    assert np.mean(overall) > 0.99
    # The deepest gradients, through thirteen rounded layers, are the roughest.
    assert np.mean(by_layer, axis=0).min() > 0.9


@pytest.mark.parametrize("loss", ["cross_entropy", "cross_entropy_dice"])
def test_many_pixels_at_once_have_the_gradients_of_the_gathered_ones(batch, loss):
    """A step over a lattice of pixels, by the maps' own grids."""
    model = make(fc7="none", border=16)
    grid = np.stack(np.meshgrid([0, 1], range(1, 40, 2), range(0, 44, 2), indexing="ij"), -1)
    pixels = tf.constant(grid.reshape(-1, 3), tf.float32)
    classes = tf.constant(np.random.default_rng(0).integers(0, 3, len(pixels)), tf.int32)
    lattice = {**batch, "pixels": pixels, "classes": classes}
    options = {"loss_of": make_loss(loss)}
    grid_loss, mine = run(model, lattice, lattice=2, **options)
    for fast in (True, False):
        gathered_loss, theirs = run(model, lattice, fast=fast, **options)
        assert grid_loss == pytest.approx(gathered_loss, rel=1e-5)
        for variable, one, other in zip(model.trainable_variables, mine, theirs, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * np.abs(other).max(),
                                       err_msg=f"{variable.path}, fast={fast}")


def test_a_slab_has_the_gradients_of_the_gathered_hypercolumns():
    """Of four slices the two amid them are drawn from; once listed, once by the maps' grids."""
    model, rng = make(fc7="none", border=16, context_slices=3), np.random.default_rng(0)
    for layer in model.architecture.beside:
        kernel = model.parts[layer.name].kernel
        kernel.assign(rng.normal(0, 0.1, kernel.shape))
    grid = np.stack(np.meshgrid([0, 1], range(0, 36, 2), range(1, 40, 2), indexing="ij"), -1)
    slab = {"image": tf.constant(rng.normal(0, 1, (4, 36, 40, 3)), tf.float32),
            "neighbours": tf.constant([[1, 0, 2], [2, 1, 3]]),
            "pixels": tf.constant(grid.reshape(-1, 3), tf.float32),
            "classes": tf.constant(rng.integers(0, 3, grid[..., 0].size), tf.int32)}
    loss, gathered = run(model, slab, fast=False)
    for lattice in (0, 2):
        fast_loss, fast = run(model, slab, lattice=lattice)
        assert fast_loss == pytest.approx(loss, rel=1e-5)
        for variable, mine, theirs in zip(model.trainable_variables, fast, gathered, strict=True):
            assert np.abs(theirs).max() > 0, variable.path
            np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max(),
                                       err_msg=f"{lattice} {variable.path}")


@pytest.mark.parametrize("fc7", ["faithful", "none"])
def test_a_seed_fixes_the_dropout(batch, fc7):
    model = make(dropout=0.5, fc7=fc7)
    variables = [v.value for v in model.trainable_variables]
    losses = [float(loss_and_gradients(model, batch, tf.constant(seed), variables=variables)[0])
              for seed in ([1, 2], [1, 2], [1, 3])]
    assert losses[0] == losses[1] != losses[2]


def test_dropout_keeps_the_mean_and_layers_differ():
    dropout = seeded_dropout(0.25, ("a", "b"), SEED)
    one, other = (dropout(tf.ones([20000]), name).numpy() for name in ("a", "b"))
    assert set(one) == {0.0, np.float32(1 / 0.75)}
    assert one.mean() == pytest.approx(1, abs=0.02)
    assert not np.array_equal(one, other)
    assert seeded_dropout(0.0, ("a",), SEED) is None


def test_loss_by_hand():
    scores = tf.constant([[0.0, 0.0], [np.log(3.0), 0.0]])
    classes = tf.constant([1, 0])
    assert float(cross_entropy(scores, classes)) == pytest.approx(
        (np.log(2) + np.log(4 / 3)) / 2, rel=1e-6)
    # Caffe's smallest probability is the smallest normal float32.
    assert float(cross_entropy(tf.constant([[0.0, 500.0]]), tf.constant([0]))) == pytest.approx(
        -np.log(np.finfo(np.float32).tiny), rel=1e-5)


def test_batch_norm_learns_its_statistics(batch):
    model = make(fc7="none", border=16, batch_norm=True, head="linear")
    before = model.parts["bn_conv3_3"].factor.numpy()
    _, gradients = run(model, batch)
    assert all(np.abs(gradient).max() > 0 for gradient in gradients if gradient.ndim > 1)
    assert model.parts["bn_conv3_3"].factor.numpy() != before


def test_a_variable_that_no_gradient_reaches(batch):
    with pytest.raises(ValueError, match="no gradient reaches"):
        loss_and_gradients(make(fc7="none"), batch, SEED, variables=[tf.Variable(1.0)])


def test_the_gradient_of_cross_entropy_and_dice_is_that_of_a_plain_keras_computation(batch):
    """The loss written in Keras' own words, through the model as Keras calls it."""
    model = make()
    loss, found = run(model, batch, loss_of=make_loss("cross_entropy_dice"))
    with tf.GradientTape() as tape:
        scores = model([batch["image"], batch["pixels"]])
        truth = keras.ops.one_hot(batch["classes"], 3)
        likely = keras.ops.softmax(scores)
        dice = (2 * keras.ops.sum(truth * likely, axis=0)
                / (keras.ops.sum(truth, axis=0) + keras.ops.sum(likely, axis=0)))
        plain = (keras.losses.SparseCategoricalCrossentropy(from_logits=True)(
            batch["classes"], scores) + 1 - keras.ops.mean(dice[1:]))
    expected = tape.gradient(plain, [v.value for v in model.trainable_variables])
    assert loss == pytest.approx(float(plain), abs=1e-5)
    for variable, mine, theirs in zip(model.trainable_variables, found, expected, strict=True):
        theirs = tf.convert_to_tensor(theirs).numpy()
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max(),
                                   err_msg=variable.path)


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_hard_pixels_are_the_worst_of_their_class_and_slice(share):
    rng = np.random.default_rng(0)
    losses = rng.permutation(280).astype(np.float32)
    groups = np.repeat([0, 2, 3], [70, 140, 70]).astype(np.int32)
    kept = hard_places(tf.constant(losses), tf.constant(groups), share, SEED).numpy()
    assert len(set(kept)) == len(kept)
    for group, drawn in ((0, 70), (2, 140), (3, 70)):
        # Of 7 drawn, 4 are trained on where a quarter is hard: 3 at random, the worst of 4.
        members = np.flatnonzero(groups == group)
        own = np.intersect1d(kept, members)
        assert len(own) == (drawn * 4 // 7 if share < 1 else round(drawn / 4))
        order = members[np.argsort(-losses[members])]
        if share == 1:
            assert set(own) == set(order[:len(own)])
        else:
            # All that the random choice left of the worst, of which there are a seventh.
            assert set(order[:drawn // 7]) <= set(own)
            assert set(own) & set(order[drawn // 2:])
    again = hard_places(tf.constant(losses), tf.constant(groups), share, SEED).numpy()
    np.testing.assert_array_equal(kept, again)


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_class_of_few_pixels_keeps_one(share):
    losses = tf.range(102, dtype=tf.float32)
    groups = tf.constant([0] * 100 + [2, 2])
    kept = hard_places(losses, groups, share, SEED).numpy()
    assert kept.max() == 101
    assert np.sum(kept >= 100) == 1


def test_the_step_on_hard_pixels_is_that_on_the_chosen_ones(batch):
    model = make(fc7="none", border=16)
    scores = model([batch["image"], batch["pixels"]])
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(batch["classes"], scores)
    groups = tf.cast(batch["pixels"][:, 0], tf.int32) * 3 + batch["classes"]
    kept = hard_places(losses, groups, 0.5, SEED)
    chosen = {**batch, "pixels": tf.gather(batch["pixels"], kept),
              "classes": tf.gather(batch["classes"], kept)}
    loss, gradients = run(model, batch, hard=0.5)
    expected, same = run(model, chosen)
    assert loss == pytest.approx(expected, rel=1e-5)
    for one, other in zip(gradients, same, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * np.abs(other).max() + 1e-9)
    assert loss > float(tf.reduce_mean(losses))
