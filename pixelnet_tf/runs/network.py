"""The network of a run, ready to predict with."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pixelnet_tf.model.pixelnet import PixelNet


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """A network as predictions use it.

    Attributes:
        model: the network.
        correction: (class,) added to its scores (`ClassPriors.correction`).
        name: says in `prediction.json` where it came from.
        file: SHA-256 of the model's file; None where it came from none, or from a checkpoint.
    """

    model: PixelNet
    correction: np.ndarray
    name: str = ""
    file: str | None = None

    def digest(self) -> str:
        """SHA-256 of the weights: a run that was trained anew is another network."""
        found = hashlib.sha256()
        for weights in self.model.weights:
            found.update(np.ascontiguousarray(values_of(weights)).data)
        return found.hexdigest()

    def record(self) -> dict[str, Any]:
        """What `prediction.json` says of the network, in JSON values."""
        return {"model": self.name, "weights": self.digest(), "file": self.file,
                "correction": [float(value) for value in self.correction]}


def values_of(weights: keras.Variable) -> np.ndarray:
    """The values of a variable as they lie in its memory, not a copy: fc6 has 411 MB."""
    return np.asarray(tf.convert_to_tensor(weights.value))
