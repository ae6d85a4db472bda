"""The network of a run: loaded from its file, ready to predict with."""

from __future__ import annotations

import hashlib
import json
import tempfile
import warnings
import zipfile
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pixelnet_tf.errors import ModelError
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
        for weights in self.model.get_weights():
            found.update(np.ascontiguousarray(weights))
        return found.hexdigest()

    def record(self) -> dict[str, Any]:
        """What `prediction.json` says of the network, in JSON values."""
        return {"model": self.name, "weights": self.digest(), "file": self.file,
                "correction": [float(value) for value in self.correction]}


def load_model(path: str) -> PixelNet:
    """Load a .keras file of this project.

    Raises:
        ModelError: it is broken, of another class, lacks weights, or holds weights that are not
            finite, which would make every voxel background.
    """
    try:
        # Keras' own loader holds the whole file in memory, and draws weights for nothing.
        with (tf.io.gfile.GFile(path, "rb") as file, zipfile.ZipFile(file) as archive,
              tempfile.TemporaryDirectory() as folder):
            saved = json.loads(archive.read("config.json"))
            if saved["registered_name"] != keras.saving.get_registered_name(PixelNet):
                raise ModelError(f"{path}: holds a {saved['class_name']}, not a PixelNet")
            model = PixelNet.from_config({**saved["config"], "draw": False})
            with warnings.catch_warnings():
                # A layer that the file has no weights for would keep whatever memory held.
                warnings.filterwarnings("error", message="Skipping")
                model.load_weights(archive.extract("model.weights.h5", folder))
    except ModelError:
        raise
    except Exception as error:  # Keras, h5py and zipfile raise almost any class.
        raise ModelError(f"{path}: cannot be loaded as a model of this project: "
                         f"{(str(error).splitlines() or [type(error).__name__])[0]}") from None
    for weights in model.weights:
        if not np.isfinite(weights.numpy()).all():
            raise ModelError(f"{path}: the weights of {weights.path} are not finite; the training "
                             "went astray: train anew at a lower learning rate")
    return model
