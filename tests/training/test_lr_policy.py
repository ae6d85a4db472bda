import math

import keras
import pytest

from pixelnet_tf.errors import ConfigError
from pixelnet_tf.training.lr_policy import CaffePolicy


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"policy": "fixed"}, {0: 0.1, 999: 0.1}),
        ({"policy": "step", "gamma": 0.1, "stepsize": 3}, {0: 0.1, 2: 0.1, 3: 0.01, 6: 0.001}),
        ({"policy": "exp", "gamma": 0.5}, {0: 0.1, 1: 0.05, 3: 0.0125}),
        ({"policy": "inv", "gamma": 1.0, "power": 2.0}, {0: 0.1, 1: 0.025, 3: 0.00625}),
        ({"policy": "multistep", "gamma": 0.1, "stepvalues": (2, 5)},
         {1: 0.1, 2: 0.01, 4: 0.01, 5: 0.001}),
        ({"policy": "poly", "power": 2.0, "max_steps": 10},
         {0: 0.1, 5: 0.025, 10: 0.0, 12: 0.0}),
        ({"policy": "sigmoid", "gamma": -1.0, "stepsize": 4},
         {4: 0.05, 5: 0.1 / (1 + math.e), 3: 0.1 / (1 + 1 / math.e)}),
        ({"policy": "cosine", "max_steps": 12},
         {0: 0.1, 3: 0.05 * (1 + math.sqrt(0.5)), 6: 0.05, 12: 0.0, 15: 0.0}),
        # The wave begins where the warm-up ends.
        ({"policy": "cosine", "max_steps": 12, "warmup_steps": 4},
         {0: 0.025, 1: 0.05, 3: 0.1, 4: 0.1, 8: 0.05, 12: 0.0}),
        ({"policy": "fixed", "warmup_steps": 2}, {0: 0.05, 1: 0.1, 2: 0.1}),
        # Caffe's policies go on counting from 0.
        ({"policy": "step", "gamma": 0.1, "stepsize": 3, "warmup_steps": 5},
         {0: 0.02, 2: 0.06, 3: 0.008, 4: 0.01, 5: 0.01}),
    ],
)
def test_policies_by_hand(options, expected):
    schedule = CaffePolicy(0.1, **options)
    again = keras.optimizers.schedules.deserialize(
        keras.optimizers.schedules.serialize(schedule)
    )
    for step, rate in expected.items():
        assert float(schedule(step)) == pytest.approx(rate, rel=1e-5, abs=1e-9)
        assert float(again(step)) == float(schedule(step))


@pytest.mark.parametrize(
    "options",
    [{"policy": "cosine"}, {"policy": "step"}, {"policy": "poly"}, {"policy": "multistep"},
     {"policy": "cosine", "max_steps": 5, "warmup_steps": 5}],
)
def test_what_a_policy_lacks(options):
    with pytest.raises(ConfigError):
        CaffePolicy(0.1, **options)
