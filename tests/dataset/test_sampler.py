"""The paper's sampling rule, on many slices."""

from functools import cache

import numpy as np
import pytest
import tensorflow as tf

from pixelnet_tf.config import SamplingConfig
from pixelnet_tf.dataset.sampler import (
    class_shares,
    class_shares_of,
    expected_pixels,
    sample_pixels,
)


@cache
def sampler(pixels: int, classes: int, strategy: str = "balanced"):
    """`sample_pixels` as one graph for slices of any size."""
    config = SamplingConfig(strategy=strategy, pixels=pixels)

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32),
                                  tf.TensorSpec([None, None], tf.bool),
                                  tf.TensorSpec([2], tf.int32)])
    def draw(labels, allowed, seed):
        return sample_pixels(labels, allowed, seed, classes=classes, config=config)

    def call(labels, seed=0, allowed=None):
        allowed = np.ones(np.shape(labels), bool) if allowed is None else allowed
        pixels_yx, drawn = draw(np.int32(labels), allowed, [seed, 1])
        return pixels_yx.numpy(), drawn.numpy()

    return call


def random_labels(rng: np.random.Generator) -> np.ndarray:
    """A map of 1 to 5 classes, some of them of 3 pixels."""
    shape = tuple(rng.integers(12, 40, 2))
    labels = np.zeros(shape, np.int32).ravel()
    places = rng.permutation(labels.size)
    start = 0
    for value in rng.permutation(np.arange(1, 5))[:rng.integers(0, 5)]:
        size = 3 if rng.random() < 0.3 else int(rng.integers(1, labels.size // 4))
        labels[places[start:start + size]] = value
        start += size
    return labels.reshape(shape)


def check_draw(labels, pixels_yx, drawn, count: int) -> None:
    """The rule of section 2.1 for one draw."""
    assert pixels_yx.shape == (count, 2)
    np.testing.assert_array_equal(labels[pixels_yx[:, 0], pixels_yx[:, 1]], drawn)
    available = np.bincount(labels.ravel(), minlength=5)
    number = np.count_nonzero(available)
    got = np.bincount(drawn, minlength=5)
    if labels.size >= count:
        assert len(np.unique(pixels_yx, axis=0)) == count
        for k in np.flatnonzero(available):
            # N/K of it, or all that it has; never less, and more only to replace what another
            # class lacks.
            assert got[k] >= min(available[k], count // number)
            assert got[k] <= available[k]
        if all(available[k] >= -(-count // number) for k in np.flatnonzero(available)):
            assert set(got[available > 0]) <= {count // number, -(-count // number)}
    else:
        assert len(np.unique(pixels_yx, axis=0)) == labels.size


def test_a_thousand_slices():
    rng = np.random.default_rng(0)
    kinds = set()
    for number in range(1000):
        count = (60, 97, 300)[number % 3]
        labels = random_labels(rng)
        check_draw(labels, *sampler(count, 5)(labels, number), count)
        sizes = np.unique(labels, return_counts=True)[1]
        kinds.add((len(sizes), bool((sizes == 3).any()), labels.size < count))
    assert {classes for classes, *_ in kinds} == {1, 2, 3, 4, 5}
    assert {(small, short) for _, small, short in kinds} == {
        (False, False), (True, False), (False, True), (True, True)}


def test_shares_by_hand():
    # Two of three classes present, 7 pixels: 4 and 3; the absent class gives none.
    assert class_shares(tf.constant([50, 0, 9]), 7).numpy().tolist() == [4, 0, 3]
    assert class_shares(tf.constant([0, 0, 9]), 7).numpy().tolist() == [0, 0, 7]
    # What a class lacks is not yet replaced here.
    assert class_shares_of(np.array([[50, 2, 9]]), 9).tolist() == [[3, 2, 3]]


def test_a_small_class_gives_all_and_the_rest_is_made_up():
    labels = np.zeros((20, 20), np.int32)
    labels[3, 4:7] = 1
    pixels_yx, drawn = sampler(100, 2)(labels)
    assert np.bincount(drawn).tolist() == [97, 3]
    assert {(3, 4), (3, 5), (3, 6)} <= set(map(tuple, pixels_yx.tolist()))


def test_a_slice_of_fewer_pixels_repeats_all_of_them_equally():
    labels = np.zeros((6, 6), np.int32)
    labels[0, :4] = 1
    pixels_yx, drawn = sampler(60, 2)(labels)
    # 60 draws of 36 pixels: once or twice each, so that 4 of 36 stay about 4 of 36.
    repeats = np.unique(pixels_yx, axis=0, return_counts=True)[1]
    assert len(repeats) == 36
    assert set(repeats) == {1, 2}
    assert 6 <= np.count_nonzero(drawn == 1) <= 8


def test_uniform_follows_the_image():
    labels = np.zeros((40, 40), np.int32)
    labels[:, :10] = 1
    drawn = np.concatenate([sampler(200, 2, "uniform")(labels, seed)[1] for seed in range(50)])
    # 10,000 draws of one in four: three standard deviations are 0.013.
    assert drawn.mean() == pytest.approx(0.25, abs=0.013)
    for seed in range(5):
        pixels_yx, _ = sampler(200, 2, "uniform")(labels, seed)
        assert len(np.unique(pixels_yx, axis=0)) == 200


def test_every_pixel_of_a_class_is_as_likely():
    labels = np.zeros((6, 6), np.int32)
    labels[:, :3] = 1
    seen = np.zeros(labels.shape)
    for seed in range(600):
        pixels_yx, _ = sampler(12, 2)(labels, seed)
        seen[pixels_yx[:, 0], pixels_yx[:, 1]] += 1
    # Each is drawn with probability 6 / 18; five standard deviations around 200 of 600.
    assert abs(seen - 200).max() < 5 * np.sqrt(600 / 3 * 2 / 3)


def test_ignored_pixels_are_never_drawn():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, (30, 30))
    labels[rng.random((30, 30)) < 0.5] = 255
    for strategy in ("balanced", "uniform"):
        for seed in range(20):
            _, drawn = sampler(100, 3, strategy)(labels, seed)
            assert drawn.max() <= 2


def test_background_inside_the_brain_only():
    labels = np.zeros((30, 30), np.int32)
    labels[2:6, 2:6] = 1
    brain = np.zeros((30, 30), bool)
    brain[10:20, 10:20] = True
    pixels_yx, drawn = sampler(60, 2)(labels, allowed=brain)
    inside = brain[pixels_yx[:, 0], pixels_yx[:, 1]]
    assert inside[drawn == 0].all()
    # The lesion outside the mask is drawn all the same, whole.
    assert np.bincount(drawn).tolist() == [44, 16]


def test_the_same_seed_draws_the_same_pixels():
    labels = random_labels(np.random.default_rng(2))
    first, again, other = (sampler(60, 5)(labels, seed)[0] for seed in (7, 7, 8))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_all_takes_every_pixel_of_the_lattice_once():
    labels = np.zeros((7, 9), np.int32)
    labels[2, 3] = 2
    allowed = np.ones((7, 9), bool)
    allowed[:, 6:] = False
    config = SamplingConfig(strategy="all", lattice=3)
    pixels, drawn = sample_pixels(tf.constant(labels), tf.constant(allowed), tf.constant([0, 0]),
                                  classes=3, config=config, corner_yx=tf.constant([2, 0]))
    assert pixels.numpy().tolist() == [[2, 0], [2, 3], [5, 0], [5, 3]]
    assert drawn.numpy().tolist() == [0, 2, 0, 0]


def expected_class_frequency(counts, config):
    drawn = expected_pixels(counts, config).sum(axis=0)
    return drawn / drawn.sum()


@pytest.mark.parametrize("strategy", ["balanced", "uniform"])
def test_expected_frequency_is_the_measured_mean(strategy):
    rng = np.random.default_rng(3)
    slices = [random_labels(rng) for _ in range(30)]
    counts = np.array([np.bincount(labels.ravel(), minlength=5) for labels in slices])
    # Some of the slices have fewer pixels than are drawn.
    assert min(counts.sum(axis=1)) < 300 < max(counts.sum(axis=1))
    config = SamplingConfig(strategy=strategy, pixels=300)
    expected = expected_class_frequency(counts, config)
    drawn = np.concatenate([sampler(300, 5, strategy)(labels, seed)[1]
                            for labels in slices for seed in range(5)])
    measured = np.bincount(drawn, minlength=5) / drawn.size
    assert expected.sum() == pytest.approx(1)
    np.testing.assert_allclose(measured, expected, atol=0.01)


def test_the_expected_frequencies_of_a_slice_of_fewer_than_n_pixels():
    # 60 of 70 pixels are background: more than half of the 100 that are drawn.
    config = SamplingConfig(pixels=100)
    np.testing.assert_allclose(expected_class_frequency([[60, 10]], config), [6 / 7, 1 / 7])
    labels = np.zeros((7, 10), int)
    labels[0] = 1
    drawn = np.concatenate([sampler(100, 2)(labels, seed)[1] for seed in range(5)])
    # Give or take one of a hundred.
    np.testing.assert_allclose(np.bincount(drawn) / drawn.size, [6 / 7, 1 / 7], atol=0.01)
    # In a study where only one slice is small, too.
    many = expected_class_frequency([[60, 10], [900, 100]], config)
    np.testing.assert_allclose(many, [(6 / 7 + 0.5) / 2, (1 / 7 + 0.5) / 2])
