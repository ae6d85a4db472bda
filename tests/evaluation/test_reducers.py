"""Each definition on distances that are short enough to reduce by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pixelnet_tf.evaluation.surface import REDUCERS, SurfaceDistances

# 11 values 0..10 one way, 5 values the other way.
DISTANCES = SurfaceDistances(np.arange(11.0), np.array([20.0, 0.0, 0.0, 1.0, 4.0]))


@pytest.mark.parametrize(("name", "expected"), [
    ("hausdorff", 20.0),
    # 16 values in order: 0 0 0 1 1 2 3 4 4 5 6 7 8 9 10 20; rank 0.95 * 15 = 14.25.
    ("hausdorff95_pooled", 10 + 0.25 * 10),
    # One way rank 9.5 of 0..10; the other way rank 3.8 of 0 0 1 4 20: 4 + 0.8 * 16.
    ("hausdorff95_directed", 16.8),
    # Ranks int(9.5) = 9 and int(3.8) = 3: 9 and 4.
    ("hausdorff95_directed_lower", 9.0),
    # Means 55 / 11 and 25 / 5.
    ("average_distance_symmetric", 5.0),
    ("average_distance_pooled", 80 / 16),
])
def test_reducers_by_hand(name, expected):
    assert REDUCERS[name].reduce(DISTANCES) == pytest.approx(expected)


def test_the_two_average_distances_differ_for_surfaces_of_unequal_size():
    distances = SurfaceDistances(np.array([2.0]), np.array([4.0, 4.0, 4.0]))
    assert REDUCERS["average_distance_symmetric"].reduce(distances) == 3.0
    assert REDUCERS["average_distance_pooled"].reduce(distances) == 3.5


def test_names_are_their_keys_and_all_are_described():
    assert all(name == reducer.name and reducer.description for name, reducer in REDUCERS.items())
